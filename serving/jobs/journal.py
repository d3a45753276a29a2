"""What a job's journal tells: counts, documents, phase, result, error. The commands write it; see `retriever.journal`.

A journal is one JSON object a line, appended by every process that works on the job, one after the other. A line that a kill
has torn, or that a newer version wrote, is skipped. Knows nothing of jobs.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Document", "Journals", "Progress", "read_journal"]

_STATUSES = {"added": "done", "changed": "done", "removed": "done", "unchanged": "skipped", "failed": "failed"}
_CHANGED = {"added", "changed", "removed"}


@dataclass(frozen=True, slots=True)
class Document:
    """What became of one file: `queued`, or as an `Outcome` says."""

    source: str
    status: str
    chunks: int = 0
    reason: str = ""
    way_out: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """A journal, summed up.

    Attributes:
        documents: numbers of `queued`, `done`, `skipped` and `failed` ones.
        phase: what is being done, of `done` in `total` where that is known.
        result: what the command says at its end.
        error: `message`, `way_out` and `temporary`, if the newest process ended with one.
    """

    documents: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(("queued", "done", "skipped", "failed"), 0))
    phase: str | None = None
    done: int = 0
    total: int | None = None
    result: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None


class _Folded:
    """A journal as far as it has been read; `read_on` reads what has come since."""

    def __init__(self, path: Path) -> None:
        self.documents: dict[str, Document] = {}
        self._path = path
        self._at = 0
        self._file: object = None
        self._clear()

    def _clear(self) -> None:
        self.documents.clear()
        self._at = 0
        self._found: int | None = None
        self._phase: tuple[str | None, int, int | None] = (None, 0, None)
        self._result: dict[str, Any] | None = None
        self._error: dict[str, Any] | None = None

    def read_on(self) -> None:
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_size < self._at or self._file not in (None, status.st_ino):
                    self._clear()  # another file has taken its place
                self._file = status.st_ino
                file.seek(self._at)
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # it is still being written, or was torn
                    self._at += len(line)
                    self._take(line)
        except FileNotFoundError:
            self._clear()

    def _take(self, line: bytes) -> None:
        try:
            event = json.loads(line)
            match event["event"]:
                case "total":
                    self._found = int(event["documents"])
                case "queued":
                    source = str(event["source"])
                    before = self.documents.get(source)
                    if before is None or before.status == "failed":
                        self.documents[source] = Document(source, "queued")
                case "outcome":
                    self._outcome(event)
                case "progress":
                    total = event.get("total")
                    self._phase = (str(event["phase"]), int(event["done"]), None if total is None else int(total))
                case "result":
                    self._result = {name: value for name, value in event.items() if name != "event"}
                case "error":
                    self._error = {
                        "message": str(event["message"]),
                        "way_out": str(event.get("way_out") or ""),
                        "temporary": bool(event.get("temporary")),
                    }
                    return
                case _:
                    return
        except (ValueError, KeyError, TypeError, RecursionError):
            return
        self._error = None  # whoever writes on has got over it

    def _outcome(self, event: Mapping[str, Any]) -> None:
        source, status = str(event["source"]), str(event["status"])
        if status not in _STATUSES:
            raise ValueError(status)
        before = self.documents.get(source)
        # A run that goes on finds unchanged what the run before it has stored or removed: it is this job's work all the same.
        if status == "unchanged" and before is not None and before.status in _CHANGED:
            return
        self.documents[source] = Document(
            source,
            status,
            int(event.get("chunks") or 0),
            str(event.get("reason") or ""),
            str(event.get("way_out") or ""),
        )

    def progress(self) -> Progress:
        statuses = Counter(document.status for document in self.documents.values())
        counts = {"queued": statuses["queued"], "done": 0, "skipped": 0, "failed": 0}
        for status, group in _STATUSES.items():
            counts[group] += statuses[status]
        phase, done, total = self._phase
        # What has not been looked at yet is queued too; what is removed was never among the files that were found.
        ended = statuses.total() - statuses["queued"] - statuses["removed"]
        if self._found is not None:
            counts["queued"] = max(counts["queued"], self._found - ended)
        if phase is None and self._found is not None:
            phase, done, total = "documents", ended, self._found
        return Progress(counts, phase, done, total, self._result, self._error)


def read_journal(path: Path) -> tuple[Progress, list[Document]]:
    """Return a journal's sum and its documents, in the order in which they were first named. A missing file is an empty one."""
    folded = _Folded(path)
    folded.read_on()
    return folded.progress(), list(folded.documents.values())


class Journals:
    """Reads journals again and again, and of each only what is new. Safe to use from many threads.

    Args:
        kept: how many journals are held in memory with all their documents.
    """

    def __init__(self, kept: int = 4) -> None:
        self._kept = kept
        self._folded: OrderedDict[Path, _Folded] = OrderedDict()
        self._sums: dict[Path, tuple[tuple[int, int], Progress]] = {}
        self._lock = threading.Lock()

    def progress(self, path: Path) -> Progress:
        """Return the sum of a journal."""
        with self._lock:
            # Those that do not change any more, which are most of a list, cost one look at the file.
            try:
                status = path.stat()
            except FileNotFoundError:
                return Progress()
            seen = (status.st_size, status.st_mtime_ns)
            known = self._sums.get(path)
            if known is None or known[0] != seen:
                known = self._sums[path] = (seen, self._read(path).progress())
            return known[1]

    def documents(self, path: Path) -> list[Document]:
        """Return the documents of a journal."""
        with self._lock:
            return list(self._read(path).documents.values())

    def _read(self, path: Path) -> _Folded:
        folded = self._folded.setdefault(path, _Folded(path))
        self._folded.move_to_end(path)
        if len(self._folded) > self._kept:
            self._folded.popitem(last=False)
        folded.read_on()
        return folded
