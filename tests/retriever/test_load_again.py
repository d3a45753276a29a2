"""Documents with scanned pages are read again, and only those, when their pages can be recognised otherwise than they were."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from retriever.chunk import ChunkSize
from retriever.fill import Maker
from retriever.index.embedded import EmbeddedGenerations
from retriever.ingest import Ingest, Outcome
from retriever.load.ocr import installed_languages
from retriever.store import Store

Index = Callable[[str], set[str]]


def mixed_pdf() -> bytes:
    """Return a PDF with a page of text, and one that holds but a drawing."""
    text, drawing = b"BT /F 12 Tf 60 700 Td (Anker und Kette) Tj ET", b"1 1 5 5 re f"
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Resources<</Font<</F 5 0 R>>>>/Contents %d 0 R>>"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count 2/Kids[3 0 R 4 0 R]>>",
        page % 6,
        page % 7,
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        *(b"<</Length %d>>stream\n%s\nendstream" % (len(content), content) for content in (text, drawing)),
    ]
    body = b"".join(b"%d 0 obj%s endobj\n" % (number, item) for number, item in enumerate(objects, 1))
    return b"%PDF-1.4\n" + body + b"trailer<</Root 1 0 R>>\n%%EOF"


@pytest.fixture
def tesseract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Put a program in Tesseract's place that has these languages, and reads out of any picture in which it was to look."""
    program = tmp_path / "bin" / "tesseract"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")

    def place(languages: str) -> None:
        program.write_text(
            f"#!/bin/sh\n[ $1 = --list-langs ] && printf 'Here:\\n{languages}\\n' && exit\ncat > /dev/null\n"
            "echo \"<span class='ocr_line'><span class='ocrx_word' title='x_wconf 90'>Sprache-$4</span></span>\"\n"
        )
        program.chmod(0o755)
        installed_languages.cache_clear()

    yield place
    installed_languages.cache_clear()


@pytest.fixture
def index(store: Store, tmp_path: Path, fakes: ModuleType) -> Index:
    """Index a text and a mixed PDF with these languages wanted; return the names of those that were read."""
    files = tmp_path / "files"
    files.mkdir()
    (files / "a.txt").write_text("Balken und Brett")
    (files / "b.pdf").write_bytes(mixed_pdf())

    def run(wanted: str) -> set[str]:
        outcomes: list[Outcome] = []
        maker = Maker(fakes.FakeEncoder(), ChunkSize(20, 5))
        generations = EmbeddedGenerations(store, tmp_path / "index")
        Ingest(
            store, generations, maker, "fake-1", max_bytes=100_000, timeout_s=20, ocr=wanted, on_outcome=outcomes.append
        ).run([files])
        assert {outcome.status for outcome in outcomes} <= {"added", "changed", "unchanged"}
        return {Path(outcome.source).stem for outcome in outcomes if outcome.status != "unchanged"}

    return run


@pytest.fixture
def text(store: Store) -> Callable[[], str]:
    """Return what the store holds of the PDF."""

    def of_pdf() -> str:
        known = next(known for source, known in store.known().items() if source.endswith(".pdf"))
        document = store.document(known.document)
        assert document is not None
        return document.text

    return of_pdf


def test_once_tesseract_is_installed(index: Index, tesseract: Callable[[str], None], text: Callable[[], str]) -> None:
    tesseract("")
    assert index("deu+eng") == {"a", "b"}
    assert text() == "Anker und Kette"
    assert index("deu+eng") == set()
    tesseract("deu")
    assert index("deu+eng") == {"b"}
    assert text() == "Anker und Kette\n\nSprache-deu"
    assert index("deu+eng") == set()


def test_in_other_languages(index: Index, tesseract: Callable[[str], None], text: Callable[[], str]) -> None:
    tesseract("deu\\nfra")
    assert index("deu") == {"a", "b"}
    assert index("deu+ces") == set()  # of which only German is there
    assert index("fra") == {"b"}
    assert text() == "Anker und Kette\n\nSprache-fra"


@pytest.mark.parametrize(("installed", "wanted"), [("", "deu"), ("deu", "")])
def test_what_was_recognised_stays_when_nothing_is_any_more(
    index: Index, tesseract: Callable[[str], None], text: Callable[[], str], installed: str, wanted: str
) -> None:
    tesseract("deu")
    index("deu")
    tesseract(installed)
    assert index(wanted) == set()
    assert text().endswith("Sprache-deu")
