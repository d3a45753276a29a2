"""PDF: flowing text, rows, headings, pages; small files are made here, so that each rule is seen at work."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retriever.load.normal import normalise
from retriever.load.pdf import BrokenPdf, EncryptedPdf, read

# One empty page, RC4, user password "geheim".
ENCRYPTED = base64.b64decode(
    "JVBERi0xLjMKJeLjz9MKMSAwIG9iago8PAovUHJvZHVjZXIgPDQzZWUyMmQ3ZTU+Cj4+CmVuZG9iagoyIDAgb2JqCjw8Ci9UeXBlIC9QYWdlcw"
    "ovQ291bnQgMQovS2lkcyBbIDQgMCBSIF0KPj4KZW5kb2JqCjMgMCBvYmoKPDwKL1R5cGUgL0NhdGFsb2cKL1BhZ2VzIDIgMCBSCj4+CmVuZG9i"
    "ago0IDAgb2JqCjw8Ci9UeXBlIC9QYWdlCi9SZXNvdXJjZXMgPDwKPj4KL01lZGlhQm94IFsgMC4wIDAuMCA3MiA3MiBdCi9QYXJlbnQgMiAwIF"
    "IKPj4KZW5kb2JqCjUgMCBvYmoKPDwKL1YgMgovUiAzCi9MZW5ndGggMTI4Ci9QIDQyOTQ5NjcyOTIKL0ZpbHRlciAvU3RhbmRhcmQKL08gPGE5"
    "M2VlZjA5YTAzOGFlZjFmOWYyZTRjODkwMTBlMWIwZmE2YjI1N2E2ZjE4ZDdmOWQ0NDE0Y2QxYjJjYWJmMzQ+Ci9VIDxkM2RjM2JmYzdjM2FiMz"
    "M2ZGZjY2U4ZTg2MmQ3OGFmMDI4YmY0ZTVlNGU3NThhNDE2NDAwNGU1NmZmZmEwMTA4Pgo+PgplbmRvYmoKeHJlZgowIDYKMDAwMDAwMDAwMCA2"
    "NTUzNSBmIAowMDAwMDAwMDE1IDAwMDAwIG4gCjAwMDAwMDAwNTkgMDAwMDAgbiAKMDAwMDAwMDExOCAwMDAwMCBuIAowMDAwMDAwMTY3IDAwMD"
    "AwIG4gCjAwMDAwMDAyNTkgMDAwMDAgbiAKdHJhaWxlcgo8PAovU2l6ZSA2Ci9Sb290IDMgMCBSCi9JbmZvIDEgMCBSCi9JRCBbIDwwZTU5NDNl"
    "YmNiZjdkNzMzODRlMjU3YjM1YjQyMDgzMz4gPDBlNTk0M2ViY2JmN2Q3MzM4NGUyNTdiMzViNDIwODMzPiBdCi9FbmNyeXB0IDUgMCBSCj4+Cn"
    "N0YXJ0eHJlZgo0NzQKJSVFT0YK"
)

Placed = tuple[float, float, str, str, float]  # x, y, text, font, size
BODY, BOLD = "F1", "F2"


def make_pdf(pages: Sequence[Sequence[Placed]], title: str = "") -> bytes:
    """Write a PDF by hand: text in Helvetica, Windows-1252, no compression."""
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b""]
    font = b"<</Type/Font/Subtype/Type1/BaseFont/%s/Encoding/WinAnsiEncoding>>"
    objects += [font % b"Helvetica", font % b"Helvetica-Bold"]
    objects.append(b"<</Title(" + title.encode("cp1252") + b")>>")
    kids = []
    for page in pages:
        stream = b""
        for x, y, text, name, size in page:
            shown = text.encode("cp1252").replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)")
            stream += f"BT /{name} {size} Tf {x} {y} Td (".encode() + shown + b") Tj ET\n"
        objects.append(b"<</Length %d>>stream\n" % len(stream) + stream + b"endstream")
        kids.append(len(objects) + 1)
        objects.append(
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Resources<</Font<</F1 3 0 R/F2 4 0 R>>>>"
            b"/Contents %d 0 R>>" % len(objects)
        )
    objects[1] = b"<</Type/Pages/Count %d/Kids[" % len(kids) + b" ".join(b"%d 0 R" % kid for kid in kids) + b"]>>"
    data, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(data))
        data += b"%d 0 obj" % number + body + b"endobj\n"
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    return (
        data
        + head
        + table
        + b"trailer<</Root 1 0 R/Info 5 0 R/Size %d>>\nstartxref\n%d\n%%%%EOF"
        % (
            len(objects) + 1,
            len(data),
        )
    )


def body(top: float, *lines: str, x: float = 60) -> list[Placed]:
    return [(x, top - 12 * index, line, BODY, 10) for index, line in enumerate(lines)]


LONG = "Dieser Satz ist lang genug, um eine ganze Zeile bis an ihren rechten Rand zu füllen, was er"


def test_lines_become_sentences_and_hyphens_go() -> None:
    page = body(700, LONG + " mit Bäumen", LONG + " mit der Ver-", "sicherung tut.") + body(650, "Noch ein Absatz.")
    assert read(make_pdf([page])).text == f"{LONG} mit Bäumen {LONG} mit der Versicherung tut.\n\nNoch ein Absatz."


def test_rows_stay_rows() -> None:
    rows: list[Placed] = []
    for index, cells in enumerate([("Stufe", "Tage", "Zuschlag"), ("Anfänger", "25", "1.250,00"), ("Profi", "30", "(48)")]):
        rows += [(60 + 150 * column, 600 - 14 * index, cell, BODY, 10) for column, cell in enumerate(cells)]
    text = read(make_pdf([body(700, LONG, LONG + " tut.") + rows])).text
    assert text == f"{LONG} {LONG} tut.\n\nStufe Tage Zuschlag\nAnfänger 25 1.250,00\nProfi 30 (48)"


def test_headings_have_levels_and_exact_offsets() -> None:
    page = [
        (60.0, 780.0, "Handbuch", BOLD, 20.0),
        (60.0, 740.0, "Über Urlaub", BOLD, 10.0),
        *body(715, LONG, LONG + " tut."),
        (60.0, 670.0, "Über Reisen", BOLD, 10.0),
        *body(645, LONG, LONG + " tut."),
    ]
    extract = read(make_pdf([page]))
    assert [(h.level, h.text) for h in extract.headings] == [(1, "Handbuch"), (2, "Über Urlaub"), (2, "Über Reisen")]
    assert all(extract.text[h.start : h.end] == h.text for h in extract.headings)
    assert extract.title == "Handbuch"


def test_running_heads_go_and_sentences_cross_pages() -> None:
    pages = [
        [
            (60.0, 810.0, "Muster GmbH", BODY, 8.0),
            *body(740, f"Nummer {number}: {LONG}", LONG + " und", *(["geht weiter."] if number == 3 else [])),
            (500.0, 20.0, f"Seite {number} von 3", BODY, 8.0),
        ]
        for number in (1, 2, 3)
    ]
    pages[1] = [*pages[1][:1], *body(740, "auf der nächsten Seite endet er. " + LONG, LONG + " und"), *pages[1][-1:]]
    pages[2] = [*pages[2][:1], *body(740, "geht weiter."), *pages[2][-1:]]
    extract = read(make_pdf(pages))
    first = f"Nummer 1: {LONG} {LONG} und "
    second = f"auf der nächsten Seite endet er. {LONG} {LONG} und "
    assert extract.text == first + second + "geht weiter."
    assert extract.pages == (0, len(first), len(first + second))


def test_list_items_stand_on_their_own() -> None:
    page = body(700, LONG, LONG + ":") + body(670, "• erster Punkt", "• zweiter Punkt")
    assert read(make_pdf([page])).text.endswith(":\n\n- erster Punkt\n- zweiter Punkt")


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Reisekosten 2024", "Reisekosten 2024"),
        ("Microsoft Word - Entwurf", "Ein Satz."),
        ("rk_2024.docx", "Ein Satz."),
    ],
)
def test_the_title_is_the_files_own_where_a_person_wrote_it(title: str, expected: str) -> None:
    assert read(make_pdf([body(700, "Ein Satz.")], title)).title == expected


def test_pages_without_text_keep_their_number() -> None:
    extract = read(make_pdf([[], body(700, "Zweite Seite."), []]))
    assert extract.text == "Zweite Seite."
    assert extract.pages == (0, 0, 13)


def test_a_locked_file_is_told_from_a_broken_one() -> None:
    with pytest.raises(EncryptedPdf):
        read(ENCRYPTED)
    with pytest.raises(BrokenPdf):
        read(b"%PDF-1.4\nnothing that a PDF holds")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_file_is_read_or_refused(data: st.DataObject) -> None:
    whole = make_pdf([body(700, LONG, LONG)])
    start = data.draw(st.integers(0, len(whole)))
    damaged = whole[:start] + data.draw(st.binary(max_size=20)) + whole[start + data.draw(st.integers(0, 40)) :]
    try:
        extract = read(damaged)
    except (BrokenPdf, EncryptedPdf):
        return
    assert normalise(extract.text) == extract.text
