"""Makes the handbook's office files and its scan from readable sources: office_sources/NAME.KIND.md -> handbook/NAME.KIND.

Only maintainers run this, after they changed a source; the files themselves are committed. It needs packages that Beleg
itself does not depend on for this purpose, best in an environment of their own:

    python -m pip install markdown-it-py numpy odfpy openpyxl pillow pypdfium2 python-docx python-pptx reportlab
    python examples/make_office.py

The same source and the same packages make the same bytes: the date that a file carries is that of its source's head.

A source begins with a head of ``key: value`` lines between two ``---`` lines (title, author, date, language), followed by
Markdown: headings, paragraphs, lists, tables and quotations.

- ``docx``, ``odt``, ``rtf``: as it stands there.
- ``xlsx``: a heading is a sheet's name, the table below it the sheet; numbers, dates and prices become values.
- ``pptx``: a heading begins a slide, a quotation is what its speaker says.
- ``pdf``: printed, and scanned: there is no text in the file, only slightly turned and noisy images of its pages.
"""

from __future__ import annotations

import datetime
import io
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pypdfium2
from docx import Document
from make_pdfs import BOLD, HERE, MARGIN, REGULAR, flow, read_source
from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode
from odf import dc, meta, style, table, text
from odf.opendocument import OpenDocumentText
from openpyxl import Workbook
from openpyxl.styles import Font
from openpyxl.utils import get_column_letter
from PIL import Image
from pptx import Presentation
from pptx.util import Inches, Pt
from reportlab.lib.pagesizes import A4
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import BaseDocTemplate, Frame, PageTemplate

STAMPS = re.compile(rb"(<dcterms:(?:created|modified)[^>]*>)[^<]*")


@dataclass(frozen=True)
class Block:
    """A heading, paragraph, list, table or quotation; `rows` are the cells of a table and the items of a list."""

    kind: str
    text: str = ""
    level: int = 0
    rows: tuple[tuple[str, ...], ...] = ()


def plain(node: SyntaxTreeNode) -> str:
    """A node's text without any markup."""
    return " ".join(part.content.replace("\n", " ") for part in node.walk() if part.type == "inline")


def blocks(body: str) -> Iterator[Block]:
    """The Markdown as blocks."""
    for node in SyntaxTreeNode(MarkdownIt("commonmark").enable("table").parse(body)).children:
        if node.type == "heading":
            yield Block("heading", plain(node), level=int(node.tag[1]))
        elif node.type == "table":
            rows = (row for part in node.children for row in part.children)
            yield Block("table", rows=tuple(tuple(plain(cell) for cell in row.children) for row in rows))
        elif node.type in {"bullet_list", "ordered_list"}:
            yield Block(node.type, rows=tuple((plain(item),) for item in node.children))
        elif node.type in {"paragraph", "blockquote"}:
            yield Block(node.type, plain(node))
        else:
            raise SystemExit(f"make_office: no layout for {node.type!r}")


def made_on(head: dict[str, str]) -> datetime.datetime:
    return datetime.datetime.fromisoformat(head["date"]).replace(hour=9)


def docx(head: dict[str, str], body: str) -> bytes:
    document = Document()
    document.core_properties.title = head["title"]
    document.core_properties.author = head["author"]
    document.core_properties.language = head["language"]
    for block in blocks(body):
        if block.kind == "heading":
            document.add_heading(block.text, block.level)
        elif block.kind == "table":
            grid = document.add_table(len(block.rows), len(block.rows[0]), "Table Grid")
            for row, cells in zip(grid.rows, block.rows, strict=True):
                for cell, content in zip(row.cells, cells, strict=True):
                    cell.text = content
        elif block.rows:
            named = "List Bullet" if block.kind == "bullet_list" else "List Number"
            for (item,) in block.rows:
                document.add_paragraph(item, named)
        else:
            document.add_paragraph(block.text)
    return settled(document.save, head)


def odt(head: dict[str, str], body: str) -> bytes:
    document = OpenDocumentText()
    document.meta.addElement(dc.Title(text=head["title"]))
    document.meta.addElement(meta.InitialCreator(text=head["author"]))
    document.meta.addElement(dc.Creator(text=head["author"]))
    document.meta.addElement(dc.Date(text=made_on(head).isoformat()))
    for level in (1, 2, 3):
        named = style.Style(name=f"Heading {level}", family="paragraph", defaultoutlinelevel=level)
        named.addElement(style.TextProperties(fontweight="bold", fontsize=f"{20 - 3 * level}pt"))
        document.styles.addElement(named)
    for block in blocks(body):
        if block.kind == "heading":
            document.text.addElement(text.H(outlinelevel=block.level, stylename=f"Heading {block.level}", text=block.text))
        elif block.kind == "table":
            grid = table.Table(name="Tabelle")
            grid.addElement(table.TableColumn(numbercolumnsrepeated=len(block.rows[0])))
            for cells in block.rows:
                row = table.TableRow()
                for content in cells:
                    cell = table.TableCell(valuetype="string")
                    cell.addElement(text.P(text=content))
                    row.addElement(cell)
                grid.addElement(row)
            document.text.addElement(grid)
        elif block.rows:
            listed = text.List()
            for (content,) in block.rows:
                item = text.ListItem()
                item.addElement(text.P(text=content))
                listed.addElement(item)
            document.text.addElement(listed)
        else:
            document.text.addElement(text.P(text=block.text))
    return settled(document.write, head)


def rtf(head: dict[str, str], body: str) -> bytes:
    made = made_on(head)
    parts = [
        r"{\rtf1\ansi\ansicpg1252\deff0{\fonttbl{\f0\fswiss Arial;}}",
        r"{\stylesheet{\s0 Normal;}{\s1\outlinelevel0\b\fs34 heading 1;}{\s2\outlinelevel1\b\fs26 heading 2;}}",
        rf"{{\info{{\title {rtf_text(head['title'])}}}{{\author {rtf_text(head['author'])}}}",
        rf"{{\revtim\yr{made.year}\mo{made.month}\dy{made.day}\hr{made.hour}\min0}}}}\fs20",
    ]
    for block in blocks(body):
        if block.kind == "heading":
            size = (34, 26)[block.level - 1]
            parts.append(rf"{{\pard\s{block.level}\outlinelevel{block.level - 1}\b\fs{size}\sa120 {rtf_text(block.text)}\par}}")
        elif block.kind == "paragraph":
            parts.append(rf"{{\pard\sa120 {rtf_text(block.text)}\par}}")
        else:
            raise SystemExit(f"make_office: no RTF for {block.kind!r}")
    return "\n".join([*parts, "}"]).encode("ascii")


def rtf_text(written: str) -> str:
    escaped = re.sub(r"([\\{}])", r"\\\1", written)
    return "".join(letter if letter.isascii() else rf"\u{ord(letter)}?" for letter in escaped)


def xlsx(head: dict[str, str], body: str) -> bytes:
    book = Workbook()
    book.remove(book.active)
    book.properties.title, book.properties.creator = head["title"], head["author"]
    for block in blocks(body):
        if block.kind == "heading":
            sheet = book.create_sheet(block.text)
            continue
        for row, cells in enumerate(block.rows, 1):
            for column, content in enumerate(cells, 1):
                cell = sheet.cell(row, column)
                cell.value, cell.number_format = value(content)
                cell.font = Font(bold=row == 1)
        for column, cells in enumerate(zip(*block.rows, strict=True), 1):
            sheet.column_dimensions[get_column_letter(column)].width = max(map(len, cells)) + 2
        sheet.freeze_panes = "A2"
    return settled(book.save, head)


def value(content: str) -> tuple[str | int | float | datetime.date, str]:
    """A cell's value and the format that shows it as it is written in the source."""
    if re.fullmatch(r"\d{4}-\d\d-\d\d", content):
        return datetime.date.fromisoformat(content), "yyyy-mm-dd"
    if re.fullmatch(r"£\d+\.\d\d", content):
        return float(content[1:]), '"£"0.00'
    return (int(content), "0") if content.isdecimal() else (content, "General")


def pptx(head: dict[str, str], body: str) -> bytes:
    deck = Presentation()
    deck.core_properties.title, deck.core_properties.author = head["title"], head["author"]
    for block in blocks(body):
        if block.kind == "heading":
            slide = deck.slides.add_slide(deck.slide_layouts[0 if block.level == 1 else 1])
            slide.shapes.title.text = block.text
        elif block.kind == "blockquote":
            slide.notes_slide.notes_text_frame.text = block.text
        elif block.kind == "table":
            slide.placeholders[1].element.getparent().remove(slide.placeholders[1].element)
            place = (Inches(0.8), Inches(2), Inches(8.4), Inches(2.4))
            grid = slide.shapes.add_table(len(block.rows), len(block.rows[0]), *place).table
            for row, cells in zip(grid.rows, block.rows, strict=True):
                for cell, content in zip(row.cells, cells, strict=True):
                    cell.text = content
        else:
            frame = slide.placeholders[1].text_frame
            frame.text = "\n".join(item for (item,) in block.rows) if block.rows else block.text
            for paragraph in frame.paragraphs:
                paragraph.font.size = Pt(22)
    return settled(deck.save, head)


def pdf(head: dict[str, str], body: str) -> bytes:
    printed, scanned = io.BytesIO(), io.BytesIO()
    width = A4[0] - 2 * MARGIN
    document = BaseDocTemplate(printed, pagesize=A4, invariant=1)
    document.addPageTemplates(PageTemplate(frames=[Frame(MARGIN, 20 * mm, width, A4[1] - 40 * mm)]))
    document.build(flow(body, width))
    random = np.random.default_rng(0)
    sheets = []
    for page in pypdfium2.PdfDocument(printed.getvalue()):
        drawn = page.render(scale=150 / 72, grayscale=True).to_pil()
        turned = np.asarray(drawn.rotate(0.6, fillcolor=255, resample=Image.Resampling.BICUBIC), dtype=float)
        noisy = turned * 0.9 + 10 + random.normal(0, 5, turned.shape)
        sheets.append(Image.fromarray(noisy.clip(0, 255).astype("uint8")))
    made = made_on(head).timetuple()
    facts = {"title": head["title"], "author": head["author"], "creationDate": made, "modDate": made}
    sheets[0].save(scanned, "PDF", save_all=True, append_images=sheets[1:], resolution=150, quality=20, **facts)
    return scanned.getvalue()


def settled(save: Callable[[io.BytesIO], object], head: dict[str, str]) -> bytes:
    """What `save` writes, with the source's date in place of the time of making."""
    made, kept = io.BytesIO(), io.BytesIO()
    save(made)
    when = made_on(head)
    with zipfile.ZipFile(made) as old, zipfile.ZipFile(kept, "w") as new:
        for entry in old.infolist():
            member = zipfile.ZipInfo(entry.filename, when.timetuple()[:6])
            member.compress_type = entry.compress_type
            content = STAMPS.sub(rb"\g<1>" + when.isoformat().encode() + b"Z", old.read(entry))
            new.writestr(member, content)
    return kept.getvalue()


WRITERS = {"docx": docx, "odt": odt, "pdf": pdf, "pptx": pptx, "rtf": rtf, "xlsx": xlsx}


def main() -> int:
    for name in (REGULAR, BOLD):
        pdfmetrics.registerFont(TTFont(name, f"{name}.ttf"))
    for source in sorted((HERE / "office_sources").glob("*.md")):
        target = HERE / "handbook" / source.stem
        target.write_bytes(WRITERS[target.suffix[1:]](*read_source(source)))
        print(f"{target.name}: {target.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
