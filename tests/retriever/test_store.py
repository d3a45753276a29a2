"""Every version stays readable until it is collected, each change is all or nothing, and only one may write."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from retriever.analyze import ANALYSER, analyze
from retriever.errors import StoreError, StoreLocked
from retriever.schema import Chunk, Heading
from retriever.store import Entry, IndexedChunk, Known, Store

ROOT = Path(__file__).parents[2]


CHUNKING = f"lines {ANALYSER}"
"""That of `fakes.put_lines`."""


def entries(store: Store, revision: int, *, chunking: str = CHUNKING, encoder: str = "fake-1") -> list[Entry]:
    """Return what an index of `revision` is built from."""
    return list(store.entries(store.current(revision), chunking=chunking, encoder=encoder))


def texts(store: Store, revision: int, *, chunking: str = CHUNKING) -> list[str]:
    """Return what a reader sees that has an index of `revision` open."""
    rows = [entry.row for entry in entries(store, revision, chunking=chunking)]
    passages = store.passages(rows)
    return [passages[row].text for row in rows]


def collect(store: Store, revision: int) -> None:
    store.collect(revision, chunkings=[CHUNKING], encoders=["fake-1"])


def python(program: str, *arguments: object, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*before, sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


class TestVersions:
    def test_an_empty_store(self, store: Store) -> None:
        assert (store.revision(), store.current(0), store.known()) == (0, [], {})
        assert store.count(0, CHUNKING) == (0, 0)
        assert entries(store, 0) == []
        assert store.dimensions("fake-1") is None
        assert store.vocabulary(0) == ((), ())
        assert store.changes(0, 0) == ([], [])
        assert store.sample(0, CHUNKING, 5) == []

    def test_a_document_comes_back_as_it_was(self, store: Store, fakes: ModuleType) -> None:
        made = fakes.document("ä.txt", "Eins 😀\nZwei", metadata={"kind": "text", "leer": ""})
        made = replace(made, pages=(0, 7), headings=(Heading(1, "Eins", 0, 4),))
        fakes.put_lines(store, fakes.FakeEncoder(), made)
        assert store.document(made.id) == made
        assert store.document("nobody") is None
        assert store.known() == {"ä.txt": Known(made.id, made.content_hash, "loader")}

    def test_each_change_takes_the_next_revision(self, store: Store, fakes: ModuleType) -> None:
        encoder = fakes.FakeEncoder()
        taken = [fakes.put_lines(store, encoder, fakes.document(name, name)) for name in ("a", "b", "a")]
        assert taken == [1, 2, 3]
        assert store.remove("b")
        assert store.revision() == 4

    def test_a_replaced_version_stays_readable_at_its_revision(self, store: Store, fakes: ModuleType) -> None:
        encoder = fakes.FakeEncoder()
        old = fakes.put_lines(store, encoder, fakes.document("a", "alt eins\nalt zwei"))
        new = fakes.put_lines(store, encoder, fakes.document("a", "neu"))
        assert texts(store, old) == ["alt eins", "alt zwei"]
        assert texts(store, new) == ["neu"]
        assert store.count(old, CHUNKING) == (1, 2)
        assert store.count(new, CHUNKING) == (1, 1)
        before = store.document_born(old)
        assert before is not None
        assert before.text == "alt eins\nalt zwei"
        assert list(store.versions(old)) == [old]

    def test_a_removed_document_stays_readable_at_its_revision(self, store: Store, fakes: ModuleType) -> None:
        revision = fakes.put_lines(store, fakes.FakeEncoder(), fakes.document("a", "eins"))
        assert store.remove("a")
        assert texts(store, revision) == ["eins"]
        assert texts(store, store.revision()) == []
        assert store.known() == {}
        assert store.document(fakes.document("a").id) is None

    def test_removing_nobody_says_so(self, store: Store) -> None:
        assert not store.remove("nobody")

    def test_a_removed_document_may_return(self, store: Store, fakes: ModuleType) -> None:
        encoder = fakes.FakeEncoder()
        fakes.put_lines(store, encoder, fakes.document("a", "eins"))
        store.remove("a")
        again = fakes.put_lines(store, encoder, fakes.document("a", "eins"))
        assert texts(store, again) == ["eins"]
        assert encoder.encoded == ["eins"]

    def test_a_change_that_fails_leaves_nothing(self, store: Store, fakes: ModuleType) -> None:
        fakes.put_lines(store, fakes.FakeEncoder(), fakes.document("a", "eins"))
        broken = fakes.document("a", "zwei", metadata={"x": object()})  # no JSON
        with pytest.raises(TypeError):
            fakes.put_lines(store, fakes.FakeEncoder(), broken)
        assert store.revision() == 1
        assert texts(store, 1) == ["eins"]

    def test_an_entry_has_all_that_an_index_needs(self, store: Store, fakes: ModuleType) -> None:
        encoder = fakes.FakeEncoder()
        fakes.put_lines(store, encoder, fakes.document("a", "eins\nzwei\neins", metadata={"kind": "text"}, title="Die Reisen"))
        fakes.put_lines(store, encoder, fakes.document("b", "zwei\n\ndrei", language="en"))
        found = entries(store, 2)
        assert [entry.passage.text for entry in found] == ["eins", "zwei", "eins", "zwei", "drei"]
        assert [entry.passage.after for entry in found] == ["\nz", "\ne", "", "\n\n", ""]
        assert np.array_equal([entry.vector for entry in found], [encoder.encode_query(entry.passage.text) for entry in found])
        assert sorted({entry.row for entry in found}) == [entry.row for entry in found]
        assert [dict(entry.metadata) for entry in found] == [{"kind": "text"}] * 3 + [{}] * 2
        assert (found[0].title_terms, found[0].heading_terms) == (" ".join(analyze("Die Reisen", "de")), "")
        assert found[0].title_terms != ""
        assert found[4].terms == " ".join(analyze("drei", "en"))

    def test_entries_of_some_versions_only(self, store: Store, fakes: ModuleType) -> None:
        encoder = fakes.FakeEncoder()
        for name in "abc":
            fakes.put_lines(store, encoder, fakes.document(name, f"Text {name}"))
        found = store.entries([3, 1, 99], chunking=CHUNKING, encoder="fake-1")
        assert [entry.passage.text for entry in found] == ["Text a", "Text c"]

    def test_vectors_of_another_encoder_are_missed(self, store: Store, fakes: ModuleType) -> None:
        fakes.put_lines(store, fakes.FakeEncoder(), fakes.document("a", "eins\neins\nzwei"))
        with pytest.raises(StoreError, match="no vector"):
            entries(store, 1, encoder="fake-2")
        assert list(store.without_vector("fake-2", "another chunking")) == []
        missing = {key: text for key, _, _, text in store.without_vector("fake-2", CHUNKING)}
        assert sorted(missing.values()) == ["eins", "zwei"]
        other = fakes.FakeEncoder(fingerprint="fake-2")
        store.put_vectors("fake-2", {key: other.encode_query(text) for key, text in missing.items()})
        assert list(store.without_vector("fake-2", CHUNKING)) == []
        assert len(entries(store, 1, encoder="fake-2")) == 3
        assert store.dimensions("fake-2") == 32
        assert store.revision() == 1


class TestCollect:
    def test_what_the_given_revision_needs_is_kept(self, store: Store, fakes: ModuleType) -> None:
        encoder = fakes.FakeEncoder()
        fakes.put_lines(store, encoder, fakes.document("a", "alt"))
        fakes.put_lines(store, encoder, fakes.document("b", "bleibt"))
        live = store.revision()
        fakes.put_lines(store, encoder, fakes.document("a", "neu"))
        store.remove("b")
        collect(store, live)
        assert texts(store, live) == ["alt", "bleibt"]
        before = store.document_born(1)
        assert before is not None
        assert before.text == "alt"

    def test_what_was_retired_is_freed_and_a_tombstone_stays(self, store: Store, fakes: ModuleType) -> None:
        encoder = fakes.FakeEncoder()
        fakes.put_lines(store, encoder, fakes.document("a", "geteilt\nallein"))
        fakes.put_lines(store, encoder, fakes.document("b", "geteilt"))
        store.remove("a")
        rows = [entry.row for entry in entries(store, 2)]
        assert [born for born in (1, 2) if store.document_born(born)] == [1, 2]
        collect(store, store.revision())
        assert sorted(store.passages(rows)) == rows[2:]
        keys = {hash_of(text): text for text in ("geteilt", "allein")}
        assert {keys[key] for key in store.has_vectors("fake-1", keys)} == {"geteilt"}
        assert store.changes(2, 3) == ([], [1])  # the tombstone
        assert [born for born in (1, 2) if store.document_born(born)] == [2]
        assert texts(store, store.revision()) == ["geteilt"]

    def test_a_current_document_without_text_is_no_tombstone(self, store: Store, fakes: ModuleType) -> None:
        made = fakes.document("leer", "")
        fakes.put_lines(store, fakes.FakeEncoder(), made)
        collect(store, store.revision())
        assert store.document_born(1) == store.document(made.id) == made
        assert list(store.without_chunks(CHUNKING)) == []

    def test_any_history(self, store: Store, fakes: ModuleType) -> None:
        """Whatever was put, removed and collected: from the collected revision on, nothing has changed for readers."""
        dice, encoder, seen, floor = random.Random(7), fakes.FakeEncoder(), {}, 0
        for step in range(80):
            name = dice.choice("abcd")
            if dice.random() < 0.3:
                store.remove(name)
            else:
                fakes.put_lines(store, encoder, fakes.document(name, f"{name} {dice.randrange(9)}\n{dice.randrange(3)}"))
            seen[store.revision()] = texts(store, store.revision())
            if step % 10 == 9:
                floor = dice.randrange(floor, store.revision() + 1)
                collect(store, floor)
                for revision in range(max(floor, 1), store.revision() + 1):
                    assert texts(store, revision) == seen[revision]
                    assert store.count(revision, CHUNKING)[1] == len(seen[revision])


class TestChunkings:
    """Chunks of several sizes and vectors of several encoders lie side by side: for a rebuild, and for the way back."""

    @pytest.fixture
    def both(self, store: Store, fakes: ModuleType) -> Store:
        encoder = fakes.FakeEncoder()
        fakes.put_lines(store, encoder, fakes.document("a", "eins\nzwei"))
        fakes.put_lines(store, encoder, fakes.document("b", "drei"))
        for revision in list(store.without_chunks("whole")):
            add_whole(store, encoder, revision)
        return store

    def test_each_is_read_by_itself(self, both: Store) -> None:
        assert texts(both, 2) == ["eins", "zwei", "drei"]
        assert texts(both, 2, chunking="whole") == ["eins\nzwei", "drei"]
        assert (both.count(2, CHUNKING), both.count(2, "whole")) == ((2, 3), (2, 2))
        assert len(both.sample(2, CHUNKING, 99)) == 3
        assert len(both.sample(2, "whole", 99)) == 2
        assert set(both.sample(2, "whole", 1)) < set(both.sample(2, "whole", 99))
        assert both.revision() == 2

    def test_what_lacks_one(self, both: Store, fakes: ModuleType) -> None:
        assert list(both.without_chunks("whole")) == []
        revision = fakes.put_lines(both, fakes.FakeEncoder(), fakes.document("a", "neu"))
        assert list(both.without_chunks("whole")) == [revision]
        assert texts(both, 2, chunking="whole") == ["eins\nzwei", "drei"]
        assert list(both.without_chunks(CHUNKING)) == []

    def test_a_second_time_nothing_happens(self, both: Store, fakes: ModuleType) -> None:
        add_whole(both, fakes.FakeEncoder(), 1)
        assert texts(both, 2, chunking="whole") == ["eins\nzwei", "drei"]

    def test_a_retired_version_gets_none(self, store: Store, fakes: ModuleType) -> None:
        """It was replaced between being found to lack them and getting them."""
        encoder = fakes.FakeEncoder()
        for text in ("alt", "neu"):
            fakes.put_lines(store, encoder, fakes.document("a", text))
        add_whole(store, encoder, 1)
        assert texts(store, 1, chunking="whole") == []
        add_whole(store, encoder, 99)
        assert store.count(2, "whole") == (1, 0)

    def test_a_replaced_version_keeps_all_of_them(self, both: Store, fakes: ModuleType) -> None:
        fakes.put_lines(both, fakes.FakeEncoder(), fakes.document("a", "neu"))
        both.collect(2, chunkings=[CHUNKING, "whole"], encoders=["fake-1"])
        assert texts(both, 2, chunking="whole") == ["eins\nzwei", "drei"]
        both.collect(3, chunkings=[CHUNKING, "whole"], encoders=["fake-1"])
        assert texts(both, 3, chunking="whole") == ["drei"]
        assert texts(both, 3) == ["drei", "neu"]

    def test_collecting_keeps_only_the_named_ones(self, both: Store) -> None:
        keys = [hash_of(text) for text in ("eins", "zwei", "drei", "eins\nzwei")]
        both.collect(2, chunkings=["whole"], encoders=["fake-1"])
        assert texts(both, 2) == []
        assert texts(both, 2, chunking="whole") == ["eins\nzwei", "drei"]
        assert both.has_vectors("fake-1", keys) == {hash_of("drei"), hash_of("eins\nzwei")}
        assert list(both.without_chunks(CHUNKING)) == [1, 2]
        assert both.document(both.known()["a"].document) is not None

    def test_collecting_keeps_only_vectors_of_the_named_encoders(self, both: Store, fakes: ModuleType) -> None:
        other = fakes.FakeEncoder(fingerprint="fake-2")
        vectors = {key: other.encode_query(text) for key, _, _, text in both.without_vector("fake-2", CHUNKING)}
        both.put_vectors("fake-2", vectors)
        both.collect(2, chunkings=[CHUNKING, "whole"], encoders=["fake-1", "fake-2"])
        assert (both.dimensions("fake-1"), both.dimensions("fake-2")) == (32, 32)
        both.collect(2, chunkings=[CHUNKING, "whole"], encoders=["fake-2"])
        assert both.dimensions("fake-1") is None
        assert len(entries(both, 2, encoder="fake-2")) == 3


def add_whole(store: Store, encoder: Any, revision: int) -> None:
    """Add a chunking of one chunk a document, as `Maker.fill` does."""
    document = store.document_born(revision)
    text = document.text if document else "nobody"
    item = IndexedChunk(Chunk("", 0, len(text), text), analyze(text, "de"), hash_of(text))
    store.put_chunks(revision, text, [item], chunking="whole")
    store.put_vectors(encoder.fingerprint, {item.key: encoder.encode_query(text)})


class TestChanges:
    def test_what_an_index_lacks(self, store: Store, fakes: ModuleType) -> None:
        encoder = fakes.FakeEncoder()
        for name, text in [("a", "eins"), ("b", "zwei"), ("a", "neu"), ("c", "drei")]:
            fakes.put_lines(store, encoder, fakes.document(name, text))
        store.remove("c")
        assert store.changes(0, 0) == ([], [])
        assert store.changes(0, 2) == ([1, 2], [])
        assert store.changes(2, 3) == ([3], [1])
        assert store.changes(0, 5) == ([2, 3], [1, 4])  # what came and went in between is told as gone
        assert store.changes(3, 5) == ([], [4])
        assert store.changes(5, 5) == ([], [])
        assert store.current(5) == [2, 3]

    def test_following_them_gives_what_is_current(self, store: Store, fakes: ModuleType) -> None:
        dice, encoder = random.Random(5), fakes.FakeEncoder()
        shown, shows, at = set[int](), set[int](), 0
        for _ in range(60):
            name = dice.choice("abcde")
            if dice.random() < 0.3:
                store.remove(name)
            else:
                fakes.put_lines(store, encoder, fakes.document(name, f"{name} {dice.random()}"))
            if dice.random() < 0.4:
                until = dice.randrange(at, store.revision() + 1)
                born, retired = store.changes(at, until)
                shown = (shown | set(born)) - set(retired)
                shows, at = set(store.current(until)), until
                assert shown == shows
                collect(store, at)
        assert len(shows) > 1

    def test_the_vocabulary_of_a_revision(self, store: Store, fakes: ModuleType) -> None:
        encoder = fakes.FakeEncoder()
        fakes.put_lines(store, encoder, fakes.document("a", "eins", metadata={"year": "1"}))
        fakes.put_lines(store, encoder, fakes.document("b", "one", language="en", metadata={"kind": "text", "source": "x"}))
        own = ("document", "language", "source", "title")
        assert store.vocabulary(1) == (("de",), tuple(sorted([*own, "year"])))
        assert store.vocabulary(2) == (("de", "en"), tuple(sorted([*own, "kind", "year"])))
        store.remove("a")
        assert store.vocabulary(3) == (("en",), tuple(sorted([*own, "kind"])))
        store.remove("b")
        assert store.vocabulary(4) == ((), ())


class TestFacts:
    def test_they_are_kept_and_forgotten(self, store: Store, tmp_path: Path) -> None:
        assert store.recall("x") is None
        assert store.remember({"x": "1", "y": "ä"})
        with Store(tmp_path / "data") as other:
            assert (other.recall("x"), other.recall("y")) == ("1", "ä")
            other.remember({"x": None, "nobody": None})
        assert (store.recall("x"), store.recall("y")) == (None, "ä")

    def test_only_if_the_expected_value_is_there(self, store: Store) -> None:
        assert store.remember({"x": "1"}, expected=("x", None))
        assert not store.remember({"x": "2", "y": "2"}, expected=("x", None))
        assert not store.remember({"x": "2", "y": "2"}, expected=("x", "0"))
        assert (store.recall("x"), store.recall("y")) == ("1", None)
        assert store.remember({"x": "2", "y": "2"}, expected=("x", "1"))
        assert store.remember({"x": None}, expected=("y", "2"))
        assert (store.recall("x"), store.recall("y")) == (None, "2")

    def test_of_many_at_once_one_wins(self, tmp_path: Path) -> None:
        start, won = threading.Barrier(8), []

        def race(number: int) -> None:
            with Store(tmp_path) as own:
                start.wait()
                if own.remember({"x": str(number)}, expected=("x", None)):
                    won.append(number)

        threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with Store(tmp_path) as store:
            assert won == [int(store.recall("x") or -1)]

    def test_a_store_has_its_own_id(self, tmp_path: Path) -> None:
        with Store(tmp_path / "a") as first, Store(tmp_path / "b") as second:
            assert len(first.id) == len(second.id) == 16
            assert first.id != second.id
            with Store(tmp_path / "a") as again:
                assert again.id == first.id


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class TestWriter:
    def test_another_process_is_refused(self, store: Store, tmp_path: Path) -> None:
        program = (
            "import sys; from pathlib import Path; from retriever.store import Store\n"
            "with Store(Path(sys.argv[1])) as store, store.writer():\n"
            "    print('held', flush=True); sys.stdin.readline()\n"
        )
        with python(program, tmp_path / "data") as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            with pytest.raises(StoreLocked, match=r"Another process is writing to .*store\.sqlite\. Wait"), store.writer():
                pass
            other.communicate("\n")
        with store.writer():
            pass

    def test_a_killed_writer_holds_nothing(self, store: Store, tmp_path: Path) -> None:
        program = (
            "import sys; from pathlib import Path; from retriever.store import Store\n"
            "with Store(Path(sys.argv[1])).writer():\n"
            "    print('held', flush=True); sys.stdin.readline()\n"
        )
        with python(program, tmp_path / "data") as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            other.kill()
        with store.writer():
            pass

    @pytest.mark.parametrize("same", [True, False], ids=["same-store", "second-store"])
    def test_another_thread_is_refused(self, store: Store, tmp_path: Path, same: bool) -> None:
        errors: list[BaseException] = []

        def write() -> None:
            second = store if same else Store(tmp_path / "data")
            try:
                with second.writer():
                    pass
            except StoreError as error:
                errors.append(error)
            finally:
                if not same:
                    second.close()

        with store.writer():
            thread = threading.Thread(target=write)
            thread.start()
            thread.join()
        assert [type(error) for error in errors] == [StoreLocked]

    def test_a_second_store_in_the_same_thread_is_refused(self, store: Store, tmp_path: Path) -> None:
        with store.writer(), Store(tmp_path / "data") as second, pytest.raises(StoreLocked), second.writer():
            pass

    def test_it_waits_if_told_to(self, store: Store, tmp_path: Path) -> None:
        held, waited = threading.Event(), []

        def hold() -> None:
            with Store(tmp_path / "data") as other, other.writer():
                held.set()
                time.sleep(0.3)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        begin = time.monotonic()
        with pytest.raises(StoreLocked), store.writer(wait_s=0.05):
            pass
        with store.writer(wait_s=20):
            waited.append(time.monotonic() - begin)
        thread.join()
        assert 0.1 < waited[0] < 10

    def test_a_rebuild_keeps_out_another_one_but_no_writer(self, store: Store, tmp_path: Path) -> None:
        with store.rebuilding(), Store(tmp_path / "data") as second:
            with pytest.raises(StoreLocked, match=r"Another rebuild of .*data is running\. Wait"), second.rebuilding():
                pass
            with second.writer():
                pass
        with Store(tmp_path / "data") as second, second.rebuilding():
            pass


class TestFile:
    def test_a_newer_schema_is_refused(self, tmp_path: Path) -> None:
        Store(tmp_path).close()
        db = sqlite3.connect(tmp_path / "store.sqlite")
        db.execute("PRAGMA user_version = 99")
        db.close()
        with pytest.raises(StoreError, match=r"newer Beleg\. Update"):
            Store(tmp_path)

    def test_a_file_that_is_no_database_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "store.sqlite").write_text("Liebes Tagebuch, " * 100)
        with pytest.raises(StoreError, match="not a database"):
            Store(tmp_path)

    def test_a_folder_that_is_a_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "data").touch()
        with pytest.raises(StoreError, match="cannot be opened"):
            Store(tmp_path / "data")

    def test_a_closed_store_opens_again(self, store: Store, fakes: ModuleType) -> None:
        fakes.put_lines(store, fakes.FakeEncoder(), fakes.document("a", "eins"))
        store.close()
        assert store.revision() == 1

    def test_many_open_a_new_store_at_once(self, tmp_path: Path) -> None:
        errors: list[BaseException] = []
        start = threading.Barrier(8)

        def open_it() -> None:
            start.wait()
            try:
                Store(tmp_path / "new").close()
            except StoreError as error:
                errors.append(error)

        threads = [threading.Thread(target=open_it) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []

    @pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on file sizes")
    @pytest.mark.parametrize("how", ["full", "limited"])
    def test_a_full_disk_is_an_error_and_harms_nothing_before_it(self, tmp_path: Path, how: str) -> None:
        program = (
            "import resource, subprocess, sys; from pathlib import Path\n"
            "from fakes import STAMP, FakeEncoder, document, put_lines\n"
            "from retriever.errors import StoreError; from retriever.store import Store\n"
            "store = Store(Path(sys.argv[1]))\n"
            "if sys.argv[2] == 'limited': resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
            "for number in range(1000):\n"
            "    try:\n"
            "        put_lines(store, FakeEncoder(), document(str(number), f'Nummer {number}\\n' * 50))\n"
            "    except StoreError as error:\n"
            "        print(number, error); break\n"
            "store.close()\n"
            "with Store(Path(sys.argv[1])) as store:\n"
            "    assert sorted(map(int, store.known())) == list(range(number)), store.known()\n"
            "    assert store.revision() == number\n"
            "    assert store.count(number, STAMP.chunking)[1] == 50 * number\n"
            "    print('intact')\n"
        )
        mount: tuple[str, ...] = ()
        if how == "full":
            # A disk of one megabyte, seen by this process only.
            mount = ("unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=1m none "$0" && exec "$@"', str(tmp_path))
            if not shutil.which("unshare") or subprocess.run([*mount, "true"], capture_output=True).returncode:
                pytest.skip("this user may not mount a small disk")
        with python(program, tmp_path, how, before=mount) as other:
            said, _ = other.communicate()
        stored, _, message = said.partition(" ")
        assert re.search("cannot be written: (disk I/O error|database or disk is full).*unharmed.\nintact", message)
        assert int(stored) > 3


def test_readers_in_threads_see_whole_documents_while_one_writes(store: Store, fakes: ModuleType) -> None:
    """Every version of a document says its number in each of ten lines: a reader must never see two numbers."""
    encoder, done = fakes.FakeEncoder(), threading.Event()
    problems: list[object] = []
    reads = [0] * 4

    def read(reader: int) -> None:
        try:
            while not done.is_set():
                revision = store.revision()
                seen = texts(store, revision)
                if seen and (len(seen) != 10 or len(set(seen)) != 1):
                    problems.append(seen)
                reads[reader] += 1
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test fails with it
            problems.append(error)

    threads = [threading.Thread(target=read, args=(reader,)) for reader in range(4)]
    for thread in threads:
        thread.start()
    with store.writer():
        for number in range(150):
            fakes.put_lines(store, encoder, fakes.document("a", "\n".join([f"Fassung {number}"] * 10)))
    done.set()
    for thread in threads:
        thread.join()
    assert problems == []
    assert min(reads) > 0


def test_many_may_open_a_new_store_at_once(tmp_path: Path) -> None:
    program = "import sys; from pathlib import Path; from retriever.store import Store; Store(Path(sys.argv[1])).revision()"
    for number in range(4):
        opening = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path / str(number))]) for _ in range(4)]
        assert [process.wait() for process in opening] == [0] * 4
