"""One example for the reader, its form on disk, and what the model shall write. Knows neither retriever nor models."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from finetune.data.fields import Malformed, Text, parse
from finetune.data.lines import Problem, read_lines
from reader.quotes import ABSTAIN, ANSWER, CLOSE, OPEN, Span
from retriever.errors import BelegError
from retriever.schema import Hit, document_id
from retriever.sentences import sentences

__all__ = [
    "By",
    "Passage",
    "PassageKind",
    "RaftRow",
    "hits_of",
    "raft_json",
    "raft_row",
    "read_raft",
    "target",
    "whole",
    "write_lines",
    "write_raft",
]

PassageKind = Literal["golden", "retrieved", "hard", "easy"]
"""`golden` answers. `retrieved` was found by search and does not; `hard` and `easy` came with the row and do not."""

By = Literal["rule", "model", "person"]
"""Who wrote quotes and answer."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A text as the reader is shown it.

    Attributes:
        source: of its document.
        start, end: where it stands in that document, in code points.
        language: ISO 639-1 code; its sentences are found by it.
    """

    text: str
    title: str
    headings: tuple[str, ...]
    kind: PassageKind
    source: str
    start: int
    end: int
    language: str = "und"


@dataclass(frozen=True, slots=True)
class RaftRow:
    """A question, the passages shown with it, and the answer to learn.

    Attributes:
        id: unique in its file.
        passages: in the order shown, numbered from 1.
        golden: number of the passage that answers, or None.
        quotes: what proves the answer; places are within the passage.
        reasoning: a sentence before the first quote, or nothing.
        answer: of an abstaining row the one that its passages must not hold, if it is known.
        abstains: the answer to learn is that no passage tells.
        document: what the row is about; rows of one document never fall on two sides of a split.
        origin: file and line that it came from.
        problems: what `checks` found wrong with it.
        by: who wrote quotes and answer.
    """

    id: str
    question: str
    passages: tuple[Passage, ...]
    golden: int | None
    quotes: tuple[Span, ...]
    reasoning: str
    answer: str
    abstains: bool
    language: str = "und"
    document: str = ""
    origin: str = ""
    problems: tuple[str, ...] = ()
    by: By = "rule"

    def quoted(self) -> list[str]:
        """Return the text of each quote."""
        return [self.passages[quote.passage - 1].text[quote.start : quote.end] for quote in self.quotes]


def target(row: RaftRow) -> str:
    r"""Return what the model shall write, in the form that `reader.quotes` reads.

    >>> passage = Passage("Guests pay 9 euros.", "", (), "golden", "", 0, 19)
    >>> target(RaftRow("1", "?", (passage,), 1, (Span(1, 0, 19),), "", "9 euros", False))
    'Passage 1: ##begin_quote##Guests pay 9 euros.##end_quote##\n<ANSWER>: 9 euros'
    """
    if row.abstains:
        return f"{ANSWER} {ABSTAIN}"
    steps = [f"Passage {quote.passage}: {OPEN}{text}{CLOSE}" for quote, text in zip(row.quotes, row.quoted(), strict=True)]
    return "\n".join([*([row.reasoning] if row.reasoning else []), *steps, f"{ANSWER} {row.answer}"])


def hits_of(row: RaftRow) -> list[Hit]:
    """Return the passages as search gives them, which is what `reader.prompt` takes."""
    return [
        Hit(document_id(one.source), one.source, one.title, one.language, one.headings, None, one.start, one.end, one.text,
            0.0, None, None, 0)
        for one in row.passages
    ]  # fmt: skip


def whole(passage: Passage, start: int, end: int) -> tuple[int, int] | None:
    """Return the whole sentences of a passage that hold a part of it; None if none does.

    >>> whole(Passage("It is hot. Wear gloves. Go.", "", (), "golden", "", 0, 27, "en"), 16, 22)
    (11, 23)
    """
    held = [span for span in sentences(passage.text, passage.language) if span[0] < end and span[1] > start]
    return (held[0][0], held[-1][1]) if held else None


class _Passage(BaseModel):
    model_config = ConfigDict(strict=True)

    text: Text
    title: Text = ""
    headings: list[Text] = Field([])
    kind: PassageKind
    source: Text = ""
    start: int = Field(0, ge=0)
    end: int | None = None
    language: Text = "und"


class _Quote(BaseModel):
    model_config = ConfigDict(strict=True)

    passage: int
    start: int
    end: int


class _Record(BaseModel):
    model_config = ConfigDict(strict=True)

    id: Text
    question: Text
    passages: list[_Passage] = Field(min_length=1)
    golden: int | None
    quotes: list[_Quote]
    reasoning: Text = ""
    answer: Text
    abstains: bool
    language: Text = "und"
    document: Text = ""
    origin: Text = ""
    problems: list[Text] = Field([])
    by: By = "rule"

    @model_validator(mode="after")
    def _places(self) -> _Record:
        count = len(self.passages)
        if self.golden is not None and not 1 <= self.golden <= count:
            raise ValueError(f"golden is {self.golden}, but there are {count} passages")
        for number, quote in enumerate(self.quotes):
            if not 1 <= quote.passage <= count:
                raise ValueError(f"quotes.{number} names passage {quote.passage}, but there are {count}")
            if not 0 <= quote.start < quote.end <= len(self.passages[quote.passage - 1].text):
                raise ValueError(f"quotes.{number} is not a part of passage {quote.passage}")
        if self.abstains and self.quotes:
            raise ValueError("it abstains and quotes at once")
        return self


def raft_row(record: object) -> RaftRow:
    """Return a record of such a file as a row.

    Raises:
        Malformed: a field is missing, of another type, or points where nothing is.
    """
    given = parse(_Record, record)
    passages = tuple(
        Passage(one.text, one.title, tuple(one.headings), one.kind, one.source, one.start,
                one.start + len(one.text) if one.end is None else one.end, one.language)
        for one in given.passages
    )  # fmt: skip
    quotes = tuple(Span(one.passage, one.start, one.end) for one in given.quotes)
    return RaftRow(given.id, given.question, passages, given.golden, quotes, given.reasoning, given.answer, given.abstains,
                   given.language, given.document, given.origin, tuple(given.problems), given.by)  # fmt: skip


def raft_json(row: RaftRow) -> dict[str, Any]:
    """Return a row as such a record; nothing is lost."""
    return asdict(row)


def read_raft(path: Path, *, on_problem: Callable[[Problem], None] | None = None) -> list[RaftRow]:
    """Read a file of rows, an object a line.

    Args:
        on_problem: is told of every record that is malformed, and the rest goes on; if None, the first is raised.

    Raises:
        BelegError: the file cannot be read or holds no row, or two rows have one id; the message names file, line and field.
    """
    rows: dict[str, RaftRow] = {}
    for item in read_lines(path):
        problem = item if isinstance(item, Problem) else None
        if not isinstance(item, Problem):
            origin = f"{path}, line {item[0]}"
            try:
                row = raft_row(item[1])
                if row.id not in rows:
                    rows[row.id] = row
                    continue
                problem = Problem(origin, "id", f"{row.id} is there twice", fatal=True)
            except Malformed as error:
                problem = Problem(origin, error.field, error.message, fatal=True)
        assert problem is not None
        if on_problem:
            on_problem(problem)
            continue
        field = f"{problem.field}: " if problem.field else ""
        raise BelegError(
            f"{problem.origin}: {field}{problem.message}.", way_out="Mend it; `beleg raft check` names every such line."
        )
    if not rows:
        raise BelegError(f"{path} holds no row.", way_out="Name a file that `beleg raft build` wrote.")
    return list(rows.values())


def write_raft(path: Path, rows: Iterable[RaftRow]) -> int:
    """Write rows in place of what was there, whole or not at all; return how many.

    Raises:
        BelegError: it cannot be written.
    """
    return write_lines(path, map(raft_json, rows))


def write_lines(path: Path, records: Iterable[object]) -> int:
    """Write objects a line in place of what was there, whole or not at all; return how many.

    Raises:
        BelegError: the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    count = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            for record in records:
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise BelegError(f"{path} cannot be written: {error.strerror}.", way_out="Name another place, or make room.") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return count
