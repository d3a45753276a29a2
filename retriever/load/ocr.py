"""Recognise the text in the picture of a page with the program Tesseract: lines, and where they stand.

`retriever.load.layout` makes paragraphs and headings of them, as it does of a PDF's own lines. Knows nothing of PDF.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from statistics import mean, median

from retriever.load.lines import Line
from retriever.load.normal import Unreadable, one_line

__all__ = ["LANGUAGES", "Picture", "Recogniser", "available", "installed_languages", "packages"]

LANGUAGES = "deu+eng"
"""What is recognised unless a setting says otherwise, by Tesseract's names."""

_POINTS = 72  # an inch
_WORD_GAP_OF_CELLS = 1.5
# The height of one size of type comes out a little differently from line to line; headings are larger by more.
_SAME_SIZE = 0.12
# Specks, signatures and drawings become words too, of which Tesseract is not sure; of print on a bad copy it is, above 60.
_LEAST_CONFIDENCE = 30
_RULING = re.compile(r"[|¦_]+$")  # what the lines between a table's cells look like to it
_BOX = re.compile(r"\bbbox (-?\d+) (-?\d+) (-?\d+) (-?\d+)")
_TURN = re.compile(r"\btextangle (\d+)")
_BASELINE = re.compile(r"\bbaseline \S+ (-?[\d.]+)")
_SIZE = re.compile(r"\bx_size ([\d.]+)")
_CONFIDENCE = re.compile(r"\bx_wconf (\d+)")


@dataclass(frozen=True, slots=True)
class Picture:
    """A page in grey: a byte a pixel, rows from the top."""

    pixels: bytes
    width: int
    height: int
    dpi: float


class Recogniser:
    """Runs Tesseract, a process for each page.

    Args:
        wanted: names of languages with "+" between; those that are not installed are left out.

    Attributes:
        languages: those that are recognised; empty where Tesseract or all of them are missing.
    """

    def __init__(self, wanted: str) -> None:
        self.languages = available(wanted)
        self._confidences: list[int] = []

    @property
    def confidence(self) -> int:
        """How sure Tesseract was of the words, on average, from 0 to 100."""
        return round(mean(self._confidences)) if self._confidences else 0

    def lines(self, picture: Picture, page: int) -> list[Line]:
        """Return the lines on the page with number `page` in reading order, whichever way up it lies.

        Raises:
            Unreadable: if Tesseract fails.
        """
        options = ["-l", self.languages, "--dpi", f"{picture.dpi:.0f}", "--psm", "1", "hocr"]
        done = subprocess.run(
            [*_ends_with_us(), "tesseract", "stdin", "stdout", *options],
            input=b"P5 %d %d 255\n" % (picture.width, picture.height) + picture.pixels,
            capture_output=True,
            # More threads make a page hardly faster, and slow down whatever runs beside it.
            env={**os.environ, "OMP_THREAD_LIMIT": "1"},
            check=False,
        )
        if done.returncode:
            told = done.stderr.decode("utf-8", "replace").split("\n")[0].strip() or f"exit status {done.returncode}"
            raise Unreadable(
                f"the text of page {page + 1} could not be recognised ({told})",
                way_out="See what `beleg doctor` says of Tesseract, or leave the file out.",
            )
        return _evened(list(self._read(done.stdout, picture, page)))

    def _read(self, hocr: bytes, picture: Picture, page: int) -> Iterator[Line]:
        from selectolax.lexbor import LexborHTMLParser

        for found in LexborHTMLParser(hocr).css("span.ocr_line, span.ocr_header, span.ocr_caption, span.ocr_textfloat"):
            title = found.attributes.get("title") or ""
            words = [
                (text, word.attributes.get("title") or "")
                for word in found.css("span.ocrx_word")
                if (text := one_line(word.text())) and not _RULING.match(text)
            ]
            confidences = [int(confidence[1]) for _, told in words if (confidence := _CONFIDENCE.search(told))]
            if not confidences or mean(confidences) < _LEAST_CONFIDENCE:
                continue
            self._confidences += confidences
            yield _line([text for text, _ in words], [told for _, told in words], title, picture, page)


def available(wanted: str) -> str:
    """Return those languages of `wanted` that are installed, with "+" between as there; empty if there is none."""
    return "+".join(name for name in wanted.split("+") if name in installed_languages())


@cache
def installed_languages() -> tuple[str, ...]:
    """Return the names of the languages that Tesseract is installed with; none where it is not installed."""
    try:
        done = subprocess.run(["tesseract", "--list-langs"], capture_output=True, text=True, check=False)
    except OSError:
        return ()
    # The first line says in words what follows, and "osd" tells which way up a page lies.
    return tuple(name for name in done.stdout.splitlines()[1:] if name != "osd") if done.returncode == 0 else ()


def packages(languages: str) -> str:
    """Return the Debian packages of Tesseract with `languages`.

    >>> packages("deu+chi_sim")
    'tesseract-ocr tesseract-ocr-deu tesseract-ocr-chi-sim'
    """
    return " ".join(["tesseract-ocr", *(f"tesseract-ocr-{name.replace('_', '-')}" for name in languages.split("+"))])


@cache
def _ends_with_us() -> Sequence[str]:
    """Return a prefix by which a program is killed as soon as its parent is gone; without it, it ends with its page."""
    return ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()


@dataclass(frozen=True, slots=True)
class _Box:
    """Place of a line or word in pixels, as one sees it who holds the page the right way up."""

    left: float
    top: float
    right: float
    bottom: float
    depth: float  # of the page

    @classmethod
    def of(cls, title: str, turn: int, picture: Picture) -> _Box:
        found = _BOX.search(title)
        left, top, right, bottom = map(int, found.groups()) if found else (0, 0, 0, 0)
        width, height = picture.width, picture.height
        if turn == 90:
            return cls(height - bottom, left, height - top, right, width)
        if turn == 180:
            return cls(width - right, height - bottom, width - left, height - top, height)
        if turn == 270:
            return cls(top, width - right, bottom, width - left, width)
        return cls(left, top, right, bottom, height)


def _line(words: Sequence[str], titles: Sequence[str], title: str, picture: Picture, page: int) -> Line:
    turned, shifted, sized = _TURN.search(title), _BASELINE.search(title), _SIZE.search(title)
    turn = int(turned[1]) if turned else 0
    whole = _Box.of(title, turn, picture)
    size = float(sized[1]) if sized else whole.bottom - whole.top
    places = [_Box.of(told, turn, picture) for told in titles]
    # At the left end: the box of a line that runs askew is too high, the more the longer the line is.
    bottom = whole.depth - whole.bottom - (float(shifted[1]) if shifted else 0.0)
    scale = _POINTS / picture.dpi
    return Line(
        text=" ".join(words),
        page=page,
        left=whole.left * scale,
        right=whole.right * scale,
        bottom=bottom * scale,
        top=(bottom + size) * scale,
        cells=1 + sum(after.left - before.right > _WORD_GAP_OF_CELLS * size for before, after in pairwise(places)),
    )


def _evened(lines: Sequence[Line]) -> list[Line]:
    """Give one height to all lines of about the same."""
    groups: list[list[int]] = []
    for index in sorted(range(len(lines)), key=lambda index: lines[index].size):
        if groups and lines[index].size < (1 + _SAME_SIZE) * lines[groups[-1][0]].size:
            groups[-1].append(index)
        else:
            groups.append([index])
    evened = list(lines)
    for group in groups:
        height = median(lines[index].size for index in group for _ in lines[index].text)
        for index in group:
            evened[index] = replace(lines[index], top=lines[index].bottom + height)
    return evened
