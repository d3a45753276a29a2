"""Lines of text placed on pages, and what is done to a page's lines before they are read as text.

* A line is a table row if gaps of an em or more part it into cells, or if half of its words are numbers.
* Running heads: among the three topmost and bottommost lines of a page, what is set off from the text by a gap and
  stands at the same height on 4 pages in 10, on 2 at least, with all digits taken as equal, is left out; page numbers
  at any height.
* Rules drawn with characters are left out. A footnote mark that the file stores apart from its line goes in front of
  the line if it stands there, and is left out if it stands within one.

Knows nothing of PDF, paragraphs or headings.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

__all__ = ["Line", "prepare", "starts_item", "starts_number"]

_EDGE_LINES = 3
_SET_OFF = 1.6
_REPEATED_PAGES = 2
_REPEATED_SHARE = 0.4
_NUMBER = re.compile(r"^[(\[$€£+\-–—]*\d[\d.,:/%)\]-]*[%€$]?$|^[$€£%)—–-]+$")
_MARK = re.compile(r"^[(\[]?(\d{1,2}|\*{1,3}|[a-z])[)\]](, ?[(\[]?\d{1,2}[)\]])*$")
_RULE = re.compile(r"^[_=.*·–—-]{4,}$")
_PAGE_NUMBER = re.compile(r"^(page|seite|s\.)?\W*#\W*((of|von)? ?#)?\W*$")
_BULLET = re.compile("^(?:[•◦▪▫■□●○‣⁃·∙\uf0b7\uf0a7] ?|[*–—-] )(?=\\S)")
_ENUMERATOR = re.compile(r"^(\(?\d{1,3}[.)]|\(?[a-zA-Z][.)]|\([ivx]{1,5}\)|\d{1,2}(\.\d{1,2}){1,4}\.?|§+ ?\d+\w?) ")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text on a page, in stored form; places in points from the page's lower left.

    Attributes:
        page: counted from 0.
        cells: into how many parts wide gaps divide it.
        bold: whether all of it is.
    """

    text: str
    page: int
    left: float
    right: float
    bottom: float
    top: float
    cells: int = 1
    bold: bool = False

    @property
    def size(self) -> float:
        """Height of the line, which grows with the type size."""
        return max(self.top - self.bottom, 1.0)

    @property
    def row(self) -> bool:
        """Whether it is a table row."""
        if self.cells > 2 or (self.cells == 2 and not _ENUMERATOR.match(self.text) and not _BULLET.match(self.text)):
            return True
        words = self.text.split()
        numbers = sum(_NUMBER.match(word) is not None for word in words)
        return numbers >= 2 and 2 * numbers >= len(words)


def starts_item(text: str) -> re.Match[str] | None:
    """Match the bullet that `text` begins with."""
    return _BULLET.match(text)


def starts_number(text: str) -> re.Match[str] | None:
    """Match the number or letter of an item or section that `text` begins with."""
    return _ENUMERATOR.match(text)


def prepare(pages: Sequence[Sequence[Line]]) -> list[list[Line]]:
    """Return the lines of `pages` whole, and without what is not part of the text."""
    return _without_running_heads([_joined_pieces(_placed_marks(page)) for page in pages])


def _placed_marks(page: Sequence[Line]) -> list[Line]:
    """Leave out drawn rules, and place footnote marks that stand alone in the file's order."""
    lines = [line for line in page if not _RULE.search(line.text)]
    astray = {
        id(line)
        for before, line in zip([None, *lines], lines, strict=False)
        # One that follows its own line is put there by `_joined_pieces`.
        if _MARK.match(line.text) and not (before is not None and _beside(before, line))
    }
    if not astray:
        return lines
    marks = [line for line in lines if id(line) in astray]
    others = [line for line in lines if id(line) not in astray]
    prefixes: dict[int, str] = {}
    lost: set[int] = set()
    for mark in marks:
        for index, line in enumerate(others):
            if not (_level(line, mark) or _level(mark, line)):
                continue
            if 0 <= line.left - mark.right + 2 < 3 * line.size:
                prefixes.setdefault(index, mark.text + " ")
                lost.add(id(mark))
                break
            if line.left < mark.left < line.right:
                lost.add(id(mark))
                break
    placed = []
    position = {id(line): index for index, line in enumerate(others)}
    for line in lines:
        if id(line) in lost:
            continue
        prefix = prefixes.get(position.get(id(line), -1), "")
        placed.append(replace(line, text=prefix + line.text) if prefix else line)
    return placed


def _joined_pieces(page: Sequence[Line]) -> list[Line]:
    """Put together what stands on one line: superscripts and the like come as lines of their own."""
    joined: list[Line] = []
    for line in page:
        before = joined[-1] if joined else None
        if before is not None and _beside(before, line):
            gap = line.left - before.right
            big = max(before.size, line.size)
            tall = before if before.size >= line.size else line
            joined[-1] = replace(
                before,
                text=before.text + ("" if gap < 0.12 * big else " ") + line.text,
                right=line.right,
                bottom=tall.bottom,
                top=tall.top,
                cells=before.cells + line.cells - (gap < 1.5 * big),
                bold=before.bold and line.bold,
            )
        else:
            joined.append(line)
    return joined


def _level(one: Line, other: Line) -> bool:
    return one.bottom < (other.top + other.bottom) / 2 < one.top


def _beside(before: Line, line: Line) -> bool:
    return (_level(before, line) or _level(line, before)) and line.left >= before.right - 0.3 * before.size


def _without_running_heads(pages: list[list[Line]]) -> list[list[Line]]:
    edges = [_edge(page) + _edge(page[::-1]) for page in map(_by_height, pages)]
    counts = Counter(key for edge in edges for key in {_key(line) for line in edge})
    needed = max(_REPEATED_PAGES, _REPEATED_SHARE * len(pages))
    heads = [{id(line) for line in edge if counts[_key(line)] >= needed} for edge in edges]
    return [[line for line in page if id(line) not in head] for page, head in zip(pages, heads, strict=True)]


def _by_height(page: list[Line]) -> list[Line]:
    return sorted(page, key=lambda line: line.bottom)


def _edge(lines: list[Line]) -> list[Line]:
    """Return the outermost of `lines` that are set off from the rest: only those can be told from text."""
    # On a page of few lines most of them would be outermost.
    for count in range(min(_EDGE_LINES, len(lines) // 3), 0, -1):
        outer, inner = lines[count - 1], lines[count]
        if abs(inner.bottom - outer.bottom) > _SET_OFF * min(outer.size, inner.size):
            return lines[:count]
    return []


def _key(line: Line) -> tuple[str, int]:
    text = re.sub(r"\d+", "#", line.text.casefold())
    # A page number alone follows the text in files printed from web pages: its height is not fixed.
    return text, 0 if _PAGE_NUMBER.match(text) else round(line.bottom / 3)
