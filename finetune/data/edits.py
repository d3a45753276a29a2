"""Change a text and know where every place of it went. Knows nothing of rows or rules."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Edit", "apply", "blanks", "follow", "forms"]

# The same as `retriever.load.normal` does to documents: what a model is trained on should look like what it is served.
_INVISIBLE = "\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\xad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufffe\uffff"
_SPACES = "\xa0\u1680\u2000-\u200a\u202f\u205f\u3000"
_ODD = re.compile(f"(?P<space>[{_SPACES}])|[{_INVISIBLE}]+|(?P<surrogate>[\ud800-\udfff])")
_BLANKS = re.compile(r"[ \t]+(?P<end>(?=\r?\n|\r|\Z))?")
_HANGUL_PARTS = range(0x1160, 0x1200)


@dataclass(frozen=True, slots=True)
class Edit:
    """Put `text` in the place of what stands from `start` to `end`, which is exclusive."""

    start: int
    end: int
    text: str


def apply(text: str, edits: Sequence[Edit]) -> str:
    """Return `text` with all edits made; they are in order and do not overlap.

    >>> apply("a  b", [Edit(1, 3, " ")])
    'a b'
    """
    parts, at = [], 0
    for edit in edits:
        parts += [text[at : edit.start], edit.text]
        at = edit.end
    return "".join([*parts, text[at:]])


def follow(edits: Sequence[Edit], start: int, end: int) -> tuple[int, int]:
    """Return where the span from `start` to `end` is after the edits; a border inside an edit moves outwards.

    >>> follow([Edit(1, 3, " ")], 3, 4)
    (2, 3)
    """
    shift, new_start, new_end = 0, None, None
    for edit in edits:
        if new_start is None and start < edit.end:
            new_start = min(start, edit.start) + shift
        if new_end is None and end <= edit.start:
            new_end = end + shift
        grown = len(edit.text) - (edit.end - edit.start)
        if new_end is None and end <= edit.end:
            new_end = edit.end + shift + grown
        shift += grown
    new_start = start + shift if new_start is None else new_start
    return new_start, max(new_start, end + shift if new_end is None else new_end)


def blanks(text: str) -> list[Edit]:
    r"""Return edits that leave one space where several blanks or tabs are, and none at the end of a line or at the start.

    >>> text = "  Das  Haus\t\n  brennt "
    >>> apply(text, blanks(text))
    'Das Haus\n brennt'
    """
    edits = []
    for match in _BLANKS.finditer(text):
        new = "" if match.start() == 0 or match["end"] is not None else " "
        if match.group() != new:
            edits.append(Edit(match.start(), match.end(), new))
    return edits


def forms(text: str) -> list[list[Edit]]:
    r"""Return edits, in two rounds, that remove what is invisible, make all spaces plain, and compose letters (NFC).

    >>> text = "u\u0308ber\xa0Versiche\xadrung"
    >>> for edits in forms(text):
    ...     text = apply(text, edits)
    >>> text
    'über Versicherung'
    """
    if text.isascii() and text.isprintable():
        return []
    first = [
        Edit(match.start(), match.end(), " " if match["space"] else "\ufffd" if match["surrogate"] else "")
        for match in _ODD.finditer(text)
    ]
    # A letter and its accent may only now stand side by side.
    return [first, _composed(apply(text, first))]


def _composed(text: str) -> list[Edit]:
    if unicodedata.is_normalized("NFC", text):
        return []
    starts = [at for at, letter in enumerate(text) if at == 0 or not _joins(letter)]
    edits = []
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        new = unicodedata.normalize("NFC", text[start:end])
        if new != text[start:end]:
            edits.append(Edit(start, end, new))
    return edits


def _joins(letter: str) -> bool:
    """Tell whether composing may join a letter to the one before it."""
    return letter > "\u02ff" and (unicodedata.category(letter).startswith("M") or ord(letter) in _HANGUL_PARTS)
