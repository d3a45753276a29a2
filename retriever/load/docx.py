"""Read Word documents (.docx): mammoth makes HTML of them, and that is read as such.

What Word shows as the final text: insertions stay, deletions and comments do not. Images, headers and footers are left out,
and so are tables of contents, which repeat the headings. A Word file has no pages until something lays it out.
"""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import replace
from typing import Any

from retriever.load.archive import open_office, parse_xml, refusing
from retriever.load.html import render
from retriever.load.normal import Extract
from retriever.load.properties import CORE, read_properties

__all__ = ["read"]

_STYLES = "word/styles.xml"
_HEADING_NAME = re.compile(r"(?:heading|überschrift)\s*([1-9])", re.IGNORECASE)
_TITLE_NAME = re.compile(r"titel|title", re.IGNORECASE)
_DEEPEST = 9  # one deeper is Word's number for body text
_STYLE_MAP = """
p[style-name^='toc '] => !
p[style-name^='TOC '] => !
p[style-name^='Verzeichnis '] => !
p[style-name='TOC Heading'] => !
"""
_BACK_LINK = re.compile(r'\s*<a href="#(?:foot|end)note-ref-[^"]*">↑</a>')


def read(data: bytes) -> Extract:
    """Read a Word document.

    Raises:
        Unreadable: if it is none, needs a password, is damaged or malicious.
    """
    import mammoth

    with open_office(data) as archive, refusing("Word"):
        title, metadata = read_properties(archive, CORE)
        levels = _heading_levels(archive)

        def mark(paragraph: Any) -> Any:
            level = levels.get(paragraph.style_id)
            return paragraph if level is None else paragraph.copy(style_id=f"Heading{level}")

        converted = mammoth.convert_to_html(
            io.BytesIO(data),
            style_map=_STYLE_MAP,
            include_embedded_style_map=False,  # it would be the file's author who says what is left out
            external_file_access=False,
            convert_image=lambda _: [],
            transform_document=mammoth.transforms.paragraph(mark),
        )
        extract = render(_BACK_LINK.sub("", converted.value))
    return replace(extract, title=title, metadata=metadata)


def _heading_levels(archive: zipfile.ZipFile) -> dict[str, int]:
    """Return the level, 1 to 6, of each paragraph style that sets headings: by its outline level, then by its name.

    A style inherits both from the one that it is based on.
    """
    if _STYLES not in archive.namelist():
        return {}
    root = parse_xml(archive.read(_STYLES))
    word = f"{{{root.nsmap.get(root.prefix)}}}"
    own: dict[str, int | None] = {}
    parents: dict[str, str] = {}
    for style in root.iterfind(f"{word}style"):
        identifier = style.get(f"{word}styleId") or ""
        own[identifier] = _level(_value(style, word, "pPr/outlineLvl"), _value(style, word, "name"))
        parents[identifier] = _value(style, word, "basedOn")
    levels = {identifier: _inherited(identifier, own, parents) for identifier in own}
    return {identifier: min(level, 6) for identifier, level in levels.items() if level is not None and level <= _DEEPEST}


def _value(style: Any, word: str, path: str) -> str:
    found = style.find("/".join(word + name for name in path.split("/")))
    return "" if found is None else str(found.get(f"{word}val") or "")


def _level(outline: str, name: str) -> int | None:
    if outline.isdecimal():
        return int(outline) + 1
    heading = _HEADING_NAME.fullmatch(name)
    if heading:
        return int(heading[1])
    return 1 if _TITLE_NAME.fullmatch(name) else None


def _inherited(identifier: str, own: dict[str, int | None], parents: dict[str, str]) -> int | None:
    visited: set[str] = set()
    while identifier in own and identifier not in visited:
        if own[identifier] is not None:
            return own[identifier]
        visited.add(identifier)
        identifier = parents[identifier]
    return None
