"""JSON files and JSON lines, one record at a time, each with the line where it begins. Knows nothing of what records mean."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from retriever.errors import BelegError

__all__ = ["LINE", "Kind", "Problem", "read_file", "read_lines"]

Kind = Literal["malformed", "unused", "repaired", "trimmed", "ambiguous", "not found", "dropped"]
"""What was found about a record.

* `malformed`: cannot be read as the shape says. `unused`: can be, but nothing can be learnt from it.
* `repaired`: an answer's place was wrong, and is right now. `trimmed`: white space around an answer was taken off.
* `ambiguous`: an answer stands in several places. `not found`: an answer stands nowhere in its context.
* `dropped`: an empty context, an empty answer or a context that is not there was left out of the row.
"""

LINE = "__line__"
"""Key that an object inside `data`, `paragraphs` or `qas` gets: the line where it begins."""

_SPACE = re.compile(r"[ \t\n\r]*")
_NESTED = frozenset({"data", "paragraphs", "qas"})
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a record, or was.

    Attributes:
        origin: file and line, as in `train.jsonl, line 12`.
        field: path of the field, as in `positive_ctxs.0.text`; empty if it is the record as a whole.
        fatal: the record is left out because it is malformed. Else it was repaired, is suspicious, or was of no use (`unused`).
    """

    origin: str
    field: str
    message: str
    fatal: bool
    kind: Kind = "malformed"

    @property
    def left_out(self) -> bool:
        """Whether no row comes of it."""
        return self.fatal or self.kind == "unused"


def read_file(path: Path) -> Iterator[tuple[int, Any] | Problem]:
    """Read the records of a `.json` or `.jsonl` file, with their lines counted from 1.

    A `.json` file holds an array of records, an object with the array `data`, one object, or an object a line. It is read into
    memory as a whole; a `.jsonl` file is read line by line. After an error inside an array nothing more can be read of it.

    Raises:
        BelegError: the file cannot be opened, or is not text in UTF-8 as a whole.
    """
    if path.suffix.lower() == ".json" or _begins_array(path):
        yield from _read_document(path)
    else:
        yield from read_lines(path)


def read_lines(path: Path) -> Iterator[tuple[int, Any] | Problem]:
    r"""Read an object a line; blank lines are skipped, a mark at the beginning (BOM) and `\r\n` do not matter.

    Raises:
        BelegError: the file cannot be opened.
    """
    try:
        # As bytes: a line that is not UTF-8 spoils no other, and only a line feed ends a line.
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                yield from _line(raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw, number, path)
    except OSError as error:
        raise _unreadable(path, error) from error


def _read_document(path: Path) -> Iterator[tuple[int, Any] | Problem]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise _unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise BelegError(
            f"{path} is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}.", way_out="Save it as UTF-8."
        ) from error
    walker = _Walker(text)
    try:
        yield from walker.records()
    except (ValueError, RecursionError) as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else walker.line
        yield Problem(
            f"{path}, line {line}", "", f"not valid JSON ({_reason(error)}); nothing after it can be read", fatal=True
        )
        return
    # More after the first object: the file holds an object a line.
    first = text.count("\n", 0, walker.at) + 1
    for number, rest in enumerate(text[walker.at :].split("\n"), start=first):
        yield from _line(rest.encode(), number, path)


def _line(raw: bytes, number: int, path: Path) -> Iterator[tuple[int, Any] | Problem]:
    try:
        text = raw.decode()
        if text.strip():
            yield number, json.loads(text)
    except UnicodeDecodeError as error:
        yield Problem(f"{path}, line {number}", "", f"not UTF-8 (byte {error.start} of the line)", fatal=True)
    except (ValueError, RecursionError) as error:
        yield Problem(f"{path}, line {number}", "", f"not valid JSON ({_reason(error)})", fatal=True)


def _reason(error: ValueError | RecursionError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, column {error.colno}"
    return "nested too deep" if isinstance(error, RecursionError) else str(error)


def _begins_array(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(64).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> BelegError:
    return BelegError(f"{path} cannot be read: {error.strerror}.", way_out="Check the path and who may read it.")


class _Walker:
    """Goes through JSON text, a value after the other; those that need no line are left to the library's decoder."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._counted = 0
        self.at = 0
        self.line = 1

    def records(self) -> Iterator[tuple[int, Any]]:
        """Yield the records of the first value in the text, with their lines."""
        mark = self._peek()
        if mark == "[":
            yield from self._array()
        elif mark == "{":
            line = self._here()
            found: dict[str, Any] = {}
            whole = True
            for key in self._keys():
                if key == "data" and self._peek() == "[":
                    whole = False
                    yield from self._array()
                else:
                    found[key] = self._value(key)
            if whole:
                yield line, found

    def _array(self) -> Iterator[tuple[int, Any]]:
        self._take("[")
        if self._peek() == "]":
            self._take("]")
            return
        while True:
            self._peek()
            line = self._here()
            yield line, self._record()
            if self._peek() == "]":
                self._take("]")
                return
            self._take(",")

    def _record(self) -> Any:
        return {key: self._value(key) for key in self._keys()} if self._peek() == "{" else self._plain()

    def _value(self, key: str) -> Any:
        if key not in _NESTED or self._peek() != "[":
            return self._plain()
        return [{**value, LINE: line} if isinstance(value, dict) else value for line, value in self._array()]

    def _keys(self) -> Iterator[str]:
        """Yield the keys of an object; whoever takes one reads its value before the next."""
        self._take("{")
        if self._peek() == "}":
            self._take("}")
            return
        while True:
            if self._peek() != '"':
                raise json.JSONDecodeError("Expecting a key in double quotes", self._text, self.at)
            key = self._plain()
            self._take(":")
            self._peek()
            yield str(key)
            if self._peek() == "}":
                self._take("}")
                return
            self._take(",")

    def _plain(self) -> Any:
        value, self.at = _DECODER.raw_decode(self._text, self.at)
        return value

    def _peek(self) -> str:
        match = _SPACE.match(self._text, self.at)
        self.at = match.end() if match else self.at
        return self._text[self.at : self.at + 1]

    def _take(self, mark: str) -> None:
        if self._peek() != mark:
            raise json.JSONDecodeError(f"Expecting {mark!r}", self._text, self.at)
        self.at += 1

    def _here(self) -> int:
        # Places come in order, so that every line feed is counted once.
        self.line += self._text.count("\n", self._counted, self.at)
        self._counted = self.at
        return self.line
