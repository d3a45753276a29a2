"""The SQLite file under the store: its tables, their earlier shapes, connections and transactions. Knows no documents."""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from filelock import FileLock

from retriever.errors import StoreError

__all__ = ["Database"]

_SCHEMA_VERSION = 3

# All that a list of documents says of one, so that a listing reads no texts: SQLite takes the expressions from the index.
_FROM_2 = """
CREATE INDEX documents_listed ON documents (
    title, document, source, language, json_extract(metadata, '$.kind'), json_extract(metadata, '$.folder'),
    json_extract(metadata, '$.name'), json_extract(metadata, '$.date'), json_array_length(pages), length(text)
) WHERE retired IS NULL;
"""

_SCHEMA = """
CREATE TABLE documents (
    revision INTEGER PRIMARY KEY,       -- at which this version was born; unique, since each change takes its own
    retired INTEGER,                    -- at which it was replaced or removed; NULL while it is current
    document TEXT NOT NULL,
    source TEXT NOT NULL,
    title TEXT NOT NULL,
    language TEXT NOT NULL,
    content_hash TEXT NOT NULL,
    loader TEXT NOT NULL,               -- version of the loader that read it
    text TEXT NOT NULL,
    pages TEXT NOT NULL,
    headings TEXT NOT NULL,
    metadata TEXT NOT NULL
);
CREATE UNIQUE INDEX documents_current ON documents (source) WHERE retired IS NULL;
CREATE INDEX documents_versions ON documents (document, revision);
CREATE INDEX documents_retired ON documents (retired) WHERE retired IS NOT NULL;
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    revision INTEGER NOT NULL REFERENCES documents (revision) ON DELETE CASCADE,
    start INTEGER NOT NULL,
    "end" INTEGER NOT NULL,
    page INTEGER,
    headings TEXT NOT NULL,
    text TEXT NOT NULL,
    after TEXT NOT NULL,                -- what follows `end`, so that neighbours can be joined without the document
    terms TEXT NOT NULL,                -- analysed once, for every engine and every rebuild
    key TEXT NOT NULL,                  -- hash of what the encoder sees: equal chunks share a vector
    chunking TEXT NOT NULL              -- chunker and analyser: a version has a set of chunks for each
);
CREATE INDEX chunks_revision ON chunks (revision, chunking);
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

# From one chunking and no way back, to several.
_FROM_1 = """
ALTER TABLE chunks ADD COLUMN after TEXT NOT NULL DEFAULT '';
ALTER TABLE chunks ADD COLUMN chunking TEXT NOT NULL DEFAULT '';
UPDATE chunks SET (after, chunking) = (
    SELECT substr(text, chunks."end" + 1, 2), substr(recipe, instr(recipe, ' ') + 1)
    FROM documents WHERE documents.revision = chunks.revision
);
UPDATE documents SET recipe = substr(recipe, 1, instr(recipe, ' ') - 1);
ALTER TABLE documents RENAME COLUMN recipe TO loader;
DROP INDEX chunks_revision;
CREATE INDEX chunks_revision ON chunks (revision, chunking);
CREATE INDEX documents_retired ON documents (retired) WHERE retired IS NOT NULL;
"""

_STEPS = {0: _SCHEMA + _FROM_2, 1: _FROM_1 + _FROM_2, 2: _FROM_2}
"""What makes a file of each version one of today."""


class Database:
    """An open file. Reading is safe from many threads and processes.

    Args:
        folder: where `store.sqlite` lies; made if missing.

    Raises:
        StoreError: the file is not a store, was made by a newer Beleg, or the disk refuses.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "store.sqlite"
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._opening = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._create()
        except (OSError, sqlite3.Error) as error:  # A Timeout of the lock is an OSError.
            raise StoreError(f"The store at {self.path} cannot be opened: {error}.") from error
        self.id = self.recall("store") or ""
        """Random, made with the store: tells whose an index on a server is."""

    def close(self) -> None:
        """Close every thread's connection."""
        with self._opening:
            for connection in self._connections:
                connection.close()
            self._connections.clear()
        self._local = threading.local()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def recall(self, name: str) -> str | None:
        """Return what was last remembered under `name`."""
        for (value,) in self._read("SELECT value FROM state WHERE name = ?", (name,)):
            return str(value)
        return None

    def recall_all(self, prefix: str) -> dict[str, str]:
        """Return everything that is remembered under names that begin with `prefix`, by the rest of the name."""
        rows = self._read("SELECT name, value FROM state WHERE substr(name, 1, ?) = ?", (len(prefix), prefix))
        return {name.removeprefix(prefix): value for name, value in rows}

    def remember(self, facts: Mapping[str, str | None], *, expected: tuple[str, str | None] | None = None) -> bool:
        """Keep small facts, all or none of them; None forgets one.

        Args:
            expected: a name and the value that it must have for anything to be kept.

        Returns:
            Whether it had that value.
        """
        with self._transaction() as db:
            if expected and self.recall(expected[0]) != expected[1]:
                return False
            db.executemany("DELETE FROM state WHERE name = ?", ((name,) for name in facts))
            kept = [(name, value) for name, value in facts.items() if value is not None]
            db.executemany("INSERT INTO state VALUES (?, ?)", kept)
        return True

    def _create(self) -> None:
        db = self._connection()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > _SCHEMA_VERSION:
            raise StoreError(f"{self.path} was made by a newer Beleg.", way_out="Update this one.")
        if version == _SCHEMA_VERSION:
            return
        # One at a time: switching to WAL fails at once, without waiting, while another process does the same.
        with FileLock(self.path.with_name("create.lock"), timeout=30):
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                db.execute("PRAGMA journal_mode = WAL")
            with self._transaction():
                for statement in _STEPS.get(version, "").split(";\n"):
                    db.execute(statement)
                if version == 1:
                    _adopt_generation(db)
                db.execute("INSERT OR IGNORE INTO state VALUES ('store', ?)", (secrets.token_hex(8),))
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


def _adopt_generation(db: sqlite3.Connection) -> None:
    """Turn the two facts that version 1 kept of its live generation into the one of today."""
    facts = dict(db.execute("SELECT name, value FROM state WHERE name IN ('generation', 'stamp')"))
    if len(facts) == 2:
        live = {"name": facts["generation"], "stamp": json.loads(facts["stamp"]), "encoder": ""}
        db.execute("INSERT INTO state VALUES ('live', ?)", (json.dumps(live),))
    db.execute("DELETE FROM state WHERE name IN ('generation', 'stamp')")
