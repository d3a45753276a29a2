"""A new generation is made only when there is something new to show, and whoever reads the old one is not disturbed."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from retriever.errors import IndexMismatch, IndexMissing
from retriever.index.base import Stamp
from retriever.index.embedded import EmbeddedIndex
from retriever.live import Live, publish
from retriever.store import Store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "index"


def generations(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def texts(live: Live, query: str = "Hotel") -> list[str]:
    return sorted(hit.text for hit in live.searcher().search(query, mode="keyword"))


class Corpus:
    """A store that a test writes to and publishes from."""

    def __init__(self, store: Store, folder: Path, fakes: ModuleType) -> None:
        self.store, self.folder, self.fakes = store, folder, fakes
        self.encoder = fakes.FakeEncoder()

    def put(self, source: str, text: str) -> None:
        self.fakes.put_lines(self.store, self.encoder, self.fakes.document(source, text))

    def publish(self) -> bool:
        with self.store.writer():
            return publish(self.store, self.folder, self.encoder, self.fakes.STAMP)

    def live(self) -> Live:
        return Live(self.store, self.folder, self.encoder, alpha=0.5)


@pytest.fixture
def corpus(store: Store, folder: Path, fakes: ModuleType) -> Corpus:
    corpus = Corpus(store, folder, fakes)
    corpus.put("a", "Hotel alt")
    corpus.put("b", "Hotel bleibt")
    return corpus


def test_nothing_is_live_before_the_first_generation(corpus: Corpus) -> None:
    live = corpus.live()
    live.catch_up()
    with pytest.raises(IndexMissing, match=r"Nothing has been indexed yet\. Run `beleg index FOLDER`\."):
        live.searcher()


def test_it_publishes_only_what_changed(corpus: Corpus, folder: Path) -> None:
    assert corpus.publish()
    first = corpus.store.generation()
    assert not corpus.publish()
    assert corpus.store.generation() == first
    corpus.put("c", "Hotel neu")
    assert corpus.publish()
    assert corpus.store.generation() != first
    assert len(generations(folder)) == 2  # the one before is kept for those in the middle of a search
    assert not corpus.publish()
    assert generations(folder) == [corpus.store.generation()]


def test_another_stamp_is_something_new(corpus: Corpus, folder: Path) -> None:
    corpus.publish()
    stamp = Stamp("fake-1", "paragraphs", corpus.fakes.STAMP.analyser)
    with corpus.store.writer():
        assert publish(corpus.store, folder, corpus.encoder, stamp)
        assert not publish(corpus.store, folder, corpus.encoder, stamp)


def test_leftovers_of_killed_builds_go(corpus: Corpus, folder: Path) -> None:
    (folder / ".000000001-dead.partial" / "terms").mkdir(parents=True)
    (folder / "000000001-never-live").mkdir()
    corpus.publish()
    assert generations(folder) == [corpus.store.generation()]


def test_a_reader_of_the_old_generation_is_not_disturbed(corpus: Corpus, folder: Path) -> None:
    corpus.publish()
    name = corpus.store.generation()
    assert name is not None
    index = EmbeddedIndex(corpus.store, folder, name)
    asked = {"vector": np.ones(32, "f4"), "terms": ["de:hotel"], "depth": 10, "filters": {}}
    before = index.candidates(**asked)
    passages = index.passages([candidate.row for candidate in before])
    assert {passage.text for passage in passages.values()} == {"Hotel alt", "Hotel bleibt"}

    corpus.put("a", "Hotel neu")
    assert index.candidates(**asked) == before
    corpus.publish()
    assert index.candidates(**asked) == before
    assert index.passages([candidate.row for candidate in before]) == passages

    # Two generations on, its folder is gone and what was retired is collected; what is left is still right.
    corpus.put("c", "Hotel neuer")
    corpus.publish()
    assert not (folder / name).exists()
    assert index.candidates(**asked) == before
    left = index.passages([candidate.row for candidate in before])
    assert left.items() <= passages.items()
    assert "Hotel bleibt" in {passage.text for passage in left.values()}


def test_a_searcher_survives_two_generations(corpus: Corpus) -> None:
    corpus.publish()
    searcher = corpus.live().searcher()
    for text in ("Hotel neu", "Hotel neuer"):
        corpus.put("a", text)
        corpus.publish()
    assert [hit.text for hit in searcher.search("Hotel bleibt")] == ["Hotel bleibt"]


def test_live_follows(corpus: Corpus) -> None:
    corpus.publish()
    live = corpus.live()
    searcher = live.searcher()
    assert live.searcher() is searcher
    corpus.put("a", "Hotel neu")
    assert texts(live) == ["Hotel alt", "Hotel bleibt"]
    corpus.publish()
    assert texts(live) == ["Hotel bleibt", "Hotel neu"]


def test_live_follows_another_process(tmp_path: Path, fakes: ModuleType) -> None:
    files, data = tmp_path / "files", tmp_path / "data"
    files.mkdir()
    program = [sys.executable, Path(__file__).with_name("indexing_program.py"), data, files]
    root = str(Path(__file__).parents[2])
    with Store(data) as store:
        live = Live(store, data / "index", fakes.FakeEncoder(), alpha=0.5)
        for number in range(2):
            (files / f"{number}.txt").write_text(f"Das Hotel mit der Nummer {number}.")
            subprocess.run(program, env={"PYTHONPATH": root}, check=True, stdout=subprocess.PIPE)
            assert len(texts(live, "hotel nummer Hotel Nummer Das")) == number + 1


def test_it_catches_up_with_what_a_killed_run_stored(corpus: Corpus) -> None:
    corpus.publish()
    corpus.put("a", "Hotel neu")
    encoded = len(corpus.encoder.encoded)
    live = corpus.live()
    assert texts(live) == ["Hotel alt", "Hotel bleibt"]
    live.catch_up()
    assert texts(live) == ["Hotel bleibt", "Hotel neu"]
    assert len(corpus.encoder.encoded) == encoded
    name = corpus.store.generation()
    live.catch_up()
    assert corpus.store.generation() == name


def test_it_does_not_catch_up_while_another_writes(corpus: Corpus) -> None:
    corpus.publish()
    corpus.put("a", "Hotel neu")
    name = corpus.store.generation()
    with corpus.store.writer():
        thread = threading.Thread(target=corpus.live().catch_up)
        thread.start()
        thread.join()
    assert corpus.store.generation() == name


@pytest.mark.parametrize("served", ["fake-1", "fake-2"])
def test_a_killed_change_of_encoder_keeps_the_old_generation(corpus: Corpus, folder: Path, served: str) -> None:
    """A run with another encoder has stored some documents only: there is nothing yet to catch up with."""
    corpus.publish()
    other = corpus.fakes.FakeEncoder(fingerprint="fake-2")
    corpus.fakes.put_lines(corpus.store, other, corpus.fakes.document("a", "Hotel neu"))
    live = Live(corpus.store, folder, corpus.encoder if served == "fake-1" else other, alpha=0.5)
    live.catch_up()
    if served == "fake-1":
        assert texts(live) == ["Hotel alt", "Hotel bleibt"]
    else:
        with pytest.raises(IndexMismatch, match="another encoder"):
            live.searcher()


def test_a_damaged_generation_is_built_again(corpus: Corpus, folder: Path) -> None:
    corpus.publish()
    name = corpus.store.generation()
    assert name is not None
    (folder / name / "vectors.faiss").write_bytes(b"")
    live = corpus.live()
    with pytest.raises(IndexMissing, match="cannot be read"):
        live.searcher()
    encoded = len(corpus.encoder.encoded)
    live.catch_up()
    assert texts(live) == ["Hotel alt", "Hotel bleibt"]
    assert generations(folder) == [corpus.store.generation()]
    (folder / generations(folder)[0] / "ids.npy").unlink()
    assert corpus.publish()
    assert texts(corpus.live()) == ["Hotel alt", "Hotel bleibt"]
    assert len(corpus.encoder.encoded) == encoded


def test_many_threads_search_while_generations_come_and_go(corpus: Corpus) -> None:
    corpus.put("a", "Hotel Fassung 0")
    corpus.publish()
    live, done, problems = corpus.live(), threading.Event(), []

    def search() -> None:
        try:
            while not done.is_set():
                found = [hit.text for hit in live.searcher().search("Hotel", mode="keyword")]
                if "Hotel bleibt" not in found or len(found) > 2:
                    problems.append(found)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test fails with it
            problems.append(error)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(1, 13):
        corpus.put("a", f"Hotel Fassung {number}")
        corpus.publish()
    done.set()
    for thread in threads:
        thread.join()
    assert problems == []
    assert texts(live) == ["Hotel Fassung 12", "Hotel bleibt"]
