"""Find where on a printed page of a PDF a part of a document's text stands.

What is loaded is not what is printed, character by character: line ends and hyphens are joined, running heads left out,
ligatures and accents normalised, bullets replaced. Letters and digits stay, in their order; so the part is found by those
alone, with accents taken off. Knows nothing of pictures.
"""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from itertools import takewhile
from operator import eq
from typing import Any, NamedTuple
from unicodedata import normalize

__all__ = ["Box", "locate", "places"]

_CONTEXT = 200
"""How many letters on either side tell one occurrence of a text from another."""
_SHORTEST_BLOCK = 4
"""Letters in a row that are no coincidence, where the part does not stand on the page as one."""
_MOST_COMPARED = 20_000_000
"""Letters of the part times letters of the page; comparing more takes longer than anybody waits for a picture."""


class Box(NamedTuple):
    """A rectangle in a page's own coordinates: points from its lower left, before the page is turned or cropped."""

    left: float
    bottom: float
    right: float
    top: float


def places(text_page: Any, text: str, start: int, end: int) -> list[Box]:
    """Return a box for each printed line of `text[start:end]`, in reading order; none where it cannot be told.

    Args:
        text_page: PDFium's, of pypdfium2.
        text: what the document says on this page.
    """
    from pypdfium2 import raw  # type: ignore[import-untyped]

    printed = "".join(chr(raw.FPDFText_GetUnicode(text_page, index)) for index in range(text_page.count_chars()))
    return [box for run in locate(printed, text, start, end) for box in _lines(text_page, printed, run)]


def locate(printed: str, text: str, start: int, end: int) -> list[range]:
    r"""Return which characters of `printed` are `text[start:end]`, as runs in their order; none if they cannot be told.

    >>> locate("Seite 3\r\nDie Ver\x02\r\nsicherung. Ende", "Die Versicherung. Ende", 4, 17)
    [range(13, 29)]
    """
    letters, indices = _letters(printed)
    wanted = _letters(text[start:end])[0]
    if not wanted:
        return []
    before, after = _letters(text[:start])[0], _letters(text[end:])[0]
    occurrences = [found.start() for found in re.finditer(f"(?={re.escape(wanted)})", letters)]
    if occurrences:

        def fits(at: int) -> tuple[int, int]:
            left, right = letters[max(at - _CONTEXT, 0) : at], letters[at + len(wanted) :][:_CONTEXT]
            return _common(left[::-1], before[::-1]) + _common(right, after), -abs(at - len(before))

        best = max(occurrences, key=fits)
        runs = [range(indices[best], indices[best + len(wanted) - 1] + 1)]
    else:
        blocks = _blocks(letters, wanted, before[-_CONTEXT:], after[:_CONTEXT])
        runs = [range(indices[block.start], indices[block.stop - 1] + 1) for block in blocks]
    return _with_symbols(runs, printed, text[start:end])


def _letters(text: str) -> tuple[str, list[int]]:
    """Return the letters and digits of `text` without accents, and the index in it that each is of."""
    pairs = [
        (letter, index)
        for index, character in enumerate(text)
        # A ligature is several letters; an accent may stand before, behind or in its letter, so it does not count.
        for letter in (character if character.isascii() else normalize("NFKD", character))
        if letter.isalnum()
    ]
    return "".join(letter for letter, _ in pairs), [index for _, index in pairs]


def _common(one: str, other: str) -> int:
    """Return how many letters both begin with."""
    return sum(takewhile(bool, map(eq, one, other)))


def _blocks(letters: str, wanted: str, before: str, after: str) -> list[range]:
    """Return the stretches of `letters` that `wanted` is printed in, if something else stands between them."""
    around = before + wanted + after
    if len(letters) * len(around) > _MOST_COMPARED:
        return []
    blocks = []
    for at, place, size in SequenceMatcher(None, letters, around, autojunk=False).get_matching_blocks():
        cut = max(len(before) - place, 0)
        left = min(place + size, len(before) + len(wanted)) - place
        if size >= _SHORTEST_BLOCK and cut < left:
            blocks.append(range(at + cut, at + left))
    return blocks if 2 * sum(map(len, blocks)) >= len(wanted) else []


def _with_symbols(runs: list[range], printed: str, text: str) -> list[range]:
    """Take in what `text` begins and ends with besides letters: a quotation mark, a full stop, a currency sign."""
    if not runs:
        return []
    is_letter = [bool(_letters(character)[0]) for character in text]
    lead, tail = text[: is_letter.index(True)], text[len(text) - is_letter[::-1].index(True) :]
    runs[0] = range(_beyond(printed, runs[0].start - 1, lead[::-1], -1) + 1, runs[0].stop)
    runs[-1] = range(runs[-1].start, _beyond(printed, runs[-1].stop, tail, 1))
    return runs


def _beyond(printed: str, at: int, symbols: str, step: int) -> int:
    """Return the index behind those of `symbols` that are printed from `at` on, whatever the spaces between."""
    for symbol in "".join(symbols.split()):
        ahead = at
        while 0 <= ahead < len(printed) and printed[ahead].isspace():
            ahead += step
        if not 0 <= ahead < len(printed) or printed[ahead] != symbol:
            break
        at = ahead + step
    return at


def _lines(text_page: Any, printed: str, run: range) -> Iterator[Box]:
    line = previous = None
    for index in run:
        box = None if printed[index].isspace() else _box(text_page, index)
        if box is None:
            continue
        if line is not None and previous is not None and _on_one_line(previous, box, _upright(text_page, index)):
            line = Box(
                min(line.left, box.left), min(line.bottom, box.bottom), max(line.right, box.right), max(line.top, box.top)
            )
        else:
            if line is not None:
                yield line
            line = box
        previous = box
    if line is not None:
        yield line


def _box(text_page: Any, index: int) -> Box | None:
    """Return the box of a character, as high as its font; None for one that PDFium made up."""
    from pypdfium2 import raw

    loose = raw.FS_RECTF()
    raw.FPDFText_GetLooseCharBox(text_page, index, ctypes.byref(loose))
    box = Box(
        min(loose.left, loose.right), min(loose.bottom, loose.top), max(loose.left, loose.right), max(loose.bottom, loose.top)
    )
    return box if box.left < box.right and box.bottom < box.top else None


def _upright(text_page: Any, index: int) -> bool:
    """Tell whether the line that a character stands on runs up or down the page."""
    from pypdfium2 import raw

    return abs(math.sin(raw.FPDFText_GetCharAngle(text_page, index))) > math.sqrt(0.5)


def _on_one_line(one: Box, other: Box, upright: bool) -> bool:
    low, high = (0, 2) if upright else (1, 3)
    shared = min(one[high], other[high]) - max(one[low], other[low])
    return 2 * shared > min(one[high] - one[low], other[high] - other[low])
