"""Rows into files of every shape that other programs read, whole or not at all. What a shape cannot say is counted."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal

from finetune.data.dpr import dpr_json
from finetune.data.fields import short_hash
from finetune.data.qca import qca_json
from finetune.data.schema import Context, Row
from finetune.data.squad import squad_json
from retriever.errors import BelegError

__all__ = ["WriteShape", "Written", "write_rows"]

WriteShape = Literal["dpr", "qca", "squad", "beir"]


@dataclass(frozen=True, slots=True)
class Written:
    """How many rows were written, and what the shape could not hold, by name: `rows` are rows that were left out."""

    rows: int
    lost: dict[str, int]


def write_rows(path: str | Path, rows: Iterable[Row], shape: WriteShape = "dpr") -> Written:
    """Write rows to a file, or to a folder if the shape is `beir`, in place of what was there.

    A run that is killed leaves what was there before. `dpr` loses nothing but origins; reading it again gives equal rows.

    Raises:
        BelegError: it cannot be written, or a folder is in the way that holds something else.
    """
    target = Path(path)
    lost: Counter[str] = Counter()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if shape == "beir":
            count = _write_beir(target, rows, lost)
        elif shape == "squad":
            kept = [kept for row in rows if (kept := _for_squad(row, lost))]
            _write_lines(target, [squad_json(kept)])
            count = len(kept)
        else:
            counted = Counter[str]()
            records: Callable[[Row], dict[str, Any] | None] = dpr_json if shape == "dpr" else lambda row: _for_qca(row, lost)
            _write_lines(target, _counted(rows, records, counted))
            count = counted["rows"]
    except OSError as error:
        raise BelegError(f"{path} cannot be written: {error.strerror}.", way_out="Name another place, or make room.") from error
    return Written(count, {what: number for what, number in lost.items() if number})


def _counted(
    rows: Iterable[Row], record: Callable[[Row], dict[str, Any] | None], counted: Counter[str]
) -> Iterator[dict[str, Any]]:
    for row in rows:
        one = record(row)
        if one is not None:
            counted["rows"] += 1
            yield one


def _for_qca(row: Row, lost: Counter[str]) -> dict[str, Any] | None:
    if not row.positives:
        lost["rows"] += 1
        return None
    text = row.positives[0].text
    lost["places of answers"] += sum(answer.start is not None and text.count(answer.text) > 1 for answer in row.answers)
    lost["difficulties"] += bool(row.difficulty)
    return qca_json(row)


def _for_squad(row: Row, lost: Counter[str]) -> Row | None:
    """Return the row as far as the shape can hold it: a context, and answers with their places."""
    answers = tuple(answer for answer in row.answers if answer.start is not None)
    if (row.positives and not answers) or not (row.positives or row.hard_negatives):
        lost["rows"] += 1
        return None
    kept = replace(
        row, answers=answers, positives=row.positives[:1], hard_negatives=() if row.positives else row.hard_negatives[:1]
    )
    lost["answers without a place"] += len(row.answers) - len(answers)
    lost["positives"] += len(row.positives) - len(kept.positives)
    lost["negatives"] += len(row.negatives) + len(row.hard_negatives) - len(kept.hard_negatives)
    lost["difficulties"] += bool(row.difficulty)
    return kept


def _write_beir(target: Path, rows: Iterable[Row], lost: Counter[str]) -> int:
    if target.exists() and not (target.is_dir() and (not any(target.iterdir()) or (target / "corpus.jsonl").is_file())):
        raise BelegError(f"{target} is there, and is no BEIR folder.", way_out="Name a folder that is empty or not there yet.")
    corpus: dict[Context, str] = {}
    queries: dict[str, str] = {}
    judgements = ["query-id\tcorpus-id\tscore\n"]
    for row in rows:
        if not row.positives:
            lost["rows"] += 1
            continue
        name = _free_name(row, queries)
        queries[name] = row.question
        scores = dict.fromkeys((*row.negatives, *row.hard_negatives), 0) | dict.fromkeys(row.positives, 1)
        for context in (*row.positives, *row.negatives, *row.hard_negatives):
            if context in scores:
                document = corpus.setdefault(context, short_hash(context.title, context.text))
                judgements.append(f"{name}\t{document}\t{scores.pop(context)}\n")
        lost["answers"] += len(row.answers)
        lost["hard negatives, as negatives"] += len(row.hard_negatives)
        lost["names of documents"] += row.document != (row.positives[0].title or short_hash(row.positives[0].text))
        lost["languages"] += row.language != "und"
        lost["difficulties"] += bool(row.difficulty)
        lost["ids, made unique"] += name != row.id
    partial = _partial(target)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        (partial / "qrels").mkdir(parents=True)
        texts = ({"_id": name, "title": context.title, "text": context.text} for context, name in corpus.items())
        _write_lines(partial / "corpus.jsonl", texts)
        _write_lines(partial / "queries.jsonl", ({"_id": name, "text": text} for name, text in queries.items()))
        with _replacing(partial / "qrels" / "train.tsv") as file:
            file.writelines(judgements)
        _swap(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return len(queries)


def _free_name(row: Row, taken: dict[str, str]) -> str:
    """Return the row's id, or another if it is taken or cannot stand in a table: translations may share one."""
    if row.id not in taken and row.id.isprintable() and row.id == row.id.strip() != "":
        return row.id
    name = short_hash(row.id, row.question)
    number = 0
    while name in taken:
        number += 1
        name = short_hash(row.id, row.question, str(number))
    return name


def _swap(new: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    if target.exists():
        target.rename(old)
    try:
        new.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    with _replacing(path) as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


@contextmanager
def _replacing(path: Path) -> Iterator[IO[str]]:
    """Open a file beside `path` that takes its place when all is written."""
    partial = _partial(path)
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")
