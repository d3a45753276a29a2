"""What training leaves behind: a model with a manifest that says what it is, what it was made from, and how good it is.

A candidate is a folder: `model/`, `manifest.json`, the held-out rows `test.jsonl`, and the `workspace/` that they are searched
in; of a reader no workspace, as its rows bring their passages, but the `export/` that `beleg export` makes. The manifest is
written last, so a folder without one is a training that has not ended. Knows neither training nor serving.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from retriever.errors import BelegError, ModelError
from retriever.models import folder_fingerprint

__all__ = [
    "Base",
    "Candidate",
    "Chunks",
    "Data",
    "Kind",
    "Manifest",
    "Source",
    "candidates_folder",
    "list_candidates",
    "open_candidate",
    "read_manifest",
    "write_manifest",
]

_FILE = "manifest.json"

Kind = Literal["retriever", "reranker", "reader"]

_MEASURES: Mapping[Kind, str] = {"retriever": "nDCG@10", "reranker": "nDCG@10", "reader": "f1"}


class _Part(BaseModel):
    # Unknown keys are those of a newer version that writes the same format.
    model_config = ConfigDict(frozen=True, extra="ignore")


class Base(_Part):
    """The model that training started from: the reference by which it was found, and its fingerprint."""

    reference: str
    fingerprint: str


class Source(_Part):
    """A file that rows came from."""

    name: str
    sha256: str
    rows: int


class Data(_Part):
    """What it was trained and measured on.

    Attributes:
        hash: over all rows that took part, in the order of their sources.
        split: how they were divided: seed, shares, by what.
        train, dev, test: numbers of rows.
    """

    sources: list[Source] = []
    hash: str = ""
    split: dict[str, Any] = {}
    train: int = 0
    dev: int = 0
    test: int = 0


class Chunks(_Part):
    """The size of the chunks that it was trained and measured with, in tokens."""

    tokens: int
    overlap: int


class Manifest(_Part):
    """What a candidate is.

    Attributes:
        created: UTC, ISO 8601.
        fingerprint: of `model/`; see `retriever.models.folder_fingerprint`.
        tokenizer: hash of what determines where tokens begin; see `retriever.encode.Encoder`.
        recipe: with everything that was set on the command line.
        metrics: `before` and `after` hold the means on the test rows by measure, such as `nDCG@10`, of fused search with the
            base and with this model, or without and with this reranker; of a reader those of `finetune.measures`, such as
            `f1`. Whatever else was measured stands beside them.
        alpha: of a retriever: weight of the dense side that was tuned with it.
        weight: of a reranker: its weight against the fused score.
        chunk: of a retriever or reranker.
        prompt: of a reader: fingerprint of the prompt that it was trained with; see `reader.prompt.fingerprint`.
        commit, version: of the Beleg that made it.
        seconds: that training took.
        machine: in words.
    """

    format: Literal[1] = 1
    kind: Kind
    name: str
    created: str
    base: Base
    fingerprint: str
    tokenizer: str = ""
    data: Data = Field(default_factory=Data)
    recipe: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    alpha: float | None = None
    weight: float | None = None
    chunk: Chunks | None = None
    prompt: str = ""
    commit: str | None = None
    version: str = ""
    seconds: float = 0.0
    machine: str = ""

    @model_validator(mode="after")
    def _chunked(self) -> Self:
        if self.chunk is None and self.kind != "reader":
            raise ValueError(f"a {self.kind} has a chunk size")
        return self

    @property
    def measure(self) -> str:
        """What candidates of its kind are known by."""
        return _MEASURES[self.kind]

    def measured(self, when: Literal["before", "after"], measure: str | None = None) -> float | None:
        """Return a mean on the test rows, by default that of `measure`, or None if it was not measured."""
        value = (self.metrics.get(when) or {}).get(measure or self.measure)
        return float(value) if isinstance(value, int | float) else None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A folder that training left."""

    folder: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        """By which it is asked for: its folder's."""
        return self.folder.name

    @property
    def model(self) -> Path:
        """Folder of the encoder, the reranker, or the reader with or without its base."""
        return self.folder / "model"

    @property
    def test(self) -> Path:
        """File of the held-out rows."""
        return self.folder / "test.jsonl"

    @property
    def workspace(self) -> Path:
        """Folder of the documents that those are searched in."""
        return self.folder / "workspace"


def candidates_folder(data_dir: Path) -> Path:
    """Return where candidates lie."""
    return data_dir / "candidates"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write a candidate's manifest, atomically; everything else is to be there by now.

    Raises:
        BelegError: the disk refuses.
    """
    path = folder / _FILE
    partial = path.with_suffix(".partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(manifest.model_dump_json(indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise BelegError(f"{path} cannot be written: {error.strerror}.", way_out="Make room for it.") from error


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a candidate.

    Raises:
        ModelError: there is none, or it is malformed or of a newer format; the message names file and field.
    """
    path = folder / _FILE
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise ModelError(
            f"{folder} has no {_FILE}: it is no candidate, or its training has not ended.", way_out="Run `beleg train` again."
        ) from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        if field == "format":
            raise ModelError(f"{path} has a format that this version does not know.", way_out="Upgrade Beleg.") from error
        raise ModelError(
            f"{path}: {f'{field}: ' if field else ''}{first['msg']}.",
            way_out=f"Mend the file, or delete {folder} and train it again.",
        ) from error


def open_candidate(reference: str | Path, data_dir: Path) -> Candidate:
    """Open a candidate by its name, or by the path of its folder, and make sure that its model is the one that was measured.

    Raises:
        ModelError: there is no such candidate (the message names those with names like it), or it is damaged.
    """
    named = candidates_folder(data_dir) / reference
    folder = named if Path(reference).name == str(reference) and _is_folder(named) else Path(reference).expanduser()
    if not _is_folder(folder):
        raise _missing(str(reference), data_dir)
    folder = folder.resolve()
    candidate = Candidate(folder, read_manifest(folder))
    if not candidate.model.is_dir():
        raise ModelError(
            f"{folder} has no model: its folder `model` is missing.", way_out=f"Delete {folder}, and train it again."
        )
    if folder_fingerprint(candidate.model) != candidate.manifest.fingerprint:
        raise ModelError(
            f"The files in {candidate.model} are not those that were measured: their fingerprint is not the manifest's.",
            way_out=f"Bring the files back, or delete {folder} and train it again.",
        )
    return candidate


def list_candidates(data_dir: Path) -> tuple[list[Candidate], list[ModelError]]:
    """Return all candidates whose training has ended, oldest first, and what is wrong with those that cannot be read.

    Their models are not looked at: that takes a moment for each.
    """
    found, problems = [], []
    for folder in _folders(data_dir):
        try:
            found.append(Candidate(folder.resolve(), read_manifest(folder)))
        except ModelError as error:
            problems.append(error)
    return sorted(found, key=lambda candidate: (candidate.manifest.created, candidate.folder.name)), problems


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # such as a name that is too long to be one
        return False


def _folders(data_dir: Path) -> Sequence[Path]:
    return sorted(manifest.parent for manifest in candidates_folder(data_dir).glob(f"*/{_FILE}"))


def _missing(reference: str, data_dir: Path) -> ModelError:
    names = [folder.name for folder in _folders(data_dir)]
    near = difflib.get_close_matches(reference, names, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    return ModelError(
        f"There is no candidate {reference}.", way_out=f"{hint}`beleg candidates` lists them; `beleg train` makes one."
    )
