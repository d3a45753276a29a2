"""Read OpenDocument texts (.odt): made into HTML, and read as that.

What a person sees of the final text: deletions, comments, hidden sections, tables of contents and pictures are left out.
Notes stand at the end, under their numbers.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import replace
from html import escape
from typing import Any

from retriever.load.archive import open_office, parse_xml, refusing
from retriever.load.html import render
from retriever.load.normal import Extract, Unreadable
from retriever.load.properties import META, read_properties

__all__ = ["read"]

_NS = "{urn:oasis:names:tc:opendocument:xmlns:"
_OFFICE, _TEXT, _TABLE, _STYLE = (f"{_NS}{name}:1.0}}" for name in ("office", "text", "table", "style"))
_CONTENT, _STYLES, _MANIFEST = "content.xml", "styles.xml", "META-INF/manifest.xml"
_DROPPED = frozenset((
    f"{_TEXT}tracked-changes", f"{_TEXT}table-of-content", f"{_TEXT}illustration-index", f"{_TEXT}table-index",
    f"{_TEXT}alphabetical-index", f"{_TEXT}ruby-text", f"{_OFFICE}annotation", f"{_OFFICE}forms", f"{_TABLE}covered-table-cell",
    "{urn:oasis:names:tc:opendocument:xmlns:svg-compatible:1.0}title",
    "{urn:oasis:names:tc:opendocument:xmlns:svg-compatible:1.0}desc",
))  # fmt: skip
_TAGS = {
    f"{_TEXT}list-item": "li",
    f"{_TEXT}list-header": "li",
    f"{_TABLE}table": "table",
    f"{_TABLE}table-row": "tr",
    f"{_TABLE}table-cell": "td",
    "{urn:oasis:names:tc:opendocument:xmlns:drawing:1.0}text-box": "div",
}


def read(data: bytes) -> Extract:
    """Read an OpenDocument text.

    Raises:
        Unreadable: if it is none, needs a password, is damaged or malicious.
    """
    with open_office(data) as archive, refusing("LibreOffice"):
        if _is_encrypted(archive):
            raise Unreadable("the file needs a password", way_out="Save a copy without one, and index that.")
        title, metadata = read_properties(archive, META)
        content = parse_xml(archive.read(_CONTENT))
        named = parse_xml(archive.read(_STYLES)) if _STYLES in archive.namelist() else None
        extract = render(_Page(_Styles(content, named)).html(content))
    return replace(extract, title=title, metadata=metadata)


def _is_encrypted(archive: zipfile.ZipFile) -> bool:
    return _MANIFEST in archive.namelist() and b"encryption-data" in archive.read(_MANIFEST)


class _Styles:
    """What a document's styles say of structure."""

    def __init__(self, *roots: Any) -> None:
        self._parents: dict[str, str] = {}
        self._numbered: set[str] = set()
        for root in roots:
            if root is None:
                continue
            for style in root.iter(f"{_STYLE}style"):
                self._parents[style.get(f"{_STYLE}name")] = style.get(f"{_STYLE}parent-style-name") or ""
            for style in root.iter(f"{_TEXT}list-style"):
                if len(style) and style[0].tag == f"{_TEXT}list-level-style-number":
                    self._numbered.add(style.get(f"{_STYLE}name"))

    def is_title(self, name: str) -> bool:
        """Tell whether a paragraph's style is the title's, or made from it."""
        return name == "Title" or self._parents.get(name) == "Title"

    def is_numbered(self, name: str) -> bool:
        """Tell whether a list's style sets numbers."""
        return name in self._numbered


class _Page:
    """One walk over a document's content; the XML parser bounds how deep it goes."""

    def __init__(self, styles: _Styles) -> None:
        self._styles = styles
        self._notes: list[str] = []
        self._ordered: list[bool] = []

    def html(self, content: Any) -> str:
        """Return the document's body as HTML."""
        body = content.find(f".//{_OFFICE}text")
        text = "".join(self._children(body)) if body is not None else ""
        return f"<body>{text}<ol>{''.join(self._notes)}</ol></body>"

    def _children(self, node: Any) -> Iterator[str]:
        if node.text and not node.tag.startswith(_OFFICE):
            yield escape(node.text)
        for child in node:
            if isinstance(child.tag, str) and child.tag not in _DROPPED:
                yield from self._element(child)
            if child.tail:
                yield escape(child.tail)

    def _element(self, node: Any) -> Iterator[str]:
        tag = node.tag
        if tag == f"{_TEXT}s":
            yield " " * min(int(node.get(f"{_TEXT}c") or 1), 1000)
        elif tag == f"{_TEXT}tab":
            yield "\t"
        elif tag == f"{_TEXT}line-break":
            yield "<br>"
        elif tag == f"{_TEXT}note":
            yield from self._note(node)
        elif tag == f"{_TEXT}list":
            yield from self._list(node)
        elif tag == f"{_TEXT}h":
            yield from self._wrapped(node, f"h{min(int(node.get(f'{_TEXT}outline-level') or 1), 6)}")
        elif tag == f"{_TEXT}p":
            yield from self._wrapped(node, "h1" if self._styles.is_title(node.get(f"{_TEXT}style-name") or "") else "p")
        elif tag in _TAGS:
            yield from self._wrapped(node, _TAGS[tag])
        elif node.get(f"{_TEXT}display") != "none":
            yield from self._children(node)

    def _wrapped(self, node: Any, tag: str) -> Iterator[str]:
        yield f"<{tag}>"
        yield from self._children(node)
        yield f"</{tag}>"

    def _list(self, node: Any) -> Iterator[str]:
        # An inner list without a style of its own goes on in that of the list around it.
        name = node.get(f"{_TEXT}style-name")
        inherited = bool(self._ordered) and self._ordered[-1]
        self._ordered.append(self._styles.is_numbered(name) if name else inherited)
        yield from self._wrapped(node, "ol" if self._ordered[-1] else "ul")
        self._ordered.pop()

    def _note(self, node: Any) -> Iterator[str]:
        body = node.find(f"{_TEXT}note-body")
        if body is not None:
            place = len(self._notes)
            self._notes.append("")
            self._notes[place] = f"<li>{''.join(self._children(body))}</li>"
            yield f"[{place + 1}]"
