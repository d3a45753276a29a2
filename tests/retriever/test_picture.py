"""Pictures of pages: what is marked is yellow and stays readable, whatever page, file or thread it is."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psutil
import pypdfium2
import pytest
from PIL import Image, ImageChops

from retriever.errors import LoadError
from retriever.load import load
from retriever.picture import Pictures, draw_page
from retriever.schema import Document

PATH = Path(__file__).parents[2] / "examples" / "handbook" / "maintenance-manual-dsh-2.pdf"
QUOTE = "wait at least eight minutes until the capacitors of the frequency converter have discharged."


@pytest.fixture(scope="module")
def document() -> Document:
    return load(PATH, max_bytes=1 << 24)


@pytest.fixture(scope="module")
def pictures() -> Iterator[Pictures]:
    with Pictures() as opened:
        yield opened


def span(document: Document, quote: str = QUOTE) -> dict[str, int]:
    start = document.text.index(quote)
    return {"start": start, "end": start + len(quote)}


def opened(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png)).convert("RGB")


def yellow(picture: Image.Image) -> tuple[int, int, int, int] | None:
    """Return the bounds of what is yellow."""
    red, _, blue = picture.split()
    return ImageChops.subtract(red, blue).point(lambda value: 255 if value > 100 else 0).getbbox()


def test_a_quote_is_marked_where_it_is_printed_and_nothing_else_is(document: Document, pictures: Pictures) -> None:
    plain, marked = (opened(pictures.page(document, 1, **where)) for where in ({}, span(document)))
    assert plain.size == marked.size == (1000, 1415)
    assert yellow(plain) is None
    bounds = yellow(marked)
    assert bounds is not None
    left, top, right, bottom = bounds
    changed = ImageChops.difference(plain, marked).getbbox()
    assert changed is not None
    assert changed[1] >= top - 1
    assert changed[3] <= bottom + 1
    # One line, from its second word on, and the letters in it as dark as before.
    assert 130 < left < 160
    assert right > 850
    assert 12 < bottom - top < 25
    darkest = [min(min(pixel) for pixel in part.get_flattened_data()) for part in (plain.crop(bounds), marked.crop(bounds))]
    assert darkest[0] == darkest[1] < 40


@pytest.mark.parametrize(("asked", "given"), [(1, 200), (640, 640), (10**9, 2400), (-5, 200)])
def test_the_width_is_kept_within_bounds(document: Document, pictures: Pictures, asked: int, given: int) -> None:
    assert opened(pictures.page(document, 2, width=asked)).width == given


def changed_copy(folder: Path, *, rotation: int = 0, crop: tuple[float, float, float, float] | None = None) -> Path:
    copy = folder / "copy.pdf"
    with closing(pypdfium2.PdfDocument(PATH)) as pdf:
        with closing(pdf[0]) as page:
            page.set_rotation(rotation)
            if crop:
                page.set_cropbox(*crop)
        pdf.save(copy)
    return copy


def test_on_a_page_that_is_turned_the_marks_turn_with_it(tmp_path: Path, document: Document, pictures: Pictures) -> None:
    upright = opened(pictures.page(document, 1, **span(document), width=800))
    for rotation, turn in (
        (90, Image.Transpose.ROTATE_270),
        (180, Image.Transpose.ROTATE_180),
        (270, Image.Transpose.ROTATE_90),
    ):
        turned = replace(document, source=str(changed_copy(tmp_path, rotation=rotation)))
        width = 800 if rotation == 180 else upright.height
        picture = opened(pictures.page(turned, 1, **span(document), width=width))
        expected = yellow(upright.transpose(turn))
        assert yellow(picture) == pytest.approx(expected, abs=4)


def test_on_a_page_that_is_cropped_the_marks_stay_on_their_words(
    tmp_path: Path, document: Document, pictures: Pictures
) -> None:
    full = opened(pictures.page(document, 1, **span(document), width=1190))
    cropped = replace(document, source=str(changed_copy(tmp_path, crop=(50, 300, 550, 700))))
    picture = opened(pictures.page(cropped, 1, **span(document), width=1000))
    before, after = yellow(full), yellow(picture)
    assert picture.height == 800
    assert before is not None
    # Both at two pixels a point: 50 points are gone on the left, and 142 above.
    assert after == pytest.approx([before[0] - 100, before[1] - 284, before[2] - 100, before[3] - 284], abs=4)


def test_of_a_span_over_pages_each_page_shows_its_part(document: Document, pictures: Pictures) -> None:
    everything = {"start": 0, "end": len(document.text)}
    assert all(yellow(opened(pictures.page(document, page, **everything))) for page in (1, 2, 3))
    assert yellow(opened(pictures.page(document, 2, **span(document)))) is None


@pytest.mark.parametrize(("start", "end"), [(5, 5), (50, 5), (None, 50), (5, None), (-50, -5), (10**9, 10**9 + 1)])
def test_an_empty_span_marks_nothing(document: Document, pictures: Pictures, start: int | None, end: int | None) -> None:
    assert yellow(opened(pictures.page(document, 1, start=start, end=end, width=400))) is None


def test_many_threads_get_the_pictures_that_they_asked_for(document: Document, pictures: Pictures) -> None:
    asked = [(page, width) for width in (201, 202, 203, 204) for page in (1, 2, 3)]
    with ThreadPoolExecutor(8) as pool:
        drawn = list(pool.map(lambda one: pictures.page(document, one[0], width=one[1]), asked))
    assert drawn == [draw_page(PATH, page, width=width) for page, width in asked]


def test_a_file_that_has_changed_is_drawn_anew(tmp_path: Path, document: Document, pictures: Pictures) -> None:
    copy = replace(document, source=str(changed_copy(tmp_path)))
    before = pictures.page(copy, 1, width=300)
    changed_copy(tmp_path, rotation=90)
    os.utime(copy.source, ns=(1, 1))
    assert opened(pictures.page(copy, 1, width=300)).size != opened(before).size


@pytest.mark.parametrize("page", [0, -1, 4])
def test_a_page_that_is_not_there_is_named(document: Document, pictures: Pictures, page: int) -> None:
    with pytest.raises(LoadError, match=f"3 pages, and no page {page}") as caught:
        pictures.page(document, page)
    assert caught.value.way_out


def test_what_cannot_be_drawn_says_why(tmp_path: Path, document: Document, pictures: Pictures) -> None:
    with pytest.raises(LoadError, match=r"only PDFs.*Open the file itself"):
        pictures.page(replace(document, metadata={"kind": "text"}), 1)
    with pytest.raises(LoadError, match=r"No such file.*Put the file back"):
        pictures.page(replace(document, source=str(tmp_path / "gone.pdf")), 1)
    broken = tmp_path / "broken.pdf"
    broken.write_bytes(PATH.read_bytes()[:500])
    with pytest.raises(LoadError, match=r"cannot be drawn.*Open the file itself"):
        pictures.page(replace(document, source=str(broken)), 1)
    longer = replace(document, pages=(*document.pages, len(document.text)))
    with pytest.raises(LoadError, match=r"3 pages, and no page 4.*Ask for one"):
        pictures.page(longer, 4)
    assert pictures.page(document, 1)


@pytest.fixture
def endless(tmp_path: Path, document: Document) -> Document:
    """A small file that takes minutes to draw."""
    curves = b"0 0 m 600 800 0 800 600 0 c b*\n" * 20_000
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count 1/Kids[3 0 R]>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(curves), curves),
    ]
    data = b"%PDF-1.4\n" + b"".join(b"%d 0 obj\n%s\nendobj\n" % numbered for numbered in enumerate(objects, 1))
    (tmp_path / "endless.pdf").write_bytes(data + b"trailer\n<</Root 1 0 R/Size 5>>\nstartxref\n0\n%%EOF")
    return replace(document, source=str(tmp_path / "endless.pdf"))


def test_a_file_that_takes_too_long_costs_only_its_own_picture(document: Document, endless: Document) -> None:
    with Pictures(timeout_s=0.5) as pictures:
        with pytest.raises(LoadError, match=r"took longer than 0\.5 s.*smaller width"):
            pictures.page(endless, 1)
        assert pictures.page(document, 1)


def test_a_file_that_brings_down_what_draws_costs_only_its_own_picture(document: Document, endless: Document) -> None:
    with Pictures() as pictures, ThreadPoolExecutor() as pool:
        worker = worker_of(pictures, document)
        waiting = pool.submit(pictures.page, endless, 1)
        wait_until_busy(worker)
        worker.kill()
        with pytest.raises(LoadError, match=r"brought down.*smaller width"):
            waiting.result()
        assert pictures.page(document, 2)


def test_closing_ends_the_process_and_whoever_waits_hears_of_it(document: Document, endless: Document) -> None:
    pictures = Pictures()
    with ThreadPoolExecutor() as pool:
        worker = worker_of(pictures, document)
        waiting = [pool.submit(pictures.page, endless, 1, width=width) for width in (500, 501)]
        wait_until_busy(worker)
        pictures.close()
        for one in waiting:
            with pytest.raises(LoadError, match="has ended"):
                one.result()
    assert not worker.is_running()
    with pytest.raises(LoadError, match="has ended"):
        pictures.page(document, 2)
    pictures.close()


def test_nothing_runs_before_the_first_picture() -> None:
    before = psutil.Process().children()
    with Pictures():
        assert psutil.Process().children() == before


def worker_of(pictures: Pictures, document: Document) -> psutil.Process:
    """Return the process that draws, which begins with the first picture."""
    before = psutil.Process().children()
    pictures.page(document, 1, width=300)
    (worker,) = (child for child in psutil.Process().children() if child not in before and "spawn_main" in child.cmdline()[-2])
    return worker


def wait_until_busy(worker: psutil.Process) -> None:
    """Wait until it has worked for a while, which it does for nothing but the endless file."""
    before, end = worker.cpu_times().user, time.monotonic() + 20
    while worker.cpu_times().user < before + 0.3:
        assert time.monotonic() < end, "nothing began to draw"
        time.sleep(0.02)
