"""Ranges of dates to filter by: `2024-01-01..2024-12-31`, either end open. The same reading for every engine.

Dates of documents are ISO 8601, `YYYY-MM-DD`, and compare as texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from retriever.errors import QueryError

__all__ = ["KEY", "Range", "split_ranges"]

KEY = "date"
"""Key of the metadata whose values may be asked for by a range."""

_MARK = ".."
_FIRST, _LAST = "0001-01-01", "9999-12-31"


@dataclass(frozen=True, slots=True)
class Range:
    """Two days and those between them."""

    first: str
    last: str

    def holds(self, day: str) -> bool:
        """Say whether a day is one of them."""
        return self.first <= day <= self.last


def split_ranges(key: str, values: Sequence[str]) -> tuple[list[str], list[Range]]:
    """Return the values of a filter that are meant exactly, and those that are ranges; only dates have ranges.

    Raises:
        QueryError: a range is malformed or ends before it begins.

    >>> split_ranges("date", ["2023-05-01", "2024-01-01..2024-06-30", "2025-01-01.."])
    (['2023-05-01'], [Range(first='2024-01-01', last='2024-06-30'), Range(first='2025-01-01', last='9999-12-31')])
    >>> split_ranges("name", ["a..b.txt"])
    (['a..b.txt'], [])
    """
    if key != KEY:
        return list(values), []
    exact = [value for value in values if _MARK not in value]
    return exact, [_range(value) for value in values if _MARK in value]


def _range(text: str) -> Range:
    first, _, last = text.partition(_MARK)
    try:
        if not first and not last:
            raise ValueError
        found = Range(_day(first or _FIRST), _day(last or _LAST))
    except ValueError:
        raise QueryError(
            f"“{text}” is no range of dates.", way_out="Write 2024-01-01..2024-12-31, or leave one end open: 2024-01-01.."
        ) from None
    if found.last < found.first:
        raise QueryError(f"“{text}” ends before it begins.", way_out=f"Write {found.last}..{found.first}.")
    return found


def _day(text: str) -> str:
    # Python also reads 20240101 and 2024-W01-1, which do not compare with the days of documents.
    if date.fromisoformat(text).isoformat() != text:
        raise ValueError
    return text
