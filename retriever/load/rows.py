"""Write the rows of a table as lines, each of which can be found and quoted without the others.

Knows nothing of files: CSV and spreadsheets hand in their cells as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from statistics import median_low

from retriever.load.normal import one_line

__all__ = ["rows_as_text"]

_SAMPLE = 50  # rows that are looked at to tell what a table is like
_LABEL_LENGTH = 60
# With two columns, words above words may be a header as well as the first of many pairs of a name and a value.
_SURELY_A_TABLE = 3
_VALUE = re.compile(
    r"""[^a-zäöüß]*\d[^a-zäöüß]*        # a number or a date, in whatever notation
    |[-+]?[\d.,' ]*\d\s*\S{1,3}         # one with its unit
    |\S+@\S+|\w+://\S+|www\.\S+         # addresses
    """,
    re.IGNORECASE | re.VERBOSE,
)
_YEAR = re.compile(r"(?:19|20)\d\d")
_DIGITS = re.compile(r"\d+")
_LETTERS = re.compile(r"[^\W\d_]+")


def rows_as_text(rows: Iterable[Sequence[str]], header: bool | None = None) -> list[str]:
    """Return a line for each row that holds anything, below a header with the column's name before each value.

    Lines above the header stay as they are. The header itself becomes no line, unless nothing stands below it.

    Args:
        rows: of cells as they are shown; they may be ragged, and only their beginning is looked at twice.
        header: whether the first row names the columns; None to tell by what stands in it and below it.

    >>> rows_as_text([["Artikel", "Preis", "Lager"], ["WB-20417", "12,50 €", "ja"], ["WB-3", "8 €", ""]])
    ['Artikel: WB-20417 | Preis: 12,50 € | Lager: ja', 'Artikel: WB-3 | Preis: 8 €']
    >>> rows_as_text([["Name", "Wendelbruck"], ["Sitz", "Lippstadt"]])
    ['Name | Wendelbruck', 'Sitz | Lippstadt']
    """
    rest = ([cell.strip() for cell in row] for row in rows)
    sample = list(islice(filter(any, rest), _SAMPLE))
    captions = 0 if header else _captions(sample)
    lines = [_line(row) for row in sample[:captions]]
    table = sample[captions:]
    names: list[str] = []
    if header or (header is None and _has_header(table)):
        names = table[0] if table else []
    body = [_line(row, names) for row in chain(table, rest) if any(row) and row != names]
    return [line for line in lines + (body or [_line(names)]) if line]


def _line(row: Sequence[str], names: Sequence[str] = ()) -> str:
    cells = [
        f"{names[column].rstrip(':')}: {cell}" if column < len(names) and names[column] else cell
        for column, cell in enumerate(row)
        if cell
    ]
    return one_line(" | ".join(cells))


def _captions(rows: Sequence[Sequence[str]]) -> int:
    """Return how many rows stand above the table: a title, a date, each much shorter than its rows."""
    filled = [sum(map(bool, row)) for row in rows]
    typical = median_low(filled) if filled else 0
    return next((number for number, cells in enumerate(filled) if typical < 2 * cells), 0)


def _has_header(rows: Sequence[Sequence[str]]) -> bool:
    below = [row for row in rows if row != rows[0]]
    if not below:
        return False
    names = [name for name in rows[0] if name]
    columns = [[row[number] for row in below if number < len(row) and row[number]] for number in range(len(rows[0]))]
    if len(names) < 2 or len(set(names)) < len(names):
        return False
    if not all(_is_label(name, column) for name, column in zip(rows[0], columns, strict=True) if name):
        return False
    return len(names) >= _SURELY_A_TABLE or any(_mostly(_VALUE, column) for column in columns)


def _is_label(name: str, column: Sequence[str]) -> bool:
    if len(name) > _LABEL_LENGTH or name in column:
        return False
    if _YEAR.fullmatch(name):
        return not _mostly(_YEAR, column)
    if _VALUE.fullmatch(name):
        return False
    # An identifier, a room, a version: what stands below is written in the same way.
    return not (_DIGITS.search(name) and any(_shape(name) == _shape(cell) for cell in column))


def _mostly(pattern: re.Pattern[str], cells: Sequence[str]) -> bool:
    # Long cells are no values, and would take the pattern long.
    return 2 * sum(len(cell) <= _LABEL_LENGTH and pattern.fullmatch(cell) is not None for cell in cells) > len(cells)


def _shape(cell: str) -> str:
    return _LETTERS.sub("a", _DIGITS.sub("9", cell))
