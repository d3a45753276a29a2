"""Excel and PowerPoint: what a person sees of the file is what the document holds."""

from __future__ import annotations

import datetime
import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import openpyxl
import pytest
import xlsxwriter
from hypothesis import given, settings
from hypothesis import strategies as st
from pptx import Presentation
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.opc.package import Part
from pptx.opc.packuri import PackURI
from pptx.oxml import parse_xml
from pptx.util import Inches

from retriever.load import load, pptx, xlsx
from retriever.load.normal import Extract, Unreadable, normalise
from retriever.load.shown import shown

OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def packed(members: Mapping[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def unpacked(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def workbook(fill: Callable[[Any], None]) -> bytes:
    book = openpyxl.Workbook()
    fill(book)
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def slides(fill: Callable[[Any], None]) -> bytes:
    deck = Presentation()
    fill(deck)
    buffer = io.BytesIO()
    deck.save(buffer)
    return buffer.getvalue()


def places(extract: Extract) -> list[tuple[int, str]]:
    """Return level and text of the headings, having checked that each is where it says."""
    assert all(extract.text[heading.start : heading.end] == heading.text for heading in extract.headings)
    assert list(extract.pages) == sorted(extract.pages)
    assert normalise(extract.text) == extract.text
    return [(heading.level, heading.text) for heading in extract.headings]


# Excel


def test_a_workbook_is_read_as_it_is_shown() -> None:
    def fill(book: Any) -> None:
        sheet = book.active
        sheet.title = "Preise"
        sheet.append(["Preisliste für den Fachhandel"])
        sheet.append([])
        sheet.append(["Artikel", "Einkauf", "Preis", "Rabatt", "Gültig ab", "PLZ", "Lager", "Formel"])
        for number in range(3):
            sheet.append([f"WB-2041{number}", "geheim", 1234.5, 0.19, datetime.date(2024, 5, 3), 1067, True, "=1+1"])
            for column, code in ((3, '#,##0.00 "€"'), (4, "0%"), (6, "00000")):
                sheet.cell(sheet.max_row, column).number_format = code
        sheet["A6"] = "#REF!"
        sheet.row_dimensions[5].hidden = True
        sheet.column_dimensions["B"].hidden = True
        book.create_sheet("Leer")
        hidden = book.create_sheet("Intern")
        hidden["A1"] = "verborgen"
        hidden.sheet_state = "hidden"
        merged = book.create_sheet("Hinweise")
        merged["A1"] = "Alle Preise gelten zuzüglich Umsatzsteuer."
        merged.merge_cells("A1:D3")

    extract = xlsx.read(workbook(fill))
    row = "Preis: 1.234,50 € | Rabatt: 19% | Gültig ab: 2024-05-03 | PLZ: 01067 | Lager: WAHR"
    assert extract.text == (
        f"Preise\n\nPreisliste für den Fachhandel\nArtikel: WB-20410 | {row}\nArtikel: #REF! | {row}\n\n"
        "Hinweise\n\nAlle Preise gelten zuzüglich Umsatzsteuer."
    )
    assert places(extract) == [(1, "Preise"), (1, "Hinweise")]
    assert extract.pages == (0, extract.text.index("Hinweise"))


def test_numbers_of_an_english_workbook_have_points() -> None:
    def fill(book: Any) -> None:
        book.active.append(["Description of the article", "Net price in euro"])
        book.active.append(["Hammer for the workshop, with a wooden handle", 0.1 + 0.2])

    assert "Net price in euro: 0.3" in xlsx.read(workbook(fill)).text


def test_a_long_sheet_has_pages_of_200_rows() -> None:
    def fill(book: Any) -> None:
        book.active.append(["Nummer", "Ort", "Wert"])
        for number in range(401):
            book.active.append([f"N-{number}", "Lippstadt", number])

    extract = xlsx.read(workbook(fill))
    starts = [extract.text[start:].partition("\n")[0] for start in extract.pages]
    assert starts == ["Sheet", "Nummer: N-200 | Ort: Lippstadt | Wert: 200", "Nummer: N-400 | Ort: Lippstadt | Wert: 400"]


def test_an_empty_row_parts_two_tables() -> None:
    def fill(book: Any) -> None:
        for row in (["Ort", "Tage", "Satz"], ["Köln", 3, 14], [], ["Stufe", "Urlaub", "Jahr"], ["A", 25, 2024]):
            book.active.append(row)

    lines = xlsx.read(workbook(fill)).text.split("\n")
    assert lines[2:] == ["Ort: Köln | Tage: 3 | Satz: 14", "Stufe: A | Urlaub: 25 | Jahr: 2024"]


def test_a_sheet_that_claims_the_whole_grid_is_read_by_its_cells() -> None:
    data = workbook(lambda book: book.active.append(["Ein Wert"]))
    members = unpacked(data)
    sheet = members["xl/worksheets/sheet1.xml"].replace(b'<dimension ref="A1:A1"', b'<dimension ref="A1:XFD1048576"')
    assert b"XFD" in sheet
    assert xlsx.read(packed({**members, "xl/worksheets/sheet1.xml": sheet})).text == "Sheet\n\nEin Wert"


def test_formatted_rows_below_the_last_value_are_not_read() -> None:
    members = unpacked(workbook(lambda book: book.active.append(["Ein Wert"])))
    empty = b"".join(b'<row r="%d"><c r="A%d" s="0"/></row>' % (number, number) for number in (2, 3, 1_048_576))
    sheet = members["xl/worksheets/sheet1.xml"].replace(b"</sheetData>", empty + b"</sheetData>")
    assert xlsx.read(packed({**members, "xl/worksheets/sheet1.xml": sheet})).text == "Sheet\n\nEin Wert"


def test_a_row_below_the_last_that_excel_has_is_refused() -> None:
    def numbered(number: int) -> bytes:
        row = b'<row r="%d"><c t="inlineStr"><is><t>unten</t></is></c></row></sheetData>' % number
        return packed({**members, "xl/worksheets/sheet1.xml": sheet.replace(b"</sheetData>", row)})

    members = unpacked(workbook(lambda book: book.active.append(["Ein Wert"])))
    sheet = members["xl/worksheets/sheet1.xml"]
    assert xlsx.read(numbered(1_048_576)).text == "Sheet\n\nEin Wert\nunten"
    with pytest.raises(Unreadable, match="a row 1,000,000,000") as caught:
        xlsx.read(numbered(10**9))
    assert caught.value.way_out


def test_a_strict_workbook_is_refused_instead_of_being_empty() -> None:
    members = unpacked(workbook(lambda book: book.active.append(["x"])))
    for name in ("xl/workbook.xml", "xl/worksheets/sheet1.xml"):
        members[name] = members[name].replace(b"http://schemas.openxmlformats.org", b"http://purl.oclc.org/ooxml")
    with pytest.raises(Unreadable, match="Strict"):
        xlsx.read(packed(members))


def test_an_empty_workbook_holds_no_text() -> None:
    assert xlsx.read(workbook(lambda book: None)).text == ""


@pytest.mark.parametrize(
    ("value", "number_format", "language", "expected"),
    [
        (1234567.891, "#,##0.00", "en", "1,234,567.89"),
        (-1234.5, '#,##0.00\\ "€";[Red]-#,##0.00\\ "€"', "de", "-1.234,50 €"),
        (-5.0, "#,##0_);(#,##0)", "en", "(5)"),
        (12.5, "#,##0.00 [$€-407]", "de", "12,50 €"),
        (0, '_("$"* #,##0_);_("$"* \\(#,##0\\);_("$"* "-"_);_(@_)', "en", "$-"),
        (2.5, "0", "en", "3"),
        (0.125, "0.0##%", "en", "12.5%"),
        (-0.001, "0.00", "en", "0.00"),
        (12_000_000, '0.0,,"M"', "en", "12.0M"),
        (4006381333931, "0", "de", "4006381333931"),
        (4006381333931.0002, "0", "de", "4006381333931"),
        (12345678901.23, "#,##0.00", "en", "12,345,678,901.23"),
        (999_999_999_999_999.9, "#,##0", "en", "1,000,000,000,000,000"),
        (0.1 + 0.2, "0.0###############", "en", "0.3"),
        (1 / 3, "General", "en", "0.333333333333"),
        (0.5, "# ?/?", "en", "0.5"),
        (1e300, "0.00", "en", "1e+300"),
        (5, '[>=1000]0.0," k";0', "en", "5"),
        (7, 'General" kg"', "de", "7 kg"),
        (True, "General", "en", "TRUE"),
        (datetime.datetime(2024, 5, 3, 8, 29, 59, 999_999), "d.m.yy h:mm", "de", "2024-05-03 08:30"),
        (datetime.time(8, 30), "h:mm", "de", "08:30"),
        (datetime.timedelta(hours=36, minutes=5), "[h]:mm", "de", "36:05"),
        (None, "0", "de", ""),
    ],
)
def test_values_are_written_as_cells_show_them(value: object, number_format: str, language: str, expected: str) -> None:
    assert shown(value, number_format, language) == expected


@given(st.integers() | st.floats(), st.text(alphabet='#0?,.;%"\\[]_*€-/E@ $', max_size=30) | st.text(max_size=300))
@settings(deadline=None)
def test_no_number_format_is_too_much(value: float, number_format: str) -> None:
    assert isinstance(shown(value, number_format, "de"), str)


@given(st.integers(-(10**15) + 1, 10**15 - 1), st.integers(0, 4))
@settings(deadline=None)
def test_a_number_is_shown_with_its_value(cents: int, decimals: int) -> None:
    text = shown(cents / 100, "#,##0." + "0" * (decimals + 2), "de")
    assert float(text.replace(".", "").replace(",", ".")) == cents / 100


def test_control_characters_in_a_cell_are_not_kept() -> None:
    buffer = io.BytesIO()
    with xlsxwriter.Workbook(buffer) as book:
        book.add_worksheet("Seite").write_string("A1", "vorher\0\x07\r\n\u200bnachher")
    assert b"_x0000_" in unpacked(buffer.getvalue())["xl/sharedStrings.xml"]
    assert xlsx.read(buffer.getvalue()).text == "Seite\n\nvorher nachher"


def test_a_sheet_nested_deeply_is_refused() -> None:
    members = unpacked(workbook(lambda book: book.active.append(["x"])))
    deep = b"<a>" * 50_000 + b"</a>" * 50_000
    sheet = members["xl/worksheets/sheet1.xml"].replace(b"</sheetData>", b"</sheetData>" + deep)
    with pytest.raises(Unreadable):
        xlsx.read(packed({**members, "xl/worksheets/sheet1.xml": sheet}))


# PowerPoint


def test_slides_are_read_in_reading_order_with_their_notes() -> None:
    def fill(deck: Any) -> None:
        slide = deck.slides.add_slide(deck.slide_layouts[5])
        slide.shapes.title.text = "Reisekosten\vim Überblick"
        for left, top, text in ((5, 2.05, "rechts"), (1, 4, "unten"), (1, 2.1, "links")):
            slide.shapes.add_textbox(Inches(left), Inches(top), Inches(2), Inches(1)).text_frame.text = text
        group = slide.shapes.add_group_shape()
        group.shapes.add_textbox(Inches(1), Inches(5), Inches(2), Inches(1)).text_frame.text = "in der Gruppe"
        slide.notes_slide.notes_text_frame.text = "Erst nach der Pause zeigen."
        deck.slides.add_slide(deck.slide_layouts[6])
        secret = deck.slides.add_slide(deck.slide_layouts[5])
        secret.shapes.title.text = "Verborgen"
        secret.element.set("show", "0")
        figures = deck.slides.add_slide(deck.slide_layouts[5])
        figures.shapes.title.text = "Zahlen der letzten beiden Jahre"
        chart = CategoryChartData(number_format="0.0%")
        chart.categories = ["2022", "2023"]
        chart.add_series("Umsatz", (0.125, 0.5))
        chart.add_series("Kosten", (0.25, None))
        figures.shapes.add_chart(XL_CHART_TYPE.LINE, Inches(1), Inches(4), Inches(3), Inches(3), chart)
        table = figures.shapes.add_table(2, 3, Inches(1), Inches(2), Inches(3), Inches(1)).table
        for cell, text in zip(table.iter_cells(), ["Stufe", "Tage", "Ort", "A", "25", "Köln"], strict=True):
            cell.text = text

    extract = pptx.read(slides(fill))
    first = "Reisekosten im Überblick\n\nlinks\n\nrechts\n\nunten\n\nin der Gruppe\n\nErst nach der Pause zeigen."
    assert extract.text == (
        f"{first}\n\nZahlen der letzten beiden Jahre\n\nStufe: A | Tage: 25 | Ort: Köln\n\n"
        "2022 | Umsatz: 12,5% | Kosten: 25,0%\n2023 | Umsatz: 50,0%"
    )
    assert places(extract) == [(1, "Reisekosten im Überblick"), (1, "Zahlen der letzten beiden Jahre")]
    assert extract.pages == (0, len(first) + 2, len(first) + 2)


def test_a_box_that_shares_its_number_with_the_title_is_read() -> None:
    """As some programs that are not PowerPoint write them."""

    def fill(deck: Any) -> None:
        slide = deck.slides.add_slide(deck.slide_layouts[5])
        slide.shapes.title.text = "Fristen"
        box = slide.shapes.add_textbox(Inches(1), Inches(3), Inches(2), Inches(1))
        box.text_frame.text = "Sechs Wochen"
        box.element.nvSpPr.cNvPr.set("id", str(slide.shapes.title.shape_id))

    assert pptx.read(slides(fill)).text == "Fristen\n\nSechs Wochen"


def test_the_words_of_a_smartart_graphic_are_read() -> None:
    drawing = "http://schemas.openxmlformats.org/drawingml/2006"

    def fill(deck: Any) -> None:
        slide = deck.slides.add_slide(deck.slide_layouts[6])
        words = f'<d xmlns:a="{drawing}/main"><a:p><a:r><a:t>Antrag </a:t></a:r><a:r><a:t>stellen</a:t></a:r></a:p><a:p/></d>'
        part = Part(PackURI("/ppt/diagrams/data1.xml"), "application/xml", slide.part.package, words.encode())
        relation = slide.part.relate_to(part, f"{OFFICE}/diagramData")
        frame = slide.shapes.add_table(1, 1, 0, 0, 1, 1)._element
        data = frame.find(f".//{{{drawing}/main}}graphicData")
        data.set("uri", f"{drawing}/diagram")
        data[:] = [parse_xml(f'<g:relIds xmlns:g="{drawing}/diagram" xmlns:r="{OFFICE}" r:dm="{relation}"/>')]

    assert pptx.read(slides(fill)).text == "Antrag stellen"


def test_slides_without_text_hold_none() -> None:
    assert pptx.read(slides(lambda deck: deck.slides.add_slide(deck.slide_layouts[6]))).text == ""


@pytest.mark.parametrize(("suffix", "kind"), [("xlsx", "xlsx"), ("XLSM", "xlsx"), ("pptx", "pptx"), ("pptm", "pptx")])
def test_the_names_of_sheets_and_slides_say_what_reads_them(tmp_path: Path, suffix: str, kind: str) -> None:
    def write(deck: Any) -> None:
        deck.slides.add_slide(deck.slide_layouts[5]).shapes.title.text = "Text"

    path = tmp_path / f"a.{suffix}"
    path.write_bytes(workbook(lambda book: book.active.append(["Text"])) if kind == "xlsx" else slides(write))
    document = load(path, max_bytes=10_000_000)
    assert (document.text.split()[-1], document.metadata["kind"]) == ("Text", kind)
