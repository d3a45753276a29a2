"""Read Excel workbooks (.xlsx): a sheet is a heading and its rows, a page is a sheet or 200 rows of one.

What a person sees of it: values as their cells show them, nothing of hidden sheets, rows and columns. Charts and comments are
left out. A formula whose value was never calculated shows nothing.
"""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any, NamedTuple

from retriever.load.archive import open_office, refusing
from retriever.load.language import detect
from retriever.load.normal import Extract, Unreadable, Writer, fill_pages, one_line
from retriever.load.properties import CORE, read_properties
from retriever.load.rows import rows_as_text
from retriever.load.shown import shown
from retriever.load.table import PAGE_ROWS

__all__ = ["read"]

_SAMPLE_ROWS = 200  # of each sheet, to tell the language
_MAX_ROWS, _MAX_COLUMNS = 1_048_576, 16_384  # Excel's own bounds
_SHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_ROW, _COLUMN = f"{_SHEET}row", f"{_SHEET}col"
_ESCAPED = re.compile("_x([0-9A-Fa-f]{4})_")  # how Excel writes what XML cannot hold
_TRUE = frozenset({"1", "true"})


def read(data: bytes) -> Extract:
    """Read an Excel workbook.

    Raises:
        Unreadable: if it is none, needs a password, is damaged or malicious.
    """
    import openpyxl

    with open_office(data) as archive, refusing("Excel"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what openpyxl would not write back
        title, metadata = read_properties(archive, CORE)
        workbook = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
        if not workbook.sheetnames:
            raise Unreadable(
                "the workbook has no sheets, or is of the kind Strict Open XML",
                way_out="Save it as an ordinary Excel workbook (.xlsx).",
            )
        sheets = [sheet for sheet in workbook.worksheets if sheet.sheet_state == "visible"]
        language = _language(sheets)
        writer = Writer()
        starts: list[int | None] = []
        for sheet in sheets:
            lines = _lines(_visible(archive, sheet, language))
            heading = one_line(sheet.title)
            for start in range(0, len(lines), PAGE_ROWS):
                page = "\n".join(lines[start : start + PAGE_ROWS])
                first = writer.add(heading, level=1) if start == 0 else None
                begin = writer.add(page, gap="\n\n" if start == 0 else "\n")
                starts.append(begin if first is None else first)
    return Extract(
        writer.text(), pages=fill_pages(starts, len(writer)), headings=tuple(writer.headings), title=title, metadata=metadata
    )


def _language(sheets: Iterable[Any]) -> str:
    """Return the language of a workbook's words, in which its numbers are written then."""
    cells = chain.from_iterable(chain.from_iterable(islice(_rows(sheet), _SAMPLE_ROWS) for sheet in sheets))
    return detect(" ".join(cell.value for cell in cells if isinstance(cell.value, str)))


def _rows(sheet: Any, last: int | None = None) -> Iterator[tuple[Any, ...]]:
    # The size that a file claims may be that of the whole grid, every row of which would be filled up.
    sheet.reset_dimensions()
    yield from sheet.iter_rows(max_row=last)


def _visible(archive: zipfile.ZipFile, sheet: Any, language: str) -> Iterator[list[str]]:
    """Yield the cells of each row that is not hidden, as they are shown."""
    outline = _outline(archive, sheet._worksheet_path)
    for number, row in enumerate(_rows(sheet, outline.last) if outline.last else (), start=1):
        if number not in outline.rows:
            yield [_text(cell, language) for column, cell in enumerate(row, start=1) if column not in outline.columns]


def _text(cell: Any, language: str) -> str:
    if isinstance(cell.value, str):
        return _ESCAPED.sub(lambda code: chr(int(code[1], 16)), cell.value)
    return "" if cell.value is None else shown(cell.value, cell.number_format, language)


class _Outline(NamedTuple):
    """What openpyxl tells of a sheet only where it holds all of it.

    Attributes:
        rows: numbers of the hidden ones.
        columns: numbers of the hidden ones.
        last: number of the last row that holds a value: below it a million may be formatted.
    """

    rows: frozenset[int]
    columns: frozenset[int]
    last: int


def _outline(archive: zipfile.ZipFile, member: str) -> _Outline:
    from lxml import etree

    rows: set[int] = set()
    columns: set[int] = set()
    number = last = 0
    with archive.open(member) as source:
        for _, element in etree.iterparse(source, tag=(_ROW, _COLUMN), resolve_entities=False):
            hidden = element.get("hidden") in _TRUE
            if element.tag == _COLUMN:
                if hidden:
                    columns.update(range(int(element.get("min")), min(int(element.get("max")), _MAX_COLUMNS) + 1))
                continue
            number = int(element.get("r") or number + 1)
            if number > _MAX_ROWS:  # openpyxl would make up all those above it
                raise Unreadable(f"the file is damaged (it has a row {number:,})", way_out="Open it in Excel and save it anew.")
            if hidden:
                rows.add(number)
            if any(map(len, element)):
                last = number
            element.clear()
            while element.getprevious() is not None:
                del element.getparent()[0]
    return _Outline(frozenset(rows), frozenset(columns), last)


def _lines(rows: Iterable[list[str]]) -> list[str]:
    """Return the lines of a sheet's tables, which empty rows set apart."""
    lines: list[str] = []
    table: list[list[str]] = []
    for row in chain(rows, [[]]):
        if any(row):
            table.append(row)
        elif table:
            lines += rows_as_text(table)
            table = []
    return lines
