"""A store that an earlier version of Beleg made is opened as it is: nothing is read or encoded anew."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from retriever.analyze import ANALYSER, analyze
from retriever.chunk import ChunkSize
from retriever.encoders import Encoders
from retriever.errors import StoreError
from retriever.fill import Maker, size_of
from retriever.index.base import Generation, Stamp
from retriever.index.embedded import EmbeddedGenerations
from retriever.live import Live
from retriever.load import LOADER
from retriever.publish import catch_up
from retriever.schema import Heading
from retriever.store import Known, Store

# As version 1 wrote it, word for word.
SCHEMA_1 = """
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
SIZE = ChunkSize(20, 5)
TEXT = "Kopf 😀\n\nDas Hotel Ä liegt an der Bahn.\nDas Auto steht davor."
SPANS = [(0, 6), (8, 38), (39, 60)]


def stamp(fakes: ModuleType, size: ChunkSize = SIZE) -> Stamp:
    made: Stamp = Maker(fakes.FakeEncoder(), size).stamp
    return made


class Version1:
    """A store as version 1 wrote it."""

    def __init__(self, folder: Path, fakes: ModuleType) -> None:
        folder.mkdir()
        self.path = folder / "store.sqlite"
        self._encoder = fakes.FakeEncoder()
        self._fakes = fakes
        self._db = sqlite3.connect(self.path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        for statement in SCHEMA_1.split(";\n"):
            self._db.execute(statement)
        self._db.execute("PRAGMA user_version = 1")
        self._revision = 0

    def put(self, source: str, text: str, *, size: ChunkSize = SIZE, metadata: Mapping[str, str] | None = None) -> None:
        self._next()
        self._db.execute("UPDATE documents SET retired = ? WHERE source = ? AND retired IS NULL", (self._revision, source))
        made = self._fakes.document(source, text)
        of = stamp(self._fakes, size)
        row = (
            self._revision, made.id, source, source, "de", made.content_hash, f"{LOADER} {of.chunker} {of.analyser}", text,
            "[0, 8]", '[[1, "Kopf", 0, 4]]', json.dumps(metadata or {}),
        )  # fmt: skip
        self._db.execute("INSERT INTO documents VALUES (?, NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        for start, end in SPANS if text == TEXT else [(0, len(text))]:
            piece = text[start:end]
            key = hashlib.sha256(piece.encode()).hexdigest()
            terms = " ".join(analyze(piece, "de"))
            self._db.execute(
                'INSERT INTO chunks (revision, start, "end", page, headings, text, terms, key) VALUES (?, ?, ?, 1, ?, ?, ?, ?)',
                (self._revision, start, end, '["Kopf"]', piece, terms, key),
            )
            vector = self._encoder.encode_query(piece).tobytes()
            self._db.execute("INSERT OR IGNORE INTO vectors VALUES ('fake-1', ?, ?)", (key, vector))

    def remove(self, source: str) -> None:
        self._next()
        self._db.execute("UPDATE documents SET retired = ? WHERE source = ? AND retired IS NULL", (self._revision, source))

    def collect(self, revision: int) -> None:
        self._db.execute(
            "DELETE FROM chunks WHERE revision IN (SELECT revision FROM documents WHERE retired <= ? AND text <> '')",
            (revision,),
        )
        self._db.execute("UPDATE documents SET text = '', pages = '[]', headings = '[]' WHERE retired <= ?", (revision,))

    def publish(self, name: str, of: Stamp) -> None:
        self._db.execute("INSERT OR REPLACE INTO state VALUES ('generation', ?)", (name,))
        self._db.execute("INSERT OR REPLACE INTO state VALUES ('stamp', ?)", (json.dumps(asdict(of)),))

    def close(self) -> None:
        self._db.close()

    def _next(self) -> None:
        self._revision += 1
        self._db.execute("UPDATE state SET value = ? WHERE name = 'revision'", (str(self._revision),))


@pytest.fixture
def folder(tmp_path: Path, fakes: ModuleType) -> Path:
    """A data folder of version 1: one document as it was put, one replaced, one removed and collected."""
    old = Version1(tmp_path / "data", fakes)
    old.put("weg", "Das Hotel ist weg")
    old.remove("weg")
    old.collect(2)
    old.put("a", TEXT, metadata={"kind": "text"})
    old.put("b", "Das Hotel alt")
    old.publish("000000004-abc", stamp(fakes))
    old.put("b", "Das Hotel neu")
    old.close()
    return tmp_path / "data"


def rows(store: Store, revision: int, chunking: str) -> list[Any]:
    return list(store.entries(store.current(revision), chunking=chunking, encoder="fake-1"))


def test_everything_is_still_there(folder: Path, fakes: ModuleType) -> None:
    chunking = stamp(fakes).chunking
    with Store(folder) as store:
        assert store.revision() == 5
        assert store.known()["a"] == Known(fakes.document("a").id, fakes.document("a", TEXT).content_hash, LOADER)
        assert store.known().keys() == {"a", "b"}
        found = rows(store, 5, chunking)
        assert [entry.passage.text for entry in found] == [*(TEXT[start:end] for start, end in SPANS), "Das Hotel neu"]
        assert [entry.passage.after for entry in found] == ["\n\n", "\nD", "", ""]
        assert [(entry.passage.start, entry.passage.end) for entry in found[:3]] == SPANS
        assert [entry.passage.text for entry in rows(store, 4, chunking)][3:] == ["Das Hotel alt"]
        assert found[0].metadata == {"kind": "text"}
        document = store.document(fakes.document("a").id)
        assert document is not None
        assert (document.text, document.pages, document.headings) == (TEXT, (0, 8), (Heading(1, "Kopf", 0, 4),))
        assert store.document_born(1) is None
        assert store.changes(0, 5) == ([3, 5], [1, 4])
        assert list(store.without_chunks(chunking)) == []
        assert list(store.without_vector("fake-1", chunking)) == []


def test_what_was_live_still_is(folder: Path, fakes: ModuleType) -> None:
    with Store(folder) as store:
        generations = EmbeddedGenerations(store, folder / "generations")
        assert generations.live() == Generation("000000004-abc", stamp(fakes), "")
        assert generations.previous() is None
        assert size_of(Generation("", stamp(fakes), "")) == SIZE
        assert (store.recall("generation"), store.recall("stamp")) == (None, None)


def test_the_index_is_built_again_without_encoding(folder: Path, fakes: ModuleType) -> None:
    """Its folder is one of version 1, which this one does not read."""
    (folder / "generations" / "000000004-abc").mkdir(parents=True)
    (folder / "generations" / "000000004-abc" / "manifest.json").write_text('{"format": 1}')
    encoder = fakes.FakeEncoder()
    with Store(folder) as store:
        generations = EmbeddedGenerations(store, folder / "generations")
        catch_up(store, generations)
        searcher = Live(generations, Encoders("mine", open_=lambda _: encoder), alpha=0.5).searcher()
        hits = searcher.search("Hotel Auto", mode="keyword", limit=9)
        assert {hit.text for hit in hits} == {TEXT[8:], "Das Hotel neu"}
        assert [path.name for path in (folder / "generations").iterdir()] == [searcher.index.name]
    assert encoder.encoded == []


def test_a_change_of_chunks_that_was_cut_short(tmp_path: Path, fakes: ModuleType) -> None:
    """Version 1 replaced a document's chunks by those of another size, so those of the live index must be made again."""
    old = Version1(tmp_path / "data", fakes)
    old.put("a", TEXT)
    old.put("b", "Das Hotel alt")
    old.publish("000000002-abc", stamp(fakes))
    old.put("b", "Das Hotel alt", size=ChunkSize(40, 5))
    old.close()
    with Store(tmp_path / "data") as store:
        maker = Maker(fakes.FakeEncoder(), SIZE)
        assert list(store.without_chunks(maker.stamp.chunking)) == [3]
        generations = EmbeddedGenerations(store, tmp_path / "generations")
        catch_up(store, generations)
        assert generations.live() == Generation("000000002-abc", stamp(fakes), "")
        maker.fill(store)
        catch_up(store, generations)
        live = generations.live()
        assert live is not None
        assert generations.shows_all(live)
        generations.verify(live)


def test_a_store_that_never_published(tmp_path: Path, fakes: ModuleType) -> None:
    old = Version1(tmp_path / "data", fakes)
    old.put("a", TEXT)
    old.close()
    with Store(tmp_path / "data") as store:
        assert store.recall("live") is None
        assert EmbeddedGenerations(store, tmp_path / "generations").live() is None


def test_it_happens_once_and_gives_an_id(folder: Path) -> None:
    ids = set()
    start = threading.Barrier(6)

    def open_it() -> None:
        start.wait()
        with Store(folder) as store:
            ids.add(store.id)

    threads = [threading.Thread(target=open_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 1
    assert len(ids.pop()) == 16


def test_it_has_the_schema_of_a_new_store(folder: Path, tmp_path: Path) -> None:
    """Indexes, tables and columns, whatever their order."""

    def shape(path: Path) -> set[tuple[object, ...]]:
        Store(path).close()
        db = sqlite3.connect(path / "store.sqlite")
        names = db.execute("SELECT name, type FROM sqlite_schema WHERE name NOT LIKE 'sqlite%'").fetchall()
        columns = [(name, *row[1:4]) for name, _ in names for row in db.execute(f"PRAGMA table_info({name})")]
        indexed = [
            (name, *row[1:]) for name, kind in names if kind == "index" for row in db.execute(f"PRAGMA index_info({name})")
        ]
        version = db.execute("PRAGMA user_version").fetchone()
        db.close()
        # A column's place may differ, since a new one comes last.
        return {version, *names, *columns, *((name, column) for name, _, column in indexed)}

    assert shape(folder) == shape(tmp_path / "new")


def test_one_that_fails_leaves_the_store_as_it_was(folder: Path) -> None:
    db = sqlite3.connect(folder / "store.sqlite", isolation_level=None)
    before = db.execute("SELECT sql FROM sqlite_schema ORDER BY name").fetchall()
    db.execute("INSERT INTO state VALUES ('live', 'in the way')")
    with pytest.raises(StoreError, match=r"cannot be (opened|written)"):
        Store(folder)
    assert db.execute("PRAGMA user_version").fetchone() == (1,)
    assert db.execute("SELECT sql FROM sqlite_schema ORDER BY name").fetchall() == before
    db.execute("DELETE FROM state WHERE name = 'live'")
    db.close()
    with Store(folder) as store:
        assert store.known().keys() == {"a", "b"}


def test_the_analyser_stands_in_the_stamp(fakes: ModuleType) -> None:
    assert stamp(fakes).analyser == ANALYSER
