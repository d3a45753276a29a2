"""Read Markdown: rendered to HTML and read as that, so that a quote holds no markup.

Knows nothing of how text is laid out; `retriever.load.html` does.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import replace

from retriever.load.html import render
from retriever.load.normal import Extract, one_line
from retriever.load.text import decode

__all__ = ["read"]

_FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_SCALARS = (str, int, float, bool, datetime.date)


def read(data: bytes) -> Extract:
    """Read a Markdown file (CommonMark with tables); YAML front matter becomes title and metadata."""
    from markdown_it import MarkdownIt

    source = decode(data).removeprefix("\ufeff")
    fields: dict[str, str] = {}
    front = _FRONT_MATTER.match(source)
    if front:
        parsed = _front_matter(front[1])
        if parsed is not None:
            fields, source = parsed, source[front.end() :]
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    extract = render(parser.render(source))
    title = fields.pop("title", "") or extract.title
    return replace(extract, title=title, metadata=fields)


def _front_matter(source: str) -> dict[str, str] | None:
    """Return the flat keys of a front matter, or None if it is none: a rule above a paragraph looks much the same."""
    import yaml

    try:
        fields = yaml.safe_load(source)
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: a date such as 2024-13-45
        return None
    if not isinstance(fields, dict):
        return None
    return {one_line(str(key)): text for key, value in fields.items() if (text := _flat(value))}


def _flat(value: object) -> str:
    if isinstance(value, list) and all(isinstance(item, _SCALARS) for item in value):
        return ", ".join(map(_flat, value))
    return one_line(str(value)) if isinstance(value, _SCALARS) else ""
