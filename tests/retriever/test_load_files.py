"""Finding files, and every way in which a file is refused."""

from __future__ import annotations

import datetime
import hashlib
import os
import pickle
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retriever import load as package
from retriever.errors import LoadError
from retriever.load import content_hash, discover, load
from retriever.load.dates import iso_date
from retriever.load.normal import normalise
from retriever.schema import Document, document_id

LIMIT = 1_000_000
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def refusal(path: Path, max_bytes: int = LIMIT) -> LoadError:
    with pytest.raises(LoadError) as caught:
        load(path, source="S", max_bytes=max_bytes)
    assert caught.value.source == "S"
    return caught.value


def test_a_file_becomes_a_document(tmp_path: Path) -> None:
    data = "# Urlaub\n\nDer Urlaubsanspruch beträgt dreißig Tage im Jahr.\n".encode()
    path = write(tmp_path, "urlaub.md", data)
    os.utime(path, (1714766399, 1714766399))  # 2024-05-03T19:59:59Z
    document = load(path, max_bytes=LIMIT)
    assert document.source == path.resolve().as_posix()
    assert document.id == document_id(document.source)
    assert document.text == "Urlaub\n\nDer Urlaubsanspruch beträgt dreißig Tage im Jahr."
    assert (document.title, document.language) == ("Urlaub", "de")
    assert document.content_hash == hashlib.sha256(data).hexdigest() == content_hash(path)
    assert document.metadata == {"kind": "markdown", "folder": tmp_path.name, "name": "urlaub.md", "date": "2024-05-03"}
    assert document.page_at(0) is None


def test_the_caller_may_name_the_source(tmp_path: Path) -> None:
    document = load(write(tmp_path, "a.txt", b"text"), source="hochgeladen/a.txt", max_bytes=LIMIT)
    assert (document.source, document.id) == ("hochgeladen/a.txt", document_id("hochgeladen/a.txt"))


def test_front_matter_cannot_pose_as_the_files_own_kind(tmp_path: Path) -> None:
    document = load(write(tmp_path, "a.md", b"---\nkind: pdf\nteam: x\n---\nText"), max_bytes=LIMIT)
    assert document.metadata["kind"] == "markdown"
    assert document.metadata["team"] == "x"


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.txt", b"", "empty"),
        ("a.txt", b" \n\t\xc2\xa0\n", "holds no text"),
        ("a.html", b"<script>x</script><p hidden>x</p>", "holds no text"),
        ("a.txt", b"\0\1\2", "binary"),
        ("a.xyz", b"PK\3\4", "'.xyz' are not read Known kinds: .csv, .docm, .docx, .eml, .htm"),
        ("a.exe", b"MZ", "'.exe' are not read"),
        ("ohne", b"text", "whose name has no ending are not read"),
        ("a.pdf", b"Sitzung abgelaufen", "no PDF"),
        ("a.pdf", b"%PDF-1.7 and nothing", "damaged"),
        ("a.txt", b"%PDF-1.7 and nothing", "Rename it to end in .pdf"),
    ],
)
def test_what_is_no_document_is_refused_with_the_reason(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    assert words in str(refusal(write(tmp_path, name, data))).replace(". ", " ")


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.pdf", b"\x89PNG\r\n\x1a\n", "the file is a PNG image, its name says .pdf Put the picture into a PDF"),
        ("a.docx", b"\xff\xd8\xff\xe0", "a JPEG image"),
        ("a.txt", b"II*\0\1", "a TIFF image"),
        ("a.txt", b"MM\0*\1", "a TIFF image"),
        ("a.md", b"GIF89a\1", "a GIF image"),
        (
            "a.pdf",
            b"<!-- x -->\n<!DOCTYPE html><p>Sitzung abgelaufen",
            "a web page, its name says .pdf Rename it to end in .html",
        ),
        ("a.csv", b"<html>", "a web page"),
        ("a.doc", b"\xef\xbb\xbf<?xml version='1.0'?><html xmlns='x'>", "a web page, its name says .doc"),
        ("a.DOC", b"{\\rtf1 x}", "rich text (RTF), its name says .doc Rename it to end in .rtf"),
        ("bericht", b"%PDF-1.7", "a PDF, its name has no ending Rename it to end in .pdf"),
        ("a.zip", b"PK\5\6" + bytes(18), "'.zip' are not read Unpack it"),
        ("a.docx", b"PK\5\6" + bytes(18), "a ZIP archive, its name says .docx Unpack it"),
        ("a.xlsx", b"PK\3\4..word/document.xml..PK\5\6", "a Word document, its name says .xlsx Rename it to end in .docx"),
        ("a.docx", b"PK\3\4..xl/workbook.xml..PK\5\6", "an Excel workbook"),
        ("a.docx", b"PK\3\4..ppt/presentation.xml..PK\5\6", "a PowerPoint presentation"),
        ("a.docx", b"PK\3\4..mimetypeapplication/vnd.oasis.opendocument.text..", "an OpenDocument text"),
        ("a.ods", b"PK\3\4..mimetypeapplication/vnd.oasis.opendocument.spreadsheet..", "'.ods' are not read Save it as .xlsx"),
        ("a.epub", b"PK\3\4..mimetypeapplication/epub+zip..", "Convert it to PDF"),
        ("a.doc", OLE + "WordDocument".encode("utf-16-le"), "'.doc' are not read Open it in Word and save it as .docx"),
        ("a.docx", OLE + "WordDocument".encode("utf-16-le"), "the old format (.doc), its name says .docx Open it in Word"),
        ("a.xls", OLE + "Workbook".encode("utf-16-le"), "save it as .xlsx"),
        ("a.ppt", OLE + "PowerPoint Document".encode("utf-16-le"), "save it as .pptx"),
        ("a.msg", OLE + "__substg1.0_".encode("utf-16-le"), "Open it in Outlook and save it as .eml"),
        ("a.doc", OLE, "save it in a format of today"),
        ("a.xlsx", OLE + "EncryptedPackage".encode("utf-16-le"), "the file needs a password Save a copy without one"),
        ("a.txt", b"\x1f\x8b\x08", "a gzip archive"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c", "Unpack it"),
        ("a.rar", b"Rar!\x1a\x07", "Unpack it"),
        ("a.tar", b"a.txt".ljust(257, b"\0") + b"ustar", "Unpack it"),
        ("a.txt", b"\x7fELF\2", "a program"),
        ("a.txt", b"MZ\0\0\1", "a program for Windows"),
        ("a.csv", b"SQLite format 3\0", "an SQLite database, its name says .csv Export its tables as CSV"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_named(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    assert words in str(refusal(write(tmp_path, name, data))).replace(". ", " ")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.txt", b"<html><p>Quelltext einer Seite"),
        ("a.md", b"<!doctype html> ist die erste Zeile"),
        ("a.txt", b"MZ-1 ist eine Maschine."),
        ("a.txt", b"PKW und LKW"),
        ("a.txt", b"In jedem PDF steht %PDF-1.7 am Anfang."),
        ("a.csv", b"ustar;1\n" * 60),
    ],
)
def test_text_about_other_kinds_is_text(tmp_path: Path, name: str, data: bytes) -> None:
    assert load(write(tmp_path, name, data), max_bytes=LIMIT).text


def test_the_end_of_a_large_file_tells_what_it_is(tmp_path: Path) -> None:
    data = OLE + bytes(300_000) + "WordDocument".encode("utf-16-le")
    assert "save it as .docx" in str(refusal(write(tmp_path, "a.doc", data)))
    assert "save it as .docx" in str(refusal(write(tmp_path, "a.docx", data)))


@pytest.mark.parametrize(
    ("name", "data", "date"),
    [
        ("a.md", "---\ndate: 2021-02-03\n---\nText", "2021-02-03"),
        ("a.md", "---\ndate: 2021-02-03 10:00:00\n---\nText", "2021-02-03"),
        ("a.md", "---\ndate: 3.2.2021\n---\nText", "2021-02-03"),
        ("a.md", "---\ndate: bald\n---\nText", "2024-05-03"),
        ("a.md", "---\ndate: 0000-00-00\n---\nText", "2024-05-03"),
        ("a.html", "<meta name=Date content=2021-02-03T10:00><p>Text", "2021-02-03"),
        (
            "a.html",
            "<meta property=article:modified_time content=2021-02-03><meta name=date content=2020-01-01>Text",
            "2021-02-03",
        ),
        (
            "a.html",
            "<meta name=date><meta name=dcterms.modified content=gestern><meta name=date content=2020-01-01>T",
            "2020-01-01",
        ),
        ("a.html", "<time datetime=2021-02-03>gestern</time>", "2024-05-03"),
        ("a.eml", "From: a@example.org\nDate: Wed, 3 Feb 2021 23:59:00 -0500\n\nText", "2021-02-03"),
        ("a.eml", "From: a@example.org\nDate: irgendwann\n\nText", "2024-05-03"),
        ("a.rtf", r"{\rtf1{\info{\creatim\yr2020\mo1\dy1}{\revtim\yr2021\mo2\dy3\hr4}}Text\par}", "2021-02-03"),
        ("a.txt", "2021-02-03 steht nur im Text", "2024-05-03"),
    ],
)
def test_the_date_is_what_the_file_says_or_else_its_time(tmp_path: Path, name: str, data: str, date: str) -> None:
    path = write(tmp_path, name, data.encode())
    os.utime(path, (1714766399, 1714766399))
    assert load(path, max_bytes=LIMIT).metadata["date"] == date


@pytest.mark.parametrize(
    ("changed", "created", "date"), [("D:20210203100000Z", "D:2020", "2021-02-03"), ("x", "D:20200102", "2020-01-02")]
)
def test_a_pdf_says_when_it_was_changed_or_made(tmp_path: Path, changed: str, created: str, date: str) -> None:
    # PDFium finds the objects of a file without a table of them.
    data = f"""%PDF-1.4
1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj
2 0 obj<</Type/Pages/Count 1/Kids[3 0 R]>>endobj
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>>>endobj
4 0 obj<</Length 36>>stream\nBT /F 12 Tf 60 700 Td (Ein Text) Tj ET\nendstream endobj
5 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj
6 0 obj<</ModDate({changed})/CreationDate({created})>>endobj
trailer<</Root 1 0 R/Info 6 0 R>>
%%EOF"""
    assert load(write(tmp_path, "a.pdf", data.encode()), max_bytes=LIMIT).metadata["date"] == date


@pytest.mark.parametrize("time", [-5e9, 0, 1e11])
def test_a_file_time_out_of_this_world_is_still_a_date(tmp_path: Path, time: float) -> None:
    path = write(tmp_path, "a.txt", b"text")
    os.utime(path, (time, time))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", load(path, max_bytes=LIMIT).metadata["date"])


@given(written=st.text(max_size=30) | st.from_regex(r"(D:)?\d{4}-?\d{2}-?\d{2}.*|\d{1,2}\.\d{1,2}\.\d{4}"))
def test_any_date_is_a_day_or_none(written: str) -> None:
    found = iso_date(written)
    assert found is None or datetime.date.fromisoformat(found).isoformat() == found


def test_a_file_over_the_limit_is_refused_and_one_at_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", b"12345678")
    assert "larger than 7 bytes" in str(refusal(path, max_bytes=7))
    assert load(path, max_bytes=8).text == "12345678"


def test_a_missing_file_a_folder_and_a_pipe_are_refused(tmp_path: Path) -> None:
    assert "no such file" in str(refusal(tmp_path / "weg.txt"))
    (tmp_path / "ordner.txt").mkdir()
    assert "a folder" in str(refusal(tmp_path / "ordner.txt"))
    os.mkfifo(tmp_path / "rohr.txt")
    assert "no regular file" in str(refusal(tmp_path / "rohr.txt"))
    with pytest.raises(LoadError):
        content_hash(tmp_path / "rohr.txt")
    with pytest.raises(LoadError):
        content_hash(tmp_path / "weg.txt")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", b"geheim")
    path.chmod(0)
    assert "no permission" in str(refusal(path))


def test_a_name_that_is_no_utf8_gives_a_source_that_can_be_stored(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xfcro.txt"))
    path.write_bytes(b"text")
    document = load(path, max_bytes=LIMIT)
    (document.source + document.title + document.metadata["name"]).encode("utf-8")


STARTS = {
    "x.txt": b"",
    "x.md": b"",
    "x.html": b"",
    "x.pdf": b"%PDF-1.4\n",
    "x.csv": b"a;b\n",
    "x.rtf": b"{\\rtf1 ",
    "x.eml": b"From: a@example.org\n",
}


def holds(document: Document) -> None:
    assert document.text.strip()
    assert normalise(document.text) == document.text
    assert all(document.text[h.start : h.end] == h.text for h in document.headings)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300), name=st.sampled_from(sorted(STARTS)))
def test_any_bytes_are_a_document_or_a_refusal(tmp_path: Path, data: bytes, name: str) -> None:
    try:
        document = load(write(tmp_path, name, STARTS[name] + data), max_bytes=LIMIT)
    except LoadError as error:
        message, again = str(error), str(pickle.loads(pickle.dumps(error)))
    else:
        message = again = ""
        holds(document)
    assert message == again


def test_discovery_is_sorted_skips_hidden_and_survives_circles(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    one, two = write(tmp_path, "a.txt", b"1"), write(tmp_path / "b", "c.md", b"2")
    hidden = write(tmp_path, ".geheim.txt", b"3")
    write(tmp_path / ".git", "x.txt", b"4")
    (tmp_path / "b" / "kreis").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "z.txt").symlink_to(one)
    write(tmp_path, "~$a.docx", b"5")
    assert discover([tmp_path]) == [one, two]
    assert discover([two, tmp_path, hidden]) == [two, one, hidden]


def test_discovery_names_what_is_missing_and_goes_on(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", b"1")
    missing, found = discover([tmp_path / "weg", path])
    assert isinstance(missing, LoadError)
    assert "no such file" in missing.reason
    assert found == path


def test_what_is_exported_is_there() -> None:
    assert all(hasattr(package, name) for name in package.__all__)
