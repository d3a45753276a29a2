"""Draw pages of PDFs, with a part of their text marked.

Files are anybody's and PDFium is not safe to use from two threads, so pages are drawn one after the other in a process
of their own, with limits of time and memory.
"""

from __future__ import annotations

import io
import threading
from concurrent.futures import BrokenExecutor, CancelledError
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from retriever.errors import LoadError
from retriever.load.isolated import worker_pool
from retriever.places import Box, places
from retriever.schema import Document

if TYPE_CHECKING:
    from pebble import ProcessFuture, ProcessPool

__all__ = ["WIDTHS", "Pictures", "draw_page"]

WIDTHS = range(200, 2401)
"""How many pixels wide a picture may be."""
_HIGHEST = 4800
"""A banner of a page is drawn narrower than asked for rather than higher than this."""
_KEPT = 32
_YELLOW = (255, 240, 120)
_MARGIN = 2
_OPEN_IT = "Open the file itself."
_NARROWER = "Ask for a smaller width, or open the file itself."
_LOOK_FOR_IT = "Put the file back, or run `beleg index` on its folder."


class Pictures:
    """Draws pages for many threads, and keeps the last few pictures.

    The process that draws starts with the first picture, is replaced when a file brings it down, and ends with `close`.

    Args:
        timeout_s: a page that takes longer is given up; waiting for other pages does not count.
        memory_mb: address space that drawing may take; kept on Linux only.
    """

    def __init__(self, *, timeout_s: float = 20, memory_mb: int = 2048) -> None:
        self._timeout_s = timeout_s
        self._memory_mb = memory_mb
        self._lock = threading.Lock()
        self._pool: ProcessPool | None = None
        self._waiting: set[ProcessFuture[bytes | LoadError]] = set()
        self._closed = False
        # What is drawn is wholly told by the arguments, the file's state among them.
        self._drawn = lru_cache(maxsize=_KEPT)(self._draw)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def page(
        self, document: Document, page: int, *, start: int | None = None, end: int | None = None, width: int = 1000
    ) -> bytes:
        """Return a page of `document` as PNG, with what of its text from `start` to `end` is printed there marked.

        The file is read where the document came from; whether it still is the one that was indexed is the caller's to see.

        Args:
            page: counted from 1.
            start: offset in the document's text; None for no marks, as with `end`.
            width: in pixels, brought within `WIDTHS`.

        Raises:
            LoadError: the document is no PDF, has no such page, or its file is gone or cannot be drawn.
        """
        if document.metadata.get("kind") != "pdf":
            raise LoadError(document.source, "only PDFs have printed pages", way_out=_OPEN_IT)
        if not 1 <= page <= len(document.pages):
            raise _no_page(document.source, page, len(document.pages))
        first, last = [*document.pages, len(document.text)][page - 1 : page + 1]
        text, marked = "", (0, 0)
        if start is not None and end is not None and max(start, first) < min(end, last):
            text, marked = document.text[first:last], (max(start, first) - first, min(end, last) - first)
        try:
            changed = Path(document.source).stat().st_mtime_ns
        except OSError as error:
            raise _unreadable(document.source, error) from error
        width = min(max(width, WIDTHS[0]), WIDTHS[-1])
        return self._drawn(document.source, changed, page, text, marked, width)

    def close(self) -> None:
        """End the process that draws. Whoever waits for a picture gets an error, and so does whoever asks afterwards."""
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
        # A pool that is stopped leaves those who wait for it waiting.
        for future in list(self._waiting):
            future.cancel()  # type: ignore[no-untyped-call]
        if pool is not None:
            pool.stop()  # type: ignore[no-untyped-call]
            pool.join()

    def _draw(self, source: str, changed: int, page: int, text: str, marked: tuple[int, int], width: int) -> bytes:
        del changed
        from pebble import ProcessExpired

        try:
            drawn = self._schedule(source, page, text, marked, width).result()
        except TimeoutError:
            late = f"drawing page {page} took longer than {self._timeout_s:g} s"
            raise LoadError(source, late, way_out=_NARROWER) from None
        except ProcessExpired:
            raise LoadError(source, f"page {page} brought down what draws it", way_out=_NARROWER) from None
        except (CancelledError, BrokenExecutor):
            raise _ended(source) from None
        if isinstance(drawn, LoadError):
            raise drawn
        return drawn

    def _schedule(
        self, source: str, page: int, text: str, marked: tuple[int, int], width: int
    ) -> ProcessFuture[bytes | LoadError]:
        with self._lock:
            if self._closed:
                raise _ended(source)
            if self._pool is None or not self._pool.active:
                self._pool = worker_pool(self._memory_mb)
            future = self._pool.schedule(_drawn_here, args=(source, page, text, marked, width), timeout=self._timeout_s)
            self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        return future


def draw_page(path: Path, page: int, *, text: str = "", marked: tuple[int, int] = (0, 0), width: int = 1000) -> bytes:
    """Return a page of the PDF at `path` as PNG.

    Args:
        page: counted from 1.
        text: what the document says on this page.
        marked: start and end in `text` of what is marked.
        width: in pixels.

    Raises:
        LoadError: it cannot be drawn.
    """
    import pypdfium2  # type: ignore[import-untyped]

    try:
        with closing(pypdfium2.PdfDocument(path)) as pdf:
            pdf.init_forms()  # what people filled in is drawn, too
            if page > len(pdf):
                raise _no_page(str(path), page, len(pdf))
            with closing(pdf[page - 1]) as drawn, closing(drawn.get_textpage()) as text_page:
                return _png(drawn, places(text_page, text, *marked), width)
    except OSError as error:
        raise _unreadable(str(path), error) from error
    except pypdfium2.PdfiumError as error:
        raise LoadError(str(path), f"page {page} cannot be drawn ({error})", way_out=_OPEN_IT) from error


def _png(page: Any, boxes: list[Box], width: int) -> bytes:
    from PIL import Image, ImageChops

    across, up = page.get_size()
    bitmap = page.render(scale=min(width / across, _HIGHEST / up))
    picture = bitmap.to_pil().convert("RGB")
    on_picture = bitmap.get_posconv(page)
    for box in boxes:
        # The page may be turned: what is left and bottom on it says nothing of the picture.
        (left, right), (top, bottom) = (
            sorted(pair) for pair in zip(on_picture.to_bitmap(*box[:2]), on_picture.to_bitmap(*box[2:]), strict=True)
        )
        area = (max(left - _MARGIN, 0), max(top, 0), min(right + _MARGIN, picture.width), min(bottom, picture.height))
        if area[0] < area[2] and area[1] < area[3]:
            part = picture.crop(area)
            picture.paste(ImageChops.multiply(part, Image.new("RGB", part.size, _YELLOW)), area)
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=3)
    return file.getvalue()


def _drawn_here(source: str, page: int, text: str, marked: tuple[int, int], width: int) -> bytes | LoadError:
    try:
        return draw_page(Path(source), page, text=text, marked=marked, width=width)
    except LoadError as error:
        return error
    except MemoryError:
        return LoadError(source, f"page {page} needs too much memory", way_out=_NARROWER)
    except Exception as error:  # noqa: BLE001 - a fault in a file costs its picture only
        return LoadError(source, f"page {page} cannot be drawn ({type(error).__name__}: {error})", way_out=_OPEN_IT)


def _no_page(source: str, page: int, pages: int) -> LoadError:
    return LoadError(source, f"it has {pages} pages, and no page {page}", way_out="Ask for one of its pages.")


def _unreadable(source: str, error: OSError) -> LoadError:
    return LoadError(source, f"it cannot be read ({error.strerror or error})", way_out=_LOOK_FOR_IT)


def _ended(source: str) -> LoadError:
    return LoadError(source, "it was not drawn: the process that draws has ended", way_out="Ask again.")
