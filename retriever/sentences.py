"""Sentence borders, with exact offsets. Chunks end on them and quotes are made of them, so both import this module."""

from __future__ import annotations

import re
from collections.abc import Iterator

import sentencex

__all__ = ["sentences"]

# sentencex 1.0 slices by bytes around white space and panics where that is longer than a byte (U+2028, U+3000 …).
# One space for each such character keeps every offset.
_WIDE_SPACE = re.compile(r"[^\S\n ]")
_INK = re.compile(r"\S(?:.*\S)?", re.DOTALL)


def sentences(text: str, language: str) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of each sentence in order, without the white space around it.

    A line break ends a sentence: loaders join the lines of running text, so what still stands on a line of its own
    is a list item, a table row or a heading.

    Args:
        language: ISO 639-1 code; abbreviations and ordinals are judged by it. Unknown ones fall back to English rules.

    >>> text = "Es gilt § 12a Abs. 3. Am 3. Mai endet das."
    >>> [text[start:end] for start, end in sentences(text, "de")]
    ['Es gilt § 12a Abs. 3.', 'Am 3. Mai endet das.']
    """
    offset = 0
    for line in _WIDE_SPACE.sub(" ", text).split("\n"):
        for piece in sentencex.get_sentence_boundaries(language, line) if line.strip() else ():
            ink = _INK.search(line, piece["start_index"], piece["end_index"])
            if ink:
                yield offset + ink.start(), offset + ink.end()
        offset += len(line) + 1
