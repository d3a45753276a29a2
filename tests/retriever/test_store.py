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
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from retriever.errors import StoreError, StoreLocked
from retriever.schema import Heading
from retriever.store import Known, Store

ROOT = Path(__file__).parents[2]


def texts(store: Store, revision: int) -> list[str]:
    """Return what a reader sees that has an index of `revision` open."""
    rows = [entry.row for entry in store.entries(revision)]
    passages = store.passages(rows)
    return [passages[row].text for row in rows]


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
        assert (store.revision(), store.generation(), store.known()) == (0, None, {})
        assert store.counts() == {"documents": 0, "chunks": 0}
        assert list(store.entries(0)) == []
        assert store.vectors(0, "fake-1", dimensions=32).shape == (0, 32)

    def test_a_document_comes_back_as_it_was(self, store: Store, fakes: ModuleType) -> None:
        made = fakes.document("ä.txt", "Eins 😀\nZwei", metadata={"kind": "text", "leer": ""})
        made = replace(made, pages=(0, 7), headings=(Heading(1, "Eins", 0, 4),))
        fakes.put_lines(store, fakes.FakeEncoder(), made)
        assert store.document(made.id) == made
        assert store.document("nobody") is None
        assert store.known() == {"ä.txt": Known(made.id, made.content_hash, "recipe")}

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
        assert store.counts() == {"documents": 1, "chunks": 1}
        before = store.document(fakes.document("a").id, old)
        assert before is not None
        assert before.text == "alt eins\nalt zwei"
        assert store.text(old, 4, 12) == "eins\nalt"
        assert [entry["revision"] for entry in store.versions(old)] == [old]

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

    def test_vectors_come_in_the_order_of_entries(self, store: Store, fakes: ModuleType) -> None:
        encoder = fakes.FakeEncoder()
        fakes.put_lines(store, encoder, fakes.document("a", "eins\nzwei\neins"))
        fakes.put_lines(store, encoder, fakes.document("b", "zwei\ndrei"))
        expected = np.stack([encoder.encode_query(text) for text in ("eins", "zwei", "eins", "zwei", "drei")])
        assert np.array_equal(store.vectors(2, "fake-1", dimensions=32), expected)

    def test_vectors_of_another_encoder_are_missed(self, store: Store, fakes: ModuleType) -> None:
        fakes.put_lines(store, fakes.FakeEncoder(), fakes.document("a", "eins\neins\nzwei"))
        with pytest.raises(StoreError, match="no vector"):
            store.vectors(1, "fake-2", dimensions=32)
        missing = {key: text for key, _, _, text in store.without_vector("fake-2")}
        assert sorted(missing.values()) == ["eins", "zwei"]
        other = fakes.FakeEncoder(fingerprint="fake-2")
        store.put_vectors("fake-2", {key: other.encode_query(text) for key, text in missing.items()})
        assert list(store.without_vector("fake-2")) == []
        assert store.vectors(1, "fake-2", dimensions=32).shape == (3, 32)
        assert store.revision() == 1


class TestCollect:
    def test_what_the_given_revision_needs_is_kept(self, store: Store, fakes: ModuleType) -> None:
        encoder = fakes.FakeEncoder()
        fakes.put_lines(store, encoder, fakes.document("a", "alt"))
        fakes.put_lines(store, encoder, fakes.document("b", "bleibt"))
        live = store.revision()
        fakes.put_lines(store, encoder, fakes.document("a", "neu"))
        store.remove("b")
        store.collect(live)
        assert texts(store, live) == ["alt", "bleibt"]
        assert len(store.vectors(live, "fake-1", dimensions=32)) == 2
        assert store.text(1, 0, 3) == "alt"

    def test_what_was_retired_is_freed_and_a_tombstone_stays(self, store: Store, fakes: ModuleType) -> None:
        encoder = fakes.FakeEncoder()
        fakes.put_lines(store, encoder, fakes.document("a", "geteilt\nallein"))
        fakes.put_lines(store, encoder, fakes.document("b", "geteilt"))
        store.remove("a")
        rows = [entry.row for entry in store.entries(2)]
        store.collect(store.revision())
        assert sorted(store.passages(rows)) == rows[2:]
        keys = {hash_of(text): text for text in ("geteilt", "allein")}
        assert {keys[key] for key in store.has_vectors("fake-1", keys)} == {"geteilt"}
        tombstone = store.document(fakes.document("a").id, 1)
        assert tombstone is not None
        assert (tombstone.source, tombstone.text) == ("a", "")
        assert texts(store, store.revision()) == ["geteilt"]

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
                store.collect(floor)
                for revision in range(max(floor, 1), store.revision() + 1):
                    assert texts(store, revision) == seen[revision]
                    assert len(store.vectors(revision, "fake-1", dimensions=32)) == len(seen[revision])


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
            "from fakes import FakeEncoder, document, put_lines\n"
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
            "    assert len(list(store.entries(number))) == 50 * number\n"
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
