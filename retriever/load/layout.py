"""Make flowing text of placed lines: paragraphs, table rows, headings, pages. Knows nothing of PDF.

The rules, each of them simple and none of them sure, beside those of `retriever.load.lines`:

* A line goes on the paragraph above unless it is set in another size, stands too far below, begins a list item, is
  indented after a full sentence, or its first word would have had room on the line above.
* A paragraph goes on over a page or column break if it has no full stop, and what follows is no heading, row or list
  item, and begins in lower case or after a full line.
* A heading is a short block in a larger size than most text, or in bold where most text is not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from retriever.load.hyphens import Hyphens
from retriever.load.lines import Line, prepare, starts_item, starts_number
from retriever.load.normal import Extract, Writer, fill_pages

__all__ = ["compose"]

_FULL_STOP = re.compile(r"[.!?:;…][\"'”’»“)\]]*(\[\d+\])*$")
_TITLE_LENGTH = 120
_HEADING_LENGTH = 160
_HEADING_LETTERS = 3
_FULL_PAGE = 800
_LARGER = 1.12


@dataclass(slots=True)
class _Block:
    lines: list[Line] = field(default_factory=list)
    level: int = 0

    @property
    def row(self) -> bool:
        return self.lines[0].row

    @property
    def item(self) -> bool:
        return starts_item(self.lines[0].text) is not None


def compose(pages: Sequence[Sequence[Line]]) -> Extract:
    """Return the text of `pages`, each a sequence of lines in reading order."""
    kept = prepare(pages)
    lines = [line for page in kept for line in page]
    if not lines:
        return Extract("", pages=(0,) * len(pages))
    style = _Style(lines)
    blocks = _blocks(lines, style)
    _mark_headings(blocks, style)
    hyphens = Hyphens(line.text for line in lines)
    writer = Writer()
    starts: list[int | None] = [None] * len(pages)
    for index, block in enumerate(blocks):
        text, offsets = _flow(block, hyphens)
        start = writer.add(text, gap=_gap(blocks[index - 1], block) if index else "", level=block.level)
        for line, offset in zip(block.lines, offsets, strict=True):
            if starts[line.page] is None:
                starts[line.page] = start + offset
    text = writer.text()
    headings = tuple(writer.headings)
    title = headings[0].text if headings else text.partition("\n")[0]
    return Extract(
        text,
        pages=fill_pages(starts, len(writer)),
        headings=headings,
        title=title if len(title) <= _TITLE_LENGTH else None,
    )


class _Style:
    """What most of a document is set like."""

    def __init__(self, lines: list[Line]) -> None:
        sizes: Counter[float] = Counter()
        on_page: dict[int, Counter[float]] = {}
        bold = 0
        for line in lines:
            sizes[round(line.size, 1)] += len(line.text)
            on_page.setdefault(line.page, Counter())[round(line.size, 1)] += len(line.text)
            bold += len(line.text) if line.bold else 0
        size = sizes.most_common(1)[0][0]
        # An appendix may be set larger than the rest; its pages are full of that size.
        common = {page: counts.most_common(1)[0] for page, counts in on_page.items()}
        self._sizes = {page: max(size, own if letters > _FULL_PAGE else 0.0) for page, (own, letters) in common.items()}
        self.bold = 2 * bold > sizes.total()
        self._pitches: dict[int, Counter[float]] = {}
        for before, line in pairwise(lines):
            pitch = (before.bottom - line.bottom) / before.size
            if before.page == line.page and 0.8 < pitch < 2.5 and not before.row and not line.row:
                self._pitches.setdefault(line.page, Counter())[round(pitch, 1)] += 1

    def pitch(self, page: int) -> float:
        """Return the usual distance of lines on `page`, in line heights: one file may hold parts set differently."""
        counts = self._pitches.get(page)
        return min(counts.most_common(1)[0][0], 2.0) if counts else 1.2

    def larger(self, line: Line) -> bool:
        """Whether `line` is set in a larger size than most."""
        return line.size > _LARGER * self._sizes[line.page]


def _blocks(lines: list[Line], style: _Style) -> list[_Block]:
    blocks: list[_Block] = []
    for index, line in enumerate(lines):
        edge = _column_edge(lines, index)
        if blocks and _goes_on(blocks[-1], line, edge, style):
            blocks[-1].lines.append(line)
        else:
            blocks.append(_Block([line]))
    return blocks


def _column_edge(lines: list[Line], index: int) -> float:
    """Return how far to the right the lines around go that begin where this line's upper neighbour begins."""
    before = lines[max(index - 1, 0)]
    near = lines[max(index - 7, 0) : index + 6]
    column = [line.right for line in near if _same_column(line, before) and not line.row]
    return max([*column, before.right])


def _same_column(line: Line, before: Line) -> bool:
    return line.page == before.page and abs(line.left - before.left) < 3 * before.size and _same_size(line, before)


def _same_size(one: Line, other: Line) -> bool:
    return abs(one.size / other.size - 1) < 0.1


def _goes_on(block: _Block, line: Line, edge: float, style: _Style) -> bool:
    before = block.lines[-1]
    if before.row or starts_item(line.text) or not _same_size(before, line):
        return False
    stopped = _FULL_STOP.search(before.text) is not None
    split_word = before.text[-1] == "-" and before.text[-2:-1].isalpha()
    room = edge - before.right > _first_word_width(line) and not split_word
    # The end of a sentence with a tick box or a sum set off behind it is parted like a row.
    if line.row and (stopped or room or not line.text[0].islower()):
        return False
    if starts_number(line.text) and (stopped or room or style.larger(line)):
        return False
    drop = (before.bottom - line.bottom) / before.size
    if before.page != line.page or drop <= 0:
        sure = line.text[0].islower() or (len(block.lines) > 1 and not room and before.bold == line.bold)
        return not stopped and sure and not style.larger(line) and not _looks_like_heading(block, style)
    if drop > 1.25 * style.pitch(line.page) or line.left > before.right or line.right < before.left:
        return False
    if style.larger(line):
        return not stopped
    if before.bold != line.bold and (room or stopped):
        return False
    indented = line.left - before.left > 0.8 * before.size and not _marked(block)
    if indented and stopped:
        return False
    return not room or line.text[0].islower()


def _marked(block: _Block) -> bool:
    first = block.lines[0].text
    return len(block.lines) == 1 and (starts_item(first) is not None or starts_number(first) is not None)


def _first_word_width(line: Line) -> float:
    word = len(line.text.partition(" ")[0]) + 1
    return (line.right - line.left) * min(word / len(line.text), 1.0)


def _looks_like_heading(block: _Block, style: _Style) -> bool:
    length = sum(len(line.text) for line in block.lines)
    if block.row or block.item or length > _HEADING_LENGTH or block.lines[-1].text[-1] in ".,;":
        return False
    if sum(map(str.isalpha, block.lines[0].text)) < _HEADING_LETTERS:
        return False
    return style.larger(block.lines[0]) or (not style.bold and all(line.bold for line in block.lines))


def _mark_headings(blocks: list[_Block], style: _Style) -> None:
    """Give headings their levels: by size, the largest first, bold of the common size last."""
    found: list[_Block] = []
    for index, block in enumerate(blocks):
        if not _looks_like_heading(block, style):
            continue
        # Bold just above or below a row is a table's own head.
        beside_row = any(
            other.row and _near(other, block) for other in blocks[max(index - 1, 0) : index] + blocks[index + 1 : index + 2]
        )
        if style.larger(block.lines[0]) or not beside_row:
            found.append(block)
    ranks = Counter(_rank(block, style) for block in found)
    # A size that occurs once, below the title's, is a cover page's whim; it must not stand above all chapters.
    levels = sorted((rank for rank in ranks if ranks[rank] > 1 or rank == max(ranks)), reverse=True)
    for block in found:
        rank = _rank(block, style)
        block.level = 1 + next((level for level, other in enumerate(levels) if other <= rank), len(levels) - 1)


def _rank(block: _Block, style: _Style) -> tuple[int, bool]:
    line = block.lines[0]
    # Whole points, since one style measures a little differently from line to line; capitals only tell bold headings.
    return (round(line.size), False) if style.larger(line) else (0, line.text.isupper())


def _near(one: _Block, other: _Block) -> bool:
    upper, lower = one.lines[-1], other.lines[0]
    return upper.page == lower.page and abs(upper.bottom - lower.bottom) < 2.2 * max(upper.size, lower.size)


def _gap(before: _Block, block: _Block) -> str:
    if before.level or block.level:
        return "\n\n"
    if before.item and block.item:
        return "\n"
    tabular = (before.row and len(block.lines) == 1) or (block.row and len(before.lines) == 1)
    return "\n" if tabular and _near(before, block) else "\n\n"


def _flow(block: _Block, hyphens: Hyphens) -> tuple[str, list[int]]:
    """Return a block's text and the offset in it at which each line begins."""
    text = block.lines[0].text
    bullet = starts_item(text)
    if bullet:
        text = "- " + text[bullet.end() :]
    offsets = [0]
    for line in block.lines[1:]:
        text = hyphens.join(text, line.text)
        offsets.append(len(text) - len(line.text))
    return text, offsets
