"""The kinds of job: what each is called, takes, and becomes as a command line. A new kind is one more row of `KINDS`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from serving.errors import JobRefused
from serving.payloads import plain

__all__ = [
    "KINDS",
    "Arguments",
    "ExportArguments",
    "IndexArguments",
    "JobKind",
    "PromoteArguments",
    "RebuildArguments",
    "RemoveArguments",
    "RollbackArguments",
    "TrainArguments",
    "below",
]

_Text = Annotated[str, Field(min_length=1, max_length=4000), AfterValidator(plain)]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
_Id = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
_Quantization = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,20}$")]
_Assignment = Annotated[str, Field(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)*=", max_length=1000), AfterValidator(plain)]

_SHIPPED = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
"""Names of recipes that come with Beleg: neither folder nor suffix."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

_SETTABLE = re.compile(
    r"(trainer|loss|negatives|adapter|passages|preprocessing|prompt|quantization)\.[a-z0-9_.]+=[\w.+, \[\]-]*"
)
"""What a job that comes over HTTP may set of a recipe: how it is trained, but no path and no model."""


class Arguments(BaseModel):
    """What a job is asked to do; strict, as a client's slip should be heard of."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    def command(self) -> list[str]:
        """Return what follows `beleg COMMAND --journal FILE`."""
        return []

    def placed(self, place: Callable[[str, str], str]) -> Arguments:
        """Return the same with every path replaced by what `place` makes of the argument's name and the path."""
        del place
        return self


class IndexArguments(Arguments):
    """Files and folders to read."""

    paths: Annotated[list[_Text], Field(min_length=1, max_length=1000)]
    prune: bool = False

    def command(self) -> list[str]:
        """Return the options and paths of `beleg index`."""
        return [*(["--prune"] if self.prune else []), "--", *self.paths]

    def placed(self, place: Callable[[str, str], str]) -> IndexArguments:
        """Return the same with other paths."""
        return self.model_copy(update={"paths": [place(f"paths.{at}", path) for at, path in enumerate(self.paths)]})


class RemoveArguments(Arguments):
    """Documents to forget, by their ids; what becomes of their files is settled before."""

    documents: Annotated[list[_Id], Field(min_length=1, max_length=1000)]

    def command(self) -> list[str]:
        """Return the options and ids of `beleg documents remove`."""
        return ["--yes", "--keep-files", "--missing-ok", "--", *self.documents]

    def placed(self, place: Callable[[str, str], str]) -> RemoveArguments:
        """Refuse.

        Raises:
            JobRefused: always.
        """
        del place
        raise JobRefused(
            "arguments.documents: documents are not removed by a job that comes over HTTP.",
            way_out="Send DELETE /v1/documents/{document} for each; it starts the job.",
        )


class RebuildArguments(Arguments):
    """What the new index is made by, and the questions on which it must do as well as the live one."""

    encoder: _Text | None = None
    chunk_tokens: Annotated[int, Field(ge=16)] | None = None
    chunk_overlap: Annotated[int, Field(ge=0)] | None = None
    questions: _Text | None = None
    margin: Annotated[float, Field(ge=0, le=1)] | None = None

    def command(self) -> list[str]:
        """Return the options of `beleg rebuild`."""
        given = self.model_dump(exclude_none=True)
        # In one word each, so that no value can be taken for an option.
        return [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]

    def placed(self, place: Callable[[str, str], str]) -> RebuildArguments:
        """Return the same with another path of the questions."""
        return self.model_copy(update={"questions": place("questions", self.questions)}) if self.questions else self


class RollbackArguments(Arguments):
    """What is taken back; without it, whichever of the two was changed last."""

    which: Literal["reader", "index"] | None = None

    def command(self) -> list[str]:
        """Return the option of `beleg rollback`."""
        return [f"--{self.which}"] if self.which else []


class TrainArguments(Arguments):
    """What is trained: the recipe, a file or the name of a shipped one, and what is set in it."""

    model: Literal["retriever", "reranker", "reader"]
    recipe: _Text
    set: Annotated[list[_Assignment], Field(max_length=100)] = []
    limit: Annotated[int, Field(ge=1)] | None = None
    name: _Name | None = None

    def command(self) -> list[str]:
        """Return what is trained, and the options of `beleg train`."""
        options = [f"--set={item}" for item in self.set]
        options += [f"--{name}={value}" for name, value in (("limit", self.limit), ("name", self.name)) if value is not None]
        return [self.model, *options, "--", self.recipe]

    def placed(self, place: Callable[[str, str], str]) -> TrainArguments:
        """Return the same with another path of the recipe, if it is a path.

        Raises:
            JobRefused: a key that is set could name a path or a model.
        """
        for at, item in enumerate(self.set):
            if not _SETTABLE.fullmatch(item):
                raise JobRefused(
                    f"arguments.set.{at}: {item} cannot be set by a job that comes over HTTP.",
                    way_out="It may set how it is trained, such as trainer.epochs. Put the rest into a recipe file.",
                )
        return self if _SHIPPED.fullmatch(self.recipe) else self.model_copy(update={"recipe": place("recipe", self.recipe)})


class ExportArguments(Arguments):
    """The reader's candidate, by its name or as a folder, and the kinds of GGUF files instead of its recipe's."""

    candidate: _Text
    quantize: Annotated[list[_Quantization], Field(max_length=20)] = []

    def command(self) -> list[str]:
        """Return the options of `beleg export`, and the candidate."""
        return [*(f"--quantize={kind}" for kind in self.quantize), "--", self.candidate]

    def placed(self, place: Callable[[str, str], str]) -> ExportArguments:
        """Return the same with another path of the candidate; a name is none."""
        return self.model_copy(update=_placed_candidate(self.candidate, place))


class PromoteArguments(Arguments):
    """The candidate, by its name or as a folder, and what it is measured on beside its held-out questions.

    Of a reader, also which file of its export is to be served, or that it is to be served unmerged.
    """

    candidate: _Text
    override: Annotated[_Text, Field(pattern=r"\S")] | None = None
    questions: _Text | None = None
    file: _Name | None = None
    unmerged: bool = False

    def command(self) -> list[str]:
        """Return the options of `beleg promote`, and the candidate."""
        given = self.model_dump(exclude={"candidate", "unmerged"}, exclude_none=True)
        flags = ["--unmerged"] if self.unmerged else []
        return [*(f"--{name}={value}" for name, value in given.items()), *flags, "--", self.candidate]

    def placed(self, place: Callable[[str, str], str]) -> PromoteArguments:
        """Return the same with other paths; a name is none."""
        questions = {"questions": place("questions", self.questions)} if self.questions else {}
        return self.model_copy(update={**questions, **_placed_candidate(self.candidate, place)})


def _placed_candidate(candidate: str, place: Callable[[str, str], str]) -> dict[str, str]:
    return {} if _NAME.fullmatch(candidate) else {"candidate": place("candidate", candidate)}


@dataclass(frozen=True, slots=True)
class JobKind:
    """A kind of job.

    Attributes:
        queue: jobs of one queue run one after the other.
        single: whether a second one is refused while one is queued or running.
        command: that does the work; empty if it is called as the kind is.
    """

    name: str
    queue: str
    arguments: type[Arguments]
    single: bool = False
    command: tuple[str, ...] = ()


KINDS: Mapping[str, JobKind] = {
    kind.name: kind
    for kind in (
        JobKind("index", "beleg-index", IndexArguments),
        JobKind("remove", "beleg-index", RemoveArguments, command=("documents", "remove")),
        JobKind("rebuild", "beleg-rebuild", RebuildArguments, single=True),
        JobKind("rollback", "beleg-rebuild", RollbackArguments, single=True),
        JobKind("train", "beleg-train", TrainArguments),
        JobKind("export", "beleg-train", ExportArguments),
        JobKind("promote", "beleg-rebuild", PromoteArguments, single=True),
    )
}


def below(documents: str) -> Callable[[str, str], str]:
    """Return what places a path for a job that came over HTTP: relative ones start at the folder `documents`.

    Raises (what is returned does):
        JobRefused: the path leads out of that folder, by `..`, by a link or by being another one; or there is no such folder.
    """

    def place(name: str, path: str) -> str:
        if not documents:
            raise JobRefused(
                f"arguments.{name}: jobs that come over HTTP may not read files here.",
                way_out="Set `documents` to the folder that they may read, or use `beleg jobs` on this machine.",
            )
        root = os.path.realpath(documents)
        # Resolved once and for all: the job is given the place itself, not a link that could lead elsewhere by then.
        found = os.path.realpath(Path(root, path))
        if not Path(found).is_relative_to(root):
            raise JobRefused(
                f"arguments.{name}: {path} is not below the folder that the setting `documents` names.",
                way_out="Name a path relative to that folder, such as `.` for all of it.",
            )
        return found

    return place
