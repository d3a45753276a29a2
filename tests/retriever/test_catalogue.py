"""The list of documents says what is current, reads no text for it, and forgets what is removed."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from retriever.errors import StoreLocked
from retriever.ingest import Outcome
from retriever.removing import remove
from retriever.schema import Chunk, Document, document_id
from retriever.store import IndexedChunk, Listed, Store


def document(name: str, text: str = "Ä 🧾", **more: object) -> Document:
    metadata = {"kind": "pdf", "folder": "hr", "name": name, "date": "2024-02-29"}
    made = Document(document_id(name), name, f"Titel {name}", text, "de", "0" * 64, (0, 2), (), metadata)
    return replace(made, **more)  # type: ignore[arg-type]


def put(store: Store, made: Document, chunks: int = 0, chunking: str = "c") -> int:
    pieces = [IndexedChunk(Chunk(made.id, 0, 1, made.text[:1]), ("x",), f"{made.id} {at}") for at in range(chunks)]
    return store.put(made, pieces, loader="1", chunking=chunking, encoder="e", vectors={})


def test_what_is_listed(store: Store) -> None:
    revision = put(store, document("a.pdf"))
    assert store.listed() == [
        Listed(revision, "Titel a.pdf", document_id("a.pdf"), "a.pdf", "de", "pdf", "hr", "a.pdf", "2024-02-29", 2, 3)
    ]
    bare = put(store, document("b", metadata={}, pages=()))
    assert store.listed(document_id("b")) == [
        Listed(bare, "Titel b", document_id("b"), "b", "de", "", "", "", "", 0, 3),
    ]
    assert store.listed("no such id") == []


def test_only_what_is_current(store: Store) -> None:
    put(store, document("a.pdf"))
    revision = put(store, document("a.pdf", text="longer than before"))
    assert [(item.revision, item.characters) for item in store.listed()] == [(revision, 18)]
    store.remove("a.pdf")
    assert store.listed() == []
    assert store.source_of(document_id("a.pdf")) == "a.pdf"
    assert store.source_of("no such id") is None


def test_no_text_is_read_for_a_list(store: Store) -> None:
    put(store, document("a.pdf"))
    statements: list[str] = []
    connection = store._connection()
    connection.set_trace_callback(statements.append)
    store.listed()
    connection.set_trace_callback(None)
    (statement,) = statements
    read = [row for row in connection.execute(f"EXPLAIN {statement}") if row[1] in ("Column", "Function")]
    # 0 is the table, 1 the index.
    assert {(operation, cursor) for _, operation, cursor, *_ in read} == {("Column", 1)}


def test_chunks_are_counted_as_they_were_cut_last(store: Store) -> None:
    first, second = put(store, document("a.pdf"), chunks=3), put(store, document("b.pdf"), chunks=2)
    whole = Chunk(document_id("a.pdf"), 0, 3, "Ä 🧾")
    store.put_chunks(first, "Ä 🧾", [IndexedChunk(whole, ("x",), "k")], chunking="whole")
    assert store.chunk_numbers([first, second, 999]) == {first: 1, second: 2}


def test_a_store_of_version_2_gets_its_list(tmp_path: Path) -> None:
    with Store(tmp_path) as made:
        put(made, document("a.pdf"))
    with sqlite3.connect(tmp_path / "store.sqlite") as old:
        old.execute("DROP INDEX documents_listed")
        old.execute("PRAGMA user_version = 2")
    old.close()
    with Store(tmp_path) as opened:
        assert [item.name for item in opened.listed()] == ["a.pdf"]


# -- removing ---------------------------------------------------------------------------------------------------------


def test_what_is_removed_is_not_found_any_more(tmp_path: Path, fakes: ModuleType) -> None:
    house = fakes.House(tmp_path / "data")
    house.change(("a.txt", "Das Hotel am See."), ("b.txt", "Das Hotel am Wald."))
    gone = document_id("a.txt")
    outcomes: list[Outcome] = []
    remove(house.store, house.generations, [gone, "0" * 16], keep_s=0, on_outcome=outcomes.append)
    assert outcomes == [Outcome("a.txt", "removed"), Outcome("0" * 16, "unchanged")]
    assert [item.source for item in house.store.listed()] == ["b.txt"]
    assert house.shown() == {"b.txt"}

    revision = house.store.revision()
    remove(house.store, house.generations, [gone], keep_s=0, on_outcome=outcomes.append)
    assert outcomes[-1] == Outcome("a.txt", "unchanged")
    assert house.store.revision() == revision

    # And it can come back.
    house.change(("a.txt", "Das Hotel am See."))
    assert house.shown() == {"a.txt", "b.txt"}


def test_what_a_killed_removal_left_is_finished_by_the_next(tmp_path: Path, fakes: ModuleType) -> None:
    house = fakes.House(tmp_path / "data")
    house.change(("a.txt", "Das Hotel am See."), ("b.txt", "Das Hotel am Wald."))
    house.store.remove("a.txt")  # as if it had been killed before the index showed it
    assert house.shown() == {"a.txt", "b.txt"}
    remove(house.store, house.generations, [document_id("a.txt")], keep_s=0)
    assert house.shown() == {"b.txt"}


def test_nobody_removes_while_another_writes(tmp_path: Path, fakes: ModuleType) -> None:
    house = fakes.House(tmp_path / "data")
    house.change(("a.txt", "Das Hotel am See."))
    with Store(tmp_path / "data") as other, other.writer(), pytest.raises(StoreLocked):
        remove(house.store, house.generations, [document_id("a.txt")], keep_s=0)
    assert house.shown() == {"a.txt"}
