"""The documents that are indexed: listed, shown, and their files, as far as these are still what was indexed.

The routes and `beleg documents` share it. Knows no HTTP.
"""

from __future__ import annotations

import threading
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from reader.errors import Overloaded
from retriever.errors import LoadError
from retriever.load import content_hash
from retriever.picture import Pictures
from retriever.schema import Document
from retriever.settings import Settings
from retriever.store import Listed, Store
from serving.errors import DocumentMissing, FileChanged, FileMissing
from serving.uploads import Uploads

__all__ = ["FACETS", "Documents", "Entry", "Page", "Sort"]

Sort = Literal["title", "date", "-date", "pages"]

FACETS = ("kind", "language", "folder")
"""What documents are counted by, and can be narrowed down to."""

_MOST_DRAWN = 4
"""Pictures that may be drawn or waited for at once: each of them holds a thread that others need."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A document as lists show it.

    Attributes:
        date: None if it has none, as with `pages`.
        chunks: into how many passages it was cut.
        uploaded: whether its file is one that was handed to Beleg.
    """

    document: str
    source: str
    title: str
    name: str
    folder: str
    kind: str
    language: str
    date: str | None
    pages: int | None
    chunks: int
    characters: int
    uploaded: bool


@dataclass(frozen=True, slots=True)
class Page:
    """A part of the list.

    Attributes:
        total: how many documents the whole of it has.
        facets: of all documents, listed or not: how many there are of each kind, language and folder.
    """

    documents: list[Entry]
    total: int
    facets: Mapping[str, Mapping[str, int]]


class Documents:
    """The documents of a data folder. Opens what it needs when first asked. Safe to use from many threads."""

    def __init__(self, settings: Settings) -> None:
        self.uploads = Uploads(settings.data_dir)
        self._data_dir = settings.data_dir
        self._opened: Store | None = None
        self._opening = threading.Lock()
        self._pictures = Pictures()
        self._drawing = threading.BoundedSemaphore(_MOST_DRAWN)

    def close(self) -> None:
        """Close the store, and end what draws."""
        self._pictures.close()
        with self._opening:
            if self._opened:
                self._opened.close()
            self._opened = None

    def page(
        self,
        *,
        limit: int,
        offset: int = 0,
        query: str = "",
        sort: Sort = "title",
        only: Mapping[str, str | None] | None = None,
    ) -> Page:
        """Return a part of the list.

        Args:
            query: words, or beginnings or ends of them, each of which title, name or folder must hold.
            only: facet to the value that a document must have; None for any.
        """
        listed = self._store().listed()
        facets = {facet: dict(Counter(getattr(item, facet) for item in listed).most_common()) for facet in FACETS}
        wanted = [(facet, value) for facet, value in (only or {}).items() if value is not None]
        words = _folded(query).split()
        found = [item for item in listed if all(getattr(item, facet) == value for facet, value in wanted)]
        if words:
            found = [item for item in found if _holds(_folded(f"{item.title}\n{item.name}\n{item.folder}"), words)]
        found.sort(key=lambda item: (_folded(item.title), item.document))
        if sort != "title":
            _sort(found, sort)
        return Page(self._entries(found[offset : offset + limit]), len(found), facets)

    def entry(self, document: str) -> Entry:
        """Return what lists say of a document.

        Raises:
            DocumentMissing: there is none.
        """
        found = self._entries(self._store().listed(document))
        if not found:
            raise _missing(document)
        return found[0]

    def get(self, document: str) -> Document:
        """Return a document with its text.

        Raises:
            DocumentMissing: there is none.
        """
        found = self._store().document(document)
        if found is None:
            raise _missing(document)
        return found

    def source(self, document: str) -> str:
        """Return the source of a document, or of a file that was handed over and has not become one.

        Raises:
            DocumentMissing: there is neither.
        """
        listed = self._store().listed(document)
        found = listed[0].source if listed else self.uploads.find(document)
        if found is None:
            raise _missing(document)
        return found

    def file(self, document: str) -> tuple[Document, Path]:
        """Return a document and its file, which holds what was indexed.

        Raises:
            DocumentMissing: there is no such document.
            FileMissing: its file is gone.
            FileChanged: its file is another one by now.
        """
        found = self.get(document)
        path = Path(found.source)
        try:
            state = path.stat()
            now = _hash(path, state.st_size, state.st_mtime_ns, state.st_ino)
        except (OSError, LoadError) as error:
            raise FileMissing(
                f"The file {found.source} is gone, or cannot be read here.",
                way_out="Its text is still there. `beleg index` of its folder, with --prune, forgets documents that are gone.",
            ) from error
        if now != found.content_hash:
            raise FileChanged(f"{found.source} has changed since it was indexed.", way_out="Run `beleg index` on it.")
        return found, path

    def picture(self, document: str, page: int, *, start: int | None, end: int | None, width: int) -> bytes:
        """Return a page of a PDF as PNG, with what stands from `start` to `end` marked.

        Raises:
            DocumentMissing, FileMissing, FileChanged: as for `file`; or there is no such page.
            LoadError: it cannot be drawn.
            Overloaded: too many others are being drawn.
        """
        found, _ = self.file(document)
        if found.metadata.get("kind") != "pdf":
            raise FileMissing(f"{found.source} has no printed pages.", way_out="Only PDFs have; read the text of others.")
        if not 1 <= page <= len(found.pages):
            has = f"{found.source} has {len(found.pages)} pages, and no page {page}."
            raise FileMissing(has, way_out="Ask for one of them.")
        if not self._drawing.acquire(blocking=False):
            raise Overloaded("Too many pages are being drawn.", retry_after_s=5, way_out="Ask again in a moment.")
        try:
            return self._pictures.page(found, page, start=start, end=end, width=width)
        finally:
            self._drawing.release()

    def _store(self) -> Store:
        with self._opening:
            if self._opened is None:
                self._opened = Store(self._data_dir)
            return self._opened

    def _entries(self, listed: list[Listed]) -> list[Entry]:
        chunks = self._store().chunk_numbers([item.revision for item in listed])
        return [
            Entry(
                item.document,
                item.source,
                item.title,
                item.name,
                item.folder,
                item.kind,
                item.language,
                item.date or None,
                item.pages or None,
                chunks.get(item.revision, 0),
                item.characters,
                self.uploads.holds(item.source),
            )
            for item in listed
        ]


def _sort(found: list[Listed], sort: Sort) -> None:
    """Sort what is in the order of titles by something else; what does not have that comes last."""
    value: Callable[[Listed], str | int] = (lambda item: item.pages) if sort == "pages" else (lambda item: item.date)
    found.sort(key=value, reverse=sort == "-date")
    found.sort(key=lambda item: not value(item))


def _holds(text: str, words: list[str]) -> bool:
    return all(word in text for word in words)


def _folded(text: str) -> str:
    """Return a text by which it is found and sorted, whatever its case and accents.

    >>> _folded("Übersicht der Maße")
    'ubersicht der masse'
    """
    if text.isascii():
        return text.lower()
    letters = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


@lru_cache(maxsize=4096)
def _hash(path: Path, *_: int) -> str:
    """Return the hash of a file; what else is given tells its states apart."""
    return content_hash(path)


def _missing(document: str) -> DocumentMissing:
    return DocumentMissing(
        f"There is no document {document}.", way_out="`beleg documents list` and GET /v1/documents show all of them."
    )
