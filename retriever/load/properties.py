"""Read what an Office file says of itself: title, author, date. Both families write Dublin Core, in a member each."""

from __future__ import annotations

import re
import zipfile
from typing import Any

from retriever.load.archive import parse_xml
from retriever.load.normal import one_line

__all__ = ["CORE", "META", "read_properties"]

CORE = "docProps/core.xml"
"""The member in which Word, Excel and PowerPoint keep them."""
META = "meta.xml"
"""The member in which OpenDocument programs keep them."""

_DC = "{http://purl.org/dc/elements/1.1/}"
_TERMS = "{http://purl.org/dc/terms/}"
_ODF = "{urn:oasis:names:tc:opendocument:xmlns:meta:1.0}"
_AUTHORS = (f"{_ODF}initial-creator", f"{_DC}creator")
_DATES = (f"{_TERMS}modified", f"{_DC}date", f"{_TERMS}created", f"{_ODF}creation-date")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
# What programs put there: "PowerPoint-Präsentation", "Dokument1", file names, numbers.
_NO_TITLE = re.compile(
    r"(?:microsoft|powerpoint)[ -].*|(?:untitled|unbenannt|titel|title|document|dokument|mappe|book|pr[äe]sentation)\s*\d*"
    r"|.*\.\w{2,5}|[\W\d_]*|\S*_\S*",
    re.IGNORECASE,
)


def read_properties(archive: zipfile.ZipFile, member: str) -> tuple[str | None, dict[str, str]]:
    """Return title and metadata ("author", "date" as YYYY-MM-DD) of an Office file, as far as it tells them.

    Args:
        archive: an Office file's container.
        member: `CORE` or `META`.
    """
    try:
        root = parse_xml(archive.read(member))
    except (KeyError, SyntaxError):  # no such member, or no XML
        return None, {}
    title = _first(root, (f"{_DC}title",))
    day = _DAY.match(_first(root, _DATES))
    metadata = {"author": _first(root, _AUTHORS), "date": day[0] if day else ""}
    return (
        title if title and not _NO_TITLE.fullmatch(title) else None,
        {key: value for key, value in metadata.items() if value},
    )


def _first(root: Any, tags: tuple[str, ...]) -> str:
    for tag in tags:
        text = one_line(root.findtext(f".//{tag}") or "")
        if text:
            return text
    return ""
