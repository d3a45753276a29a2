"""HTML, Markdown, text and language: what a reader of the file sees is what the document holds."""

from __future__ import annotations

import codecs

import pytest

from retriever.load import html, markdown, text
from retriever.load.language import detect

PAGE = """<html><head><title>Seite &amp; mehr</title><style>p {color: red}</style></head><body>
<nav>Menü</nav><h1>Über <b>uns</b></h1>
<p>Ein <a href="https://example.org/x">Verweis</a>
   im Satz<br>und weiter.&nbsp;Ende.</p>
<script>alert(1)</script><p style="display: none">weg</p><div hidden>weg</div>
<ul><li>eins</li><li>zwei<ul><li>tief</li></ul></li></ul><ol start="3"><li>drei</li></ol>
<table><tr><th>Stufe</th><th>Tage</th></tr><tr><td>A</td><td><p>25</p></td></tr></table>
<pre>a
  b</pre></body></html>"""


def test_html_is_read_as_a_browser_shows_it() -> None:
    extract = html.render(PAGE)
    assert extract.text == (
        "Über uns\n\nEin Verweis im Satz\nund weiter. Ende.\n\n- eins\n- zwei\n- tief\n\n3. drei\n\n"
        "Stufe | Tage\nA | 25\n\na\n  b"
    )
    assert extract.title == "Seite & mehr"
    assert [(h.level, h.text, h.start, h.end) for h in extract.headings] == [(1, "Über uns", 0, 8)]


def test_a_table_that_only_places_things_is_read_as_blocks() -> None:
    source = "<table><tr><td><h2>Links</h2>Text</td><td><table><tr><td>i</td><td>j</td></tr></table></td></tr></table>"
    extract = html.render(source)
    assert extract.text == "Links\n\nText\n\ni | j"
    assert [h.text for h in extract.headings] == ["Links"]


@pytest.mark.parametrize(
    "data",
    [
        "<meta charset=iso-8859-1><p>Größe 5 €</p>".encode("cp1252"),
        '<?xml version="1.0" encoding="windows-1252"?><p>Größe 5 €</p>'.encode("cp1252"),
        "<p>Größe 5 €</p>".encode("utf-16"),
        codecs.BOM_UTF8 + "<p>Größe 5 €</p>".encode(),
        # The bytes are right and the declaration is wrong: common after a server has re-encoded a page.
        "<meta charset=iso-8859-1><p>Größe 5 €</p>".encode(),
        "<meta charset=no-such-thing><p>Größe 5 €</p>".encode("cp1252"),
    ],
)
def test_html_is_decoded_by_mark_bytes_and_declaration(data: bytes) -> None:
    assert html.read(data).text == "Größe 5 €"


def test_deeply_nested_html_is_no_trouble() -> None:
    assert html.render("<div>" * 3000 + "tief").text == "tief"


def test_markdown_is_read_without_its_marks() -> None:
    source = (
        "---\ntitle: Handbuch\ntags: [a, b]\nstand: 2024-01-02\nnested: {x: 1}\n---\n# Kopf **fett**\n\n"
        "Text mit [Verweis](https://example.org) und `code`,\nnoch im Satz.\n\n- a\n- b\n\n"
        "| A | B |\n|---|---|\n| 1 | 2 |\n"
    )
    extract = markdown.read(source.encode())
    assert extract.text == "Kopf fett\n\nText mit Verweis und code, noch im Satz.\n\n- a\n- b\n\nA | B\n1 | 2"
    assert extract.title == "Handbuch"
    assert extract.metadata == {"tags": "a, b", "stand": "2024-01-02"}
    assert [(h.level, h.text) for h in extract.headings] == [(1, "Kopf fett")]


@pytest.mark.parametrize("source", ["---\nkein: [yaml\n---\nText", "---\nnur Text\n---\nText", "---\nd: 2024-13-45\n---\nText"])
def test_what_only_looks_like_front_matter_stays_text(source: str) -> None:
    extract = markdown.read(source.encode())
    assert extract.metadata == {}
    assert "Text" in extract.text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_text_is_read_in_its_encoding(encoding: str) -> None:
    assert text.read("Grüße aus Köln".encode(encoding)).text == "Grüße aus Köln"


def test_one_damaged_byte_does_not_spoil_the_umlauts() -> None:
    assert text.decode("äöü ÄÖÜ ß".encode() + b"\xff") == "äöü ÄÖÜ ß\ufffd"


@pytest.mark.parametrize("data", [b"MZ\x90\0\3\0", bytes(range(1, 32)) * 4, b"\x81\x8d\x8f\x90"])
def test_binary_is_no_text(data: bytes) -> None:
    with pytest.raises(text.NotText):
        text.read(data)


def test_form_feeds_are_page_breaks() -> None:
    extract = text.read(b"eins\n\f\fdrei\n")
    assert extract.text == "eins\n\ndrei"
    assert extract.pages == (0, 6, 6)


@pytest.mark.parametrize(
    ("sample", "language"),
    [
        ("Der Urlaubsanspruch beträgt dreißig Tage im Jahr.", "de"),
        ("Annual leave amounts to thirty days per year.", "en"),
        ("Le congé annuel est de trente jours par an.", "fr"),
        ("12.345,00 99 - 2024", "und"),
        ("Hallo", "und"),
        ("これは日本語の文章です。これは日本語の文章です。", "und"),
    ],
)
def test_language_is_told_or_left_open(sample: str, language: str) -> None:
    assert detect(sample) == language
