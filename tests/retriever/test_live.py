"""A new generation is made only when there is something new to show, and whoever reads the old one is not disturbed."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from retriever.encoders import Encoders
from retriever.errors import BelegError, IndexMismatch, IndexMissing, ModelError, SwapLost
from retriever.index.base import Generation
from retriever.index.embedded import EmbeddedGenerations
from retriever.live import Live
from retriever.publish import catch_up, publish
from retriever.search import Searcher
from retriever.store import Store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "index"


def folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def texts(live: Live, query: str = "Hotel") -> list[str]:
    return sorted(hit.text for hit in live.searcher().search(query, mode="keyword"))


class Corpus:
    """A store that a test writes to and publishes from."""

    def __init__(self, store: Store, folder: Path, fakes: ModuleType) -> None:
        self.store, self.folder, self.fakes = store, folder, fakes
        self.generations = EmbeddedGenerations(store, folder)
        self.encoder = fakes.FakeEncoder()

    def put(self, source: str, text: str) -> None:
        self.fakes.put_lines(self.store, self.encoder, self.fakes.document(source, text))

    def publish(self) -> bool:
        target = Generation("", self.fakes.STAMP, "fake-1")
        with self.store.writer():
            return publish(self.store, self.generations, target, dimensions=32, keep_s=float("inf"))

    def catch_up(self) -> None:
        catch_up(self.store, self.generations)

    def name(self) -> str:
        generation = self.generations.live()
        assert generation is not None
        return generation.name

    def live(self, encoders: Encoders | None = None, *, retry_s: float = 60) -> Live:
        return Live(self.generations, encoders or self.fakes.encoders(self.encoder), alpha=0.5, retry_s=retry_s)

    def rebuild(self, fingerprint: str) -> None:
        """Make a generation of another encoder live, as `Rebuild` does."""
        other = self.fakes.FakeEncoder(fingerprint=fingerprint)
        stamp = replace(self.fakes.STAMP, encoder=fingerprint)
        vectors = {key: other.encode_query(text) for key, _, _, text in self.store.without_vector(fingerprint, stamp.chunking)}
        self.store.put_vectors(fingerprint, vectors)
        built = self.generations.build(stamp, fingerprint, dimensions=32)
        self.generations.swap(built, expected=self.generations.live(), keep=True)


@pytest.fixture
def corpus(store: Store, folder: Path, fakes: ModuleType) -> Corpus:
    corpus = Corpus(store, folder, fakes)
    corpus.put("a", "Hotel alt")
    corpus.put("b", "Hotel bleibt")
    return corpus


def test_nothing_is_live_before_the_first_generation(corpus: Corpus) -> None:
    live = corpus.live()
    corpus.catch_up()
    with pytest.raises(IndexMissing, match=r"Nothing has been indexed yet\. Run `beleg index FOLDER`\."):
        live.searcher()


def test_it_publishes_only_what_changed(corpus: Corpus, folder: Path) -> None:
    assert corpus.publish()
    first = corpus.name()
    assert not corpus.publish()
    assert corpus.name() == first
    corpus.put("c", "Hotel neu")
    assert corpus.publish()
    assert corpus.name() != first
    assert folders(folder) == [corpus.name()]
    assert not corpus.publish()
    assert folders(folder) == [corpus.name()]


def test_another_target_changes_nothing_that_is_live(corpus: Corpus) -> None:
    """Encoder and chunks stay those of the live generation until a rebuild."""
    corpus.publish()
    live = corpus.generations.live()
    other = Generation("", replace(corpus.fakes.STAMP, chunker="paragraphs"), "fake-1")
    with corpus.store.writer():
        assert not publish(corpus.store, corpus.generations, other, dimensions=32, keep_s=0)
    assert corpus.generations.live() == live


def test_leftovers_of_killed_builds_go(corpus: Corpus, folder: Path) -> None:
    (folder / ".000000001-dead.partial" / "terms").mkdir(parents=True)
    (folder / "000000001-never-live").mkdir()
    corpus.publish()
    assert folders(folder) == [corpus.name()]


def test_a_swap_of_what_is_not_live_any_more_is_lost(corpus: Corpus) -> None:
    corpus.publish()
    first = corpus.generations.live()
    corpus.put("c", "Hotel neu")
    corpus.publish()
    second = corpus.generations.live()
    assert first is not None
    for expected in (first, None):
        with pytest.raises(SwapLost, match="Nothing has changed"):
            corpus.generations.swap(first, expected=expected, keep=True)
    assert corpus.generations.live() == second
    assert corpus.generations.previous() is None


def test_a_reader_of_the_old_generation_is_not_disturbed(corpus: Corpus, folder: Path) -> None:
    corpus.publish()
    name = corpus.name()
    live = corpus.generations.live()
    assert live is not None
    index = corpus.generations.open(live)
    asked = {"vector": np.ones(32, "f4"), "terms": ["de:hotel"], "depth": 10, "filters": {}}
    before = index.candidates(**asked)
    passages = index.passages([candidate.row for candidate in before])
    assert {passage.text for passage in passages.values()} == {"Hotel alt", "Hotel bleibt"}

    corpus.put("a", "Hotel neu")
    assert index.candidates(**asked) == before
    corpus.publish()
    # Its folder is gone, yet whoever has it open finds all that it showed.
    assert not (folder / name).exists()
    assert index.candidates(**asked) == before
    assert index.passages([candidate.row for candidate in before]) == passages

    # Two generations on, what was retired is collected; what is left is still right.
    corpus.put("c", "Hotel neuer")
    corpus.publish()
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
        live = Live(EmbeddedGenerations(store, data / "index"), fakes.encoders(fakes.FakeEncoder()), alpha=0.5)
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
    corpus.catch_up()
    assert texts(live) == ["Hotel bleibt", "Hotel neu"]
    assert len(corpus.encoder.encoded) == encoded
    name = corpus.name()
    corpus.catch_up()
    assert corpus.name() == name


def test_it_does_not_catch_up_while_another_writes(corpus: Corpus) -> None:
    corpus.publish()
    corpus.put("a", "Hotel neu")
    name = corpus.name()
    with corpus.store.writer():
        thread = threading.Thread(target=corpus.catch_up)
        thread.start()
        thread.join()
    assert corpus.name() == name


@pytest.mark.parametrize("lacking", ["vectors", "chunks"])
def test_what_cannot_be_shown_yet_keeps_the_old_generation(corpus: Corpus, lacking: str) -> None:
    """A document is stored, but not all that the live generation needs of it: there is nothing yet to catch up with."""
    corpus.publish()
    name = corpus.name()
    if lacking == "vectors":
        other = corpus.fakes.FakeEncoder(fingerprint="fake-2")
        corpus.fakes.put_lines(corpus.store, other, corpus.fakes.document("a", "Hotel neu"))
    else:
        made = corpus.fakes.document("a", "Hotel neu")
        corpus.fakes.put_lines(corpus.store, corpus.encoder, made, chunking="paragraphs")
    corpus.catch_up()
    assert corpus.name() == name
    assert texts(corpus.live()) == ["Hotel alt", "Hotel bleibt"]


def test_a_store_without_documents_has_nothing_to_catch_up_with(tmp_path: Path, corpus: Corpus) -> None:
    """As on a query replica, whose own store is empty."""
    corpus.publish()
    with Store(tmp_path / "replica") as empty:
        generations = EmbeddedGenerations(empty, tmp_path / "replica" / "index")
        empty.remember({"live": corpus.store.recall("live")})
        catch_up(empty, generations)
        assert not (tmp_path / "replica" / "index").exists()


def test_a_damaged_generation_is_built_again(corpus: Corpus, folder: Path) -> None:
    corpus.publish()
    name = corpus.name()
    (folder / name / "vectors.faiss").write_bytes(b"")
    live = corpus.live()
    with pytest.raises(IndexMissing, match="cannot be read"):
        live.searcher()
    encoded = len(corpus.encoder.encoded)
    corpus.catch_up()
    assert texts(live) == ["Hotel alt", "Hotel bleibt"]
    assert folders(folder) == [corpus.name()]
    (folder / corpus.name() / "ids.npy").unlink()
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


class TestAnotherEncoder:
    """A rebuild has made a generation of another encoder live, while questions are asked."""

    def test_it_opens_behind_the_back_of_queries(self, corpus: Corpus) -> None:
        corpus.publish()
        may_open, opened = threading.Event(), list[str]()
        live = corpus.live(slow_encoders(corpus, may_open, opened))
        before = live.searcher()
        corpus.rebuild("fake-2")
        for _ in range(20):  # none of them waits, and the loading begins once
            assert live.searcher() is before
        assert texts(live) == ["Hotel alt", "Hotel bleibt"]
        may_open.set()
        after = eventually(lambda: newer(live, before))
        assert (after.encoder.fingerprint, after.index.stamp.encoder) == ("fake-2", "fake-2")
        assert opened == ["fake-1", "fake-2"]
        assert before.search("Hotel bleibt")[0].text == "Hotel bleibt"  # for those who still have it

    def test_one_that_is_open_already_is_used_at_once(self, corpus: Corpus) -> None:
        corpus.publish()
        encoders = corpus.fakes.encoders(corpus.encoder, corpus.fakes.FakeEncoder(fingerprint="fake-2"))
        encoders.open("fake-2")
        live = corpus.live(encoders)
        live.searcher()
        corpus.rebuild("fake-2")
        assert live.searcher().encoder.fingerprint == "fake-2"

    def test_alpha_is_that_of_whichever_is_live(self, corpus: Corpus) -> None:
        fakes = corpus.fakes
        known = [fakes.FakeEncoder(fingerprint=f"fake-{n}", alpha=alpha) for n, alpha in ((1, 0.3), (2, None))]
        reranker = fakes.FakeReranker()
        encoders = fakes.encoders(*known)
        encoders.open("fake-2")
        live = Live(corpus.generations, encoders, reranker=reranker)
        fixed = Live(corpus.generations, encoders, alpha=0.9)
        corpus.publish()
        assert (live.searcher().alpha, fixed.searcher().alpha) == (0.3, 0.9)
        corpus.rebuild("fake-2")
        assert (live.searcher().alpha, fixed.searcher().alpha) == (0.5, 0.9)
        assert live.searcher().reranker is reranker
        assert fixed.searcher().reranker is None

    def test_a_failure_is_told_and_it_is_tried_again(self, corpus: Corpus) -> None:
        corpus.publish()
        tries = list[str]()
        live = corpus.live(slow_encoders(corpus, threading.Event(), tries, missing=3), retry_s=0.2)
        before = live.searcher()
        corpus.rebuild("fake-2")
        assert live.searcher() is before  # until it is known to fail
        error = eventually(lambda: failure(live))
        assert isinstance(error, IndexMismatch)
        assert error.message == (
            "The index was made by the encoder fake-2, which is not here: fake-2 is not on this machine. fake-1 is another one."
        )
        assert "beleg rebuild" in error.way_out
        failed = len(tries)
        assert failure(live) is error
        assert len(tries) == failed  # not with every question

        after = eventually(lambda: newer(live, before))
        assert after.encoder.fingerprint == "fake-2"
        assert tries.count("fake-2") == 4

    def test_a_failure_is_forgotten_when_another_is_live(self, corpus: Corpus) -> None:
        corpus.publish()
        first = corpus.generations.live()
        live = corpus.live()
        before = live.searcher()
        corpus.rebuild("fake-2")
        eventually(lambda: failure(live))
        second = corpus.generations.live()
        assert first is not None
        corpus.generations.swap(first, expected=second, keep=True)
        assert live.searcher() is before
        assert texts(live) == ["Hotel alt", "Hotel bleibt"]

    def test_the_first_opening_says_what_is_missing(self, corpus: Corpus) -> None:
        corpus.publish()
        with pytest.raises(IndexMismatch, match="encoder fake-1, which is not here"):
            corpus.live(corpus.fakes.encoders()).searcher()

    def test_looking_for_it_does_not_happen_with_every_question(self, corpus: Corpus) -> None:
        corpus.publish()
        tries = list[str]()
        corpus.rebuild("fake-2")
        live = corpus.live(slow_encoders(corpus, threading.Event(), tries, missing=2), retry_s=0.3)
        error = failure(live)
        assert isinstance(error, IndexMismatch)
        assert failure(live) is error
        assert tries == ["fake-2", "fake-1"]
        assert eventually(lambda: None if failure(live) else live.searcher()).encoder.fingerprint == "fake-2"

    def test_many_threads_meet_no_wrong_encoder(self, corpus: Corpus) -> None:
        corpus.publish()
        encoders = corpus.fakes.encoders(*(corpus.fakes.FakeEncoder(fingerprint=f"fake-{number}") for number in range(1, 9)))
        live, done, problems = corpus.live(encoders), threading.Event(), list[object]()

        def search() -> None:
            try:
                while not done.is_set():
                    searcher = live.searcher()
                    assert searcher.encoder.fingerprint == searcher.index.stamp.encoder
                    assert searcher.search("Hotel bleibt", mode="dense")[0].text == "Hotel bleibt"
            except BaseException as error:  # noqa: BLE001 - whatever it is, the test fails with it
                problems.append(error)

        threads = [threading.Thread(target=search) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(2, 9):
            corpus.rebuild(f"fake-{number}")
            time.sleep(0.03)
        reached = eventually(lambda: live.searcher() if live.searcher().encoder.fingerprint == "fake-8" else None)
        done.set()
        for thread in threads:
            thread.join()
        assert problems == []
        assert reached.index.stamp.encoder == "fake-8"


def slow_encoders(corpus: Corpus, may_open: threading.Event, opened: list[str], *, missing: int = 0) -> Encoders:
    """Return encoders of which the second one takes its time, or is missing for the first few times."""

    def open_(reference: str) -> Any:
        opened.append(reference)
        if reference != "fake-1":
            if opened.count(reference) <= missing:
                raise ModelError(f"{reference} is not on this machine.")
            if not missing:
                may_open.wait(20)
        return corpus.fakes.FakeEncoder(fingerprint=reference)

    return Encoders("fake-1", open_=open_)


def failure(live: Live) -> BelegError | None:
    try:
        live.searcher()
    except BelegError as error:
        return error
    return None


def newer(live: Live, before: Searcher) -> Searcher | None:
    try:
        found = live.searcher()
    except BelegError:
        return None
    return found if found is not before else None


def eventually(look: Callable[[], Any]) -> Any:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        found = look()
        if found is not None:
            return found
        time.sleep(0.005)
    raise AssertionError("it never happened")
