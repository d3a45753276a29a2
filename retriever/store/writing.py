"""Changes to the store.

Each change is one transaction and takes the next `revision`. A document version is never edited: it is born at one revision
and retired at a later one, and stays readable until it is collected. So an index built at revision R finds the rows of R,
whatever has been written since, and a killed process leaves either all of a change or nothing.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from retriever.encode import Vectors
from retriever.errors import StoreError, StoreLocked
from retriever.schema import GAP, Chunk, Document
from retriever.store.reading import Reading

__all__ = ["IndexedChunk", "Store"]


@dataclass(frozen=True, slots=True)
class IndexedChunk:
    """A chunk with what indexing adds: its terms and the key of its vector."""

    chunk: Chunk
    terms: Sequence[str]
    key: str


class Store(Reading):
    """An open store. Reading is safe from many threads and processes; changing documents needs `writer()`.

    Args:
        folder: where `store.sqlite` lies; made if missing.

    Raises:
        StoreError: the file is not a store, was made by a newer Beleg, or the disk refuses.
    """

    def __init__(self, folder: Path) -> None:
        self._lock = FileLock(folder / "writer.lock")
        self._door = FileLock(folder / "door.lock")
        self._rebuild_lock = FileLock(folder / "rebuild.lock")
        super().__init__(folder)

    @contextmanager
    def writer(self, *, wait_s: float = 0) -> Iterator[None]:
        """Hold the right to write, for one process and thread at a time; the system takes it back from a killed process.

        Args:
            wait_s: how long to wait for another process to finish.

        Raises:
            StoreLocked: another process is still writing.
        """
        otherwise = f"Another process is writing to {self.path}."
        # Whoever waits stands in the door, so that those who write again and again cannot slip past.
        _acquire(self._door, wait_s, otherwise)
        try:
            _acquire(self._lock, wait_s, otherwise)
        finally:
            self._door.release()
        try:
            yield
        finally:
            self._lock.release()

    @contextmanager
    def rebuilding(self) -> Iterator[None]:
        """Hold the right to build another generation beside the live one; writing goes on meanwhile.

        Raises:
            StoreLocked: another process is rebuilding.
        """
        # A moment's patience: `is_rebuilding` takes the lock only to see whether it is free.
        _acquire(self._rebuild_lock, 1, f"Another rebuild of {self.path.parent} is running.")
        try:
            yield
        finally:
            self._rebuild_lock.release()

    def is_rebuilding(self) -> bool:
        """Say whether somebody, this process included, holds the right to rebuild."""
        if self._rebuild_lock.is_locked:
            return True
        try:
            _acquire(self._rebuild_lock, 0, "")
        except StoreLocked:
            return True
        self._rebuild_lock.release()
        return False

    def put(
        self,
        document: Document,
        chunks: Sequence[IndexedChunk],
        *,
        loader: str,
        chunking: str,
        encoder: str,
        vectors: Mapping[str, Vectors],
    ) -> int:
        """Make `document` current in place of its earlier version, with its chunks and new vectors, in one transaction.

        Args:
            loader: version of the loader that read it.
            chunking: see `Stamp.chunking`.

        Returns:
            The revision that this change took.
        """
        with self._change() as (db, revision):
            db.execute("UPDATE documents SET retired = ? WHERE source = ? AND retired IS NULL", (revision, document.source))
            db.execute(
                "INSERT INTO documents (revision, document, source, title, language, content_hash, loader, text, pages, "
                "headings, metadata) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    revision,
                    document.id,
                    document.source,
                    document.title,
                    document.language,
                    document.content_hash,
                    loader,
                    document.text,
                    json.dumps(document.pages),
                    json.dumps([(head.level, head.text, head.start, head.end) for head in document.headings]),
                    json.dumps(dict(document.metadata)),
                ),
            )
            _insert_chunks(db, revision, chunking, document.text, chunks)
            _insert_vectors(db, encoder, vectors)
        return revision

    def put_chunks(self, revision: int, text: str, chunks: Sequence[IndexedChunk], *, chunking: str) -> None:
        """Add another chunking of a version whose text is `text`; nothing happens if it is retired or has that chunking."""
        with self._transaction() as db:
            wanted = db.execute(
                "SELECT 1 FROM documents d WHERE revision = ? AND retired IS NULL "
                "AND NOT EXISTS (SELECT 1 FROM chunks c WHERE c.revision = d.revision AND chunking = ?)",
                (revision, chunking),
            )
            if wanted.fetchone():
                _insert_chunks(db, revision, chunking, text, chunks)

    def put_vectors(self, encoder: str, vectors: Mapping[str, Vectors]) -> None:
        """Add vectors of chunks that are stored already, for another encoder."""
        with self._transaction() as db:
            _insert_vectors(db, encoder, vectors)

    def remove(self, source: str) -> bool:
        """Retire the current document that came by `source`; its row stays as a tombstone. False if there is none."""
        with self._change() as (db, revision):
            done = db.execute("UPDATE documents SET retired = ? WHERE source = ? AND retired IS NULL", (revision, source))
            return done.rowcount > 0

    def collect(self, revision: int, *, chunkings: Collection[str], encoders: Collection[str]) -> None:
        """Free what no index at `revision` or later can ask for: retired texts, their chunks, vectors nobody shares.

        Retired rows themselves stay, without text: they are the tombstones that tell a late reader that a document went.

        Args:
            chunkings: to keep; others are freed.
            encoders: fingerprints of those whose vectors are kept.
        """
        with self._transaction() as db:
            db.execute(
                "DELETE FROM chunks WHERE revision IN (SELECT revision FROM documents WHERE retired <= ? AND text <> '')",
                (revision,),
            )
            db.execute(
                "DELETE FROM chunks WHERE chunking NOT IN (SELECT value FROM json_each(?))", (json.dumps(list(chunkings)),)
            )
            db.execute("UPDATE documents SET text = '', pages = '[]', headings = '[]' WHERE retired <= ?", (revision,))
            db.execute(
                "DELETE FROM vectors WHERE encoder NOT IN (SELECT value FROM json_each(?)) "
                "OR NOT EXISTS (SELECT 1 FROM chunks WHERE chunks.key = vectors.key)",
                (json.dumps(list(encoders)),),
            )


def _acquire(lock: FileLock, wait_s: float, otherwise: str) -> None:
    try:
        lock.acquire(timeout=wait_s)
    except Timeout as error:
        raise StoreLocked(otherwise, way_out="Wait until it has finished, then run this again.") from error
    except OSError as error:
        raise StoreError(
            f"{lock.lock_file} cannot be locked: {error.strerror}.", way_out="Check who may write there."
        ) from error


def _insert_chunks(db: sqlite3.Connection, revision: int, chunking: str, text: str, chunks: Sequence[IndexedChunk]) -> None:
    db.executemany(
        'INSERT INTO chunks (revision, start, "end", page, headings, text, after, terms, key, chunking) '
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (
                revision,
                item.chunk.start,
                item.chunk.end,
                item.chunk.page,
                json.dumps(item.chunk.headings),
                item.chunk.text,
                text[item.chunk.end : item.chunk.end + GAP],
                " ".join(item.terms),
                item.key,
                chunking,
            )
            for item in chunks
        ),
    )


def _insert_vectors(db: sqlite3.Connection, encoder: str, vectors: Mapping[str, Vectors]) -> None:
    db.executemany(
        "INSERT OR IGNORE INTO vectors VALUES (?, ?, ?)",
        ((encoder, key, np.asarray(vector, dtype="<f4").tobytes()) for key, vector in vectors.items()),
    )
