"""Join the lines of hard-wrapped plain text, so that its sentences are whole. Only line breaks become spaces: offsets stay."""

from __future__ import annotations

import re
from itertools import pairwise

__all__ = ["unwrap"]

_WIDEST = 120
_NARROWEST = 40
# What begins a line of its own: a list mark, a number, a paragraph sign; and what looks like columns.
_OWN_LINE = re.compile(r"(?:[-*•–]|\(?\w{1,3}[.)]|§|\d+(?:\.\d+)+)\s")
_COLUMNS = re.compile(r"\S(?: {2,}|\t| ?\| ?)\S")


def unwrap(text: str) -> str:
    """Return `text` with a space for each line break that was only made because the next word did not fit.

    A line that could have taken the next line's first word was ended on purpose. What fits is judged by the longest line of the
    same paragraph; one whose longest line has fewer than 40 characters (an address, a verse) or more than 120 was not wrapped.

    >>> text = "Der Antrag ist vor der Reise bei der Leitung zu\\nstellen und wird von ihr\\nentschieden.\\n- Liste"
    >>> unwrap(text)
    'Der Antrag ist vor der Reise bei der Leitung zu stellen und wird von ihr\\nentschieden.\\n- Liste'
    """
    return "\n\n".join(_unwrap_paragraph(paragraph) for paragraph in text.split("\n\n"))


def _unwrap_paragraph(paragraph: str) -> str:
    lines = paragraph.split("\n")
    width = max(map(len, lines))
    if not _NARROWEST <= width <= _WIDEST:
        return paragraph
    parts = [lines[0]]
    for line, following in pairwise(lines):
        parts += [" " if _goes_on(line, following, width) else "\n", following]
    return "".join(parts)


def _goes_on(line: str, following: str, width: int) -> bool:
    if not line or not following or _OWN_LINE.match(following):
        return False
    if _COLUMNS.search(line) or _COLUMNS.search(following):
        return False
    return len(line) + 1 + len(following.split(maxsplit=1)[0]) > width
