"""Facts that nobody can make again, a JSON object a line: each is on the disk before whoever told it hears that it is kept.

Appended, never rewritten. Several processes may write at once. A line that a kill has torn was never kept, and the next writer
cuts it away. Knows nothing of what the facts mean.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from filelock import FileLock

__all__ = ["append", "lines"]

_WAIT_S = 30.0
_BLOCK = 1 << 16


def append(path: Path, fact: Mapping[str, Any]) -> None:
    """Keep a fact, for good once this returns.

    Raises:
        OSError: the disk refuses, or another process does not let go of the file; nothing is kept.
    """
    line = _encoded(fact) + b"\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock", timeout=_WAIT_S):
        new = not path.exists()
        # Unbuffered: what a full disk refuses must not be tried again when the file is closed.
        with path.open("ab+", buffering=0) as file:
            end, last = _last_line(file)
            if _is_fact(last):  # somebody's editor has left the end of the line out
                end, line = end + len(last), b"\n" + line
            file.truncate(end)
            try:
                while line:
                    line = line[file.write(line) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)
                raise
        if new:
            _sync_folder(path.parent)


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the facts, oldest first; none if there is no file. Lines that are no JSON object are passed over.

    Raises:
        OSError: the file cannot be read.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                fact = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(fact, dict):
                yield fact


def _encoded(fact: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(fact, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half a character, as in a file name that is not valid UTF-8
        return json.dumps(fact).encode()


def _last_line(file: FileIO) -> tuple[int, bytes]:
    """Return where the last line begins that has no end, and what it holds."""
    start, tail = file.seek(0, os.SEEK_END), b""
    while start and b"\n" not in tail:
        before = max(0, start - _BLOCK)
        file.seek(before)
        start, tail = before, file.read(start - before) + tail
    found = tail.rfind(b"\n") + 1
    return start + found, tail[found:]


def _is_fact(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
