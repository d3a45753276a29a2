"""Bring the dates that files carry into one form. Knows nothing of where they stand in a file."""

from __future__ import annotations

import datetime
import re

__all__ = ["iso_date", "iso_day"]

# ISO 8601 (with or without a time), PDF (D:20240503…), German (3.5.2024). 5/3/2024 is May to some and March to others.
_WRITTEN = (
    re.compile(r"(?:D:)?(?P<year>\d{4})-?(?P<month>\d{2})-?(?P<day>\d{2})"),
    re.compile(r"(?P<day>\d{1,2})\.\s?(?P<month>\d{1,2})\.\s?(?P<year>\d{4})(?!\d)"),
)
_EARLIEST, _LATEST = 1900, 2099
# Zero in the clocks of Unix, DOS and spreadsheets: the program knew none.
_ZEROS = frozenset(("1970-01-01", "1980-01-01", "1900-01-01", "1904-01-01"))


def iso_date(written: str) -> str | None:
    """Return the day that `written` begins with as `YYYY-MM-DD`; None if there is none, or one that nobody can have meant.

    >>> iso_date("D:20240503101500+02'00'"), iso_date("2024-05-03T10:15:00Z"), iso_date("3.5.2024")
    ('2024-05-03', '2024-05-03', '2024-05-03')
    >>> iso_date("2024-02-30"), iso_date("1970-01-01T00:00:00Z"), iso_date("05/03/2024"), iso_date("Mai")
    (None, None, None, None)
    """
    for pattern in _WRITTEN:
        found = pattern.match(written.strip())
        if found:
            try:
                day = datetime.date(int(found["year"]), int(found["month"]), int(found["day"]))
            except ValueError:
                return None
            return day.isoformat() if _EARLIEST <= day.year <= _LATEST and day.isoformat() not in _ZEROS else None
    return None


def iso_day(timestamp: float) -> str:
    """Return the day of a file's time in UTC, which a damaged file system may put anywhere, as `YYYY-MM-DD`.

    >>> iso_day(1714729000), iso_day(1e20)
    ('2024-05-03', '2099-12-31')
    """
    latest = datetime.datetime(_LATEST, 12, 31, tzinfo=datetime.UTC)
    return datetime.datetime.fromtimestamp(min(max(timestamp, 0.0), latest.timestamp()), datetime.UTC).date().isoformat()
