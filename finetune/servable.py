"""What of a reader's candidate can be served: a GGUF of its export that is proven to be it, or its folder unmerged.

Reads files and their hashes, and opens no model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.candidate import Candidate
from finetune.merge import trained_bits
from reader.engine.weights import Base, open_base
from retriever.errors import ModelError, SettingsError
from retriever.models import file_hash

__all__ = ["Servable", "base_of", "exported", "unmerged"]


@dataclass(frozen=True, slots=True)
class Servable:
    """A reader as the settings name one.

    Attributes:
        reader: the setting `reader`.
        base, bits: the settings `reader_base` and `reader_bits`.
        about: how it is served, for people; "" if that is as usual.
    """

    reader: str
    base: str = ""
    bits: int = 0
    about: str = ""


def exported(candidate: Candidate, file: str | None = None) -> Servable:
    """Return a GGUF of the candidate's export.

    Args:
        file: its name, where there are several.

    Raises:
        ModelError: there is no export, the parity gate did not pass it, it is not of this candidate, or a file has changed.
        SettingsError: there are several files, or none of this name.
    """
    folder, name = candidate.folder / "export", candidate.name
    facts, parity = _read(candidate, "export.json"), _read(candidate, "parity.json")
    files = facts.get("files")
    again = f"Delete {folder}, and run {_command(candidate)}."
    if parity.get("passed") is not True or not isinstance(files, dict) or parity.get("files") != files:
        raise ModelError(f"The parity gate did not pass the export of {name} (see {folder / 'parity.html'}).", way_out=again)
    if facts.get("base_fingerprint") != candidate.manifest.base.fingerprint:
        raise ModelError(f"The export of {name} was made with another base than {name} was trained on.", way_out=again)
    if facts.get("adapter_fingerprint") != candidate.manifest.fingerprint:
        raise ModelError(f"The export in {folder} is of another model than that of {name}.", way_out=again)
    if facts.get("way") == "not":
        raise ModelError(
            f"The export of {name} keeps base and adapter apart, and such is not promoted.",
            way_out=f"Export it merged, without `--adapter-only`: {_command(candidate)}.",
        )
    if file is None and len(files) != 1:
        raise SettingsError(
            f"The export of {name} has {', '.join(sorted(files)) or 'no file'}.", way_out="Say which: `--file NAME`."
        )
    chosen = file or next(iter(files))
    if chosen not in files:
        raise SettingsError(f"The export of {name} has no {chosen}.", way_out=f"It has {', '.join(sorted(files))}.")
    path = folder / chosen
    if not path.is_file() or file_hash(path) != files[chosen]:
        raise ModelError(f"{path} is not the file that the parity gate passed: it is missing, or was changed.", way_out=again)
    return Servable(str(path))


def unmerged(candidate: Candidate) -> Servable:
    """Return the candidate's folder as training left it, quantized as it was trained.

    Raises:
        ModelError: its base is not on this machine, or not the one that it was trained on.
    """
    bits, base = trained_bits(candidate.folder) or 0, base_of(candidate)
    adapter = (candidate.model / "adapter_config.json").is_file()
    about = (
        f"{candidate.name} is served unmerged by transformers{f' in {bits} bits' if bits else ''}, which no parity gate proves"
    )
    path = Path(base.reference).expanduser()
    # A server may be started elsewhere.
    reference = str(path.resolve()) if path.exists() else base.reference
    return Servable(str(candidate.model), reference if adapter else "", bits, about)


def base_of(candidate: Candidate, reference: str | None = None) -> Base:
    """Return the model that a candidate was trained on.

    Args:
        reference: where it is found now; None for where training found it.

    Raises:
        ModelError: it is not on this machine, or its files have changed since.
    """
    base = open_base(reference or candidate.manifest.base.reference)
    if base.fingerprint != candidate.manifest.base.fingerprint:
        raise ModelError(
            f"The base {base.reference} is not the one that {candidate.name} was trained on: it has another fingerprint.",
            way_out="Bring back the base's version of that time, or train it again.",
        )
    return base


def _read(candidate: Candidate, file: str) -> dict[str, Any]:
    folder = candidate.folder / "export"
    try:
        facts = json.loads((folder / file).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        refused = folder.with_name("export.refused") / "parity.html"
        told = f", and one was refused: see {refused}" if refused.is_file() else ""
        raise ModelError(
            f"{candidate.name} has no export that could be served{told}.",
            way_out=f"Run {_command(candidate)}, or let transformers serve it as it is: `--unmerged`.",
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder / file} cannot be read: {error}.", way_out=f"Run {_command(candidate)} again.") from error
    if not isinstance(facts, dict):
        raise ModelError(f"{folder / file} is damaged.", way_out=f"Run {_command(candidate)} again.")
    return facts


def _command(candidate: Candidate) -> str:
    return f"`beleg export {candidate.name}`"
