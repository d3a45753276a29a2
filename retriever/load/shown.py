"""Write a spreadsheet's values as its cells show them, so that a quote reads as the sheet does.

Knows the common part of Excel's number formats: decimals, thousands, leading zeros, percent, currency, signs. A format beyond
that (fractions, exponents, conditions) leaves the plain number. No file says in which country it is looked at; the caller does.
"""

from __future__ import annotations

import datetime
import re
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import NamedTuple

__all__ = ["shown"]

_GERMAN = str.maketrans(",.", ".,")
_GENERAL = "General"
_LONGEST_FORMAT = 255  # Excel's own bound
_LARGEST = 10**15  # Excel keeps no more digits
_MOST_DECIMALS = 10
_HALF_A_SECOND = datetime.timedelta(microseconds=500_000)
_BETWEEN_SECTIONS = re.compile(r';(?=(?:[^"]*"[^"]*")*[^"]*\Z)')
_CONDITION = re.compile(r"\[[<>=]")
_TOKEN = re.compile(
    r'''"(?P<quoted>[^"]*)"|\\(?P<escaped>.)|\[\$(?P<currency>[^\]-]*)[^\]]*\]
    |(?P<unseen>\[[^\]]*\]|_.|\*.)     # colours, and space as wide as a character or up to the border
    |(?P<digits>General|[#0?.,]*[#0?][#0?.,]*)|(?P<other>.)''',
    re.DOTALL | re.VERBOSE,
)  # fmt: skip


class _Format(NamedTuple):
    """One section of a number format.

    Attributes:
        before: text in front of the number.
        after: text behind it.
        whole: digits in front of the point, at least; None for a section that shows only its text.
        fixed: decimals, at least.
        decimals: decimals, at most.
        grouped: whether thousands are set apart.
        scale: power of ten that the number is multiplied by.
    """

    before: str
    after: str
    whole: int | None
    fixed: int
    decimals: int
    grouped: bool
    scale: int


def shown(value: object, number_format: str, language: str) -> str:
    """Return `value` as a cell with `number_format` shows it; dates and times are written as in ISO 8601.

    Args:
        value: text, a number, a truth value, a date, a time, a duration or None.
        number_format: Excel's code, such as `#,##0.00 "€"`.
        language: "de" for decimal commas, anything else for points.

    >>> shown(1234.5, '#,##0.00 "€"', "de"), shown(0.19, "0%", "en"), shown(1067, "00000", "de")
    ('1.234,50 €', '19%', '01067')
    >>> shown(0.1 + 0.2, "General", "en"), shown(datetime.datetime(2024, 5, 3, 8, 30), "", "de")
    ('0.3', '2024-05-03 08:30')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return ("WAHR" if value else "FALSCH") if language == "de" else str(value).upper()
    if isinstance(value, int | float):
        return _number(value, number_format, german=language == "de")
    if isinstance(value, datetime.datetime):
        # Excel counts days in floating point: half past eight may be stored a microsecond earlier.
        value = (value + _HALF_A_SECOND).replace(microsecond=0)
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(" ").removesuffix(":00")
    if isinstance(value, datetime.timedelta):
        minutes, seconds = divmod(round(value.total_seconds()), 60)
        return f"{minutes // 60}:{minutes % 60:02}" + (f":{seconds:02}" if seconds else "")
    if isinstance(value, datetime.time):
        return value.isoformat("seconds").removesuffix(":00")
    return str(value)


def _number(value: float, number_format: str, *, german: bool) -> str:
    # Excel keeps fifteen digits, fewer than those in which floating point differs from what was typed; without a format, a cell
    # shows not even twelve.
    plain = str(value) if isinstance(value, int) else f"{value:.{12 if number_format == _GENERAL else 15}g}"
    sections = () if number_format == _GENERAL or not abs(value) < _LARGEST else _sections(number_format)
    if not sections:
        return plain.translate(_GERMAN) if german else plain
    section, number = sections[0], Decimal(plain)
    if number < 0 and len(sections) > 1:
        section, number = sections[1], -number
    elif number == 0 and len(sections) > 2:
        section = sections[2]
    if section.whole is None:
        return section.before.strip()
    number = number.scaleb(section.scale).quantize(Decimal(1).scaleb(-section.decimals), ROUND_HALF_UP)
    whole, _, decimals = f"{abs(number):f}".partition(".")
    whole = whole.zfill(section.whole)
    if section.grouped and len(whole) > 3 and not whole.startswith("0"):
        whole = f"{int(whole):,}"
    decimals = decimals[: section.fixed] + decimals[section.fixed :].rstrip("0")
    digits = f"{whole}.{decimals}" if decimals else whole
    sign = "-" if number < 0 else ""
    return sign + f"{section.before}{digits.translate(_GERMAN) if german else digits}{section.after}".strip()


@lru_cache(maxsize=1024)
def _sections(number_format: str) -> tuple[_Format, ...]:
    """Return the sections of a format for positive and negative numbers and zero; none if it is not understood."""
    if len(number_format) > _LONGEST_FORMAT or _CONDITION.search(number_format):
        return ()
    sections = [_section(code) for code in _BETWEEN_SECTIONS.split(number_format)[:3]]
    known = tuple(section for section in sections if section is not None)
    return known if len(known) == len(sections) else ()


def _section(code: str) -> _Format | None:
    texts = ["", ""]
    digits: str | None = None
    scale = 0
    for token in _TOKEN.finditer(code):
        if token["digits"]:
            if digits is not None:
                return None
            digits = token["digits"]
        elif token["other"] and (token["other"].isalpha() or token["other"] in "/@"):
            return None
        elif not token["unseen"]:
            scale += 2 * (token["other"] == "%")
            texts[digits is not None] += token["quoted"] or token["escaped"] or token["currency"] or token["other"] or ""
    if scale > 2:
        return None
    before, after = texts
    if digits is None:
        return _Format(before, after, whole=None, fixed=0, decimals=0, grouped=False, scale=0)
    if digits == _GENERAL:
        return _Format(before, after, whole=1, fixed=0, decimals=_MOST_DECIMALS, grouped=False, scale=scale)
    whole, _, decimals = digits.rstrip(",").partition(".")
    scale -= 3 * (len(digits) - len(digits.rstrip(",")))
    decimals = decimals[:_MOST_DECIMALS]
    return _Format(before, after, max(whole.count("0"), 1), decimals.count("0"), len(decimals), "," in whole, scale)
