"""Scanned PDFs: pages of images become text where Tesseract is, are named where it is not, and leave nothing running."""

from __future__ import annotations

import ctypes
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pypdfium2
import pytest
from pypdfium2 import raw

from retriever.errors import LoadError, SettingsError
from retriever.load import clock, load
from retriever.load.isolated import Loader
from retriever.load.normal import Unreadable
from retriever.load.ocr import Picture, Recogniser, installed_languages
from retriever.load.pdf import ScannedPdf, read
from retriever.settings import read_settings

tesseract = pytest.mark.skipif(
    not {"deu", "eng"} <= set(installed_languages()), reason="Tesseract with German and English is not installed"
)
setpriv = pytest.mark.skipif(not shutil.which("setpriv"), reason="this system cannot end a program with its parent")

WIDTH, HEIGHT = 420.0, 300.0
Beleg = Callable[..., "subprocess.CompletedProcess[str]"]
Printed = Sequence[tuple[float, str]]  # size and text of each line; an empty one is a gap

NOTICE: Printed = (
    (20, "Aushang zur Werksküche"), (11, ""),
    (11, "Ab dem 3. Juni öffnet die Küche um 7:15 Uhr. Größere Gruppen melden"),
    (11, "sich bis zum Vortag an, damit das Essen für alle reicht. Die Reserve-"),
    (11, "plätze am Fenster bleiben frei."), (11, ""),
    (16, "Bezahlung"), (11, ""),
    (11, "Bezahlt wird nur mit der Karte."),
)  # fmt: skip
RECOGNISED = (
    "Aushang zur Werksküche\n\n"
    "Ab dem 3. Juni öffnet die Küche um 7:15 Uhr. Größere Gruppen melden sich bis zum Vortag an, damit das Essen für "
    "alle reicht. Die Reserveplätze am Fenster bleiben frei.\n\n"
    "Bezahlung\n\n"
    "Bezahlt wird nur mit der Karte."
)
RULES: Printed = (
    (11, "Visitors wear a badge at all times."),
    (11, ""),
    (11, "Photographs need the consent of the site office."),
)


def pdf(*pages: Printed) -> bytes:
    """Return a PDF with these lines as text."""
    with closing(pypdfium2.PdfDocument.new()) as document:
        for lines in pages:
            with closing(document.new_page(WIDTH, HEIGHT)) as page:
                y = HEIGHT - 40
                for size, text in lines:
                    item = raw.FPDFPageObj_NewTextObj(document, b"Helvetica", size)
                    utf16 = (text + "\0").encode("utf-16-le")
                    raw.FPDFText_SetText(item, ctypes.cast(ctypes.create_string_buffer(utf16), raw.FPDF_WIDESTRING))
                    raw.FPDFPageObj_Transform(item, 1, 0, 0, 1, 30, y)
                    raw.FPDFPage_InsertObject(page, item)
                    y -= 1.4 * size
                page.gen_content()
        return saved(document)


def scan(data: bytes, *, turned: int = 0, only: Sequence[int] | None = None) -> bytes:
    """Return `data` with an image in place of each page, or of those numbered in `only`."""
    with closing(pypdfium2.PdfDocument(data)) as document, closing(pypdfium2.PdfDocument.new()) as scanned:
        for number, page in enumerate(document):
            if only is not None and number not in only:
                scanned.import_pages(document, [number])
                continue
            bitmap = page.render(scale=200 / 72, grayscale=True, rotation=turned)
            width, height = (HEIGHT, WIDTH) if turned % 180 else (WIDTH, HEIGHT)
            with closing(scanned.new_page(width, height)) as sheet:
                image = pypdfium2.PdfImage.new(scanned)
                image.set_bitmap(bitmap)
                image.set_matrix(pypdfium2.PdfMatrix().scale(width, height))
                sheet.insert_obj(image)
                sheet.gen_content()
        return saved(scanned)


def drawn(pages: int, width: int, height: int) -> bytes:
    """Return a PDF that holds nothing but the same small rectangle on each page."""
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count %d/Kids[%s]>>" % (pages, b" ".join(b"%d 0 R" % (4 + number) for number in range(pages))),
        b"<</Length 12>>stream\n1 1 5 5 re f\nendstream",
        *[b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 %d %d]/Contents 3 0 R>>" % (width, height)] * pages,
    ]
    data, table = b"%PDF-1.4\n", b""
    for number, item in enumerate(objects, 1):
        table += b"%010d 00000 n \n" % len(data)
        data += b"%d 0 obj%sendobj\n" % (number, item)
    size = len(objects) + 1
    end = b"trailer<</Root 1 0 R/Size %d>>\nstartxref\n%d\n%%%%EOF" % (size, len(data))
    return data + b"xref\n0 %d\n0000000000 65535 f \n" % size + table + end


def saved(document: pypdfium2.PdfDocument) -> bytes:
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


@pytest.fixture(scope="module")
def notice() -> bytes:
    return scan(pdf(NOTICE))


@tesseract
class TestRecognised:
    def test_the_text_is_that_of_the_paper(self, notice: bytes) -> None:
        extract = read(notice)
        assert extract.text == RECOGNISED
        assert [heading.text for heading in extract.headings] == ["Aushang zur Werksküche", "Bezahlung"]
        assert extract.title == "Aushang zur Werksküche"
        assert extract.metadata["ocr"] == "yes"
        assert 80 <= int(extract.metadata["ocr_confidence"]) <= 100

    @pytest.mark.parametrize("turned", [90, 180, 270])
    def test_it_may_lie_any_way_up(self, turned: int) -> None:
        assert read(scan(pdf(NOTICE), turned=turned)).text == RECOGNISED

    def test_pages_of_text_stay_as_they_are(self) -> None:
        text = pdf(RULES, NOTICE, RULES)
        extract = read(scan(text, only=[1]))
        assert extract.metadata["ocr"] == "yes"
        first, second, third = extract.pages
        assert extract.text[first:second].strip() == extract.text[third:].strip() == read(pdf(RULES)).text
        assert extract.text[second:third].startswith("Aushang zur Werksküche\n\nAb dem 3. Juni")

    def test_a_file_of_text_is_not_marked(self) -> None:
        assert "ocr" not in read(pdf(NOTICE)).metadata

    def test_a_photograph_of_nothing(self) -> None:
        with pytest.raises(ScannedPdf, match=r"only images .* no text was recognised") as caught:
            read(scan(pdf(())))
        assert caught.value.way_out

    def test_a_picture_among_text_changes_nothing(self) -> None:
        extract = read(scan(pdf(RULES, ()), only=[1]))
        assert extract.text == read(pdf(RULES)).text
        assert "ocr" not in extract.metadata

    def test_specks_are_no_words(self) -> None:
        width, height = 600, 400
        noise = bytes(0 if (x * 7919 + y * 104729) % 97 < 3 else 255 for y in range(height) for x in range(width))
        assert Recogniser("eng").lines(Picture(noise, width, height, 300), 0) == []

    def test_within_the_worker_and_its_limit_of_memory(self, notice: bytes, tmp_path: Path) -> None:
        (tmp_path / "a.pdf").write_bytes(notice)
        with Loader(max_bytes=1 << 24) as loader:
            (document,) = loader.load_many([(tmp_path / "a.pdf", "a.pdf")])
        assert not isinstance(document, LoadError), document
        assert "Werksküche" in document.text
        assert document.metadata["ocr"] == "yes"


def test_an_empty_pdf_is_no_scan(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf(()))
    with pytest.raises(LoadError, match="the file holds no text"):
        load(tmp_path / "a.pdf", max_bytes=1 << 24)


Fake = Callable[[str], None]

HOCR = """\
<div class='ocr_page' title='bbox 0 0 1750 1250'>
<span class='ocr_line' title='bbox 100 100 700 140; baseline 0 -8; x_size 40'>
<span class='ocrx_word' title='bbox 100 100 300 140; x_wconf 90'>Ein</span>
<span class='ocrx_word' title='bbox 320 100 700 140; x_wconf 70'>Wort</span></span></div>"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    """Put a program in Tesseract's place, which knows English and else does what a script says."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def place(script: str) -> None:
        program = folder / "tesseract"
        program.write_text(f'#!/bin/sh\nif [ "$1" = --list-langs ]; then printf "Here:\\neng\\nosd\\n"; exit; fi\n{script}\n')
        program.chmod(0o755)
        installed_languages.cache_clear()

    yield place
    installed_languages.cache_clear()


@pytest.fixture
def absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PATH", str(tmp_path))
    installed_languages.cache_clear()
    yield
    installed_languages.cache_clear()


def printing(text: str) -> str:
    return f"cat > /dev/null\ncat <<'END'\n{text}\nEND"


class TestLeftOut:
    @pytest.mark.usefixtures("absent")
    def test_without_tesseract_the_packages_are_named(self, notice: bytes) -> None:
        with pytest.raises(ScannedPdf) as caught:
            read(notice)
        assert caught.value.reason == "the PDF holds no text, only images (scanned)"
        assert "apt-get install tesseract-ocr tesseract-ocr-deu" in caught.value.way_out

    @pytest.mark.usefixtures("absent")
    def test_pages_of_text_are_taken_all_the_same(self) -> None:
        extract = read(scan(pdf(RULES, NOTICE), only=[1]))
        assert extract.text == read(pdf(RULES)).text
        assert extract.metadata["ocr"] == "no"

    def test_without_the_language(self, fake: Fake, notice: bytes) -> None:
        fake("exit 1")
        with pytest.raises(ScannedPdf) as caught:
            read(notice, "fra")
        assert "tesseract-ocr-fra" in caught.value.way_out

    def test_by_the_setting(self, fake: Fake, notice: bytes) -> None:
        fake("exit 1")
        with pytest.raises(ScannedPdf) as caught:
            read(notice, "")
        assert "`ocr`" in caught.value.way_out

    def test_too_many_pages(self, fake: Fake) -> None:
        fake("exit 1")
        with pytest.raises(ScannedPdf, match=r"2,001 .* 2,000") as caught:
            read(drawn(2001, 10, 10))
        assert caught.value.way_out

    def test_when_tesseract_fails(self, fake: Fake) -> None:
        fake("echo 'no memory left' >&2; exit 1")
        with pytest.raises(Unreadable, match=r"page 1 could not be recognised \(no memory left\)") as caught:
            read(scan(pdf(NOTICE, NOTICE)))
        assert "`beleg doctor`" in caught.value.way_out

    def test_when_tesseract_dies(self, fake: Fake, notice: bytes) -> None:
        fake("kill -9 $$")
        with pytest.raises(Unreadable, match=r"page 1 could not be recognised \(exit status -9\)"):
            read(notice)

    def test_a_page_on_which_it_fails_costs_no_page_of_text(self, fake: Fake) -> None:
        fake("exit 1")
        extract = read(scan(pdf(RULES, NOTICE), only=[1]))
        assert extract.text == read(pdf(RULES)).text
        assert extract.metadata["ocr"] == "no"

    def test_a_page_on_which_it_fails_costs_no_other_scan(self, fake: Fake, tmp_path: Path) -> None:
        fake(f"mkdir {tmp_path}/first && exit 1\n{printing(HOCR)}")
        extract = read(scan(pdf(NOTICE, NOTICE)))
        assert extract.text == "Ein Wort"
        assert extract.metadata.items() >= {("ocr", "partly"), ("ocr_confidence", "80")}


class TestRun:
    def test_only_languages_that_are_there_are_asked_for(self, fake: Fake, notice: bytes, tmp_path: Path) -> None:
        fake(f'echo "$@ $OMP_THREAD_LIMIT" > {tmp_path}/asked; {printing(HOCR)}')
        extract = read(notice, "deu+eng")
        assert extract.text == "Ein Wort"
        assert extract.metadata.items() >= {("ocr", "yes"), ("ocr_confidence", "80")}
        asked = (tmp_path / "asked").read_text()
        assert " -l eng --dpi 300 " in asked
        assert asked.endswith(" 1\n")

    def test_a_large_plan_is_drawn_with_fewer_dots(self, fake: Fake, tmp_path: Path) -> None:
        fake(f"head -c 20 | head -n 1 > {tmp_path}/head; {printing(HOCR)}")
        assert read(drawn(1, 12_000, 6000)).text == "Ein Wort"
        assert (tmp_path / "head").read_text() == "P5 5000 2500 255\n"

    def test_output_that_makes_no_sense(self, fake: Fake, notice: bytes) -> None:
        fake(printing("<span class='ocr_line'><span class='ocrx_word' title='x_wconf 99'>\0 Ein\x01\u0301 </span><b>"))
        assert read(notice).text == "Eiń"

    def test_the_lines_of_a_table_are_no_words(self, fake: Fake, notice: bytes) -> None:
        fake(printing(HOCR.replace(">Ein<", ">|<")))
        assert read(notice).text == "Wort"

    def test_each_page_has_its_own_time(self, fake: Fake) -> None:
        fake(printing(HOCR))
        signal.setitimer(signal.ITIMER_REAL, 500, 1000)  # half of the time is over
        try:
            read(scan(pdf(NOTICE)))
            left, whole = signal.getitimer(signal.ITIMER_REAL)
        finally:
            clock.stop()
        assert 900 < left <= whole == 1000
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)

    def test_a_clock_that_does_not_run_is_not_started(self) -> None:
        clock.restart()
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)

    @setpriv
    def test_a_page_that_takes_too_long_ends_with_its_file(self, fake: Fake, notice: bytes, tmp_path: Path) -> None:
        fake(f"echo $$ > {tmp_path}/pid; exec sleep 60")
        (tmp_path / "a.pdf").write_bytes(notice)
        (tmp_path / "b.txt").write_text("Text")
        with Loader(max_bytes=1 << 24, timeout_s=2) as loader:
            error, document = loader.load_many([(tmp_path / name, name) for name in ("a.pdf", "b.txt")])
        assert isinstance(error, LoadError)
        assert error.reason == "the parser took longer than 2 s"
        assert not isinstance(document, LoadError)
        wait_until(lambda: not alive(int((tmp_path / "pid").read_text())))

    @setpriv
    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
    def test_it_ends_with_whoever_is_interrupted(self, fake: Fake, notice: bytes, tmp_path: Path, how: signal.Signals) -> None:
        fake(f"echo $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; exec sleep 60")
        (tmp_path / "a.pdf").write_bytes(notice)
        script = tmp_path / "program.py"
        script.write_text(
            "from pathlib import Path\nfrom retriever.load.isolated import Loader\n"
            "if __name__ == '__main__':\n"
            "    with Loader(max_bytes=1 << 24, timeout_s=50) as loader:\n"
            f"        list(loader.load_many([(Path({str(tmp_path / 'a.pdf')!r}), 'a')]))\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        parent = subprocess.Popen([sys.executable, script], env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
        wait_until((tmp_path / "pid").exists)
        recogniser = int((tmp_path / "pid").read_text())
        # As from a keyboard, an interrupt goes to everybody.
        os.killpg(parent.pid, how) if how is signal.SIGINT else parent.send_signal(how)
        parent.wait(10)
        wait_until(lambda: not alive(recogniser))


class TestSettings:
    def test_languages_are_words_with_plus_between(self) -> None:
        for wrong in ("", "deu+", "deu eng", "../eng", "-l"):
            with pytest.raises(SettingsError, match="ocr_languages"):
                read_settings(environment={}, overrides={"ocr_languages": wrong})
        chosen = read_settings(environment={"BELEG_OCR_LANGUAGES": "chi_sim+fra", "BELEG_OCR": "off"}).settings
        assert (chosen.ocr_languages, chosen.ocr) == ("chi_sim+fra", "off")

    def test_what_they_say_reaches_the_reader(self, beleg: Beleg, notice: bytes, tmp_path: Path) -> None:
        (tmp_path / "a.pdf").write_bytes(notice)
        done = beleg("index", tmp_path / "a.pdf", data_dir=tmp_path / "data", ocr="off")
        assert done.returncode == 3
        assert "only images (scanned)" in done.stderr
        assert "Set `ocr` to `auto`" in done.stderr


def wait_until(condition: Callable[[], bool], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
