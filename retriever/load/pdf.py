"""Read PDF with PDFium: lines of text with where they stand and how they are set.

`retriever.load.layout` makes paragraphs, rows and headings of them. A page that holds pictures but no text is drawn, and
`retriever.load.ocr` reads its lines from the drawing. PDFium is not safe to use from two threads at once.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple

from retriever.load import clock
from retriever.load.dates import iso_date
from retriever.load.layout import compose
from retriever.load.lines import Line
from retriever.load.normal import Extract, Unreadable, one_line
from retriever.load.ocr import LANGUAGES, Picture, Recogniser, packages

__all__ = ["BrokenPdf", "EncryptedPdf", "ScannedPdf", "is_pdf", "read"]

# PDFium ends a line by a line break, or by one of these two in place of a hyphen that splits a word.
_LINE = re.compile("[^\r\n\x02\ufffe]+")
_HYPHENS = frozenset("\x02\ufffe\xad\u2010")
_SPACES = re.compile("[ \xa0]+")
_BOLD = re.compile("bold|black|heavy|demi", re.IGNORECASE)
_LIGATURES = str.maketrans(
    {"\ufb00": "ff", "\ufb01": "fi", "\ufb02": "fl", "\ufb03": "ffi", "\ufb04": "ffl", "\ufb05": "ft", "\ufb06": "st"}
)
# Gaps between words that part table cells, in line heights: any so wide, or a less wide one that is also several times
# the line's narrowest. In justified prose the gaps are wide but even.
_CELL_GAP = 1.5
_UNEVEN_GAP = 0.9
_UNEVEN_BY = 2.5
# How far up or down the next word stands, in line heights, if it is on another line; superscripts stay below.
_LINE_SHIFT = 0.6
# Titles that a program put there, not a person: file names, numbers, "Microsoft Word - Entwurf_3".
_NO_TITLE = re.compile(
    r"^(microsoft |untitled|unbenannt|scan[\s\d-]*$|document\d*$|dokument\d*$)|\.\w{2,5}$|^[\W\d_]*$|^\S*_\S*$|^\(.*\)$",
    re.IGNORECASE,
)
_MARK_WITHIN = 1024
# What Tesseract was made for; a plan larger than A3 gets fewer, so that drawings stay below 25 MB.
_POINTS = 72  # an inch
_DPI = 300
_LONGEST_SIDE = 5000
# An hour or two of one core: who hands in more should know it.
_MOST_SCANNED = 2000


class BrokenPdf(Unreadable):
    """The file cannot be parsed as PDF."""

    def __init__(self, error: Exception) -> None:
        super().__init__(f"the PDF is damaged ({error})", way_out="Open it and save it anew.")


class EncryptedPdf(Unreadable):
    """The file opens only with a password."""

    def __init__(self) -> None:
        super().__init__("the PDF needs a password", way_out="Save a copy without one, and index that.")


class ScannedPdf(Unreadable):
    """The file holds pictures of text instead of text, and they were not recognised."""


def is_pdf(data: bytes) -> bool:
    """Tell whether `data` begins as PDF files do: readers allow some bytes before the mark."""
    return b"%PDF-" in data[:_MARK_WITHIN]


def read(data: bytes, languages: str = LANGUAGES) -> Extract:
    """Read a PDF file.

    Args:
        data: the whole file.
        languages: in which scanned pages are recognised, see `retriever.load.ocr`; empty leaves them without text.

    Raises:
        BrokenPdf: if it cannot be parsed.
        EncryptedPdf: if it needs a password to be read.
        ScannedPdf: if it holds no text but on scanned pages that cannot be recognised.
    """
    import pypdfium2  # type: ignore[import-untyped]
    from pypdfium2 import raw

    try:
        with closing(pypdfium2.PdfDocument(data)) as document:
            pages = [list(_lines(document, number)) for number in range(len(document))]
            scanned = [number for number, lines in enumerate(pages) if not lines and _has_pictures(document, number)]
            recognition = _recognise(document, pages, scanned, languages) if scanned else {}
            metadata = document.get_metadata_dict(skip_empty=True)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) == raw.FPDF_ERR_PASSWORD:
            raise EncryptedPdf from error
        raise BrokenPdf(error) from error
    extract = compose(pages)
    title = one_line(metadata.get("Title", ""))
    author = one_line(metadata.get("Author", ""))
    own = {
        "author": "" if author == "(anonymous)" else author,
        "date": iso_date(metadata.get("ModDate", "")) or iso_date(metadata.get("CreationDate", "")),
    }
    return Extract(
        extract.text,
        pages=extract.pages,
        headings=extract.headings,
        title=extract.title if not title or _NO_TITLE.search(title) else title,
        metadata=recognition | {key: value for key, value in own.items() if value},
    )


def _lines(document: Any, number: int) -> Iterator[Line]:
    with closing(document[number]) as page, closing(page.get_textpage()) as text_page:
        glyphs = _Glyphs(text_page)
        for found in _LINE.finditer(glyphs.text):
            yield from glyphs.lines(number, found.start(), found.end())


def _has_pictures(document: Any, number: int) -> bool:
    from pypdfium2 import raw

    # Text may have been saved as outlines, too, and a scan as many small pictures or as one within a form.
    drawn = [raw.FPDF_PAGEOBJ_IMAGE, raw.FPDF_PAGEOBJ_PATH, raw.FPDF_PAGEOBJ_SHADING]
    with closing(document[number]) as page:
        return any(True for _ in page.get_objects(filter=drawn))


def _recognise(document: Any, pages: list[list[Line]], scanned: list[int], languages: str) -> dict[str, str]:
    """Put the lines of the `scanned` pages into `pages`, and return what the document's metadata say of that.

    Raises:
        Unreadable: if no page has text, with the reason why none was recognised.
    """
    recogniser = Recogniser(languages)
    able = recogniser.languages and len(scanned) <= _MOST_SCANNED
    failure: Unreadable | None = None
    for number in scanned if able else ():
        clock.restart()
        try:
            pages[number] = recogniser.lines(_drawn(document, number), number)
        except Unreadable as error:
            failure = failure or error
    if not any(pages):
        raise failure or _scanned_pdf(len(scanned), languages, able=bool(recogniser.languages))
    if any(pages[number] for number in scanned):
        return {"ocr": "partly" if failure else "yes", "ocr_confidence": str(recogniser.confidence)}
    return {} if able and not failure else {"ocr": "no"}


def _scanned_pdf(count: int, languages: str, *, able: bool) -> ScannedPdf:
    reason = "the PDF holds no text, only images (scanned)"
    if not languages:
        return ScannedPdf(reason, way_out="Set `ocr` to `auto` to have them recognised.")
    if not able:
        way_out = f"Install Tesseract to have them recognised: `apt-get install {packages(languages)}`."
        return ScannedPdf(reason, way_out=way_out)
    if count > _MOST_SCANNED:
        return ScannedPdf(
            f"{reason}, {count:,} of them; {_MOST_SCANNED:,} are the most that are recognised", way_out="Split it."
        )
    return ScannedPdf(f"{reason}, and no text was recognised in them", way_out="Scan it again, more sharply.")


def _drawn(document: Any, number: int) -> Picture:
    with closing(document[number]) as page:
        longest = max(page.get_size()) / _POINTS
        dpi = min(_DPI, _LONGEST_SIDE / longest)
        with closing(page.render(scale=dpi / _POINTS, grayscale=True)) as bitmap:
            return Picture(bitmap.to_numpy().tobytes(), bitmap.width, bitmap.height, dpi)


class _Box(NamedTuple):
    left: float
    right: float
    bottom: float
    top: float


class _Glyphs:
    """The characters of one page: PDFium is asked for places only where a decision needs them, for speed."""

    def __init__(self, text_page: Any) -> None:
        from pypdfium2 import raw

        self._raw = raw
        self._page = text_page.raw
        self._box = [ctypes.c_double() for _ in range(4)]
        self._box_refs = [ctypes.byref(value) for value in self._box]
        self._loose = raw.FS_RECTF()
        self._name = ctypes.create_string_buffer(256)
        self._flags = ctypes.c_int()
        get = raw.FPDFText_GetUnicode
        # One by one: PDFium's own string of a page leaves out some characters, and its positions then slip.
        self.text = "".join(chr(get(self._page, index)) for index in range(text_page.count_chars()))

    def lines(self, page: int, start: int, end: int) -> Iterator[Line]:
        """Yield what stands from `start` to `end` as lines: PDFium now and then runs several into one."""
        while start < end and self.text[start].isspace():
            start += 1
        while end > start and self.text[end - 1].isspace():
            end -= 1
        if start == end:
            return
        height = self._height(start, end)
        gaps: list[float] = []
        for space in _SPACES.finditer(self.text, start, end):
            before, after = self._place(space.start() - 1), self._place(space.end())
            shift = abs(before.bottom + before.top - after.bottom - after.top) / 2
            if shift > _LINE_SHIFT * height and after.left < before.left:
                yield from self._line(page, start, space.start(), gaps)
                start, gaps = space.end(), []
            else:
                gaps.append((after.left - before.right) / height)
        yield from self._line(page, start, end, gaps)

    def _line(self, page: int, start: int, end: int, gaps: list[float]) -> Iterator[Line]:
        raw = self.text[start:end]
        text = one_line(raw.translate(_LIGATURES))
        if not text:
            return
        split_word = self.text[end : end + 1] in _HYPHENS or raw[-1] in _HYPHENS
        wide = min(_CELL_GAP, max(_UNEVEN_GAP, _UNEVEN_BY * min(gaps, default=0.0)))
        height = self._height(start, end)
        yield Line(
            text=text + "-" if split_word and not text.endswith("-") else text,
            page=page,
            left=self._place(start).left,
            right=self._place(end - 1).right,
            bottom=self._loose.bottom,
            top=self._loose.bottom + height,
            cells=1 + sum(gap > wide for gap in gaps),
            bold=all(self._bold(index) for index in (start, self._middle(start, end), end - 1)),
        )

    def _middle(self, start: int, end: int) -> int:
        middle = (start + end) // 2
        return middle + self.text[middle].isspace()  # a space that PDFium made up has no font

    def _height(self, start: int, end: int) -> float:
        # In the middle: a line may begin with a bullet in another size.
        self._raw.FPDFText_GetLooseCharBox(self._page, self._middle(start, end), ctypes.byref(self._loose))
        return max(abs(float(self._loose.top) - float(self._loose.bottom)), 1.0)

    def _place(self, index: int) -> _Box:
        self._raw.FPDFText_GetCharBox(self._page, index, *self._box_refs)
        return _Box(*(value.value for value in self._box))

    def _bold(self, index: int) -> bool:
        self._raw.FPDFText_GetFontInfo(self._page, index, self._name, len(self._name), ctypes.byref(self._flags))
        return _BOLD.search(self._name.value.decode("utf-8", "replace")) is not None
