"""Word and OpenDocument: what a person sees of the file is what the document holds; what would do harm is refused."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retriever.load import docx, load, odt, pptx, xlsx
from retriever.load.normal import Extract, Unreadable, normalise

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
MAIN_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
CORE = (
    f'<cp:coreProperties xmlns:cp="{PACKAGE}/metadata/core-properties" xmlns:dc="http://purl.org/dc/elements/1.1/" '
    'xmlns:dcterms="http://purl.org/dc/terms/"><dc:title>%s</dc:title><dc:creator>Anna Weber</dc:creator>'
    "<dcterms:created>2023-01-01T00:00:00Z</dcterms:created><dcterms:modified>2024-05-03T10:15:00Z</dcterms:modified>"
    "</cp:coreProperties>"
)


def packed(members: Mapping[str, str | bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            # OpenDocument asks for it, so that the first bytes of a file tell what it is.
            archive.writestr(name, content, zipfile.ZIP_STORED if name == "mimetype" else method)
    return buffer.getvalue()


def unpacked(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def word_members(body: str, styles: str = "", title: str = "Reisekostenordnung", **parts: str) -> dict[str, str | bytes]:
    relations = "".join(
        f'<Relationship Id="{name}" Type="{OFFICE}/{name}" Target="{name}.xml"/>' for name in ("styles", *parts)
    )
    return {
        "[Content_Types].xml": f'<Types xmlns="{PACKAGE}/content-types">'
        '<Default Extension="xml" ContentType="application/xml"/>'
        f'<Override PartName="/word/document.xml" ContentType="{MAIN_TYPE}"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{PACKAGE}/relationships"><Relationship Id="r" Type="{OFFICE}/officeDocument" '
        'Target="word/document.xml"/></Relationships>',
        "docProps/core.xml": CORE % title,
        "word/document.xml": f'<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>',
        "word/styles.xml": f'<w:styles xmlns:w="{WORD}">{styles}</w:styles>',
        "word/_rels/document.xml.rels": f'<Relationships xmlns="{PACKAGE}/relationships">{relations}</Relationships>',
        **{f"word/{name}.xml": content for name, content in parts.items()},
    }


def word(body: str, styles: str = "", **parts: str) -> bytes:
    return packed(word_members(body, styles, **parts))


def paragraph(text: str, style: str = "") -> str:
    properties = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{properties}<w:r><w:t xml:space='preserve'>{text}</w:t></w:r></w:p>"


def style(identifier: str, name: str, based_on: str = "", outline: int | None = None) -> str:
    level = "" if outline is None else f'<w:pPr><w:outlineLvl w:val="{outline}"/></w:pPr>'
    base = f'<w:basedOn w:val="{based_on}"/>' if based_on else ""
    return f'<w:style w:type="paragraph" w:styleId="{identifier}"><w:name w:val="{name}"/>{base}{level}</w:style>'


def open_text(body: str, automatic: str = "", **members: str) -> bytes:
    spaces = "".join(
        f' xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{long}:1.0"'
        for name, long in [("office", "office"), ("text", "text"), ("table", "table"), ("style", "style"), ("draw", "drawing")]
    )
    content = (
        f'<office:document-content{spaces} xmlns:dc="http://purl.org/dc/elements/1.1/"><office:automatic-styles>{automatic}'
        f"</office:automatic-styles><office:body><office:text>{body}</office:text></office:body></office:document-content>"
    )
    return packed({"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": content, **members})


def places(extract: Extract) -> list[tuple[int, str]]:
    """Return level and text of the headings, having checked that each is where it says."""
    assert all(extract.text[heading.start : heading.end] == heading.text for heading in extract.headings)
    assert list(extract.pages) == sorted(extract.pages)
    assert normalise(extract.text) == extract.text
    return [(heading.level, heading.text) for heading in extract.headings]


def test_a_german_word_file_is_read_with_its_headings() -> None:
    styles = (
        style("berschrift1", "heading 1")
        + style("berschrift2", "Überschrift 2")
        + style("VKGliederung", "VK Gliederung", based_on="Ebene3")
        + style("Ebene3", "Ebene", outline=2)
        + style("Inhaltsverzeichnisberschrift", "TOC Heading", based_on="berschrift1", outline=9)
        + style("Verzeichnis1", "toc 1")
        + style("Titel", "Title")
        + style("Kreis", "Kreis", based_on="Kreis")
    )
    body = (
        paragraph("Reisekosten", "Titel")
        + paragraph("Inhalt", "Inhaltsverzeichnisberschrift")
        + paragraph("1 Umfang 3", "Verzeichnis1")
        + paragraph("Umfang", "berschrift1")
        + paragraph("Diese Ordnung gilt für alle Beschäftigten.")
        + paragraph("Tagegeld", "berschrift2")
        + paragraph("Ausland", "VKGliederung")
        + paragraph("Es beträgt 14 €.", "Kreis")
    )
    extract = docx.read(word(body, styles))
    assert places(extract) == [(1, "Reisekosten"), (1, "Umfang"), (2, "Tagegeld"), (3, "Ausland")]
    assert extract.text == (
        "Reisekosten\n\nUmfang\n\nDiese Ordnung gilt für alle Beschäftigten.\n\nTagegeld\n\nAusland\n\nEs beträgt 14 €."
    )
    assert extract.title == "Reisekostenordnung"
    assert extract.metadata == {"author": "Anna Weber", "date": "2024-05-03"}
    assert extract.pages == ()


def test_an_english_word_file_without_styles_is_read() -> None:
    extract = docx.read(word(paragraph("Scope", "Heading1") + paragraph("This policy applies to all staff.")))
    assert places(extract) == [(1, "Scope")]


def test_word_shows_the_final_text() -> None:
    body = (
        "<w:p><w:r><w:t>Die Frist beträgt </w:t></w:r>"
        '<w:del w:id="1"><w:r><w:delText>zwei</w:delText></w:r></w:del><w:ins w:id="2"><w:r><w:t>drei</w:t></w:r></w:ins>'
        '<w:r><w:t> Wochen.</w:t></w:r><w:r><w:commentReference w:id="0"/></w:r></w:p>'
    )
    comments = f'<w:comments xmlns:w="{WORD}"><w:comment w:id="0" w:author="x">{paragraph("Geheim")}</w:comment></w:comments>'
    assert docx.read(word(body, comments=comments)).text == "Die Frist beträgt drei Wochen."


def test_tables_lists_notes_and_text_boxes_of_word_are_read() -> None:
    def row(*cells: str) -> str:
        return "<w:tr>" + "".join(f"<w:tc>{paragraph(cell)}</w:tc>" for cell in cells) + "</w:tr>"

    numbering = (
        f'<w:numbering xmlns:w="{WORD}"><w:abstractNum w:abstractNumId="0"><w:lvl w:ilvl="0"><w:numFmt w:val="bullet"/></w:lvl>'
        '</w:abstractNum><w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num></w:numbering>'
    )
    item = '<w:p><w:pPr><w:numPr><w:ilvl w:val="0"/><w:numId w:val="1"/></w:numPr></w:pPr><w:r><w:t>%s</w:t></w:r></w:p>'
    footnotes = f'<w:footnotes xmlns:w="{WORD}"><w:footnote w:id="2">{paragraph("Stand 2024.")}</w:footnote></w:footnotes>'
    body = (
        f"<w:tbl>{row('Stufe', 'Tage')}{row('A', '25')}</w:tbl>"
        + item % "eins"
        + item % "zwei"
        + '<w:p><w:r><w:t>Satz.</w:t></w:r><w:r><w:footnoteReference w:id="2"/></w:r></w:p>'
        + '<w:p><w:r><w:pict><v:shape xmlns:v="urn:schemas-microsoft-com:vml"><v:textbox><w:txbxContent>'
        + paragraph("Im Kasten")
        + "</w:txbxContent></v:textbox></v:shape></w:pict></w:r></w:p>"
    )
    text = docx.read(word(body, numbering=numbering, footnotes=footnotes)).text
    assert text == "Stufe | Tage\nA | 25\n\n- eins\n- zwei\n\nSatz.[1]\n\nIm Kasten\n\n1. Stand 2024."


@pytest.mark.parametrize(
    "title", ["", "Dokument1", "Microsoft Word - Entwurf", "entwurf_final.docx", "PowerPoint-Präsentation", "---"]
)
def test_a_title_that_no_person_wrote_is_none(title: str) -> None:
    assert docx.read(packed(word_members(paragraph("Text"), title=title))).title is None


def test_an_opendocument_text_is_read() -> None:
    automatic = (
        '<style:style style:name="P1" style:family="paragraph" style:parent-style-name="Title"/>'
        '<text:list-style style:name="L1"><text:list-level-style-number text:level="1"/></text:list-style>'
    )
    body = (
        "<text:tracked-changes><text:changed-region><text:deletion><text:p>gelöscht</text:p></text:deletion></text:changed-region>"
        '</text:tracked-changes><text:p text:style-name="P1">Urlaubsordnung</text:p>'
        "<text:table-of-content><text:index-body><text:p>1 Anspruch 2</text:p></text:index-body></text:table-of-content>"
        '<text:h text:outline-level="2">Anspruch<text:change text:change-id="c"/></text:h>'
        '<text:p>Er  beträgt<text:s text:c="2"/>30<text:tab/>Tage &amp; mehr<text:note>'
        "<text:note-citation>7</text:note-citation><text:note-body><text:p>Ab 2024.</text:p></text:note-body></text:note>"
        "<text:line-break/>im "
        "<text:span>Jahr</text:span>.<office:annotation><dc:creator>x</dc:creator><text:p>Geheim</text:p></office:annotation></text:p>"
        '<text:list text:style-name="L1"><text:list-item><text:p>eins</text:p></text:list-item>'
        "<text:list-item><text:p>zwei</text:p></text:list-item></text:list>"
        "<text:list><text:list-item><text:p>Punkt</text:p></text:list-item></text:list>"
        "<table:table><table:table-header-rows><table:table-row><table:table-cell><text:p>Stufe</text:p></table:table-cell>"
        "<table:table-cell><text:p>Tage</text:p></table:table-cell></table:table-row></table:table-header-rows>"
        "<table:table-row><table:table-cell><text:p>A</text:p></table:table-cell><table:table-cell><text:p>25</text:p>"
        "</table:table-cell></table:table-row></table:table>"
        '<text:section text:display="none"><text:p>weg</text:p></text:section>'
        "<text:p><draw:frame><draw:text-box><text:p>Im Kasten</text:p></draw:text-box></draw:frame></text:p>"
    )
    meta = (
        '<m xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:meta="urn:oasis:names:tc:opendocument:xmlns:meta:1.0">'
        "<meta:initial-creator>Anna Weber</meta:initial-creator><dc:creator>Ben</dc:creator><dc:title>Urlaub</dc:title>"
        "<dc:date>2024-05-03T10:00:00</dc:date></m>"
    )
    extract = odt.read(open_text(body, automatic, **{"meta.xml": meta}))
    assert extract.text == (
        "Urlaubsordnung\n\nAnspruch\n\nEr beträgt 30 Tage & mehr[1]\nim Jahr.\n\n1. eins\n2. zwei\n\n- Punkt\n\n"
        "Stufe | Tage\nA | 25\n\nIm Kasten\n\n1. Ab 2024."
    )
    assert places(extract) == [(1, "Urlaubsordnung"), (2, "Anspruch")]
    assert (extract.title, extract.metadata) == ("Urlaub", {"author": "Anna Weber", "date": "2024-05-03"})


@pytest.mark.parametrize(("suffix", "kind"), [("docx", "docx"), ("docm", "docx"), ("odt", "odt")])
def test_the_names_of_texts_say_what_reads_them(tmp_path: Path, suffix: str, kind: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(word(paragraph("Text")) if kind == "docx" else open_text("<text:p>Text</text:p>"))
    document = load(path, max_bytes=1_000_000)
    assert (document.text, document.metadata["kind"]) == ("Text", kind)


# What is no such file, or was made to do harm

BOMB = (
    '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">'
    '<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]><w:document xmlns:w="' + WORD + '"><w:body>&c;</w:body></w:document>'
)
EXTERNAL = BOMB.replace('"aaaaaaaaaa"', 'SYSTEM "file:///etc/passwd"')


def with_document(content: str | bytes) -> bytes:
    return packed({**word_members(""), "word/document.xml": content})


def lying(claimed: int) -> bytes:
    """Return a Word file whose document's size is not what the header claims."""
    data = bytearray(with_document(b"<w>" + b" " * 100_000 + b"</w>"))
    entry = data.index(b"word/document.xml", data.index(b"PK\1\2")) - 46
    struct.pack_into("<I", data, entry + 24, claimed)
    return bytes(data)


def encrypted() -> bytes:
    data = bytearray(word(paragraph("x")))
    start = 0
    while (start := data.find(b"PK\1\2", start)) >= 0:
        data[start + 8] |= 1
        start += 4
    return bytes(data)


GOOD = word(paragraph("Text"))
REFUSED = {
    "zeros": (with_document(b"<w>" + b"\0" * (64 << 20)), "many times larger"),
    "entities": (with_document(BOMB), "DTD"),
    "external entity": (with_document(EXTERNAL), "DTD"),
    "entities in UTF-16": (with_document(BOMB.encode("utf-16")), "DTD"),
    "an encoding that nobody knows": (with_document('<?xml version="1.0" encoding="UhF-8"?><w/>'), "damaged"),
    "entities in the properties": (packed({**word_members(""), "docProps/core.xml": BOMB}), "DTD"),
    "entities behind a picture's name": (
        packed({
            name.replace("document.xml", "document.svg"): content.replace("document.xml", "document.svg")
            for name, content in word_members("").items()
            if isinstance(content, str)
        } | {"word/document.svg": BOMB}),
        "DTD",
    ),
    "too many members": (packed({**word_members(""), **{f"x{number}": "" for number in range(50_001)}}), "members"),
    "a size too small": (lying(10), "damaged"),
    "a size too large": (lying(1 << 30), "damaged"),
    "cut off": (GOOD[: len(GOOD) // 2], "damaged or not complete"),
    "a damaged member": (GOOD.replace(GOOD[60:70], b"\xff" * 10), "damaged"),
    "not a ZIP": (b"Guten Tag, dies ist keine Word-Datei.", "damaged"),
    "encrypted": (encrypted(), "password"),
    "another method": (packed(word_members(""), zipfile.ZIP_BZIP2), "packed"),
    "no document": (packed({"[Content_Types].xml": f'<Types xmlns="{PACKAGE}/content-types"/>'}), "damaged"),
    "broken XML": (with_document("<w:document"), "damaged"),
    "nested": (with_document(f'<w:document xmlns:w="{WORD}">{"<w:p>" * 20_000}{"</w:p>" * 20_000}</w:document>'), "nested"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_word_file_or_does_harm_is_refused(name: str) -> None:
    data, reason = REFUSED[name]
    with pytest.raises(Unreadable, match=reason) as caught:
        docx.read(data)
    assert caught.value.way_out


@pytest.mark.parametrize("read", [xlsx.read, pptx.read, odt.read])
@pytest.mark.parametrize("data", [GOOD, b"", with_document(BOMB), packed({"a.txt": "b"})])
def test_every_office_reader_refuses_what_it_cannot_read(read: Callable[[bytes], Extract], data: bytes) -> None:
    with pytest.raises(Unreadable):
        read(data)


def test_an_opendocument_text_with_a_password_is_refused() -> None:
    manifest = {"META-INF/manifest.xml": "<m><manifest:encryption-data xmlns:manifest='m'/></m>"}
    with pytest.raises(Unreadable, match="password"):
        odt.read(packed({**unpacked(open_text("")), **manifest, "content.xml": b"\x8a\x01\x9c"}))


def test_a_doctype_that_only_names_a_file_and_pictures_with_entities_do_no_harm() -> None:
    manifest = '<!DOCTYPE m PUBLIC "-//OpenOffice.org//DTD Manifest 1.0//EN" "Manifest.dtd"><m/>'
    picture = '<!DOCTYPE svg:svg [<!ENTITY a "b">]><svg:svg xmlns:svg="http://www.w3.org/2000/svg">&a;</svg:svg>'
    data = open_text("<text:p>gut</text:p>", **{"META-INF/manifest.xml": manifest, "Pictures/logo.svg": picture})
    assert odt.read(data).text == "gut"


@given(st.binary(max_size=64), st.integers(0, len(GOOD)))
@settings(deadline=None, max_examples=60)
def test_a_damaged_file_is_read_or_refused_and_nothing_else(noise: bytes, place: int) -> None:
    try:
        extract = docx.read(GOOD[:place] + noise + GOOD[place + len(noise) :])
    except Unreadable:
        return
    places(extract)
