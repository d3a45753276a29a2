"""Read CSV and TSV: a row a line, in which each value stands behind the name of its column.

Knows nothing of how a row is written; `retriever.load.rows` does.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TypeVar

from retriever.load.normal import Extract, Writer
from retriever.load.rows import rows_as_text
from retriever.load.text import decode

__all__ = ["PAGE_ROWS", "read"]

PAGE_ROWS = 200
"""Rows that make a page, of spreadsheets too."""

_Made = TypeVar("_Made")

# In this order where several fit alike: every number of a German table has a comma, few texts have the others.
_DELIMITERS = "\t;|,"
_SAMPLE_ROWS, _SAMPLE_LENGTH = 50, 1 << 16
_MOST = 0.7  # of the rows have as many cells, in a table; the others are its title, its footnotes, its slips
_EXCEL_HINT = re.compile("sep=([\t;|,:])\r?\n", re.IGNORECASE)


def read(data: bytes) -> Extract:
    r"""Read a table; a page is a range of 200 rows.

    >>> read("Artikel;Preis\nWB-20417;12,50 €\n".encode()).text
    'Artikel: WB-20417 | Preis: 12,50 €'
    """
    source = decode(data).removeprefix("\ufeff")
    hint = _EXCEL_HINT.match(source)
    if hint:
        source = source[hint.end() :]
    delimiter = hint[1] if hint else _delimiter(source)
    # The library's own limit is there for those who read without end; this source is in memory already.
    csv.field_size_limit(max(csv.field_size_limit(), len(source)))
    lines = _parse(source, delimiter, rows_as_text)
    writer = Writer()
    pages = tuple(
        writer.add("\n".join(lines[first : first + PAGE_ROWS]), gap="\n") for first in range(0, len(lines), PAGE_ROWS)
    )
    return Extract(writer.text(), pages=pages)


def _parse(source: str, delimiter: str, use: Callable[[Iterator[list[str]]], _Made]) -> _Made:
    """Return what `use` makes of the rows, which are read as it takes them."""
    spaced = delimiter != "\t"
    try:
        # newline="": the breaks within quoted cells are the reader's to tell from those between rows.
        lines = io.StringIO(source, newline="")
        return use(csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=spaced))
    except csv.Error:
        # A quotation mark that nobody closes, such as an inch sign, would take what follows it for one cell: here, of one line.
        single = ([line] for line in source.splitlines())
        return use(row for line in single for row in csv.reader(line, delimiter=delimiter, skipinitialspace=spaced))


def _delimiter(source: str) -> str:
    """Return what parts most rows into the same number of cells, at least two; the first choice if nothing does.

    The library's own sniffer takes the comma of decimals for one.
    """
    sample = source[:_SAMPLE_LENGTH]

    def agreement(delimiter: str) -> float:
        widths = _parse(sample, delimiter, lambda rows: Counter(len(row) for row in islice(rows, _SAMPLE_ROWS) if row))
        width, count = widths.most_common(1)[0] if widths else (1, 0)
        return count / widths.total() if width > 1 else 0.0

    best = max(_DELIMITERS, key=agreement)  # the first of equals
    return best if agreement(best) >= _MOST else _DELIMITERS[0]
