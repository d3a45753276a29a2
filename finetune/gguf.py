"""From a model in safetensors to GGUF files, by llama.cpp's own converter and quantizer.

The converter is a child process; quantizing happens in this one. A file appears under its name only when it is whole. Knows
nothing about whether a file holds what was trained: the parity gate finds that out.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune.merge import FULL, Adapter
from retriever.errors import BelegError, ModelError

__all__ = ["KINDS", "convert", "convert_adapter", "converter_folder", "quantize", "require_space"]

KINDS = {
    "f16": ("LLAMA_FTYPE_MOSTLY_F16", 16.0),
    "q8_0": ("LLAMA_FTYPE_MOSTLY_Q8_0", 8.5),
    "q6_k": ("LLAMA_FTYPE_MOSTLY_Q6_K", 6.6),
    "q5_k_m": ("LLAMA_FTYPE_MOSTLY_Q5_K_M", 5.7),
    "q5_k_s": ("LLAMA_FTYPE_MOSTLY_Q5_K_S", 5.6),
    "q5_1": ("LLAMA_FTYPE_MOSTLY_Q5_1", 6.0),
    "q5_0": ("LLAMA_FTYPE_MOSTLY_Q5_0", 5.6),
    "q4_k_m": ("LLAMA_FTYPE_MOSTLY_Q4_K_M", 4.9),
    "q4_k_s": ("LLAMA_FTYPE_MOSTLY_Q4_K_S", 4.6),
    "q4_1": ("LLAMA_FTYPE_MOSTLY_Q4_1", 5.1),
    "q4_0": ("LLAMA_FTYPE_MOSTLY_Q4_0", 4.6),
    "q3_k_m": ("LLAMA_FTYPE_MOSTLY_Q3_K_M", 4.0),
    "q2_k": ("LLAMA_FTYPE_MOSTLY_Q2_K", 3.2),
}
"""By name: llama.cpp's constant, and about how many bits a weight takes in models of 7B. The best ones come first."""

_PERCENT = re.compile(r"Writing:\s+(\d+)%")
_LAST_LINES = 12
_LEFT_FREE = 64 * 2**20


def converter_folder() -> Path:
    """Return where llama.cpp's converter lies: taken from the source distribution of the llama-cpp-python that serves.

    Raises:
        ModelError: it is not installed.
    """
    folder = Path(sys.prefix) / "share" / "beleg" / "llama.cpp"
    if not (folder / "convert_hf_to_gguf.py").is_file():
        raise ModelError("llama.cpp's converter is not installed.", way_out="Run `make install-converter`.")
    return folder


def require_space(folder: Path, size: float) -> None:
    """Make sure that a disk has room for so many bytes.

    Raises:
        BelegError: it has not.
    """
    free = shutil.disk_usage(folder).free
    if free < size + _LEFT_FREE:
        raise BelegError(
            f"{folder} has {free / 2**30:.1f} GiB free, and this takes {(size + _LEFT_FREE) / 2**30:.1f} GiB.",
            way_out="Make room, or name another `--out`.",
        )


def convert(
    model: Path, out: Path, *, timeout_s: float = 4 * 3600, on_progress: Callable[[int], None] = lambda _: None
) -> Path:
    """Write a model in safetensors as a GGUF in f16.

    Args:
        on_progress: is told how many percent are written.

    Raises:
        ModelError: the converter failed (the message has its last lines), or took too long.
        BelegError: the disk is too full.
    """
    require_space(out.parent, sum(file.stat().st_size for file in model.glob("*.safetensors")))
    script = converter_folder() / "convert_hf_to_gguf.py"
    with _partial(out) as partial:
        _run([str(script), str(model), "--outtype", "f16", "--outfile", str(partial)], partial, timeout_s, on_progress)
    return out


def convert_adapter(
    adapter: Adapter,
    base_config: Path,
    out: Path,
    *,
    timeout_s: float = 3600,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Path:
    """Write a LoRA as a GGUF that llama.cpp puts over the base's.

    The converter copies `lora_alpha`, and llama.cpp scales by alpha / rank. An rsLoRA is scaled by alpha / √rank, so the
    converter is shown an alpha that comes out right; ranks and alphas of single layers become part of the weights.

    Args:
        base_config: folder with the base's config.json.

    Raises:
        ModelError: it is no LoRA, has what such a file cannot hold, or the converter failed.
    """
    if adapter.kind not in {"LORA", "ADALORA"} or adapter.dora or not adapter.rank:
        what = "DoRA" if adapter.dora else "whole model" if adapter.kind == FULL else adapter.kind
        raise ModelError(
            f"{adapter.folder} is a {what}, and llama.cpp knows only plain LoRA adapters.", way_out="Export it merged."
        )
    script = converter_folder() / "convert_lora_to_gguf.py"
    with _partial(out) as partial, tempfile.TemporaryDirectory(prefix="beleg-lora-") as name:
        _write_scaled(adapter, Path(name))
        command = [str(script), name, "--base", str(base_config), "--outtype", "f16", "--outfile", str(partial)]
        _run(command, partial, timeout_s, on_progress)
    return out


def quantize(source: Path, out: Path, kind: str, *, threads: int = 0) -> Path:
    """Quantize a GGUF.

    Args:
        kind: a key of `KINDS`.
        threads: 0 takes as many as this process may run on.

    Raises:
        ModelError: llama.cpp does not know the kind, or cannot quantize this model.
        BelegError: the disk is too full.
    """
    import ctypes

    from reader.engine.native import library

    if kind not in KINDS:
        raise ModelError(f"{kind} is no quantization that is known here.", way_out=f"Take one of {', '.join(KINDS)}.")
    constant, bits = KINDS[kind]
    require_space(out.parent, source.stat().st_size * bits / 16)
    api, heard, _ = library()
    heard.clear()
    parameters = api.llama_model_quantize_default_params()
    parameters.ftype = getattr(api, constant)
    parameters.nthread = threads
    with _partial(out) as partial:
        status = api.llama_model_quantize(os.fsencode(source), os.fsencode(partial), ctypes.byref(parameters))
        if status != 0:
            why = " ".join(heard) or f"status {status}"
            raise ModelError(f"{source.name} cannot be quantized to {kind}: {why}", way_out="Take another kind, such as q8_0.")
    return out


@contextlib.contextmanager
def _partial(out: Path) -> Any:
    """Yield a hidden name beside `out`, which becomes `out` if all goes well and is gone if not."""
    partial = out.with_name(f".{out.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(out)
    except OSError as error:
        raise BelegError(f"{out} cannot be written: {error.strerror or error}.", way_out="Make room for it.") from error
    finally:
        partial.unlink(missing_ok=True)


def _run(command: list[str], made: Path, timeout_s: float, on_progress: Callable[[int], None]) -> None:
    """Run a converter to its end; its output is read as it comes, for the bar and for what it said last."""
    # Its own gguf package is in its folder; a warning that is an error here would be one there.
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    said: deque[str] = deque(maxlen=_LAST_LINES)
    began = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env=environment,
    )
    assert child.stderr is not None
    told, rest = -1, b""
    try:
        with selectors.DefaultSelector() as waiting:
            waiting.register(child.stderr, selectors.EVENT_READ)
            while True:
                left = timeout_s - (time.monotonic() - began)
                if left <= 0 or not waiting.select(left):
                    raise ModelError(
                        f"llama.cpp's converter did not end within {timeout_s:.0f} s{_lines(said)}",
                        way_out="Give it more time, or a faster disk.",
                    )
                data = os.read(child.stderr.fileno(), 65536)
                if not data:
                    break
                *lines, rest = re.split(rb"[\r\n]+", rest + data)
                for line in (raw.decode("utf-8", "replace") for raw in lines):
                    if found := _PERCENT.search(line):
                        if (percent := int(found[1])) > told:
                            on_progress(told := percent)
                    elif line.strip():
                        said.append(line.rstrip())
        code = child.wait()
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
        child.stderr.close()
    if rest.strip():
        said.append(rest.decode("utf-8", "replace").strip())
    if code != 0 or not made.is_file():
        raise ModelError(
            f"llama.cpp's converter failed with exit code {code}{_lines(said)}",
            way_out="It must know the model's architecture and tokenizer; models of the Llama and Mistral kinds work.",
        )


def _lines(said: deque[str]) -> str:
    return ":\n  " + "\n  ".join(said) if said else "."


def _write_scaled(adapter: Adapter, folder: Path) -> None:
    """Write an adapter whose alpha / rank is the scale that it was trained with, in every layer."""
    from safetensors.torch import load_file, save_file

    path = adapter.folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.get("modules_to_save"):
        raise ModelError(
            f"{path}: modules_to_save: the adapter brings whole layers, which an adapter's GGUF cannot hold.",
            way_out="Export it merged.",
        )
    weights_path = adapter.folder / "adapter_model.safetensors"
    if not weights_path.is_file():
        raise ModelError(f"{adapter.folder} has no adapter_model.safetensors.", way_out="Save it as safetensors.")
    weights = load_file(weights_path)
    ranks, alphas = config.get("rank_pattern") or {}, config.get("alpha_pattern") or {}
    for name in [name for name in weights if ".lora_B." in name]:
        module = name.split(".lora_B.")[0].removeprefix("base_model.model.")
        # llama.cpp divides alpha by the rank that a tensor really has.
        held = weights[name].shape[-1]
        rank, alpha = _of(ranks, module, adapter.rank), _of(alphas, module, adapter.alpha)
        meant = alpha / (math.sqrt(rank) if adapter.rslora else rank)
        if not math.isclose(factor := meant / (adapter.scale * adapter.rank / held), 1.0):
            weights[name] = weights[name] * factor
    config["lora_alpha"] = adapter.scale * adapter.rank
    save_file(weights, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")


def _of(patterns: dict[str, float], module: str, default: float) -> float:
    """Return a layer's own value, found as peft finds it: by the end of its name, or a regular expression for that."""
    return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module)), default)
