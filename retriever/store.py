"""The source of truth: every document version, its chunks and their vectors, in one SQLite file. Indexes are derived from it.

Each change is one transaction and takes the next `revision`. A document version is never edited: it is born at one revision
and retired at a later one, and stays readable until it is collected. So an index built at revision R finds the rows of R,
whatever has been written since, and a killed process leaves either all of a change or nothing.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from retriever.encode import Vectors
from retriever.errors import StoreError, StoreLocked
from retriever.schema import Chunk, Document, Heading

__all__ = ["Entry", "IndexedChunk", "Known", "Passage", "Store"]

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE documents (
    revision INTEGER PRIMARY KEY,       -- at which this version was born; unique, since each change takes its own
    retired INTEGER,                    -- at which it was replaced or removed; NULL while it is current
    document TEXT NOT NULL,
    source TEXT NOT NULL,
    title TEXT NOT NULL,
    language TEXT NOT NULL,
    content_hash TEXT NOT NULL,
    recipe TEXT NOT NULL,               -- loader, chunker and analyser that made this version
    text TEXT NOT NULL,
    pages TEXT NOT NULL,
    headings TEXT NOT NULL,
    metadata TEXT NOT NULL
);
CREATE UNIQUE INDEX documents_current ON documents (source) WHERE retired IS NULL;
CREATE INDEX documents_versions ON documents (document, revision);
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    revision INTEGER NOT NULL REFERENCES documents (revision) ON DELETE CASCADE,
    start INTEGER NOT NULL,
    "end" INTEGER NOT NULL,
    page INTEGER,
    headings TEXT NOT NULL,
    text TEXT NOT NULL,
    terms TEXT NOT NULL,                -- analysed once, for every engine and every rebuild
    key TEXT NOT NULL                   -- hash of what the encoder sees: equal chunks share a vector
);
CREATE INDEX chunks_revision ON chunks (revision);
CREATE INDEX chunks_key ON chunks (key);
CREATE TABLE vectors (
    encoder TEXT NOT NULL,
    key TEXT NOT NULL,
    vector BLOB NOT NULL,               -- float32, little endian, length 1
    PRIMARY KEY (encoder, key)
);
CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT NOT NULL);
INSERT INTO state VALUES ('revision', '0');
"""
_CURRENT = "d.revision <= :revision AND (d.retired IS NULL OR d.retired > :revision)"


@dataclass(frozen=True, slots=True)
class Known:
    """What the store knows of a current document, enough to tell whether its file has changed."""

    document: str
    content_hash: str
    recipe: str


@dataclass(frozen=True, slots=True)
class IndexedChunk:
    """A chunk with what indexing adds: its terms and the key of its vector."""

    chunk: Chunk
    terms: Sequence[str]
    key: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A chunk as an index builder reads it. `row` is the chunk's id; `revision` tells the document's version."""

    row: int
    revision: int
    terms: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk as a search reads it back, with what it needs of its document."""

    document: str
    revision: int
    source: str
    title: str
    language: str
    headings: tuple[str, ...]
    page: int | None
    start: int
    end: int
    text: str


class Store:
    """An open store. Reading is safe from many threads and processes; writing needs `writer()`.

    Args:
        folder: where `store.sqlite` lies; made if missing.

    Raises:
        StoreError: the file is not a store, was made by a newer Beleg, or the disk refuses.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "store.sqlite"
        self._lock = FileLock(folder / "writer.lock")
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._opening = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._create()
        except (OSError, sqlite3.Error) as error:  # A Timeout of the lock is an OSError.
            raise StoreError(f"The store at {self.path} cannot be opened: {error}.") from error

    def close(self) -> None:
        """Close every thread's connection."""
        with self._opening:
            for connection in self._connections:
                connection.close()
            self._connections.clear()
        self._local = threading.local()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def writer(self) -> Iterator[None]:
        """Hold the right to write, for one process and thread at a time; the system takes it back from a killed process.

        Raises:
            StoreLocked: another process is writing.
        """
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise StoreLocked(
                f"Another process is writing to {self.path}.",
                way_out="Wait until it has finished, then run this again.",
            ) from error
        try:
            yield
        finally:
            self._lock.release()

    # -- writing ------------------------------------------------------------------------------------------------------

    def put(
        self,
        document: Document,
        chunks: Sequence[IndexedChunk],
        *,
        recipe: str,
        encoder: str,
        vectors: Mapping[str, Vectors],
    ) -> int:
        """Make `document` current in place of its earlier version, with its chunks and new vectors, in one transaction.

        Returns:
            The revision that this change took.
        """
        with self._change() as (db, revision):
            db.execute("UPDATE documents SET retired = ? WHERE source = ? AND retired IS NULL", (revision, document.source))
            db.execute(
                "INSERT INTO documents VALUES (?, NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    revision,
                    document.id,
                    document.source,
                    document.title,
                    document.language,
                    document.content_hash,
                    recipe,
                    document.text,
                    json.dumps(document.pages),
                    json.dumps([(head.level, head.text, head.start, head.end) for head in document.headings]),
                    json.dumps(dict(document.metadata)),
                ),
            )
            db.executemany(
                'INSERT INTO chunks (revision, start, "end", page, headings, text, terms, key) VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
                (
                    (
                        revision,
                        item.chunk.start,
                        item.chunk.end,
                        item.chunk.page,
                        json.dumps(item.chunk.headings),
                        item.chunk.text,
                        " ".join(item.terms),
                        item.key,
                    )
                    for item in chunks
                ),
            )
            _insert_vectors(db, encoder, vectors)
        return revision

    def remove(self, source: str) -> bool:
        """Retire the current document that came by `source`; its row stays as a tombstone. False if there is none."""
        with self._change() as (db, revision):
            done = db.execute("UPDATE documents SET retired = ? WHERE source = ? AND retired IS NULL", (revision, source))
            return done.rowcount > 0

    def put_vectors(self, encoder: str, vectors: Mapping[str, Vectors]) -> None:
        """Add vectors of chunks that are stored already, for another encoder."""
        with self._transaction() as db:
            _insert_vectors(db, encoder, vectors)

    def publish(self, generation: str, stamp: Mapping[str, str]) -> None:
        """Make a finished generation the live one, atomically, for every process that reads this store.

        Args:
            stamp: what it was made by, so that a lost generation can be made again.
        """
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO state VALUES ('generation', ?)", (generation,))
            db.execute("INSERT OR REPLACE INTO state VALUES ('stamp', ?)", (json.dumps(dict(stamp)),))

    def collect(self, revision: int) -> None:
        """Free what no index at `revision` or later can ask for: retired texts, their chunks, vectors nobody shares.

        Retired rows themselves stay, without text: they are the tombstones that tell a late reader that a document went.
        """
        with self._transaction() as db:
            db.execute(
                "DELETE FROM chunks WHERE revision IN (SELECT revision FROM documents WHERE retired <= ? AND text <> '')",
                (revision,),
            )
            db.execute("UPDATE documents SET text = '', pages = '[]', headings = '[]' WHERE retired <= ?", (revision,))
            db.execute("DELETE FROM vectors WHERE NOT EXISTS (SELECT 1 FROM chunks WHERE chunks.key = vectors.key)")

    # -- reading ------------------------------------------------------------------------------------------------------

    def revision(self) -> int:
        """Return the revision of the last change; 0 for an empty store."""
        return int(self._state("revision") or 0)

    def generation(self) -> str | None:
        """Return the name of the live generation, or None before the first one."""
        return self._state("generation")

    def stamp(self) -> dict[str, str] | None:
        """Return what the live generation was made by, or None before the first one."""
        text = self._state("stamp")
        return json.loads(text) if text else None

    def known(self) -> dict[str, Known]:
        """Return what is current, by source."""
        rows = self._read("SELECT source, document, content_hash, recipe FROM documents WHERE retired IS NULL")
        return {source: Known(*rest) for source, *rest in rows}

    def entries(self, revision: int) -> Iterator[Entry]:
        """Yield the chunks that are current at `revision`, by ascending id."""
        for row in self._read(
            f"SELECT c.id, c.revision, c.terms FROM chunks c JOIN documents d USING (revision) WHERE {_CURRENT} ORDER BY c.id",
            {"revision": revision},
        ):
            yield Entry(*row)

    def versions(self, revision: int) -> list[dict[str, object]]:
        """Return what filters match of each document version that is current at `revision`: a flat mapping each."""
        rows = self._read(
            f"SELECT d.revision, d.document, d.source, d.title, d.language, d.metadata FROM documents d WHERE {_CURRENT}",
            {"revision": revision},
        )
        return [
            {
                **json.loads(metadata),
                "revision": born,
                "document": name,
                "source": source,
                "title": title,
                "language": language,
            }
            for born, name, source, title, language, metadata in rows
        ]

    def vectors(self, revision: int, encoder: str, *, dimensions: int) -> Vectors:
        """Return the vectors of `entries(revision)`, in the same order, shape (chunks, dimensions).

        Raises:
            StoreError: some have none yet from this encoder.
        """
        blobs = [
            blob
            for (blob,) in self._read(
                "SELECT v.vector FROM chunks c JOIN documents d USING (revision) "
                f"LEFT JOIN vectors v ON v.key = c.key AND v.encoder = :encoder WHERE {_CURRENT} ORDER BY c.id",
                {"revision": revision, "encoder": encoder},
            )
        ]
        if None in blobs:
            raise StoreError("Some chunks have no vector of this encoder yet.", way_out="Run `beleg index`.")
        return np.frombuffer(b"".join(blobs), dtype="<f4").reshape(len(blobs), dimensions)

    def without_vector(self, encoder: str) -> Iterator[tuple[str, str, tuple[str, ...], str]]:
        """Yield (key, title, headings, text) of each distinct current chunk that `encoder` has not encoded."""
        for key, title, headings, text in self._read(
            "SELECT c.key, d.title, c.headings, c.text FROM chunks c JOIN documents d USING (revision) "
            "WHERE d.retired IS NULL AND NOT EXISTS (SELECT 1 FROM vectors v WHERE v.key = c.key AND v.encoder = ?) "
            "GROUP BY c.key",
            (encoder,),
        ):
            yield key, title, tuple(json.loads(headings)), text

    def has_vectors(self, encoder: str, keys: Iterable[str]) -> set[str]:
        """Return those of `keys` whose vector is stored."""
        rows = self._read(
            "SELECT key FROM vectors WHERE encoder = ? AND key IN (SELECT value FROM json_each(?))",
            (encoder, json.dumps(list(keys))),
        )
        return {key for (key,) in rows}

    def passages(self, rows: Sequence[int]) -> dict[int, Passage]:
        """Return chunks by id, retired ones included; ids that were collected are missing from the answer."""
        found = self._read(
            "SELECT c.id, d.document, d.revision, d.source, d.title, d.language, c.headings, c.page, c.start, c.end, c.text "
            "FROM chunks c JOIN documents d USING (revision) WHERE c.id IN (SELECT value FROM json_each(?))",
            (json.dumps([int(row) for row in rows]),),
        )
        return {
            row: Passage(name, revision, source, title, language, tuple(json.loads(headings)), *rest)
            for row, name, revision, source, title, language, headings, *rest in found
        }

    def document(self, document: str, revision: int | None = None) -> Document | None:
        """Return a document's version born at `revision`, or the current one; None if there is none."""
        which = "revision = :revision" if revision else "retired IS NULL"
        rows = self._read(
            "SELECT document, source, title, text, language, content_hash, pages, headings, metadata FROM documents "
            f"WHERE document = :document AND {which}",
            {"document": document, "revision": revision},
        )
        for name, source, title, text, language, content_hash, pages, headings, metadata in rows:
            heads = tuple(Heading(*head) for head in json.loads(headings))
            pages = tuple(json.loads(pages))
            return Document(name, source, title, text, language, content_hash, pages, heads, json.loads(metadata))
        return None

    def text(self, revision: int, start: int, end: int) -> str:
        """Return a slice of the text of the document version born at `revision`."""
        rows = self._read("SELECT text FROM documents WHERE revision = ?", (revision,))
        return "".join(text[start:end] for (text,) in rows)

    def counts(self) -> dict[str, int]:
        """Return how many current documents and chunks there are."""
        (documents,) = next(self._read("SELECT count(*) FROM documents WHERE retired IS NULL"))
        (chunks,) = next(self._read("SELECT count(*) FROM chunks c JOIN documents d USING (revision) WHERE d.retired IS NULL"))
        return {"documents": documents, "chunks": chunks}

    # -- SQLite -------------------------------------------------------------------------------------------------------

    def _create(self) -> None:
        db = self._connection()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > _SCHEMA_VERSION:
            raise StoreError(f"{self.path} was made by a newer Beleg.", way_out="Update this one.")
        if version == _SCHEMA_VERSION:
            return
        # One at a time: switching to WAL fails at once, without waiting, while another process does the same.
        with FileLock(self.path.with_name("create.lock"), timeout=30):
            if db.execute("PRAGMA user_version").fetchone() == (0,):
                db.execute("PRAGMA journal_mode = WAL")
                with self._transaction():
                    for statement in _SCHEMA.split(";\n"):
                        db.execute(statement)
                    db.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")

    def _connection(self) -> sqlite3.Connection:
        db: sqlite3.Connection | None = getattr(self._local, "db", None)
        if db is None:
            # A connection for each thread; `close` is the only other thread that ever touches one.
            db = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA foreign_keys = ON")
            self._local.db = db
            with self._opening:
                self._connections.append(db)
        return db

    def _read(self, sql: str, arguments: Sequence[object] | Mapping[str, object] = ()) -> Iterator[tuple[Any, ...]]:
        try:
            yield from self._connection().execute(sql, arguments)
        except sqlite3.Error as error:
            raise StoreError(f"The store at {self.path} cannot be read: {error}.") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = self._connection()
        try:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                # A full disk has made SQLite roll back on its own; a second time would hide what happened.
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")
        except sqlite3.Error as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise StoreError(
                f"The store at {self.path} cannot be written: {error}.", way_out="What was stored before is unharmed."
            ) from error

    @contextmanager
    def _change(self) -> Iterator[tuple[sqlite3.Connection, int]]:
        """Run a transaction that takes the next revision."""
        with self._transaction() as db:
            (value,) = db.execute("SELECT value FROM state WHERE name = 'revision'").fetchone()
            revision = int(value) + 1
            db.execute("UPDATE state SET value = ? WHERE name = 'revision'", (str(revision),))
            yield db, revision

    def _state(self, name: str) -> str | None:
        for (value,) in self._read("SELECT value FROM state WHERE name = ?", (name,)):
            return str(value)
        return None


def _insert_vectors(db: sqlite3.Connection, encoder: str, vectors: Mapping[str, Vectors]) -> None:
    db.executemany(
        "INSERT OR IGNORE INTO vectors VALUES (?, ?, ?)",
        ((encoder, key, np.asarray(vector, dtype="<f4").tobytes()) for key, vector in vectors.items()),
    )
