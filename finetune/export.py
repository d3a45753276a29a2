"""From an adapter to files that are served: merge, convert, quantize, pass the gate, and only then take the name.

Everything is made under a hidden name. If the gate refuses it, the models are deleted and its report stays, so that a file
under the final name has always been proven. How the reader is used, its calibration, comes along. Knows nothing about releases.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from finetune.gguf import KINDS, convert, convert_adapter, quantize, require_space
from finetune.merge import FULL, Adapter, Way, merge, write_base
from finetune.parity.cases import CASES, Case
from finetune.parity.gate import Gate
from finetune.parity.limits import Effort, Limits
from finetune.parity.report import write_parity
from finetune.parity.result import Parity
from reader.calibration import read_calibration
from reader.engine.weights import Base
from retriever.errors import BelegError, ModelError
from retriever.models import file_hash, folder_fingerprint

__all__ = ["Choice", "Export", "ExportRefused", "Exported"]

_CALIBRATION = "calibration.json"

Choice = Literal["original", "dequantized", "best"]
"""How to merge; `best` tries what is possible and takes what is nearest to base and adapter."""


class ExportRefused(ModelError):
    """The gate found that the files are not the model that was trained.

    Args:
        report: the page that says why.
    """

    def __init__(self, parity: Parity, report: Path) -> None:
        failed = [link for link in parity.links if not link.passed]
        told = "; ".join(
            f"{link.title}: {' and '.join(f'{finding.cause} ({finding.why})' for finding in link.findings)}" for link in failed
        )
        found = next((finding for link in failed for finding in link.findings), None)
        super().__init__(f"Nothing was exported. {told}. See {report}.", way_out=found.way_out if found else "")
        self.parity = parity
        self.report = report


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export left.

    Attributes:
        folder: under its final name.
        files: SHA-256 of each model file, by its name in the folder.
        way: how it was merged, or "not" if it was not.
    """

    folder: Path
    files: dict[str, str]
    way: str
    parity: Parity


@dataclass
class Export:
    """One export.

    Args:
        out: folder that must not exist yet, or be empty.
        kinds: keys of `finetune.gguf.KINDS`.
        adapter_only: leave base and adapter apart, each a GGUF.
        on_phase, on_progress, on_note: see `retriever.watched.Watched`.
        threads: of llama.cpp while it is compared; None takes as many as this process may run on.

    Raises:
        ExportRefused: the gate failed; see `run`.
    """

    base: Base
    adapter: Adapter
    out: Path
    kinds: tuple[str, ...] = ("q8_0",)
    merging: Choice = "best"
    adapter_only: bool = False
    cases: tuple[Case, ...] = CASES
    limits: Limits = field(default_factory=Limits)
    effort: Effort = field(default_factory=Effort)
    on_phase: Callable[[str, int | None], None] = lambda _name, _steps: None
    on_progress: Callable[[int], None] = lambda _steps: None
    on_note: Callable[[str], None] = lambda _text: None
    threads: int | None = None

    def run(self) -> Exported:
        """Export, or leave nothing but a report.

        Raises:
            ExportRefused: the gate failed; `OUT.refused` holds its report.
            ModelError: base and adapter do not fit, or a tool failed.
            BelegError: `out` exists, another export writes there, or the disk is full.
        """
        from filelock import FileLock, Timeout

        out = self.out.expanduser().absolute()
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown:
            raise ModelError(f"{unknown[0]} is no quantization that is known here.", way_out=f"Take of {', '.join(KINDS)}.")
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise BelegError(f"{out} exists already.", way_out="Name another `--out`, or delete it.")
        hidden = out.with_name(f".{out.name}.partial")
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(out.with_name(f".{out.name}.lock"), timeout=0):
                shutil.rmtree(hidden, ignore_errors=True)  # of an export that was killed
                hidden.mkdir()
                try:
                    return self._run(out, hidden)
                finally:
                    shutil.rmtree(hidden, ignore_errors=True)
                    out.with_name(f".{out.name}.lock").unlink(missing_ok=True)
        except Timeout as error:
            raise BelegError(f"Another export is writing to {out}.", way_out="Wait for it, or name another `--out`.") from error
        except OSError as error:
            raise BelegError(f"{out} cannot be written: {error.strerror or error}.", way_out="Name another `--out`.") from error

    def _run(self, out: Path, hidden: Path) -> Exported:
        require_space(hidden, self._size())
        # What training found out lies beside the adapter; without it the prompt is that of any model.
        usage = read_calibration(self.adapter.folder, "", model=self.adapter.folder)
        gate = Gate(
            self.base,
            self.adapter,
            cases=self.cases,
            shots=usage.shots,
            limits=self.limits,
            effort=self.effort,
            threads=self.threads,
            on_phase=self.on_phase,
            on_progress=self.on_progress,
        )
        work = hidden / "work"
        work.mkdir()
        way, parity = ("not", self._apart(gate, hidden, work)) if self.adapter_only else self._merged(gate, hidden, work)
        shutil.rmtree(work)
        files = {file.name: file_hash(file) for file in sorted(hidden.glob("*.gguf"))}
        folder = self.adapter.folder.absolute()
        # A candidate's is called `model` whatever it is.
        name = folder.parent.name if folder.name == "model" else folder.name
        about = {"base": self.base.reference, "adapter": name, "way": way, "files": files}
        refused = out.with_name(f"{out.name}.refused")
        if not parity.passed:
            shutil.rmtree(refused, ignore_errors=True)
            raise ExportRefused(parity, write_parity(refused, parity, about))
        write_parity(hidden, parity, about)
        calibration = self.adapter.folder / _CALIBRATION
        if calibration.is_file():
            shutil.copyfile(calibration, hidden / _CALIBRATION)
        self._write_manifest(hidden, about)
        if out.exists():
            out.rmdir()
        hidden.replace(out)
        shutil.rmtree(refused, ignore_errors=True)  # says what was wrong before
        return Exported(out, files, way, parity)

    def _merged(self, gate: Gate, hidden: Path, work: Path) -> tuple[str, Parity]:
        way = self._merge(gate, work)
        merged = work / way
        self.on_phase("convert", 100)
        f16 = convert(merged, work / "model-f16.gguf", on_progress=self._percent())
        quantized: dict[str, Path] = {}
        self.on_phase("quantize", len(self.kinds))
        for kind in dict.fromkeys(self.kinds):
            target = hidden / f"model-{kind}.gguf"
            quantized[kind] = f16 if kind == "f16" else quantize(f16, target, kind)
            self.on_progress(1)
        parity = gate.judge(merged, f16, quantized, way=way)
        if "f16" in quantized:
            f16.replace(hidden / f16.name)
        return way, parity

    def _merge(self, gate: Gate, work: Path) -> Way:
        """Merge in the way that is asked for; return it. `work` holds a folder of its name."""
        ways: list[Way] = [self.merging] if self.merging != "best" else ["original"]
        if self.merging == "best" and self.adapter.bits and self.adapter.kind != FULL:
            ways.append("dequantized")
        distances: dict[Way, float] = {}
        for way in ways:
            self.on_phase("merge", None)
            merge(self.base, self.adapter, work / way, way)
            if len(ways) > 1:
                distances[way] = gate.measure_merge(work / way).mean_kl
        if not distances:
            return ways[0]
        best = min(distances, key=distances.__getitem__)
        told = ", ".join(f"onto the {way} base {distance:.2g}" for way, distance in distances.items())
        self.on_note(f"KL of the merged model from base and adapter: {told}.")
        for way in distances:
            if way != best:
                shutil.rmtree(work / way)
        return best

    def _apart(self, gate: Gate, hidden: Path, work: Path) -> Parity:
        self.on_phase("convert", 100)
        config = self._config(work)
        adapter = convert_adapter(self.adapter, config, hidden / "adapter.gguf", on_progress=self._percent())
        if self.base.gguf:
            return gate.judge_adapter(self.base.folder / self.base.gguf, adapter, rounded=True)
        source = work / "base"
        write_base(self.base, self.adapter, source)
        f16 = convert(source, hidden / "base-f16.gguf")
        return gate.judge_adapter(f16, adapter, rounded=False)

    def _config(self, work: Path) -> Path:
        """Return a folder with the base's config.json, which the adapter's converter wants."""
        if self.base.gguf is None:
            return self.base.folder
        from transformers import AutoConfig
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

        config = AutoConfig.from_pretrained(str(self.base.folder), gguf_file=self.base.gguf)
        config.architectures = [NAMES[config.model_type]]
        folder = work / "config"
        config.save_pretrained(folder)
        return folder

    def _size(self) -> float:
        """Return about how many bytes an export takes while it is made: merged in four bytes a weight, f16, and the rest."""
        if self.base.gguf:
            weights = (self.base.folder / self.base.gguf).stat().st_size * 8 / 4.5
        else:
            weights = sum(file.stat().st_size for file in self.base.folder.glob("*.safetensors")) / 2
        merged = 4 * (2 if self.merging == "best" and self.adapter.bits else 1)
        return weights * (merged + 2 + sum(KINDS[kind][1] / 8 for kind in self.kinds))

    def _percent(self) -> Callable[[int], None]:
        told = 0

        def on_percent(percent: int) -> None:
            nonlocal told
            self.on_progress(percent - told)
            told = percent

        return on_percent

    def _write_manifest(self, folder: Path, about: dict[str, Any]) -> None:
        facts = {
            "format": 1,
            "version": version("beleg"),
            **about,
            "base_fingerprint": self.base.fingerprint,
            "adapter_fingerprint": folder_fingerprint(self.adapter.folder),
            "kind": self.adapter.kind,
            "bits": self.adapter.bits,
            "parity": "parity.json",
        }
        (folder / "export.json").write_text(json.dumps(facts, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
