"""Where on a page a text stands: read back from the page by PDFium, every box holds just the letters that it marks."""

from __future__ import annotations

import ctypes
import io
import math
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pypdfium2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pypdfium2 import raw

from retriever.load import load
from retriever.load.pdf import read
from retriever.places import Box, locate, places
from retriever.sentences import sentences


def is_printed(path: Path) -> bool:
    """Tell a file with text from a scan."""
    with closing(pypdfium2.PdfDocument(path)) as pdf, closing(pdf[0]) as page, closing(page.get_textpage()) as text_page:
        return text_page.count_chars() > 0


HANDBOOK = sorted(filter(is_printed, (Path(__file__).parents[2] / "examples" / "handbook").glob("*.pdf")))
Placed = tuple[float, float, str, float]  # x, y, text, degrees


def make_pdf(*pages: Sequence[Placed]) -> bytes:
    with closing(pypdfium2.PdfDocument.new()) as document:
        for placed in pages:
            with closing(document.new_page(400, 300)) as page:
                for x, y, text, degrees in placed:
                    item = raw.FPDFPageObj_NewTextObj(document, b"Helvetica", 10.0)
                    utf16 = (text + "\0").encode("utf-16-le")
                    raw.FPDFText_SetText(item, ctypes.cast(ctypes.create_string_buffer(utf16), raw.FPDF_WIDESTRING))
                    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
                    raw.FPDFPageObj_Transform(item, cos, sin, -sin, cos, x, y)
                    raw.FPDFPage_InsertObject(page, item)
                page.gen_content()
        file = io.BytesIO()
        document.save(file)
    return file.getvalue()


def letters(text: str) -> str:
    return "".join(letter for letter in unicodedata.normalize("NFKD", text) if letter.isalnum())


def read_back(text_page: Any, boxes: Sequence[Box]) -> str:
    # A little smaller: PDFium gives every letter that a rectangle touches, and lines touch their neighbours.
    found = []
    for left, bottom, right, top in boxes:
        x, y = min(0.4, 0.2 * (right - left)), min(0.3 * (top - bottom), 0.3 * (right - left))
        found.append(text_page.get_text_bounded(left + x, bottom + y, right - x, top - y))
    return letters("".join(found))


def marked(data: bytes, quote: str, *, page: int = 1) -> tuple[str, list[Box]]:
    """Return what stands in the boxes of `quote` on a page of a file, as it was loaded, and the boxes."""
    extract = read(data)
    first, last = [*extract.pages, len(extract.text)][page - 1 : page + 1]
    text = extract.text[first:last]
    start = text.index(quote)
    with (
        closing(pypdfium2.PdfDocument(data)) as pdf,
        closing(pdf[page - 1]) as opened,
        closing(opened.get_textpage()) as on_page,
    ):
        boxes = places(on_page, text, start, start + len(quote))
        return read_back(on_page, boxes), boxes


@pytest.mark.parametrize("path", HANDBOOK, ids=lambda path: path.stem)
def test_every_sentence_of_a_document_is_found_where_it_is_printed(path: Path) -> None:
    document = load(path, max_bytes=1 << 24)
    bounds = [*document.pages, len(document.text)]
    checked = 0
    with closing(pypdfium2.PdfDocument(path)) as pdf:
        for number in range(len(pdf)):
            text = document.text[bounds[number] : bounds[number + 1]]
            with closing(pdf[number]) as page, closing(page.get_textpage()) as text_page:
                lowest = math.inf
                for start, end in sentences(text, document.language):
                    boxes = places(text_page, text, start, end)
                    assert read_back(text_page, boxes) == letters(text[start:end])
                    # These pages have one column: what comes later stands lower, also where words come again.
                    assert all(box.bottom < lowest + 1 for box in boxes)
                    lowest = min([lowest, *(box.top for box in boxes)])
                    checked += bool(boxes)
    assert checked > 40


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_part_is_found_whether_or_not_it_begins_and_ends_with_a_word(data: st.DataObject) -> None:
    text, text_page = first_page()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    assert read_back(text_page, places(text_page, text, start, end)) == letters(text[start:end])


_OPEN: list[tuple[str, Any]] = []


def first_page() -> tuple[str, Any]:
    return _OPEN[0]


@pytest.fixture(autouse=True, scope="module")
def open_page() -> Iterator[None]:
    document = load(HANDBOOK[0], max_bytes=1 << 24)
    with closing(pypdfium2.PdfDocument(HANDBOOK[0])) as pdf, closing(pdf[0]) as page, closing(page.get_textpage()) as text_page:
        _OPEN.append((document.text[: document.pages[1]], text_page))
        yield
        _OPEN.clear()


def test_a_split_word_and_its_line_are_marked_line_by_line() -> None:
    lines = ["Wer lange genug im Betrieb ist, dem bezahlt die Ver-", "sicherung auch den Ausfall; ein Antrag ist nicht noetig."]
    data = make_pdf([(30, 250 - 12 * at, line, 0) for at, line in enumerate(lines)])
    back, boxes = marked(data, "bezahlt die Versicherung")
    assert back == "bezahltdieVersicherung"
    assert len(boxes) == 2
    assert boxes[0].bottom > boxes[1].bottom
    assert boxes[1].left == pytest.approx(30, abs=1)


def test_of_two_columns_only_the_one_that_holds_the_text_is_marked() -> None:
    left = [f"Links steht in Zeile {number} etwas anderes als" for number in range(8)]
    right = [f"Rechts steht in Zeile {number} etwas, was hier" for number in range(8)]
    placed = [(20, 250 - 12 * at, line, 0.0) for at, line in enumerate(left)]
    placed += [(220, 250 - 12 * at, line, 0.0) for at, line in enumerate(right)]
    back, boxes = marked(make_pdf(placed), "Rechts steht in Zeile 2 etwas, was hier Rechts steht")
    assert back == "RechtsstehtinZeile2etwaswashierRechtssteht"
    assert all(box.left > 210 for box in boxes)
    assert len(boxes) == 2


def test_the_row_that_is_meant_is_marked_though_another_reads_the_same() -> None:
    rows = ["Anna 10 20", "Summe 10 20", "Berta 10 20", "Summe 10 20"]
    placed = [
        (30 + 120 * column, 250 - 14 * at, cell, 0.0) for at, row in enumerate(rows) for column, cell in enumerate(row.split())
    ]
    data = make_pdf(placed)
    text = read(data).text
    with closing(pypdfium2.PdfDocument(data)) as pdf, closing(pdf[0]) as page, closing(page.get_textpage()) as text_page:
        (box,) = places(text_page, text, text.rindex("Summe"), len(text))
    assert box.bottom < 250 - 3 * 14 + 5
    assert box.left < 40
    assert box.right > 270


def test_text_set_upwards_is_one_line() -> None:
    back, boxes = marked(
        make_pdf([(30, 250, "Ueber der Tabelle steht dies.", 0), (60, 40, "Stundenmenge", 90)]), "Stundenmenge"
    )
    assert back == "Stundenmenge"
    (box,) = boxes
    assert box.top - box.bottom > 3 * (box.right - box.left)


def test_of_a_sentence_over_a_page_break_each_page_has_its_part() -> None:
    line = "Dieser Satz ist lang genug, um die ganze Zeile zu fuellen, und"
    data = make_pdf([(30, 250, line, 0), (30, 238, line, 0)], [(30, 250, "er endet hier. Danach kommt noch einer.", 0)])
    assert read(data).text.startswith(f"{line} {line} er endet hier.")
    assert marked(data, "er endet hier.", page=2)[0] == "erendethier"
    assert marked(data, line, page=1)[0] == letters(line)


@pytest.mark.parametrize(
    ("printed", "text", "quote", "found"),
    [
        ("Die Pru\u0308fung.", "Die Prüfung.", "Prüfung", "Pru\u0308fung"),  # an accent of its own
        ("Die Pr\u00a8ufung.", "Die Prüfung.", "Prüfung.", "Pr\u00a8ufung."),  # and one that is set before its letter
        ("Das o\ufb03zielle Blatt", "Das offizielle Blatt", "offizielle", "o\ufb03zielle"),
        ("Er zahlt „50\xa0€“.\r\nSie", 'Er zahlt „50 €“. Sie', "„50 €“.", "„50\xa0€“."),
        ("• Punkt", "- Punkt", "- Punkt", "Punkt"),
        ("a b", "a b", " ", None),
        ("a b", "a b", "", None),
        ("", "a b", "a", None),
        ("ganz anderes", "der Text", "Text", None),
        ("Lateinisch", "Κυριλλικ", "Κυριλλικ", None),
    ],
)  # fmt: skip
def test_letters_count_and_their_form_does_not(printed: str, text: str, quote: str, found: str | None) -> None:
    start = text.index(quote)
    runs = locate(printed, text, start, start + len(quote))
    assert [printed[run.start : run.stop] for run in runs] == ([] if found is None else [found])


def test_what_stands_between_the_parts_is_not_marked() -> None:
    printed = "Der erste Teil eines langen Satzes\r\nMuster GmbH · Seite 3\r\nund sein zweiter Teil, der endet."
    text = "Der erste Teil eines langen Satzes und sein zweiter Teil, der endet."
    found = [printed[run.start : run.stop] for run in locate(printed, text, 0, len(text))]
    assert found == ["Der erste Teil eines langen Satzes", "und sein zweiter Teil, der endet."]


@settings(max_examples=300, deadline=None)
@given(
    words=st.lists(st.sampled_from(["ab", "ba", "aab", "1", "über", "(b)"]), min_size=1, max_size=40),
    breaks=st.lists(st.sampled_from(["", " ", "\r\n", "\x02\r\n"]), min_size=40, max_size=40),
    head=st.sampled_from(["", "Seite 7\r\n", "x x x\r\n"]),
    data=st.data(),
)
def test_the_occurrence_that_is_meant_is_found(words: list[str], breaks: list[str], head: str, data: st.DataObject) -> None:
    text, printed, at = " ".join(words), head, []
    for word, gap in zip(words, breaks, strict=False):
        at.append(len(printed))
        printed += word + gap
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, len(words) - 1))
    start = len(" ".join(words[:first])) + bool(first)
    end = len(" ".join(words[: last + 1]))
    assert locate(printed, text, start, end) == [range(at[first], at[last] + len(words[last]))]


@settings(max_examples=200, deadline=None)
@given(printed=st.text(max_size=60), text=st.text(max_size=60), data=st.data())
def test_whatever_is_printed_a_place_on_it_or_none_is_found(printed: str, text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    runs = locate(printed, text, start, end)
    edges = [edge for run in runs for edge in (run.start, run.stop)]
    assert edges == sorted(edges)
    assert all(0 <= run.start < run.stop <= len(printed) for run in runs)


def test_on_a_scan_nothing_is_marked() -> None:
    with (
        closing(pypdfium2.PdfDocument(make_pdf([]))) as pdf,
        closing(pdf[0]) as page,
        closing(page.get_textpage()) as text_page,
    ):
        assert places(text_page, "Was eine Texterkennung las.", 0, 10) == []


def test_a_page_of_one_letter_is_given_up_soon() -> None:
    assert locate("a" * 30_000, "a" * 20_000 + "b" * 10_000, 0, 30_000) == []
