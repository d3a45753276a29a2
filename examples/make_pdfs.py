"""Makes the handbook's PDFs from their readable sources: pdf_sources/NAME.md -> handbook/NAME.pdf.

Only maintainers run this, after they changed a source; the PDFs themselves are committed. It needs two packages that
Beleg itself does not depend on for this purpose, best in an environment of their own:

    python -m pip install reportlab markdown-it-py
    python examples/make_pdfs.py

The same source and the same reportlab make the same bytes (``invariant``): the date in them is the source's. The typeface is
Bitstream Vera, which reportlab brings along; it is embedded and covers umlauts, ß, § and °.

A source begins with a head of ``key: value`` lines between two ``---`` lines (title, subject, author, date, language, the
page's header and footer, and ``page``, the pattern of the page number), followed by Markdown: headings, paragraphs,
lists and tables.
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import (
    BaseDocTemplate,
    Flowable,
    Frame,
    ListFlowable,
    ListItem,
    PageTemplate,
    Paragraph,
    Spacer,
    Table,
    TableStyle,
)

if TYPE_CHECKING:
    from reportlab.pdfgen.canvas import Canvas

HERE = Path(__file__).resolve().parent
MARGIN = 24 * mm
REGULAR, BOLD = "Vera", "VeraBd"
INVARIANT_DATE = b"D:20000101"
"""What reportlab writes for a date where its bytes shall not vary."""

BODY = ParagraphStyle("body", fontName=REGULAR, fontSize=9.5, leading=13.6, spaceAfter=6)
CELL = ParagraphStyle("cell", fontName=REGULAR, fontSize=8.5, leading=11)
CELL_HEAD = ParagraphStyle("cell-head", parent=CELL, fontName=BOLD)
HEADINGS = {
    "h1": ParagraphStyle("h1", fontName=BOLD, fontSize=18, leading=23, spaceAfter=10),
    "h2": ParagraphStyle("h2", fontName=BOLD, fontSize=12.5, leading=16, spaceBefore=10, spaceAfter=5, keepWithNext=1),
    "h3": ParagraphStyle("h3", fontName=BOLD, fontSize=10, leading=13, spaceBefore=6, spaceAfter=3, keepWithNext=1),
}


def read_source(path: Path) -> tuple[dict[str, str], str]:
    """The head and the Markdown of a source."""
    _, head, body = path.read_text(encoding="utf-8").split("---\n", 2)
    pairs = (line.split(":", 1) for line in head.splitlines() if line.strip())
    return {key.strip(): value.strip() for key, value in pairs}, body


def inline(node: SyntaxTreeNode) -> str:
    """A node's text in reportlab's own small markup."""
    if node.type in {"text", "code_inline"}:
        return escape(node.content, quote=False)
    if node.type in {"softbreak", "hardbreak"}:
        return " "
    text = "".join(inline(child) for child in node.children)
    return f'<font name="{BOLD}">{text}</font>' if node.type == "strong" else text


def table(node: SyntaxTreeNode, width: float) -> Table:
    """A table whose columns share the width by their longest cell."""
    rows: list[list[Paragraph]] = []
    longest: list[int] = []
    for row in (row for part in node.children for row in part.children):
        texts = [inline(cell) for cell in row.children]
        longest = [max(pair) for pair in zip(longest or [0] * len(texts), map(len, texts), strict=True)]
        style = CELL if rows else CELL_HEAD
        rows.append([Paragraph(text, style) for text in texts])
    shares = [min(max(length, 13), 40) for length in longest]
    made = Table(rows, colWidths=[width * share / sum(shares) for share in shares], repeatRows=1, spaceAfter=8)
    made.setStyle(
        TableStyle(
            [
                ("GRID", (0, 0), (-1, -1), 0.4, colors.HexColor("#9aa5b1")),
                ("BACKGROUND", (0, 0), (-1, 0), colors.HexColor("#e4e9ef")),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("TOPPADDING", (0, 0), (-1, -1), 2.5),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 3.5),
            ]
        )
    )
    return made


def flow(body: str, width: float) -> list[Flowable]:
    """The Markdown as the things that reportlab lays out."""
    out: list[Flowable] = []
    for node in SyntaxTreeNode(MarkdownIt("commonmark").enable("table").parse(body)).children:
        if node.type == "heading":
            out.append(Paragraph(inline(node), HEADINGS[node.tag]))
        elif node.type == "paragraph":
            out.append(Paragraph(inline(node), BODY))
        elif node.type == "table":
            out.append(table(node, width))
        elif node.type in {"bullet_list", "ordered_list"}:
            kind = "bullet" if node.type == "bullet_list" else "1"
            items = [ListItem(Paragraph(inline(item), BODY), leftIndent=16) for item in node.children]
            out.append(ListFlowable(items, bulletType=kind, bulletFontName=REGULAR, bulletFontSize=9, leftIndent=16))
            out.append(Spacer(1, 4))
        else:
            raise SystemExit(f"make_pdfs: no layout for {node.type!r}")
    return out


def build(source: Path, target: Path, pages: int) -> int:
    """Writes one PDF whose footers say ``of PAGES``, and returns how many pages it really has."""
    head, body = read_source(source)
    width = A4[0] - 2 * MARGIN
    last = 0

    def furniture(canvas: Canvas, _: BaseDocTemplate) -> None:
        nonlocal last
        last = canvas.getPageNumber()
        canvas.setTitle(head["title"])
        canvas.setAuthor(head["author"])
        canvas.setSubject(head["subject"])
        canvas.setFont(REGULAR, 7.5)
        canvas.setFillColor(colors.HexColor("#52606d"))
        canvas.drawString(MARGIN, A4[1] - 14 * mm, head["header"])
        canvas.drawString(MARGIN, 12 * mm, head["footer"])
        canvas.drawRightString(A4[0] - MARGIN, 12 * mm, head["page"].format(page=last, pages=pages))
        canvas.setStrokeColor(colors.HexColor("#9aa5b1"))
        canvas.line(MARGIN, A4[1] - 16 * mm, A4[0] - MARGIN, A4[1] - 16 * mm)

    document = BaseDocTemplate(str(target), pagesize=A4, invariant=1, lang=head["language"])
    frame = Frame(MARGIN, 20 * mm, width, A4[1] - 40 * mm, leftPadding=0, rightPadding=0)
    document.addPageTemplates(PageTemplate(frames=[frame], onPage=furniture))
    document.build(flow(body, width))
    dated = target.read_bytes().replace(INVARIANT_DATE, b"D:" + head["date"].replace("-", "").encode())
    target.write_bytes(dated)
    return last


def main() -> int:
    for name in (REGULAR, BOLD):
        pdfmetrics.registerFont(TTFont(name, f"{name}.ttf"))
    for source in sorted((HERE / "pdf_sources").glob("*.md")):
        target = HERE / "handbook" / f"{source.stem}.pdf"
        pages = build(source, target, 0)
        build(source, target, pages)
        print(f"{target.name}: {pages} pages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
