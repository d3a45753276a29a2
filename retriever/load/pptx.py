"""Read PowerPoint presentations (.pptx): a page is a slide, its title a heading, its notes stand below it.

Boxes are read from top to bottom and from left to right, tables and charts as rows. Hidden slides, pictures, and the date,
footer and number on each slide are left out.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Any

from retriever.load.archive import open_office, parse_xml, refusing
from retriever.load.language import detect
from retriever.load.normal import Extract, Writer, fill_pages, normalise, one_line
from retriever.load.properties import CORE, read_properties
from retriever.load.rows import rows_as_text
from retriever.load.shown import shown

__all__ = ["read"]

# Boxes side by side were seldom placed at the very same height: slides are about seven million units high.
_SAME_HEIGHT = 200_000
_FALSE = frozenset({"0", "false"})
_DRAWING = "{http://schemas.openxmlformats.org/drawingml/2006/"
_VALUE_FORMAT = f"{_DRAWING}chart}}val//{_DRAWING}chart}}formatCode"
_DIAGRAM = f"{_DRAWING}diagram}}relIds"
_PARAGRAPH, _RUN_TEXT = f"{_DRAWING}main}}p", f"{_DRAWING}main}}t"
_DATA_PART = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}dm"


def read(data: bytes) -> Extract:
    """Read a PowerPoint presentation.

    Raises:
        Unreadable: if it is none, needs a password, is damaged or malicious.
    """
    import pptx

    with open_office(data) as archive, refusing("PowerPoint"):
        title, metadata = read_properties(archive, CORE)
        writer = Writer()
        starts: list[int | None] = []
        slides = [slide for slide in pptx.Presentation(io.BytesIO(data)).slides if slide.element.get("show") not in _FALSE]
        language = detect(" ".join(shape.text_frame.text for slide in slides for shape in slide.shapes if shape.has_text_frame))
        for slide in slides:
            start: int | None = None
            for block, level in _blocks(slide, language):
                begin = writer.add(block, level=level)
                start = begin if start is None else start
            starts.append(start)
    return Extract(
        writer.text(), pages=fill_pages(starts, len(writer)), headings=tuple(writer.headings), title=title, metadata=metadata
    )


def _blocks(slide: Any, language: str) -> Iterator[tuple[str, int]]:
    """Yield what stands on a slide and in its notes, each with the level of the heading that it is, or 0."""
    title = slide.shapes.title
    if title is not None and (heading := one_line(title.text_frame.text)):
        yield heading, 1
    for shape in _in_reading_order(slide.shapes):
        if shape != title:
            for block in _shape(shape, language):
                yield block, 0
    notes = slide.notes_slide.notes_text_frame if slide.has_notes_slide else None
    if notes is not None and (text := normalise(notes.text)):
        yield text, 0


def _in_reading_order(shapes: Iterable[Any]) -> list[Any]:
    return sorted(shapes, key=lambda shape: ((shape.top or 0) // _SAME_HEIGHT, shape.left or 0))


def _shape(shape: Any, language: str) -> Iterator[str]:
    from pptx.enum.shapes import PP_PLACEHOLDER

    if shape.is_placeholder and shape.placeholder_format.type in {
        PP_PLACEHOLDER.DATE,
        PP_PLACEHOLDER.FOOTER,
        PP_PLACEHOLDER.SLIDE_NUMBER,
    }:
        return
    if hasattr(shape, "shapes"):
        for inner in _in_reading_order(shape.shapes):
            yield from _shape(inner, language)
        return
    if shape.has_text_frame:
        blocks = ["\n".join(filter(None, (normalise(paragraph.text) for paragraph in shape.text_frame.paragraphs)))]
    elif shape.has_table:
        blocks = ["\n".join(rows_as_text([[_cell(cell) for cell in row.cells] for row in shape.table.rows]))]
    elif shape.has_chart:
        blocks = list(_chart(shape.chart, language))
    else:
        blocks = [_diagram(shape)]
    yield from filter(None, blocks)


def _cell(cell: Any) -> str:
    return "" if cell.is_spanned else one_line(cell.text_frame.text)


def _chart(chart: Any, language: str) -> Iterator[str]:
    if chart.has_title and chart.chart_title.has_text_frame:
        yield normalise(chart.chart_title.text_frame.text)
    for plot in chart.plots:
        series = list(plot.series)
        columns = [[one_line(str(category)) for category in plot.categories]]
        for one in series:
            number_format = next((code.text for code in one._element.iterfind(_VALUE_FORMAT)), None) or "General"
            columns.append([shown(value, number_format, language) for value in one.values])
        names = ["", *(one_line(one.name) for one in series)]
        yield "\n".join(rows_as_text([names, *zip_longest(*columns, fillvalue="")], header=True))


def _diagram(shape: Any) -> str:
    """Return the words of a SmartArt graphic, which lie in a part of their own; empty for any other shape."""
    parts = (shape.part.related_part(reference.get(_DATA_PART)) for reference in shape.element.iter(_DIAGRAM))
    paragraphs = (paragraph for part in parts for paragraph in parse_xml(part.blob).iter(_PARAGRAPH))
    lines = (one_line("".join(run.text or "" for run in paragraph.iter(_RUN_TEXT))) for paragraph in paragraphs)
    return "\n".join(filter(None, lines))
