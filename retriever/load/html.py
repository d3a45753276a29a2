"""Read HTML: the text that a browser would show, a block a paragraph, with its headings.

Markdown comes this way too. Knows nothing of styles beyond an element's own `style`, and runs no script.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from retriever.load.dates import iso_date
from retriever.load.normal import Extract, Writer, normalise, one_line
from retriever.load.text import decode

if TYPE_CHECKING:
    from selectolax.lexbor import LexborHTMLParser, LexborNode

__all__ = ["read", "render"]

_DROPPED = frozenset((
    "script", "style", "noscript", "template", "nav", "head", "iframe", "object", "embed", "svg", "canvas", "audio",
    "video", "map", "select", "option", "datalist", "textarea", "input", "button", "progress", "meter",
))  # fmt: skip
_BLOCKS = frozenset((
    "html", "body", "address", "article", "aside", "blockquote", "center", "dd", "details", "dialog", "dir", "div",
    "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "header", "hgroup", "hr", "legend", "li", "main",
    "menu", "ol", "p", "pre", "search", "section", "summary", "table", "tbody", "td", "tfoot", "th", "thead", "tr",
    "ul", "caption", "h1", "h2", "h3", "h4", "h5", "h6",
))  # fmt: skip
_CLOSE = frozenset({"li", "dt", "dd", "tr", "summary"})
_LEVELS = {f"h{level}": level for level in range(1, 7)}
_HIDING_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*(hidden|collapse)", re.IGNORECASE)
_SPACE = re.compile("[ \t\n\r\f]+")
_CHARSET = re.compile(
    rb"""<meta[^>]{0,500}?charset\s*=\s*["']?\s*([\w.:-]{1,40})|<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w.:-]{1,40})""",
    re.IGNORECASE,
)
# The last change first: that is the date of what the page says now.
_DATES = (
    "article:modified_time", "dcterms.modified", "last-modified", "date", "dcterms.date", "dc.date", "dcterms.created",
    "article:published_time",
)  # fmt: skip
_BREAK = "\v"  # a line break that was asked for, as opposed to white space in the source


def read(data: bytes) -> Extract:
    """Read an HTML file; its encoding is told by its mark, its bytes or its `meta` element, in this order."""
    named = _CHARSET.search(data[:4096])
    declared = (named[1] or named[2]).decode("ascii", "replace") if named else None
    return render(decode(data, declared))


def render(source: str) -> Extract:
    """Return what a browser would show of HTML `source`.

    Paragraphs are set off by a blank line. List items stand on a line each behind "- " or their number, table rows on
    a line each with " | " between cells. Scripts, navigation, form controls and hidden elements are left out.
    """
    from selectolax.lexbor import LexborHTMLParser

    # The parser reads UTF-8, in which a lone surrogate has no form.
    tree = LexborHTMLParser(source.encode("utf-8", "replace").decode())
    page = _Page()
    if tree.root is not None:
        page.walk(tree.root)
    title = tree.css_first("head > title")
    name = one_line(title.text()) if title is not None else ""
    return Extract(page.writer.text(), headings=tuple(page.writer.headings), title=name or None, metadata=_metadata(tree))


def _metadata(tree: LexborHTMLParser) -> dict[str, str]:
    said: dict[str, str] = {}
    for meta in tree.css("meta[content]"):
        key = (meta.attributes.get("property") or meta.attributes.get("name") or "").lower()
        said.setdefault(key, one_line(meta.attributes["content"] or ""))
    dates = (iso_date(said.get(key, "")) for key in _DATES)
    fields = {"author": said.get("author"), "date": next(filter(None, dates), None)}
    return {key: value for key, value in fields.items() if value}


class _Page:
    """One walk over a document's nodes, without recursion, since nesting is as deep as the file's author likes."""

    def __init__(self) -> None:
        self.writer = Writer()
        self._inline: list[str] = []
        self._cells: list[str] | None = None  # of the table row being read
        self._counters: list[int | None] = []  # a number for each open ordered list, None for each other
        self._marker = ""
        self._gap = "\n\n"
        self._preserve = 0
        self._layout: list[bool] = []  # of each open table: does it only place things on the page?

    def walk(self, root: LexborNode) -> None:
        stack = [(root, False)]
        while stack:
            node, leaving = stack.pop()
            tag = node.tag or ""
            if leaving:
                self._leave(tag)
            elif tag == "-text":
                self._text(node.text_content or "")
            elif not tag.startswith("-") and not _hidden(node, tag):
                self._enter(node, tag)
                stack.append((node, True))
                children = []
                child = node.child
                while child is not None:
                    children.append((child, False))
                    child = child.next
                stack.extend(reversed(children))
        self._flush()

    def _text(self, text: str) -> None:
        self._inline.append(text.replace("\r", "").replace("\n", _BREAK) if self._preserve else text.replace(_BREAK, " "))

    def _enter(self, node: LexborNode, tag: str) -> None:
        if tag == "br":
            self._inline.append(_BREAK)
        if tag not in _BLOCKS:
            return
        if tag == "table":
            self._flush()
            self._layout.append(_places_only(node))
        elif self._in_cell():
            self._inline.append(" ")
            return
        elif tag == "tr" and not self._layout_now():
            self._flush()
            self._cells = []
        else:
            self._flush()
        if tag in {"ul", "ol", "menu", "dir"}:
            self._counters.append(_first_number(node) if tag == "ol" else None)
        elif tag == "li":
            if len(self._counters) > 1:
                self._gap = "\n"
            number = self._counters[-1] if self._counters else None
            if number is None:
                self._marker = "- "
            else:
                self._marker = f"{number}. "
                self._counters[-1] = number + 1
        elif tag == "pre":
            self._preserve += 1

    def _leave(self, tag: str) -> None:
        if tag not in _BLOCKS:
            return
        if self._cells is not None and tag in {"td", "th"} and not self._layout_now():
            self._cells.append(one_line("".join(self._inline)))
            self._inline.clear()
            return
        if tag == "tr" and self._cells is not None:
            row = " | ".join(cell for cell in [*self._cells, one_line("".join(self._inline))] if cell)
            self._inline.clear()
            self._cells = None
            self._put(row)
            self._gap = "\n"
            return
        if self._in_cell():
            self._inline.append(" ")
            return
        self._flush(_LEVELS.get(tag, 0))
        if tag in _CLOSE:
            self._gap = "\n"
            self._marker = ""
        elif tag != "thead" and tag != "tbody" and tag != "tfoot":
            self._gap = "\n\n" if not (self._counters and tag in {"ul", "ol", "p", "div"}) else "\n"
        if tag == "table" and self._layout:
            self._layout.pop()
        elif tag in {"ul", "ol", "menu", "dir"} and self._counters:
            self._counters.pop()
            self._gap = "\n" if self._counters else "\n\n"
        elif tag == "pre":
            self._preserve -= 1

    def _in_cell(self) -> bool:
        return self._cells is not None

    def _layout_now(self) -> bool:
        return bool(self._layout) and self._layout[-1]

    def _flush(self, level: int = 0) -> None:
        text = "".join(self._inline)
        self._inline.clear()
        if level:
            self._put(one_line(text), level)
        elif self._preserve:
            self._put(normalise(text.replace(_BREAK, "\n")))
        else:
            lines = (one_line(_SPACE.sub(" ", line)) for line in text.split(_BREAK))
            self._put("\n".join(line for line in lines if line))

    def _put(self, block: str, level: int = 0) -> None:
        if not block:
            return
        if self._marker:
            # A heading inside a list item keeps its own line: its offsets must not take in the marker.
            block = block if level else self._marker + block
            self._marker = ""
        self.writer.add(block, gap=self._gap, level=level)
        self._gap = "\n\n"


def _hidden(node: LexborNode, tag: str) -> bool:
    if tag in _DROPPED:
        return True
    attributes = node.attributes
    if not attributes:
        return False
    return (
        "hidden" in attributes
        or attributes.get("aria-hidden") == "true"
        or attributes.get("role") == "navigation"
        or _HIDING_STYLE.search(attributes.get("style") or "") is not None
    )


def _places_only(table: LexborNode) -> bool:
    if table.attributes.get("role") in {"presentation", "none"}:
        return True
    if table.css_first("h1, h2, h3, h4, h5, h6") is not None:
        return True
    return any(inner.mem_id != table.mem_id for inner in table.css("table"))


def _first_number(node: LexborNode) -> int:
    start = node.attributes.get("start") or ""
    return int(start) if re.fullmatch(r"\d{1,6}", start) else 1
