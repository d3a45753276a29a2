"""Bring text into the one form that documents are stored in, and put documents together from blocks of it.

Knows nothing of files or formats. Every reader of a kind of file hands its blocks to `Writer`, so that the offsets
of headings and pages are counted in one place, on text that is not changed any more afterwards.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field

from retriever.schema import Heading

__all__ = ["Extract", "Unreadable", "Writer", "fill_pages", "normalise", "one_line"]

_NEWLINES = re.compile("\r\n|[\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_SPACES = re.compile("[\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]")
# Soft hyphens and zero-width characters are invisible, and would keep a word from being found. Controls but tab and
# newline, and the interlinear and noncharacter marks, carry nothing that a person sees.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\xad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufffe\uffff]"
)
_SURROGATES = re.compile("[\ud800-\udfff]")
_TRAILING = re.compile("[ \t]+(?=\n|\\Z)")
_BLANK_LINES = re.compile("\n{3,}")
_ANY_SPACE = re.compile(r"\s+")


def normalise(text: str) -> str:
    r"""Return `text` in stored form; doing it twice changes nothing.

    NFC; `\n` line ends; plain spaces; nothing invisible, no NUL, no lone surrogate; no trailing spaces, no two blank
    lines in a row, no blank lines at either end.

    >>> normalise("Ver\xadsicherung\r\n\r\n\r\n\r\nu\u0308ber\xa0uns \n")
    'Versicherung\n\nüber uns'
    """
    text = _SURROGATES.sub("\ufffd", text)
    text = _NEWLINES.sub("\n", text)
    text = _SPACES.sub(" ", text)
    # NFC comes after the removals: a letter and its accent may only now stand side by side.
    text = unicodedata.normalize("NFC", _INVISIBLE.sub("", text))
    # Canonical equivalents of some spaces are other spaces: U+2000 becomes U+2002, which is handled above already.
    text = _TRAILING.sub("", text)
    return _BLANK_LINES.sub("\n\n", text).strip("\n")


def one_line(text: str) -> str:
    """Return `text` in stored form on a single line with single spaces."""
    return _ANY_SPACE.sub(" ", normalise(text)).strip()


class Unreadable(ValueError):
    """A file's bytes cannot become text, for a reason that its reader knows.

    Args:
        reason: why, for the person who owns the file; it goes on after the file's name.
        way_out: what that person can do about it.
    """

    def __init__(self, reason: str, *, way_out: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.way_out = way_out


@dataclass(frozen=True, slots=True)
class Extract:
    """What a reader got out of one file.

    Attributes:
        text: in stored form; empty if the file holds none.
        title: the file's own, or None.
        metadata: what the file says of itself, flat.
    """

    text: str
    pages: tuple[int, ...] = ()
    headings: tuple[Heading, ...] = ()
    title: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)


class Writer:
    """Collects blocks that are in stored form already, and counts where they land."""

    def __init__(self) -> None:
        self.headings: list[Heading] = []
        self._parts: list[str] = []
        self._length = 0

    def add(self, block: str, *, gap: str = "\n\n", level: int = 0) -> int:
        """Append `block`, set off from what stands before it by `gap`, and return its start.

        Args:
            block: text in stored form.
            gap: what goes between.
            level: of the heading that the block is; 0 for none.
        """
        if self._parts:
            self._parts.append(gap)
            self._length += len(gap)
        start = self._length
        self._parts.append(block)
        self._length += len(block)
        if level:
            self.headings.append(Heading(min(level, 6), block, start, self._length))
        return start

    def __len__(self) -> int:
        return self._length

    def text(self) -> str:
        """Return everything written so far."""
        return "".join(self._parts)


def fill_pages(starts: list[int | None], end: int) -> tuple[int, ...]:
    """Return page starts in which a page without text begins where the next one does, the first page at 0."""
    pages: list[int] = []
    for start in reversed(starts):
        end = end if start is None else start
        pages.append(end)
    pages.reverse()
    if pages:
        pages[0] = 0
    return tuple(pages)
