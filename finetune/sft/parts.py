"""What a reader's training is made of, read and split by document: rows of `beleg raft build`, questions, or documents."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from finetune.data.lines import Problem
from finetune.data.read import read_all
from finetune.data.schema import Context, Row
from finetune.data.split import split
from finetune.raft.row import Passage, RaftRow, raft_json, read_raft
from finetune.recipe_reader import ReaderData, ReaderRecipe
from retriever.errors import BelegError, LoadError
from retriever.load import discover, source_of
from retriever.load.isolated import Loader

__all__ = ["Paragraph", "ReaderParts", "parts_hash", "read_reader_parts"]

_MAX_BYTES = 512 * 2**20
_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A stretch of a document, for continued pre-training."""

    text: str
    document: str
    language: str = "und"


@dataclass(frozen=True)
class ReaderParts:
    """What is trained on, chosen by and measured on.

    Attributes:
        paragraphs: instead of rows, where documents are trained on.
        problems: what could not be read, in words.
    """

    train: Sequence[RaftRow]
    dev: Sequence[RaftRow]
    test: Sequence[RaftRow]
    paragraphs: _Divided[Paragraph]
    report: dict[str, object]
    problems: Sequence[str]

    @property
    def origins(self) -> list[str]:
        """File and line of each row, or the document of each paragraph."""
        pieces = self.paragraphs
        rows = [row.origin for row in (*self.train, *self.dev, *self.test)]
        return [*rows, *(piece.document for piece in (*pieces.train, *pieces.dev, *pieces.test))]


_T = TypeVar("_T")


@dataclass(frozen=True)
class _Divided(Generic[_T]):
    train: Sequence[_T] = ()
    dev: Sequence[_T] = ()
    test: Sequence[_T] = ()


def read_reader_parts(recipe: ReaderRecipe) -> ReaderParts:
    """Read what a recipe names, and split it if it says so.

    Raises:
        BelegError: a file cannot be read, or nothing is left to train on.
    """
    data = recipe.data
    problems: list[str] = []

    def note(problem: Problem) -> None:
        if problem.fatal:
            problems.append(f"{problem.origin}, {problem.field}: {problem.message}")

    if data.format == "paragraphs":
        pieces, report = _divided(data, lambda sources: _paragraphs(sources, problems), _of_paragraph)
        rows: _Divided[RaftRow] = _Divided()
    else:
        read = _raft if data.format == "raft" else _instructions
        rows, report = _divided(data, lambda sources: read(sources, data, note), _of_row)
        pieces = _Divided()
    if not (rows.train or pieces.train):
        raise BelegError("Nothing is left to train on.", way_out=_WAY_OUT[data.format])
    return ReaderParts(rows.train, rows.dev, rows.test, pieces, report, problems)


def parts_hash(parts: ReaderParts) -> str:
    """Return a hash over all rows or paragraphs, in their parts and in order; where they came from does not count."""
    digest = hashlib.sha256()
    paragraphs = parts.paragraphs
    for rows, pieces in ((parts.train, paragraphs.train), (parts.dev, paragraphs.dev), (parts.test, paragraphs.test)):
        for row in rows:
            digest.update(json.dumps({**raft_json(row), "origin": ""}, ensure_ascii=False).encode())
        for piece in pieces:
            digest.update(json.dumps(piece.text, ensure_ascii=False).encode())
        digest.update(b"\n")
    return digest.hexdigest()


_WAY_OUT = {
    "raft": "`beleg raft check` says what is wrong with each row.",
    "instructions": "`beleg data check` says what is wrong with each row.",
    "paragraphs": "Name files or folders with text in data.train.",
}


def _divided(
    data: ReaderData, read: Callable[[Sequence[str]], list[_T]], proxy: Callable[[_T], Row]
) -> tuple[_Divided[_T], dict[str, object]]:
    """Read the three parts; what is not given is taken from the rows for training, as the recipe says."""
    train, dev, test = (read(sources) if sources else [] for sources in (data.train, data.dev, data.test))
    report: dict[str, object] = {"parts": "as given"}
    if data.split != "none" and train and not (dev and test):
        shares = tuple(0.0 if given else share for given, share in zip(([], dev, test), data.split.shares, strict=True))
        if sum(shares[1:]):
            proxies = [proxy(one) for one in train]
            of = {id(row): one for row, one in zip(proxies, train, strict=True)}
            made = split(proxies, shares=(1 - sum(shares[1:]), *shares[1:]), seed=data.split.seed)
            report = made.report()
            train, own_dev, own_test = ([of[id(row)] for row in part] for part in (made.train, made.dev, made.test))
            dev, test = dev or own_dev, test or own_test
    seen = {_about(proxy(one)) for one in train}
    both = sorted(seen.intersection(_about(proxy(one)) for one in (*dev, *test)))
    if both:
        raise BelegError(
            f"{len(both)} documents are both trained on and measured on, such as {both[0]}.",
            way_out="Name other files in data.dev and data.test, or leave them out to have data.train split.",
        )
    return _Divided(train[: data.limit], dev, test), report


def _about(row: Row) -> str:
    return row.document or row.question


def _of_row(row: RaftRow) -> Row:
    golden = row.passages[row.golden - 1] if row.golden else None
    contexts = (Context(golden.text, golden.title),) if golden else ()
    return Row(row.id, row.question, positives=contexts, document=row.document, language=row.language, origin=row.origin)


def _of_paragraph(piece: Paragraph) -> Row:
    return Row("", piece.document, document=piece.document, language=piece.language)


def _raft(sources: Sequence[str], _: ReaderData, note: Callable[[Problem], None]) -> list[RaftRow]:
    return [row for source in sources for row in read_raft(Path(source), on_problem=note)]


def _instructions(sources: Sequence[str], data: ReaderData, note: Callable[[Problem], None]) -> list[RaftRow]:
    """Return questions with their context as the one passage, and the bare answer to learn."""
    rows = []
    for number, row in enumerate(read_all(sources, shape=data.shape, on_problem=note)):
        if not (row.answers and row.positives):
            continue
        text = row.positives[0]
        passage = Passage(text.text, text.title, (), "golden", row.document, 0, len(text.text), row.language)
        answer = row.answers[0].text
        rows.append(RaftRow(f"{row.id}#{number}", row.question, (passage,), 1, (), "", answer, False, row.language,
                            row.document, row.origin))  # fmt: skip
    return rows


def _paragraphs(sources: Sequence[str], problems: list[str]) -> list[Paragraph]:
    found = discover([Path(source) for source in sources])
    files = [(path, source_of(path)) for path in found if not isinstance(path, LoadError)]
    problems += [str(item) for item in found if isinstance(item, LoadError)]
    pieces = []
    with Loader(max_bytes=_MAX_BYTES, timeout_s=_TIMEOUT_S) as loader:
        for item in loader.load_many(files):
            if isinstance(item, LoadError):
                problems.append(str(item))
            elif item.text.strip():
                pieces.append(Paragraph(item.text, item.source, item.language))
    return pieces
