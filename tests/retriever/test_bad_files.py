"""Files that are no documents: each is refused with its reason and a way out, and takes no other file along."""

from __future__ import annotations

import io
import os
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from pptx import Presentation

from retriever.errors import LoadError
from retriever.load.isolated import Loader
from retriever.schema import Document

LIMIT = 5_000_000
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512)
HEAD = b"From: eva@example.org\nSubject: Kantine\n"
DOCX = "word/document.xml"

Outcomes = Mapping[str, Document | LoadError]
Content = bytes | Callable[[Path], object]  # or what puts the file there


def packed(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def pdf(*, pages: int = 1, text: bytes = b"(Ein Text) Tj", trailer: bytes = b"") -> bytes:
    """Write a PDF by hand; PDFium finds the objects of a file without a table of them."""
    kids = b" ".join(b"%d 0 R" % number for number in range(10, 10 + pages))
    content = b"BT /F 12 Tf 60 700 Td " + text + b" ET"
    shared = b"/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>"
    return b"\n".join([
        b"%PDF-1.4",
        b"1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj",
        b"2 0 obj<</Type/Pages/Count %d/Kids[%s]>>endobj" % (pages, kids),
        b"4 0 obj<</Length %d>>stream\n%s\nendstream endobj" % (len(content), content),
        b"5 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj",
        *(b"%d 0 obj<</Type/Page%s>>endobj" % (number, shared) for number in range(10, 10 + pages)),
        b"trailer<</Root 1 0 R%s>>\n%%%%EOF" % trailer,
    ])  # fmt: skip


def empty_slides() -> bytes:
    deck = Presentation()
    deck.slides.add_slide(deck.slide_layouts[6])
    buffer = io.BytesIO()
    deck.save(buffer)
    return buffer.getvalue()


LOCKED = b"/ID[<00><00>]/Encrypt<</Filter/Standard/V 1/R 2/P -4/O<%s>/U<%s>>>" % (b"00" * 32, b"00" * 32)
ENTITIES = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "ha"}">' for n in range(10))
BILLION = f"<?xml version='1.0'?><!DOCTYPE d [{ENTITIES}]><d>&e9;</d>".encode()
OUTSIDE = b'<?xml version="1.0"?><!DOCTYPE d [<!ENTITY e SYSTEM "file:///etc/hostname">]><d>&e;</d>'

BAD: dict[str, tuple[Content, str]] = {
    "leer.txt": (b"", "the file is empty"),
    "leerzeichen.txt": (b" \n\t\xc2\xa0\n", "the file holds no text"),
    "nullbytes.txt": (b"Text\0mehr", "it is binary, not text"),
    "utf16_ohne_marke.txt": ("Grüße aus Köln".encode("utf-16-le"), "it is binary, not text"),
    "programm.txt": (b"\x7fELF\2\1\1" + bytes(64), "the file is a program, its name says .txt"),
    "steuerzeichen.txt": (bytes(range(1, 32)) * 40, "it is binary, not text"),
    "zu_gross.txt": (b"x" * (LIMIT + 1), "the file is larger than 5,000,000 bytes"),
    "passwort.pdf": (pdf(trailer=LOCKED), "the PDF needs a password"),
    "abgeschnitten.pdf": (pdf()[:100], "the PDF is damaged"),
    "ohne_text.pdf": (pdf(text=b""), "the file holds no text"),
    "anmeldung.pdf": (b"<!DOCTYPE html><p>Sitzung abgelaufen", "the file is a web page, its name says .pdf"),
    "kein.pdf": (b"Protokoll vom Mai", "the file is no PDF, its name says otherwise"),
    "bild.pdf": (b"\x89PNG\r\n\x1a\n" + bytes(64), "the file is a PNG image, its name says .pdf"),
    "bericht.docx": (pdf(), "the file is a PDF, its name says .docx"),
    "tabelle.docx": (packed({"xl/workbook.xml": b"<x/>"}), "the file is an Excel workbook, its name says .docx"),
    "archiv.docx": (packed({"a.txt": b"x"}), "the file is a ZIP archive, its name says .docx"),
    "passwort.docx": (OLE + "EncryptedPackage".encode("utf-16-le"), "the file needs a password"),
    "alt.doc": (OLE + "WordDocument".encode("utf-16-le"), "files of kind '.doc' are not read"),
    "seite.xls": (b"<html><table><tr><td>1", "the file is a web page, its name says .xls"),
    "nachricht.msg": (OLE + "__substg1.0_".encode("utf-16-le"), "files of kind '.msg' are not read"),
    "abgeschnitten.docx": (packed({DOCX: os.urandom(4000)})[:2000], "the file is damaged or not complete"),
    "bombe.docx": (packed({DOCX: bytes(100 << 20)}), "it looks made to bring its reader down"),
    "entitaeten.docx": (packed({DOCX: BILLION}), "it looks made to bring its reader down"),
    "von_aussen.docx": (packed({DOCX: OUTSIDE}), "it looks made to bring its reader down"),
    "ohne_blatt.xlsx": (packed({"xl/workbook.xml": b"<workbook/>"}), "the file is damaged"),
    "ohne_text.pptx": (empty_slides(), "the file holds no text"),
    "nur_skripte.html": (b"<script>alert(1)</script><style>p{}</style><p hidden>x", "the file holds no text"),
    "kein.eml": (b"Protokoll vom Mai\nOhne Kopf.\n", "it is no e-mail"),
    "base64.eml": (HEAD + b"Content-Transfer-Encoding: base64\n\nabcde", "its text is damaged"),
    "verschluesselt.eml": (HEAD + b"Content-Type: application/pkcs7-mime\n\nMII", "the message is encrypted"),
    "verschachtelt.eml": (
        HEAD + b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(10_000)),
        "its parts are nested too deeply",
    ),
    "klammern.rtf": (rb"{\rtf1 {{{ Text", "the RTF ends in its middle"),
    "kein.rtf": (b"Protokoll vom Mai", "it is no RTF"),
    "nullbyte.csv": (b"Artikel;Preis\nRad;\0\n", "it is binary, not text"),
    "ordner.pdf": (Path.mkdir, "this is a folder"),
    "rohr.txt": (os.mkfifo, "this is no regular file"),
    "verweis.txt": (lambda path: path.symlink_to("weg.txt"), "there is no such file or folder"),
    "musik.mp3": (b"ID3\4", "files of kind '.mp3' are not read"),
    "LIESMICH": (b"Text", "files whose name has no ending are not read"),
}

SURROGATE = os.fsdecode(b"b\xfcro.txt")
HARMLESS: dict[str, tuple[Content, str]] = {
    "latin1.txt": ("Grüße aus Köln".encode("latin-1"), "Grüße aus Köln"),
    "gemischt.txt": ("äöüß ".encode() * 9 + b"Stra\xdfe", "äöüß Stra\ufffde"),
    "eine_zeile.txt": (b"Wort " * 900_000, "Wort Wort"),
    "tief.html": (b"<div>" * 10_000 + b"<span>" * 100_000 + b"tief", "tief"),
    "viele_seiten.pdf": (pdf(pages=10_000), "Ein Text"),
    "ohne_text.eml": (HEAD, "Kantine"),
    "tief.rtf": (rb"{\rtf1 " + b"{" * 100_000 + b"tief" + b"}" * 100_001, "tief"),
    SURROGATE: (b"Text", "Text"),
    "gut.md": (b"# Gut\n", "Gut"),
    "gut.csv": (b"A;Zahl\nx;1\n", "A: x | Zahl: 1"),
}

MISBEHAVING = """
import os, time
from retriever.load import load

def misbehave(path, *, source=None, max_bytes):
    match path.stem:
        case "haengt": time.sleep(60)
        case "stirbt": os.abort()
        case "frisst": bytearray(1 << 33)
    return load(path, source=source, max_bytes=max_bytes)
"""


def put(folder: Path, name: str, content: Content) -> tuple[Path, str]:
    path = folder / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)
    return path, name


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """Load all of them in one run, harmless ones between the bad."""
    folder = tmp_path_factory.mktemp("dateien")
    files = [put(folder, name, content) for name, (content, _) in (BAD | HARMLESS).items()]
    step = len(BAD) // len(HARMLESS) + 1
    order = [file for first in range(step) for file in files[first::step]]
    with Loader(max_bytes=LIMIT, timeout_s=60) as loader:
        return dict(zip((name for _, name in order), loader.load_many(order), strict=True))


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_with_its_reason_and_a_way_out(name: str, outcomes: Outcomes) -> None:
    outcome = outcomes[name]
    assert isinstance(outcome, LoadError)
    assert outcome.reason.startswith(BAD[name][1])
    assert outcome.way_out.endswith(".")


@pytest.mark.parametrize("name", HARMLESS, ids=ascii)
def test_a_file_that_only_looks_bad_is_read(name: str, outcomes: Outcomes) -> None:
    outcome = outcomes[name]
    assert isinstance(outcome, Document)
    assert HARMLESS[name][1] in outcome.text
    (outcome.source + outcome.title + outcome.metadata["name"]).encode()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path, name = put(tmp_path, "geheim.txt", b"Text")
    path.chmod(0)
    with Loader(max_bytes=LIMIT) as loader:
        (outcome,) = loader.load_many([(path, name)])
    assert isinstance(outcome, LoadError)
    assert (outcome.reason, outcome.way_out) == ("no permission to read it", "Let this user read it.")


@pytest.fixture
def misbehaving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "misbehaving.py").write_text(MISBEHAVING)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("misbehaving", None)


def test_a_parser_that_hangs_dies_or_eats_all_memory_costs_one_file(misbehaving: Path) -> None:
    from misbehaving import misbehave  # type: ignore[import-not-found]

    names = ["haengt.txt", "a.txt", "frisst.txt", "b.txt", "stirbt.txt", "c.txt"]
    with Loader(max_bytes=LIMIT, timeout_s=2, memory_mb=1500, loader=misbehave) as loader:
        found = dict(zip(names, loader.load_many([put(misbehaving, name, b"Text") for name in names]), strict=True))
    errors = {name: outcome for name, outcome in found.items() if isinstance(outcome, LoadError)}
    assert {name: error.reason for name, error in errors.items()} == {
        "haengt.txt": "the parser took longer than 2 s",
        "frisst.txt": "the parser ran out of memory",
        "stirbt.txt": "the parser crashed",
    }
    assert all(error.way_out for error in errors.values())


def test_the_page_for_users_says_what_is_said(outcomes: Outcomes) -> None:
    page = (Path(__file__).parents[2] / "docs" / "files.md").read_text(encoding="utf-8")
    assert [name for name, (_, reason) in BAD.items() if reason not in page] == []
