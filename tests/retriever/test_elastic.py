"""What only the Elasticsearch engine promises: how it fails, what survives a crash, and whom it lets write."""

from __future__ import annotations

import hashlib
import http.server
import json
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import elastic_transport
import elasticsearch
import httpx
import numpy as np
import pytest
from elasticsearch import Elasticsearch

from retriever.errors import IndexDamaged, IndexMissing, IndexUnavailable, SettingsError, SwapLost
from retriever.index.base import Generation
from retriever.index.elastic.client import PatientTransport, connect, mapped_errors, where
from retriever.index.elastic.generations import ElasticGenerations
from retriever.index.elastic.records import document_of, version_records
from retriever.index.elastic.search import SearchOptions
from retriever.index.elastic.state import State, States
from retriever.index.embedded import EmbeddedGenerations
from retriever.schema import Document, Heading
from retriever.store import Store

CITIES = ["berlin", "bonn", "köln", "ulm", "mainz", "trier", "essen", "kiel"]


class Died(BaseException):
    """Ends a writer as a kill would: no `except Exception` sees it."""


class Mortal(PatientTransport):
    """Ends its process, so to speak, at a given change that it sends: before it is carried out, or after.

    Attributes:
        lives: changes that are still carried out; None for all.
        after: whether the last one is.
        sent: target and body of all bulk requests that were meant to be sent.
    """

    lives: int | None = None
    after = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.changes = 0
        self.sent: list[tuple[str, Any]] = []

    def perform_request(self, method: str, target: str, **kwargs: Any) -> Any:  # type: ignore[override]
        change = method != "GET" and not target.startswith("/_mget") and "_search" not in target
        if not change:
            return super().perform_request(method, target, **kwargs)
        self.changes += 1
        if target.startswith("/_bulk"):
            self.sent.append((target, list(kwargs["body"])))
        if self.lives is not None and self.changes > self.lives:
            if self.after:
                super().perform_request(method, target, **kwargs)
            raise Died
        return super().perform_request(method, target, **kwargs)


class Interrupted(PatientTransport):
    """Lets something happen once at an awkward moment.

    Attributes:
        before_search: happens after a search is made up, and before it is sent.
        after_get: happens after a record has been read, and before its reader hears of it.
    """

    before_search: Callable[[], None] | None = None
    after_get: Callable[[], None] | None = None

    def perform_request(self, method: str, target: str, **kwargs: Any) -> Any:  # type: ignore[override]
        if "_msearch" in target and self.before_search:
            happening, self.before_search = self.before_search, None
            happening()
        answer = super().perform_request(method, target, **kwargs)
        if "/_doc/" in target and method == "GET" and self.after_get:
            happening, self.after_get = self.after_get, None
            happening()
        return answer


@pytest.fixture
def client(elastic_place: tuple[str, str]) -> Iterator[Elasticsearch]:
    client = connect(elastic_place[0])
    yield client
    client.close()


Open = Callable[..., ElasticGenerations]


@pytest.fixture
def open_(store: Store, client: Elasticsearch, elastic_place: tuple[str, str]) -> Open:
    """Return a function that opens generations of the test's store, under the test's name."""

    def open_generations(
        of: Store | None = store, client: Elasticsearch = client, *, vectors: str = "flat", **more: Any
    ) -> ElasticGenerations:
        return ElasticGenerations(
            of, client, **{"name": elastic_place[1], "remember_s": 0, "linger_s": 0, "vectors": vectors, **more}
        )

    return open_generations


@pytest.fixture
def put(store: Store, fakes: ModuleType) -> Callable[..., int]:
    """Return a function that stores a document."""
    encoder = fakes.FakeEncoder()

    def put_document(source: str, text: str, **more: Any) -> int:
        number: int = fakes.put_lines(store, encoder, fakes.document(source, text, **more))
        return number

    return put_document


def shown(generations: ElasticGenerations, generation: Generation) -> dict[str, set[str]]:
    """Return the texts of all chunks that a search finds, by source."""
    found: dict[str, set[str]] = {}
    for candidate in generations.open(generation).candidates(vector=np.ones(32, "f4"), terms=[], depth=10_000, filters={}):
        assert candidate.passage is not None
        found.setdefault(candidate.passage.source, set()).add(candidate.passage.text)
    return found


def held(store: Store, chunking: str) -> dict[str, set[str]]:
    """Return the same of what the store holds."""
    found: dict[str, set[str]] = {}
    for entry in store.entries(store.current(store.revision()), chunking=chunking, encoder="fake-1"):
        found.setdefault(entry.passage.source, set()).add(entry.passage.text)
    return found


def records(client: Elasticsearch, index: str) -> int:
    client.indices.refresh(index=index)
    return int(client.count(index=index)["count"])


class TestSearch:
    @pytest.fixture
    def many(self, store: Store, fakes: ModuleType) -> list[np.ndarray]:
        """Store 600 chunks in clusters of like ones; return vectors near some of them."""
        generator = np.random.default_rng(7)
        texts = [" ".join(generator.choice(CITIES, 6)) for _ in range(40)]
        words = [
            f"{text} {' '.join(f'w{number}' for number in generator.zipf(1.5, 4) % 500)}" for text in texts for _ in range(15)
        ]
        for at in range(0, 600, 10):
            fakes.put_lines(store, fakes.FakeEncoder(), fakes.document(f"d{at}", "\n".join(words[at : at + 10])))
        return [fakes.FakeEncoder().encode_query(word) for word in words[::30]]

    def test_both_engines_rank_alike(
        self, store: Store, open_: Open, many: list[np.ndarray], fakes: ModuleType, tmp_path: Path
    ) -> None:
        here = EmbeddedGenerations(store, tmp_path / "index")
        there = open_()
        embedded, elastic = (engine.open(engine.build(fakes.STAMP, "a", dimensions=32)) for engine in (here, there))
        for vector in many:
            asked: dict[str, Any] = {"vector": vector, "terms": ["de:berlin", "w1", "w2", "de:kiel"], "filters": {}}
            for side in ({"terms": []}, {"vector": None}, {}):
                first, second = (
                    {one.row: one for one in index.candidates(**{**asked, **side}, depth=600)} for index in (embedded, elastic)
                )
                assert first.keys() == second.keys()
                for row, one in first.items():
                    other = second[row]
                    assert (one.dense is None, one.keyword is None) == (other.dense is None, other.keyword is None)
                    assert other.dense is None or other.dense == pytest.approx(one.dense, abs=1e-6)
                    assert other.keyword is None or other.keyword == pytest.approx(one.keyword, rel=1e-5)

    @pytest.mark.parametrize(
        ("vectors", "options"),
        [
            ("int8_hnsw", SearchOptions()),
            ("int4_hnsw", SearchOptions(oversample=4)),
            ("int8_flat", SearchOptions()),
            ("hnsw", SearchOptions(oversample=0)),
            ("int4_hnsw", SearchOptions(exact=True)),
        ],
    )
    def test_shards_and_kinds_of_vectors_find_nearly_the_same(
        self,
        open_: Open,
        many: list[np.ndarray],
        fakes: ModuleType,
        vectors: str,
        options: SearchOptions,
        client: Elasticsearch,
    ) -> None:
        exact, near = open_(), open_(vectors=vectors, shards=2, options=options)
        first = exact.open(exact.build(fakes.STAMP, "a", dimensions=32))
        second = near.open(near.build(fakes.STAMP, "a", dimensions=32))
        terms = ["de:berlin", "w1", "w2"]
        overlap = []
        for vector in many:
            best, found = (index.candidates(vector=vector, terms=[], depth=10, filters={}) for index in (first, second))
            assert len(found) == 10
            # Many chunks are alike: who has the scores of the best has found the best.
            scores = [sorted(round(one.dense or 0, 5) for one in side) for side in (best, found)]
            overlap.append(sum(mine == other for mine, other in zip(*scores, strict=True)) / 10)
            both = [
                {one.row: one for one in index.candidates(vector=vector, terms=terms, depth=10, filters={})}
                for index in (first, second)
            ]
            for row in both[0].keys() & both[1].keys():
                assert both[1][row].dense == pytest.approx(both[0][row].dense, abs=1e-6)
                assert both[1][row].keyword == pytest.approx(both[0][row].keyword, rel=1e-5)
        assert np.mean(overlap) >= 0.95
        if options.exact:
            assert np.mean(overlap) == 1

    def test_an_opposite_vector(self, open_: Open, store: Store, fakes: ModuleType) -> None:
        """Rounding makes some cosines less than -1, and scores may not be negative."""

        class Noise(fakes.FakeEncoder):  # type: ignore[misc, name-defined]
            def encode_query(self, text: str) -> np.ndarray:
                vector = np.random.default_rng(len(text)).normal(size=32)
                return (vector / np.linalg.norm(vector)).astype(np.float32)

        encoder = Noise()
        for length in range(1, 61):
            fakes.put_lines(store, encoder, fakes.document(f"d{length}", "x" * length))
        generations = open_()
        index = generations.open(generations.build(fakes.STAMP, "a", dimensions=32))
        for length in range(1, 61):
            vector = -encoder.encode_query("x" * length)
            lowest = min(one.dense or 0 for one in index.candidates(vector=vector, terms=[], depth=60, filters={}))
            assert lowest == pytest.approx(-1, abs=1e-6)

    def test_depth_has_an_end(self, open_: Open, put: Callable[..., int], fakes: ModuleType) -> None:
        put("a", "hotel")
        generations = open_(vectors="int8_hnsw")
        index = generations.open(generations.build(fakes.STAMP, "a", dimensions=32))
        assert len(index.candidates(vector=np.ones(32, "f4"), terms=["de:hotel"], depth=50_000, filters={})) == 1

    def test_a_long_value_to_filter_by(self, open_: Open, put: Callable[..., int], fakes: ModuleType) -> None:
        long = "ä" * 50_000
        put("a", "hotel", metadata={"note": long})
        put("b", "hotel", metadata={"note": f"{long}!"})
        generations = open_()
        built = generations.build(fakes.STAMP, "a", dimensions=32)
        assert generations.refused(built) == ()
        found = generations.open(built).candidates(vector=np.ones(32, "f4"), terms=[], depth=9, filters={"note": [long]})
        assert [one.passage.source for one in found if one.passage] == ["a"]

    def test_what_was_found_may_be_gone(self, open_: Open, put: Callable[..., int], fakes: ModuleType, store: Store) -> None:
        first = put("a", "hotel")
        generations = open_()
        built = generations.build(fakes.STAMP, "a", dimensions=32)
        index = generations.open(built)
        (candidate,) = index.candidates(vector=np.ones(32, "f4"), terms=[], depth=9, filters={})
        put("a", "auto")
        generations.update(built)
        assert index.passages([candidate.row]) == {}
        assert index.document(fakes.document("a").id, first) is None
        assert index.revision == 2

    def test_the_text_of_what_was_found_stays_for_a_while(
        self,
        open_: Open,
        fakes: ModuleType,
        store: Store,
        put: Callable[..., int],
        client: Elasticsearch,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("retriever.index.elastic.state.MOST_VALUES", 3)
        monkeypatch.setattr("retriever.index.elastic.inventory._PAGE", 4)
        born = {put(f"d{number}", f"hotel {number}"): number for number in range(10)}
        generations = open_(linger_s=600)
        built = generations.build(fakes.STAMP, "a", dimensions=32)
        index = generations.open(built)
        for number in range(10):
            put(f"d{number}", f"auto {number}")
        generations.update(built)
        middle = put("d0", "bahn")
        for _ in range(2):  # with something new, and with nothing
            generations.update(built)
            generations.verify(built)
            assert shown(generations, built) == held(store, fakes.STAMP.chunking)
            assert index.passages(list(range(1, 21))).keys() == set(range(12, 21))
            for version, number in born.items():
                document = index.document(fakes.document(f"d{number}").id, version)
                assert document is not None
                assert document.text == f"hotel {number}"
            assert records(client, built.name) == 1 + 10 + 21
        # Whatever of it comes back is found, and what is lost is written again; the texts stay.
        client.index(index=built.name, id="1", document={"record": "chunk", "born": 1}, refresh=True)
        client.indices.put_settings(index=built.name, settings={"gc_deletes": "0s"})
        client.delete_by_query(index=built.name, query={"term": {"born": 15}}, refresh=True)
        time.sleep(1)
        generations.update(built)
        generations.verify(built)
        assert index.document(fakes.document("d0").id, 1) is not None
        assert records(client, built.name) == 1 + 10 + 21
        # Each for its own time.
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 590)
        put("d1", "bahn")
        generations.update(built)
        monkeypatch.setattr(time, "time", lambda: now + 601)
        generations.update(built)
        generations.verify(built)
        assert index.document(fakes.document("d0").id, 1) is None
        assert index.document(fakes.document("d1").id, 12) is not None
        assert records(client, built.name) == 1 + 10 + 11
        assert middle == 21
        monkeypatch.setattr(time, "time", lambda: now + 2000)
        generations.update(built)
        assert records(client, built.name) == 1 + 10 + 10

    def test_a_document_that_changes_during_a_search_is_found(
        self, open_: Open, put: Callable[..., int], fakes: ModuleType, elastic_place: tuple[str, str]
    ) -> None:
        put("a", "hotel")
        generations = open_()
        built = generations.build(fakes.STAMP, "a", dimensions=32)

        def change() -> None:
            put("a", f"hotel {len(changes)}")
            generations.update(built)
            changes.append(1)

        changes: list[int] = []
        client = Elasticsearch(elastic_place[0], transport_class=Interrupted)
        client.transport.before_search = change  # type: ignore[attr-defined]
        assert shown(open_(client=client), built) == {"a": {"hotel 0"}}
        assert changes == [1]
        client.close()

    def test_an_index_that_was_deleted_is_missing(
        self, open_: Open, client: Elasticsearch, put: Callable[..., int], fakes: ModuleType
    ) -> None:
        put("a", "hotel")
        generations = open_(remember_s=60)
        built = generations.build(fakes.STAMP, "a", dimensions=32)
        index = generations.open(built)
        assert index.revision == 1
        client.indices.delete(index=built.name)
        with pytest.raises(IndexMissing):
            index.candidates(vector=np.ones(32, "f4"), terms=[], depth=9, filters={})
        with pytest.raises(IndexMissing):
            index.passages([1])
        with pytest.raises(IndexMissing):
            index.document("a", 1)


def test_the_text_of_a_long_document_is_cut_into_parts() -> None:
    made = Document("id", "s", "t", "häuser😀" * 100, "de", "hash", (0, 5), (Heading(1, "h", 0, 6),), {"": "x"})
    parts = list(version_records(7, made, longest=300))
    assert [name for name, _ in parts] == ["v7", "v7.1", "v7.2"]
    assert document_of([json.loads(json.dumps(record)) for _, record in parts]) == made


class TestCrashes:
    """Whoever is killed at any request, before or after it takes effect, leaves something that the next run completes."""

    def story(self, store: Store, put: Callable[..., int]) -> None:
        put("a", "hotel eins\nhotel zwei")
        put("b", "auto\nbahn")
        put("a", "hotel neu")
        store.remove("c")

    @pytest.mark.parametrize("after", [False, True])
    def test_an_update(
        self, open_: Open, put: Callable[..., int], fakes: ModuleType, store: Store, after: bool, elastic_place: tuple[str, str]
    ) -> None:
        put("c", "alt\nsehr alt")
        put("a", "hotel alt")
        healthy = open_()
        built = healthy.build(fakes.STAMP, "a", dimensions=32)
        lives, died = 0, True
        while died:
            before = held(store, fakes.STAMP.chunking)
            put("c", f"neu {lives}\nganz neu")
            put("a", f"hotel {lives}")
            put("b", f"auto {lives}")
            put("b", f"bahn {lives}")
            if lives % 2:
                store.remove("a")
            now = held(store, fakes.STAMP.chunking)
            mortal = Elasticsearch(elastic_place[0], transport_class=Mortal)
            mortal.transport.lives, mortal.transport.after = lives, after  # type: ignore[attr-defined]
            try:
                open_(client=mortal).update(built)
                died = False
            except Died:
                pass
            mortal.close()
            # Whoever searches sees all of it or nothing.
            assert shown(healthy, built) in (before, now)
            healthy.update(built)
            assert shown(healthy, built) == now
            healthy.verify(built)
            assert records(healthy._client, built.name) == 1 + sum(map(len, now.values())) + len(now)
            lives += 1
        assert lives >= 7

    @pytest.mark.parametrize("after", [False, True])
    def test_a_build(
        self,
        open_: Open,
        put: Callable[..., int],
        fakes: ModuleType,
        store: Store,
        after: bool,
        elastic_place: tuple[str, str],
        client: Elasticsearch,
    ) -> None:
        put("c", "alt\nsehr alt")
        put("a", "hotel alt")
        lives, died = 0, True
        while died:
            mortal = Elasticsearch(elastic_place[0], transport_class=Mortal)
            mortal.transport.lives, mortal.transport.after = lives, after  # type: ignore[attr-defined]
            name = f"{elastic_place[1]}-{lives}"
            try:
                open_(client=mortal, name=name).build(fakes.STAMP, "a", dimensions=32)
                died = False
            except Died:
                pass
            mortal.close()
            healthy = open_(name=name)
            assert healthy.live() is None
            put("c", f"neu {lives}")
            store.remove("a")
            put("b", f"auto {lives}")
            built = healthy.build(fakes.STAMP, "a", dimensions=32)
            assert shown(healthy, built) == held(store, fakes.STAMP.chunking)
            healthy.verify(built)
            assert len(client.indices.get(index=f"{name}-*").body) == 1
            lives += 1
        assert lives >= 6

    def test_only_what_is_current_at_the_end_needs_its_vectors(
        self, open_: Open, put: Callable[..., int], fakes: ModuleType, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A rebuild encodes what is current when it looks, not what came and went before."""
        monkeypatch.setattr("retriever.index.elastic.writer._WINDOW", 2)
        put("a", "hotel")
        generations = open_()
        built = generations.build(fakes.STAMP, "a", dimensions=32)
        put("b", "kommt und geht")
        forget_vector(store, "kommt und geht")
        for number in range(5):
            put(f"d{number}", f"auto {number}")
        middle = put("c", "bleibt nicht")
        put("c", "bleibt")
        put("b", "bahn")
        generations.update(built, revision=middle + 2)
        assert shown(generations, built) == held(store, fakes.STAMP.chunking)
        # Nothing goes backwards.
        generations.update(built, revision=1)
        assert shown(generations, built) == held(store, fakes.STAMP.chunking)

    def test_more_is_retired_at_once_than_a_query_takes(
        self, open_: Open, put: Callable[..., int], fakes: ModuleType, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("retriever.index.elastic.state.MOST_VALUES", 3)
        for number in range(10):
            put(f"d{number}", f"hotel {number}")
        generations = open_()
        built = generations.build(fakes.STAMP, "a", dimensions=32)
        for number in range(10):
            put(f"d{number}", f"auto {number}")
        monkeypatch.setattr(time, "sleep", die)  # between showing the new ones and deleting the old ones
        with pytest.raises(Died):
            generations.update(built)
        assert shown(generations, built) == held(store, fakes.STAMP.chunking)
        generations.verify(built)

    def test_a_build_goes_on_where_it_was(
        self, open_: Open, put: Callable[..., int], fakes: ModuleType, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("retriever.index.elastic.writer._WINDOW", 10)
        for number in range(35):
            put(f"d{number}", f"hotel {number}")

        def die(_: int) -> None:
            told.append(1)
            if len(told) == 3:
                raise Died

        told: list[int] = []
        generations = open_()
        with pytest.raises(Died):
            generations.build(fakes.STAMP, "a", dimensions=32, progress=die)
        again: list[int] = []
        built = generations.build(fakes.STAMP, "a", dimensions=32, progress=again.append)
        assert sum(again) == 15
        generations.verify(built)

    def test_a_build_with_other_arguments_starts_anew_and_leftovers_are_collected(
        self, open_: Open, put: Callable[..., int], fakes: ModuleType, client: Elasticsearch, elastic_place: tuple[str, str]
    ) -> None:
        put("a", "hotel")

        def die(_: int) -> None:
            raise Died

        for kind in ("flat", "int8_hnsw"):
            with pytest.raises(Died):
                open_(vectors=kind).build(fakes.STAMP, "a", dimensions=32, progress=die)
        pattern = f"{elastic_place[1]}-*"
        assert len(client.indices.get(index=pattern).body) == 2
        generations = open_()
        generations.collect(building=fakes.STAMP)
        assert len(client.indices.get(index=pattern).body) == 2
        built = generations.build(fakes.STAMP, "a", dimensions=32)
        generations.swap(built, expected=None, keep=False)
        generations.collect(building=None)
        assert list(client.indices.get(index=pattern).body) == [built.name]

    def test_a_node_that_is_killed(
        self, open_: Open, elastic_nodes: ModuleType, put: Callable[..., int], fakes: ModuleType, store: Store
    ) -> None:
        for number in range(40):
            put(f"d{number}", "\n".join(f"hotel {number} {line}" for line in range(40)))
        node = elastic_nodes.Node()
        try:
            client = connect(node.url)
            generations = open_(client=client)
            built = generations.build(fakes.STAMP, "a", dimensions=32)
            generations.swap(built, expected=None, keep=False)
            before = held(store, fakes.STAMP.chunking)
            for number in range(40):
                put(f"d{number}", "\n".join(f"auto {number} {line}" for line in range(40)))
            with pytest.raises(IndexUnavailable, match="cannot be reached"):
                generations.update(built, progress=lambda _: node.kill())
            with pytest.raises(IndexUnavailable, match=node.url):
                generations.live()
            node.start()
            client.cluster.health(
                index=built.name, wait_for_status="green", timeout="120s", wait_for_no_initializing_shards=True
            )
            assert generations.live() == built
            assert shown(generations, built) == before
            generations.update(built)
            assert shown(generations, built) == held(store, fakes.STAMP.chunking)
            generations.verify(built)
            client.close()
        finally:
            node.close()


class TestLateWrites:
    """A request of a writer that was killed arrives when others have gone on."""

    @pytest.fixture
    def late(self, elastic_place: tuple[str, str]) -> Iterator[Elasticsearch]:
        client = Elasticsearch(elastic_place[0], transport_class=Mortal)
        yield client
        client.close()

    def replay(self, late: Elasticsearch) -> list[dict[str, Any]]:
        target, body = late.transport.sent[-1]  # type: ignore[attr-defined]
        lines = "".join(line.decode() + "\n" if isinstance(line, bytes) else json.dumps(line) + "\n" for line in body)
        answer = httpx.post(
            f"{where(late)}{target}", content=lines, headers={"content-type": "application/x-ndjson"}, timeout=60
        ).json()
        return [item["index"] for item in answer["items"]]

    def test_of_what_has_been_deleted_since_changes_nothing(
        self, open_: Open, late: Elasticsearch, put: Callable[..., int], fakes: ModuleType
    ) -> None:
        generations = open_()
        built = generations.build(fakes.STAMP, "a", dimensions=32)
        put("a", "hotel")
        open_(client=late).update(built)
        put("a", "auto")
        generations.update(built)
        assert {item["status"] for item in self.replay(late)} == {409}
        assert shown(generations, built) == {"a": {"auto"}}

    def test_of_what_was_never_shown_is_undone_by_the_next_update(
        self, open_: Open, late: Elasticsearch, put: Callable[..., int], fakes: ModuleType, client: Elasticsearch
    ) -> None:
        generations = open_()
        built = generations.build(fakes.STAMP, "a", dimensions=32)
        put("a", "hotel")
        late.transport.lives = 1  # type: ignore[attr-defined]
        with pytest.raises(Died):
            open_(client=late).update(built)
        put("a", "auto")
        generations.update(built)
        assert {item["status"] for item in self.replay(late)} == {201}
        client.indices.refresh(index=built.name)
        with pytest.raises(IndexDamaged, match="holds 2 documents in 2 chunks; the store holds 1 in 1"):
            generations.verify(built)
        generations.update(built)
        generations.verify(built)
        assert shown(generations, built) == {"a": {"auto"}}

    def test_to_an_index_that_is_gone_makes_no_new_one(
        self, open_: Open, late: Elasticsearch, put: Callable[..., int], fakes: ModuleType, client: Elasticsearch
    ) -> None:
        generations = open_()
        built = generations.build(fakes.STAMP, "a", dimensions=32)
        put("a", "hotel")
        open_(client=late).update(built)
        client.indices.delete(index=built.name)
        assert {item["status"] for item in self.replay(late)} == {404}
        with pytest.raises(IndexMissing):
            generations.update(built)
        assert not client.indices.exists(index=built.name)

    def test_of_a_state_is_refused(self, open_: Open, put: Callable[..., int], fakes: ModuleType) -> None:
        """Two processes that both believe to be the writer: the one that comes second is told."""
        generations, other = open_(), open_()
        built = generations.build(fakes.STAMP, "a", dimensions=32)
        put("a", "hotel")

        def overtake(_: int) -> None:
            put("b", "auto")
            other.update(built)

        with pytest.raises(IndexUnavailable, match="Another process has written"):
            generations.update(built, progress=overtake)
        assert shown(generations, built) == {"a": {"hotel"}, "b": {"auto"}}

    def test_what_was_lost_is_written_again(
        self, open_: Open, put: Callable[..., int], fakes: ModuleType, client: Elasticsearch, store: Store
    ) -> None:
        for number in range(5):
            put(f"d{number}", f"hotel {number}\nauto {number}")
        generations = open_()
        built = generations.build(fakes.STAMP, "a", dimensions=32)
        # As if they had never been there, which is what a snapshot of a server that was restored leaves.
        client.indices.put_settings(index=built.name, settings={"gc_deletes": "0s"})
        client.delete_by_query(index=built.name, query={"terms": {"born": [2, 3]}}, refresh=True)
        time.sleep(1)
        with pytest.raises(IndexDamaged, match="holds 3 documents in 6 chunks; the store holds 5 in 10"):
            generations.verify(built)
        put("d9", "hotel")
        generations.update(built)
        generations.verify(built)
        # A chunk that is other than it should be is found, though it is counted.
        client.index(index=built.name, id="1", document={"record": "chunk", "born": 1, "passage": {}}, refresh=True)
        with pytest.raises((IndexDamaged, KeyError)):
            generations.verify(built)

    @pytest.mark.parametrize("gone", [True, False])
    def test_a_chunk_that_was_lost(
        self, open_: Open, put: Callable[..., int], fakes: ModuleType, client: Elasticsearch, gone: bool
    ) -> None:
        for number in range(3):
            put(f"d{number}", f"hotel {number}\nauto {number}")
        generations = open_()
        built = generations.build(fakes.STAMP, "a", dimensions=32)
        before = shown(generations, built)
        if gone:
            client.indices.put_settings(index=built.name, settings={"gc_deletes": "0s"})
        client.delete(index=built.name, id="3", refresh=True)
        time.sleep(1)
        if gone:
            generations.update(built)
            generations.verify(built)
            assert shown(generations, built) == before
            return
        # Its deletion is known to the server, which then takes what is written again for what came late.
        with pytest.raises(IndexDamaged, match="holds 3 documents in 5 chunks; the store holds 3 in 6") as caught:
            generations.update(built)
        assert "beleg rebuild" in caught.value.way_out

    def test_looking_for_losses_costs_one_search(
        self, open_: Open, put: Callable[..., int], fakes: ModuleType, elastic_place: tuple[str, str]
    ) -> None:
        put("a", "hotel")
        client = Elasticsearch(elastic_place[0], transport_class=Mortal)
        generations = open_(client=client)
        built = generations.build(fakes.STAMP, "a", dimensions=32)
        client.transport.changes = 0  # type: ignore[attr-defined]
        generations.update(built)
        assert client.transport.changes == 0  # type: ignore[attr-defined]
        client.close()


class Copies:
    """A store's folder that is copied about."""

    def __init__(self, folder: Path, open_: Open, fakes: ModuleType) -> None:
        self.folder, self.fakes, self._open = folder, fakes, open_
        self.store = Store(folder)

    def generations(self, **more: Any) -> ElasticGenerations:
        return self._open(self.store, **more)

    def put(self, source: str, text: str) -> int:
        return int(self.fakes.put_lines(self.store, self.fakes.FakeEncoder(), self.fakes.document(source, text)))

    def save(self, to: Path) -> None:
        self.store.close()
        shutil.copytree(self.folder, to)

    def restore(self, saved: Path) -> None:
        self.store.close()
        shutil.rmtree(self.folder)
        shutil.copytree(saved, self.folder)
        self.store = Store(self.folder)


class TestCopiesOfAStore:
    """A store that is not what has written an index, though it has the id of the one that has."""

    @pytest.fixture
    def copies(self, tmp_path: Path, open_: Open, fakes: ModuleType) -> Iterator[Copies]:
        made = Copies(tmp_path / "one", open_, fakes)
        yield made
        made.store.close()

    def refused(self, generations: ElasticGenerations, built: Generation) -> None:
        assert not generations.shows_all(built)
        for write in (lambda: generations.update(built), generations.check, generations.examine):
            with pytest.raises(IndexUnavailable, match="another copy of this store, or a later state of it") as caught:
                write()
            assert "beleg rebuild" in caught.value.way_out

    @pytest.mark.parametrize("killed", [False, True])
    def test_a_restored_backup(
        self, copies: Copies, fakes: ModuleType, tmp_path: Path, elastic_place: tuple[str, str], killed: bool
    ) -> None:
        copies.put("a", "hotel")
        generations = copies.generations()
        built = generations.build(fakes.STAMP, "a", dimensions=32)
        generations.swap(built, expected=None, keep=False)
        generations.check()
        copies.save(tmp_path / "backup")
        copies.put("b", "auto")
        if killed:
            # What it has loaded and not shown has the ids of what the restored store will load.
            mortal = Elasticsearch(elastic_place[0], transport_class=Mortal)
            mortal.transport.lives = 2  # type: ignore[attr-defined]
            with pytest.raises(Died):
                copies.generations(client=mortal).update(built)
            mortal.close()
        else:
            generations.update(built)
        copies.restore(tmp_path / "backup")
        generations = copies.generations()
        self.refused(generations, built)
        copies.put("b", "bahn")
        self.refused(generations, built)
        generations.check(anew=True)
        again = generations.build(fakes.STAMP, "a", dimensions=32)
        assert again != built
        generations.swap(again, expected=built, keep=False)
        generations.check()
        assert generations.shows_all(again)
        copies.put("c", "frist")
        generations.update(again)
        generations.verify(again)
        assert shown(generations, again) == {"a": {"hotel"}, "b": {"bahn"}, "c": {"frist"}}
        generations.collect(building=None)
        assert set(copies.store.recall_all("tokens ")) == {again.name}

    def test_a_copy_that_is_used_beside_it(self, copies: Copies, fakes: ModuleType, tmp_path: Path, open_: Open) -> None:
        copies.put("a", "hotel")
        generations = copies.generations()
        built = generations.build(fakes.STAMP, "a", dimensions=32)
        generations.swap(built, expected=None, keep=False)
        copies.save(tmp_path / "two")
        other = Copies(tmp_path / "two", open_, fakes)
        other.put("b", "auto")
        other.generations().update(built)
        self.refused(generations, built)
        copies.put("b", "bahn")
        self.refused(generations, built)
        other.put("b", "kosten")
        other.generations().update(built)
        assert shown(generations, built) == {"a": {"hotel"}, "b": {"kosten"}}
        other.store.close()

    @pytest.mark.parametrize("lives", [1, 2, 4])
    def test_a_build_of_a_later_state_is_not_gone_on_with(
        self,
        copies: Copies,
        fakes: ModuleType,
        tmp_path: Path,
        elastic_place: tuple[str, str],
        lives: int,
        client: Elasticsearch,
    ) -> None:
        mortal = Elasticsearch(elastic_place[0], transport_class=Mortal)
        mortal.transport.lives = lives  # type: ignore[attr-defined]
        copies.save(tmp_path / "backup")
        copies.put("a", "hotel")
        with pytest.raises(Died):
            copies.generations(client=mortal).build(fakes.STAMP, "a", dimensions=32)
        mortal.close()
        copies.restore(tmp_path / "backup")
        copies.put("a", "auto")
        generations = copies.generations()
        built = generations.build(fakes.STAMP, "a", dimensions=32)
        generations.verify(built)
        assert len(client.indices.get(index=f"{elastic_place[1]}-*").body) == 2
        generations.swap(built, expected=None, keep=False)
        generations.collect(building=None)
        assert list(client.indices.get(index=f"{elastic_place[1]}-*").body) == [built.name]

    def test_a_server_that_was_restored_is_brought_up_to_date(
        self, copies: Copies, fakes: ModuleType, client: Elasticsearch
    ) -> None:
        copies.put("a", "hotel")
        generations = copies.generations()
        built = generations.build(fakes.STAMP, "a", dimensions=32)
        client.indices.put_settings(index=built.name, settings={"gc_deletes": "0s"})
        before = client.get(index=built.name, id="state")["_source"]
        for text in ("auto", "bahn"):
            copies.put("b", text)
            generations.update(built)
        client.delete_by_query(index=built.name, query={"range": {"born": {"gt": 1}}}, refresh=True)
        client.index(index=built.name, id="state", document=before)
        time.sleep(1)
        generations.update(built)
        generations.verify(built)
        assert shown(generations, built) == {"a": {"hotel"}, "b": {"bahn"}}


class TestStates:
    def test_an_older_answer_never_replaces_a_newer_one(self) -> None:
        """A reader may be slow, and a copy of a shard behind."""

        def answer(number: int, index: str = "i", term: int = 1) -> Any:
            record = {"record": "state", "state": asdict(State(number, finished=True))}
            return SimpleNamespace(body={"_index": index, "_seq_no": number, "_primary_term": term, "_source": record})

        def slow(**_: Any) -> Any:
            client.get = lambda **_: answer(7)
            assert states.recent("i") is not None
            return answer(6)

        client: Any = SimpleNamespace(get=slow)
        states = States(client, remember_s=60)

        def known() -> int:
            client.get = die
            snapshot = states.recent("i")
            assert snapshot is not None
            return snapshot.state.revision

        assert states.read("i") is not None
        assert known() == 7
        client.get = lambda **_: answer(5)
        states.read("i")
        assert known() == 7
        client.get = lambda **_: answer(5, term=2)
        states.read("i")
        assert known() == 5
        client.get = lambda **_: answer(1, index="another")
        states.read("i")
        assert known() == 1


class TestRefusals:
    def test_a_document_that_elasticsearch_refuses_does_not_stop_the_others(
        self, open_: Open, put: Callable[..., int], fakes: ModuleType, store: Store, client: Elasticsearch
    ) -> None:
        put("good", "hotel")
        bad = put("bad", "auto")
        # A vector without a direction is one that no cosine can be taken of.
        put_zero(store, "auto")
        generations = open_()
        built = generations.build(fakes.STAMP, "a", dimensions=32)
        (refused,) = generations.refused(built)
        assert (refused.born, refused.source) == (bad, "bad")
        assert "zero magnitude" in refused.reason
        assert shown(generations, built) == {"good": {"hotel"}}
        generations.verify(built)
        assert not generations.shows_all(built)
        generations.swap(built, expected=None, keep=False)
        assert "refuses 1 documents, such as bad: " in generations.examine()
        put("another", "bahn\nfrist")
        put("bad", "auto\nkosten")
        generations.update(built)
        assert [one.source for one in generations.refused(built)] == ["bad"]
        assert shown(generations, built) == {"good": {"hotel"}, "another": {"bahn", "frist"}}
        generations.verify(built)
        put_zero(store, "auto", 1.0)
        generations.update(built)
        assert generations.refused(built) == ()
        assert shown(generations, built) == held(store, fakes.STAMP.chunking)
        assert generations.shows_all(built)
        assert "refuses" not in generations.examine()
        put("bad", "ende")
        generations.update(built)
        generations.verify(built)

    @pytest.mark.parametrize("block", ["read_only_allow_delete", "read_only", "write"])
    def test_a_full_disk(
        self,
        open_: Open,
        put: Callable[..., int],
        fakes: ModuleType,
        client: Elasticsearch,
        block: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        put("a", "hotel")
        generations = open_()
        built = generations.build(fakes.STAMP, "a", dimensions=32)
        put("b", "auto")
        client.indices.put_settings(index=built.name, settings={f"index.blocks.{block}": True})
        monkeypatch.setattr(time, "sleep", lambda _: None)
        with pytest.raises(IndexUnavailable, match="its disk is full or the index is read-only") as caught:
            generations.update(built)
        assert "index.blocks.read_only_allow_delete" in caught.value.way_out
        assert shown(generations, built) == {"a": {"hotel"}}
        client.indices.put_settings(index=built.name, settings={f"index.blocks.{block}": None})
        generations.update(built)
        assert shown(generations, built) == {"a": {"hotel"}, "b": {"auto"}}

    def test_a_disk_that_fills_up_meanwhile(
        self,
        open_: Open,
        put: Callable[..., int],
        fakes: ModuleType,
        client: Elasticsearch,
        store: Store,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        generations = open_()
        built = generations.build(fakes.STAMP, "a", dimensions=32)
        put("a", "hotel")

        def fill(*given: int) -> Any:
            client.indices.put_settings(index=built.name, settings={"index.blocks.read_only_allow_delete": True})
            return changes(*given)

        changes = store.changes
        monkeypatch.setattr(store, "changes", fill)
        monkeypatch.setattr(time, "sleep", lambda _: None)
        with pytest.raises(IndexUnavailable, match="its disk is full or the index is read-only"):
            generations.update(built)
        # Patience with it takes half a minute, in which somebody may look at the log.
        assert "refuses to write" in caplog.text

    def test_copies_that_find_no_node(self, open_: Open, fakes: ModuleType) -> None:
        generations = open_(replicas=9, health_s=1)
        with pytest.raises(IndexUnavailable, match="has found a node within 1 s") as caught:
            generations.build(fakes.STAMP, "a", dimensions=32)
        assert "9 replicas need 10 nodes" in caught.value.way_out

    @pytest.mark.parametrize("ending", ["", "-previous"])
    def test_a_name_that_another_index_has(
        self, open_: Open, client: Elasticsearch, fakes: ModuleType, elastic_place: tuple[str, str], ending: str
    ) -> None:
        name = f"{elastic_place[1]}-taken"
        client.indices.create(index=f"{name}{ending}")
        generations = open_(name=name)
        assert generations.live() is None
        self.finds_the_name_taken(generations, fakes, client)

    @pytest.mark.parametrize("ending", ["", "-previous"])
    def test_an_index_that_is_not_beleg_s(
        self, open_: Open, client: Elasticsearch, fakes: ModuleType, elastic_place: tuple[str, str], ending: str
    ) -> None:
        name = elastic_place[1]
        foreign = f"{name}-000000001-00000000"
        client.indices.create(index=foreign, aliases={f"{name}{ending}": {}})
        generations = open_()
        assert generations.live() is None
        self.finds_the_name_taken(generations, fakes, client)
        generations.collect(building=None)
        assert client.indices.exists(index=foreign)
        with pytest.raises(IndexMissing, match="was not made by this version") as caught:
            generations.verify(Generation(foreign, fakes.STAMP, "a"))
        assert "rebuild" not in caught.value.way_out

    def finds_the_name_taken(self, generations: ElasticGenerations, fakes: ModuleType, client: Elasticsearch) -> None:
        for look in (
            generations.check,
            generations.examine,
            lambda: generations.build(fakes.STAMP, "a", dimensions=32),
        ):
            with pytest.raises(IndexUnavailable, match="was not made by this version of Beleg") as caught:
                look()
            assert "another elasticsearch_index" in caught.value.way_out
        assert len(client.indices.get(index=f"{generations.place.split()[-1]}*").body) == 1


class TestOwners:
    def test_another_store_reads_and_does_not_write(
        self, open_: Open, put: Callable[..., int], fakes: ModuleType, tmp_path: Path, client: Elasticsearch
    ) -> None:
        put("a", "hotel")
        mine = open_()
        built = mine.build(fakes.STAMP, "a", dimensions=32)
        mine.swap(built, expected=None, keep=False)
        with Store(tmp_path / "other") as other:
            theirs = open_(other)
            assert theirs.live() == built
            assert shown(theirs, built) == {"a": {"hotel"}}
            assert not theirs.shows_all(built)
            for write in (
                lambda: theirs.update(built),
                lambda: theirs.build(fakes.STAMP, "a", dimensions=32),
                lambda: theirs.swap(built, expected=None, keep=False),
                lambda: theirs.verify(built),
                theirs.check,
            ):
                with pytest.raises(IndexUnavailable, match="belongs to another store") as caught:
                    write()
                assert "elasticsearch_index" in caught.value.way_out
            assert "Elasticsearch" in theirs.examine()  # a machine whose store is empty only asks
            theirs.collect(building=None)
            assert client.indices.exists(index=built.name)

    def test_a_query_replica_needs_no_store(self, open_: Open, put: Callable[..., int], fakes: ModuleType) -> None:
        born = put("a", "hotel")
        mine = open_()
        built = mine.build(fakes.STAMP, "a", dimensions=32)
        mine.swap(built, expected=None, keep=False)
        replica = open_(None)
        assert replica.live() == built
        assert replica.shows_all(built)
        assert shown(replica, built) == {"a": {"hotel"}}
        assert replica.open(built).document(fakes.document("a").id, born) == fakes.document("a", "hotel")
        for write in (lambda: replica.update(built), replica.check):
            with pytest.raises(IndexUnavailable, match="query replica"):
                write()
        assert "Elasticsearch" in replica.examine()
        replica.collect(building=None)

    def test_a_change_shows_within_the_time_that_is_remembered(
        self, open_: Open, put: Callable[..., int], fakes: ModuleType
    ) -> None:
        put("a", "hotel")
        mine, replica = open_(), open_(None, remember_s=0.3)
        first = mine.build(fakes.STAMP, "a", dimensions=32)
        mine.swap(first, expected=None, keep=False)
        assert replica.live() == first
        put("b", "auto")
        mine.update(first)
        deadline = time.monotonic() + 0.5
        while len(shown(replica, first)) != 2:
            assert time.monotonic() < deadline
        second = mine.build(fakes.STAMP, "b", dimensions=32)
        mine.swap(second, expected=first, keep=True)
        deadline = time.monotonic() + 0.5
        while replica.live() != second:
            assert time.monotonic() < deadline

    def test_an_answer_from_before_a_swap_is_not_remembered_after_it(
        self, open_: Open, fakes: ModuleType, elastic_place: tuple[str, str]
    ) -> None:
        client = Elasticsearch(elastic_place[0], transport_class=Interrupted)
        generations = open_(client=client, remember_s=60)
        first, second = (generations.build(fakes.STAMP, name, dimensions=32) for name in "ab")
        generations.swap(first, expected=None, keep=False)
        # One thread has asked, and before it has the answer another one swaps.
        client.transport.after_get = lambda: generations.swap(second, expected=first, keep=True)  # type: ignore[attr-defined]
        assert generations.live() == first
        assert generations.live() == second
        client.close()

    def test_what_is_live_may_be_asked_afresh(self, open_: Open, fakes: ModuleType) -> None:
        mine, other = open_(), open_(remember_s=60)
        first, second = (mine.build(fakes.STAMP, name, dimensions=32) for name in "ab")
        mine.swap(first, expected=None, keep=False)
        assert other.live() == first
        mine.swap(second, expected=first, keep=True)
        assert other.live() == first
        assert other.live(fresh=True) == second
        assert other.live() == second

    def test_names_that_begin_alike_are_kept_apart(
        self, open_: Open, fakes: ModuleType, client: Elasticsearch, elastic_place: tuple[str, str]
    ) -> None:
        longer = open_(name=f"{elastic_place[1]}-legal")
        built = longer.build(fakes.STAMP, "a", dimensions=32)
        open_().collect(building=None)
        assert client.indices.exists(index=built.name)
        assert open_().build(fakes.STAMP, "a", dimensions=32) != built

    def test_of_swaps_at_once_one_wins(self, open_: Open, fakes: ModuleType, client: Elasticsearch, elastic_place: Any) -> None:
        generations = [open_() for _ in range(4)]
        built = [one.build(fakes.STAMP, f"{at}", dimensions=32) for at, one in enumerate(generations)]

        def race(start: threading.Barrier, at: int, expected: Generation | None) -> bool:
            start.wait()
            try:
                generations[at].swap(built[at], expected=expected, keep=True)
            except SwapLost:
                return False
            return True

        expected: Generation | None = None
        for _ in range(10):
            rivals = [at for at in range(4) if built[at] != expected]
            start = threading.Barrier(len(rivals))
            with ThreadPoolExecutor(len(rivals)) as threads:
                outcomes = threads.map(lambda at: race(start, at, expected), rivals)  # noqa: B023 - ended within the loop
                won = [at for at, lived in zip(rivals, outcomes, strict=True) if lived]
            assert len(won) == 1
            assert list(client.indices.get_alias(name=elastic_place[1]).body) == [built[won[0]].name]
            assert generations[0].previous() == expected
            expected = built[won[0]]


class TestConnection:
    def whole_life(self, store: Store, client: Elasticsearch, fakes: ModuleType) -> None:
        name = f"test-{secrets.token_hex(4)}"
        generations = ElasticGenerations(store, client, name=name, remember_s=0)
        fakes.put_lines(store, fakes.FakeEncoder(), fakes.document("a", f"hotel {name}"))
        built = generations.build(fakes.STAMP, "a", dimensions=32)
        generations.verify(built)
        generations.swap(built, expected=None, keep=False)
        fakes.put_lines(store, fakes.FakeEncoder(), fakes.document("a", f"auto {name}"))
        generations.update(built)
        assert shown(generations, built) == {"a": {f"auto {name}"}}
        other = generations.build(fakes.STAMP, "b", dimensions=32)
        generations.swap(other, expected=built, keep=True)
        generations.forget_previous()
        generations.collect(building=None)

    def test_with_tls_and_password_or_key(
        self, elastic_secure: Any, elastic_nodes: ModuleType, store: Store, fakes: ModuleType
    ) -> None:
        admin = connect(elastic_secure.url, user=elastic_nodes.USER, password=elastic_nodes.PASSWORD, ca=elastic_secure.ca)
        self.whole_life(store, admin, fakes)
        # The privileges that docs and messages name are enough.
        writing = admin.security.create_api_key(
            name="writer",
            role_descriptors={"w": {"cluster": ["monitor"], "indices": [{"names": ["test-*"], "privileges": ["all"]}]}},
        )
        writer = connect(elastic_secure.url, api_key=writing["encoded"], ca=elastic_secure.ca)
        self.whole_life(store, writer, fakes)
        reading = admin.security.create_api_key(
            name="reader",
            role_descriptors={"r": {"indices": [{"names": ["test-*"], "privileges": ["read", "view_index_metadata"]}]}},
        )
        reader = connect(elastic_secure.url, api_key=reading["encoded"], ca=elastic_secure.ca)
        generations = ElasticGenerations(store, writer, name="test-shared", remember_s=0)
        built = generations.build(fakes.STAMP, "a", dimensions=32)
        generations.swap(built, expected=None, keep=False)
        replica = ElasticGenerations(None, reader, name="test-shared", remember_s=0)
        assert replica.live() == built
        assert replica.previous() is None
        assert shown(replica, built) == shown(generations, built)
        with pytest.raises(IndexUnavailable, match="refuses this user a privilege") as caught:
            ElasticGenerations(store, reader, name="test-shared", remember_s=0).build(fakes.STAMP, "z", dimensions=32)
        assert "view_index_metadata" in caught.value.way_out
        for client in (admin, writer, reader):
            client.close()

    def refused(self, message: str, url: str, **more: Any) -> str:
        client = connect(url, **more)
        with pytest.raises(IndexUnavailable, match=message) as caught:
            ElasticGenerations(None, client, name="test", remember_s=0).live()
        assert url.split(",")[0] in caught.value.message
        client.close()
        return caught.value.way_out

    def test_refusals_say_what_to_do(self, elastic_secure: Any, elastic_nodes: ModuleType, tmp_path: Path) -> None:
        user = {"user": elastic_nodes.USER, "password": elastic_nodes.PASSWORD}
        wrong = {"user": elastic_nodes.USER, "password": "wrong"}
        assert "elasticsearch_password" in self.refused(
            "does not accept the credentials", elastic_secure.url, **wrong, ca=elastic_secure.ca
        )
        assert "elasticsearch_api_key" in self.refused(
            "does not accept the credentials", elastic_secure.url, ca=elastic_secure.ca
        )
        assert "elasticsearch_ca" in self.refused("is not trusted", elastic_secure.url, **user)
        plain = elastic_secure.url.replace("https:", "http:")
        assert "needs https://" in self.refused("cannot be reached", plain, **user)

    def test_a_path_that_is_not_there(self, elastic_url: str) -> None:
        assert "elasticsearch_url" in self.refused("is not asked at its own address", f"{elastic_url}/path")

    def test_https_against_http(self, elastic_url: str) -> None:
        way_out = self.refused("does not speak HTTPS", elastic_url.replace("http:", "https:"))
        assert "http://" in way_out

    def test_nobody_there(self, elastic_nodes: ModuleType, elastic_url: str) -> None:
        url = f"http://127.0.0.1:{elastic_nodes.free_port()}"
        assert "elasticsearch_url" in self.refused("cannot be reached", url)
        # One of several is enough.
        client = connect(f"{url}, {elastic_url}")
        for _ in range(4):
            assert ElasticGenerations(None, client, name="test-nobody", remember_s=0).live() is None
        client.close()

    def test_settings_that_contradict_each_other(self, tmp_path: Path) -> None:
        for wrong in (
            {"url": "127.0.0.1"},
            {"url": ""},
            {"url": "http://a:9200", "user": "a"},
            {"url": "http://a:9200", "user": "a", "password": "b", "api_key": "c"},
            {"url": "https://a:9200", "ca": tmp_path / "none"},
            {"url": "https://a:9200", "ca": Path(__file__)},
        ):
            with pytest.raises(SettingsError, match="elasticsearch_"):
                connect(**wrong)  # type: ignore[arg-type]


class Answers(http.server.BaseHTTPRequestHandler):
    """Gives the prepared answers, one after the other, and the last one from then on."""

    def do_GET(self) -> None:
        server: Any = self.server
        status, body, product = server.answers[min(server.asked, len(server.answers) - 1)]
        server.asked += 1
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "text/html" if content.startswith(b"<") else "application/json")
        self.send_header("content-length", str(len(content)))
        if product:
            self.send_header("x-elastic-product", "Elasticsearch")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def answering() -> Iterator[Any]:
    """A server that answers what a test puts into `answers`: status, body, and whether it says it is Elasticsearch."""
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.answers, server.asked = [], 0
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "body", "product", "message"),
        [
            (200, {}, False, "is not Elasticsearch"),
            (400, {"error": {"type": "media_type_header_exception", "reason": "Invalid media-type"}}, True, "of a version"),
            (406, {"error": "Content-Type header is not supported"}, True, "of a version"),
            (413, b"<html>too large</html>", True, "no request of this size"),
            (429, {"error": {"type": "circuit_breaking_exception", "reason": "Data too large"}}, True, "too little memory"),
            (429, {"error": {"type": "es_rejected_execution_exception", "reason": "queue"}}, True, "is overloaded"),
            (502, b"<html>Bad gateway</html>", True, "proxy"),
            (503, {"error": {"type": "no_shard_available_action_exception", "reason": "none"}}, True, "lost, or not yet found"),
            (500, {"error": {"type": "illegal_state_exception", "reason": "odd"}}, True, "answered 500: odd"),
            (400, {"error": "no handler found for uri [/a/b] and method [GET]"}, True, "is not asked at its own address"),
            (200, b"{", True, "does not speak like Elasticsearch"),
        ],
    )
    def test_an_answer_becomes_a_message(self, answering: Any, status: int, body: Any, product: bool, message: str) -> None:
        answering.answers = [(status, body, product)]
        client = connect(f"http://127.0.0.1:{answering.server_port}")
        with pytest.raises(IndexUnavailable, match=message) as caught:
            ElasticGenerations(None, client, name="test").live()
        assert f":{answering.server_port}" in caught.value.message
        assert caught.value.way_out
        client.close()

    @pytest.mark.parametrize("number", ["7.17.29", "8.9.2", "8.18.1"])
    def test_an_old_version_is_noticed_before_anything_is_made(
        self, answering: Any, store: Store, fakes: ModuleType, number: str
    ) -> None:
        answering.answers = [(200, {"version": {"number": number}}, True)]
        client = connect(f"http://127.0.0.1:{answering.server_port}")
        generations = ElasticGenerations(store, client, name="test")
        for look in (
            generations.check,
            generations.examine,
            lambda: generations.build(fakes.STAMP, "a", dimensions=32),
        ):
            with pytest.raises(IndexUnavailable, match=f"is version {number}") as caught:
                look()
            assert "8.19" in caught.value.way_out
        client.close()

    def test_a_busy_server_is_asked_again(self, answering: Any) -> None:
        answering.answers = [(429, {}, True), (503, {}, True), (404, {"error": {"type": "index_not_found_exception"}}, True)]
        client = connect(f"http://127.0.0.1:{answering.server_port}")
        begun = time.monotonic()
        assert ElasticGenerations(None, client, name="test").live() is None
        assert answering.asked == 3
        assert time.monotonic() - begun > 0.3
        client.close()

    def test_a_server_that_does_not_answer(self) -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            client = connect(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.2)
            with pytest.raises(IndexUnavailable, match="did not answer in time") as caught:
                ElasticGenerations(None, client, name="test").live()
            assert "elasticsearch_timeout_s" in caught.value.way_out
            client.close()

    def kinds(self) -> Sequence[type[Exception]]:
        """Return every exception that the client's packages define."""
        found = [value for module in (elasticsearch, elastic_transport) for value in vars(module).values()]
        return [
            value
            for value in found
            if isinstance(value, type) and issubclass(value, Exception) and not issubclass(value, Warning)
        ]

    def test_every_exception_of_the_client_is_mapped(self) -> None:
        client = connect("http://127.0.0.1:9200")
        meta = elastic_transport.ApiResponseMeta(418, "1.1", elastic_transport.HttpHeaders(), 0.1, None)  # type: ignore[arg-type]
        kinds = self.kinds()
        assert len(kinds) >= 14
        for kind in kinds:
            error = kind("odd", meta, {}) if issubclass(kind, elastic_transport.ApiError) else kind("odd")
            with pytest.raises(IndexUnavailable) as caught, mapped_errors(client):
                raise error
            assert "http://127.0.0.1:9200" in caught.value.message
            assert caught.value.way_out
            assert caught.value.__cause__ is error


def die(*_: object) -> None:
    raise Died


def forget_vector(store: Store, text: str) -> None:
    with store._transaction() as db:
        db.execute("DELETE FROM vectors WHERE key = ?", (hashlib.sha256(text.encode()).hexdigest(),))


def put_zero(store: Store, text: str, first: float = 0.0) -> None:
    """Replace the vector of a chunk by one without a direction, or with one again."""
    vector = np.zeros(32, np.float32)
    vector[0] = first
    key = hashlib.sha256(text.encode()).hexdigest()
    with store._transaction() as db:
        db.execute("UPDATE vectors SET vector = ? WHERE key = ?", (vector.tobytes(), key))
