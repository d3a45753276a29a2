"""BEIR folders: corpus.jsonl, queries.jsonl and judgements in qrels/*.tsv (arXiv 2104.08663).

Every query that is judged becomes a record: what has a score above zero answers it, what has zero does not. Only the texts
that judgements name are kept in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from finetune.data.fields import Contexts, Malformed, Name, Named, Text, make_row, parse
from finetune.data.lines import Problem, read_lines
from finetune.data.schema import Row
from retriever.errors import BelegError

__all__ = ["NEEDS", "beir_row", "is_beir", "judged"]

NEEDS = "a folder with corpus.jsonl, queries.jsonl and qrels/*.tsv, or one of those .tsv files"


class _Document(BaseModel):
    id: Name = Field(validation_alias="_id")
    text: Text
    title: Name = ""


class _Query(BaseModel):
    id: Name = Field(validation_alias="_id")
    text: Text


class _Record(Named):
    question: Text
    positives: Contexts
    negatives: Contexts


@dataclass(slots=True)
class _Judged:
    """A query's judgements: the table and line where they begin, and documents with their scores."""

    table: Path
    line: int
    scores: dict[str, int] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        return f"{self.table}, line {self.line}"


def is_beir(path: Path) -> bool:
    """Tell whether the path is such a folder or the judgements of one."""
    folder = _folder(path)
    return (folder / "corpus.jsonl").is_file() and (folder / "queries.jsonl").is_file()


def judged(path: Path) -> Iterator[tuple[Path, int, dict[str, Any]] | Problem]:
    """Yield a record, with its table and line, for each query that is judged, in the order of the judgements.

    Args:
        path: the folder, or one of its `qrels/*.tsv` for that part alone.

    Raises:
        BelegError: a file is missing or cannot be read.
    """
    folder = _folder(path)
    tables = [path] if path.is_file() else sorted(folder.glob("qrels/*.tsv"))
    if not tables:
        raise BelegError(f"{folder} has no qrels/*.tsv.", way_out="Judgements belong there: query-id, corpus-id, score.")
    judgements: dict[str, _Judged] = {}
    for table in tables:
        yield from _read_judgements(table, judgements)
    named = {document for one in judgements.values() for document in one.scores}
    texts: dict[str, dict[str, str]] = {}
    for document in _entries(folder / "corpus.jsonl", _Document):
        if isinstance(document, Problem):
            yield document
        elif document.id in named:
            texts.setdefault(document.id, {"title": document.title, "text": document.text})
    queries: dict[str, str] = {}
    for query in _entries(folder / "queries.jsonl", _Query):
        if isinstance(query, Problem):
            yield query
        elif query.id in judgements:
            queries.setdefault(query.id, query.text)
    for name, one in judgements.items():
        yield from _record(name, one, queries.get(name), texts)


def beir_row(record: object, origin: str) -> Row:
    """Return a record of `judged` as a row.

    Raises:
        Malformed: a field is of another type.
    """
    given = parse(_Record, record)
    return make_row(
        given,
        given.question,
        positives=[context.plain() for context in given.positives],
        negatives=[context.plain() for context in given.negatives],
        origin=origin,
    )


def _record(
    name: str, one: _Judged, question: str | None, texts: dict[str, dict[str, str]]
) -> Iterator[tuple[Path, int, dict[str, Any]] | Problem]:
    if question is None:
        yield Problem(one.origin, "query-id", f"no query {name!r} in queries.jsonl", fatal=True)
        return
    wanted = [document for document, score in one.scores.items() if score > 0]
    if not wanted:
        yield Problem(one.origin, "score", f"nothing is relevant to the query {name!r}", fatal=False, kind="unused")
        return
    missing = [document for document in one.scores if document not in texts]
    if not set(wanted) - set(missing):
        yield Problem(one.origin, "corpus-id", f"no document {wanted[0]!r} in corpus.jsonl", fatal=True)
        return
    for document in missing:
        yield Problem(one.origin, "corpus-id", f"no document {document!r} in corpus.jsonl", fatal=False, kind="dropped")
    wanted.sort(key=lambda document: -one.scores[document])
    positives = [texts[document] for document in wanted if document in texts]
    negatives = [texts[document] for document, score in one.scores.items() if score <= 0 and document in texts]
    yield one.table, one.line, {"id": name, "question": question, "positives": positives, "negatives": negatives}


def _read_judgements(table: Path, judgements: dict[str, _Judged]) -> Iterator[Problem]:
    try:
        lines = table.read_bytes().decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BelegError(f"{table} cannot be read: {error}.", way_out="It must be a table in UTF-8.") from error
    for number, line in enumerate(lines, start=1):
        cells = line.rstrip("\r").split("\t")
        origin = f"{table}, line {number}"
        if not line.strip() or (number == 1 and not _is_number(cells[-1])):
            continue  # the head of the table
        if len(cells) == 4:
            del cells[1]  # TREC has a column of zeros there
        if len(cells) != 3 or not _is_number(cells[2]):
            yield Problem(origin, "", "not query-id, corpus-id and score, parted by tabs", fatal=True)
            continue
        judgements.setdefault(cells[0], _Judged(table, number)).scores[cells[1]] = int(cells[2])


def _is_number(text: str) -> bool:
    try:
        int(text)
    except ValueError:
        return False
    return True


def _entries(path: Path, model: type[Any]) -> Iterator[Any]:
    for item in read_lines(path):
        if isinstance(item, Problem):
            yield item
            continue
        number, value = item
        try:
            yield parse(model, value)
        except Malformed as error:
            yield Problem(f"{path}, line {number}", error.field, error.message, fatal=True)


def _folder(path: Path) -> Path:
    return path.parent.parent if path.suffix == ".tsv" else path
