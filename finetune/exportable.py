"""What is exported: a reader's candidate, by what its manifest says, or a folder with an adapter, by what is asked.

Reads files and their hashes, and opens no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from finetune.candidate import Candidate, candidates_folder, open_candidate
from finetune.export import Choice
from finetune.merge import Adapter, open_adapter
from finetune.parity.cases import CASES, Case, cases_of
from finetune.raft.row import read_raft
from finetune.recipe_reader import Export as Wanted
from finetune.recipe_reader import Prompt
from finetune.servable import base_of
from reader.engine.weights import Base, open_base
from retriever.errors import ModelError, SettingsError

__all__ = ["Exportable", "exportable"]

_Part = TypeVar("_Part", Wanted, Prompt)


@dataclass(frozen=True, slots=True)
class Exportable:
    """What goes into an export.

    Attributes:
        out: folder to write.
        kinds, merging: unless somebody asks for others.
        cases: what it is compared on: of a candidate its held-out rows, and ours.
    """

    base: Base
    adapter: Adapter
    out: Path
    kinds: tuple[str, ...] = ("q8_0",)
    merging: Choice = "best"
    cases: tuple[Case, ...] = CASES


def exportable(
    reference: str, data_dir: Path, *, base: str | None = None, out: Path | None = None, bits: int | None = None
) -> Exportable:
    """Find what a name or a folder stands for.

    Args:
        reference: name of a candidate, or a folder: a candidate's, an adapter's, or a whole tuned model's.
        base: model that it was trained on; a candidate's manifest says it.
        out: folder to write; of a candidate, its `export`.
        bits: to which the base was quantized while it was trained; None looks for a manifest.

    Raises:
        ModelError: it is no such folder, a damaged candidate or one of another kind, or its base is not the one that it was
            trained on.
        SettingsError: base and folder of an adapter were not given.
    """
    named = candidates_folder(data_dir) / reference
    by_name = Path(reference).name == reference and named.is_dir()
    folder = named if by_name else Path(reference).expanduser()
    whole = (folder / "manifest.json").is_file() and (folder / "model").is_dir()
    if whole or not folder.is_dir() or (by_name and base is None):
        return _of_candidate(open_candidate(reference, data_dir), base, out, bits)
    adapter = open_adapter(folder, bits=bits)
    lacking = [name for name, value in (("--base", base), ("--out", out)) if value is None]
    if base is None or out is None:
        raise SettingsError(
            f"{folder} is no candidate whose manifest says what belongs to it.", way_out=f"Give {' and '.join(lacking)}."
        )
    return Exportable(open_base(base), adapter, out)


def _of_candidate(candidate: Candidate, base: str | None, out: Path | None, bits: int | None) -> Exportable:
    manifest = candidate.manifest
    if manifest.kind != "reader":
        raise ModelError(
            f"{candidate.name} is a {manifest.kind}; only readers are exported.",
            way_out=f"`beleg promote {candidate.name}` has it served as it is.",
        )
    adapter = open_adapter(candidate.model, bits=bits)
    wanted = _part(manifest.recipe, "export", Wanted())
    return Exportable(
        base_of(candidate, base),
        adapter,
        out or candidate.folder / "export",
        wanted.quantizations,
        wanted.merge,
        (*_held_out(candidate), *CASES),
    )


def _held_out(candidate: Candidate) -> tuple[Case, ...]:
    if not candidate.test.is_file() or not candidate.test.stat().st_size:
        return ()
    learnt = _part(candidate.manifest.recipe, "prompt", Prompt())
    return cases_of(read_raft(candidate.test), quotes=learnt.chain_of_thought)


def _part(recipe: Mapping[str, Any], name: str, default: _Part) -> _Part:
    """Return a part of a manifest's recipe; the default if it was trained by a recipe of another making."""
    found = recipe.get(name)
    return type(default).model_validate(found) if isinstance(found, dict) else default
