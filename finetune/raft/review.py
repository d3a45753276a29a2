"""Rows before a person's eyes: what was decided of each, kept at once, and the set that comes of it. Knows no HTTP."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from finetune.data.lines import Problem, read_lines
from finetune.raft.checks import check_rows, row_problems
from finetune.raft.row import RaftRow, raft_json, raft_row, read_raft
from reader.quotes import Span
from retriever.errors import BelegError

__all__ = ["Decision", "Edit", "Review", "decisions_of", "edited", "reviewed"]

Decision = Literal["accept", "edit", "reject"]


@dataclass(frozen=True, slots=True)
class Edit:
    """What a person wrote in place of a row's own.

    Attributes:
        quotes: passage number and words of each.
    """

    question: str
    answer: str
    reasoning: str
    quotes: tuple[tuple[int, str], ...]
    abstains: bool


def decisions_of(path: Path) -> Path:
    """Return the file that decisions on a file are kept in."""
    return path.with_name(f"{path.name}.review.jsonl")


def edited(row: RaftRow, edit: Edit) -> RaftRow:
    """Return the row as a person wants it.

    Raises:
        BelegError: a quote does not stand in its passage, or the row says nothing.
    """
    spans = []
    for number, quoted in () if edit.abstains else edit.quotes:
        text = quoted.strip()
        if not 1 <= number <= len(row.passages):
            raise BelegError(f"There is no passage {number}.", way_out=f"Name one from 1 to {len(row.passages)}.")
        at = row.passages[number - 1].text.find(text) if text else -1
        if at < 0:
            raise BelegError(
                f"“{text[:60]}” does not stand in passage {number}, word for word.", way_out="Copy it from the passage."
            )
        spans.append(Span(number, at, at + len(text)))
    if not edit.question.strip():
        raise BelegError("The question is empty.", way_out="Write one, or reject the row.")
    if not edit.abstains and not (edit.answer.strip() and spans):
        raise BelegError("There is no answer, or no quote that proves it.", way_out="Write both, or let the row abstain.")
    golden = None if edit.abstains else (row.golden or spans[0].passage)
    if spans and golden not in {span.passage for span in spans}:
        golden = spans[0].passage
    passages = tuple(
        replace(one, kind="golden" if number == golden else "retrieved" if one.kind == "golden" else one.kind)
        for number, one in enumerate(row.passages, start=1)
    )
    changed = replace(
        row,
        question=edit.question.strip(),
        answer=" ".join(edit.answer.split()),
        reasoning="" if edit.abstains else " ".join(edit.reasoning.split()),
        quotes=tuple(spans),
        abstains=edit.abstains,
        golden=golden,
        passages=passages,
        by="person",
    )
    return replace(changed, problems=tuple(row_problems(changed)))


class Review:
    """The rows of a file and what was decided of them. Safe to use from many threads.

    Args:
        path: of the rows; decisions are appended to `FILE.review.jsonl`, and a last line that a kill cut off is taken away.

    Attributes:
        rows: as the file has them.
        stale: decisions on rows that have changed since, which do not count.

    Raises:
        BelegError: a file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = read_raft(path)
        self._hashes = [_hash(row) for row in self.rows]
        self._deciding = threading.Lock()
        known = {row.id: (one, row) for row, one in zip(self.rows, self._hashes, strict=True)}
        self._kept, self.stale = _read(decisions_of(path), known)

    def decision(self, number: int) -> tuple[Decision, RaftRow] | None:
        """Return what was decided of a row, counted from 0, and the row as it is by that; None if nothing was."""
        return self._kept.get(self.rows[number].id)

    def counts(self) -> dict[str, int]:
        """Return how many rows there are, and how many were decided on how."""
        found = Counter(decision for decision, _ in self._kept.values())
        return {"rows": len(self.rows), **{name: found[name] for name in ("accept", "edit", "reject")}}

    def next_open(self, after: int = -1) -> int | None:
        """Return the first row after `after`, else from the beginning, of which nothing was decided."""
        order = [*range(after + 1, len(self.rows)), *range(max(0, after + 1))]
        return next((number for number in order if self.rows[number].id not in self._kept), None)

    def decide(self, number: int, decision: Decision, edit: Edit | None = None) -> None:
        """Keep a decision; it is on the disk when this returns. A later one takes the place of an earlier.

        Raises:
            BelegError: the edit cannot be made, or the file cannot be written.
        """
        row = self.rows[number]
        if decision == "edit":
            if edit is None:
                raise BelegError("There is nothing to edit it to.")
            row = edited(row, edit)
        record = {
            "row": row.id,
            "hash": self._hashes[number],
            "decision": decision,
            "edited": raft_json(row) if decision == "edit" else None,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with self._deciding:
            _append(decisions_of(self.path), record)
            self._kept[row.id] = (decision, row)


def reviewed(review: Review, *, undecided: bool) -> list[RaftRow]:
    """Return the rows that were accepted or edited, checked again.

    Args:
        undecided: keep rows of which nothing was decided, too.
    """
    kept = []
    for number, row in enumerate(review.rows):
        decided = review.decision(number)
        if decided is None:
            kept += [row] if undecided else []
        elif decided[0] != "reject":
            kept.append(decided[1])
    return check_rows(kept)


def _read(path: Path, known: Mapping[str, tuple[str, RaftRow]]) -> tuple[dict[str, tuple[Decision, RaftRow]], int]:
    kept: dict[str, tuple[Decision, RaftRow]] = {}
    stale = 0
    if not path.exists():
        return kept, stale
    _mend(path)
    for item in read_lines(path):
        if isinstance(item, Problem):
            raise BelegError(f"{item.origin}: {item.message}.", way_out="Delete that line.")
        line, record = item
        try:
            name, decision = record["row"], record["decision"]
            if decision not in ("accept", "edit", "reject"):
                raise ValueError(f"{decision!r} is no decision")
            if name not in known or known[name][0] != record["hash"]:
                stale += 1
                continue
            kept[name] = (decision, raft_row(record["edited"]) if decision == "edit" else known[name][1])
        except (KeyError, TypeError, ValueError, BelegError) as error:
            raise BelegError(f"{path}, line {line}: {error}.", way_out="Delete that line.") from error
    return kept, stale


def _mend(path: Path) -> None:
    """Take a last line away that was cut off by a kill."""
    try:
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            with path.open("r+b") as file:
                file.truncate(len(whole))
    except OSError as error:
        raise BelegError(f"{path} cannot be read: {error.strerror}.", way_out="Check who may read it.") from error


def _append(path: Path, record: Mapping[str, Any]) -> None:
    data = (json.dumps(record, ensure_ascii=False) + "\n").encode()
    try:
        # One write at the end of the file: two windows cannot mix their lines.
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            if os.write(file, data) != len(data):
                raise BelegError(f"{path} is full: the decision was not kept.", way_out="Make room, and decide again.")
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        raise BelegError(f"{path} cannot be written: {error.strerror}.", way_out="Make room for it.") from error


def _hash(row: RaftRow) -> str:
    """Return what tells a row from another version of it; what was found wrong with it does not count."""
    record = raft_json(replace(row, problems=()))
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]
