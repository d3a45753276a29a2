"""What nobody can ask for any more is freed; what a rollback or a running rebuild needs is not."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from retriever.errors import IndexDamaged
from retriever.index.base import Generation, Stamp
from retriever.index.embedded import EmbeddedGenerations
from retriever.publish import Building, publish, tidy
from retriever.store import Store

DAY = 86400.0


class House:
    """A store with one live generation, and one of another encoder that was live before."""

    def __init__(self, store: Store, folder: Path, fakes: ModuleType) -> None:
        self.store, self.folder, self._fakes = store, folder, fakes
        self.generations = EmbeddedGenerations(store, folder)
        self.put("a", "eins\nzwei")
        self.publish()
        self.old, self.new = fakes.STAMP, replace(fakes.STAMP, encoder="fake-2")
        self.encode("fake-2")
        built = self.generations.build(self.new, "fake-2", dimensions=32)
        self.generations.swap(built, expected=self.generations.live(), keep=True)
        store.remember({"swapped": str(time.time())})

    def put(self, source: str, text: str) -> None:
        self._fakes.put_lines(self.store, self._fakes.FakeEncoder(), self._fakes.document(source, text))

    def encode(self, fingerprint: str) -> None:
        encoder = self._fakes.FakeEncoder(fingerprint=fingerprint)
        missing = list(self.store.without_vector(fingerprint, self._fakes.STAMP.chunking))
        self.store.put_vectors(fingerprint, {key: encoder.encode_query(text) for key, _, _, text in missing})

    def publish(self, *, keep_s: float = float("inf")) -> bool:
        target = Generation("", self._fakes.STAMP, "fake-1")
        with self.store.writer():
            return publish(self.store, self.generations, target, dimensions=32, keep_s=keep_s)

    def swapped(self, ago_s: float) -> None:
        self.store.remember({"swapped": str(time.time() - ago_s)})

    def names(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}


@pytest.fixture
def house(store: Store, tmp_path: Path, fakes: ModuleType) -> House:
    return House(store, tmp_path / "index", fakes)


class TestTheWayBack:
    @pytest.mark.parametrize("changed", [True, False])
    def test_it_is_kept_for_its_time(self, house: House, changed: bool) -> None:
        previous = house.generations.previous()
        assert previous is not None
        for days in (0.0, 6.9):
            house.swapped(days * DAY)
            if changed:
                house.put("b", f"neu {days}")
                house.encode("fake-2")
            assert house.publish(keep_s=7 * DAY) == changed
            live = house.generations.live()
            assert live is not None
            assert house.generations.previous() == previous
            assert house.names() == {live.name, previous.name}
            assert (house.store.dimensions("fake-1"), house.store.dimensions("fake-2")) == (32, 32)

    @pytest.mark.parametrize("changed", [True, False])
    def test_then_it_is_freed_with_all_that_only_it_needs(self, house: House, changed: bool) -> None:
        house.swapped(7.1 * DAY)
        if changed:
            house.put("b", "neu")
            house.encode("fake-2")
        house.publish(keep_s=7 * DAY)
        live = house.generations.live()
        assert live is not None
        assert house.generations.previous() is None
        assert house.names() == {live.name}
        assert (house.store.dimensions("fake-1"), house.store.dimensions("fake-2")) == (None, 32)

    def test_a_change_of_the_same_generation_is_no_rebuild(self, house: House) -> None:
        """Only rebuilds and rollbacks make a previous generation."""
        previous = house.generations.previous()
        for text in ("b", "c"):
            house.put(text, text)
            house.encode("fake-2")
            assert house.publish()
            assert house.generations.previous() == previous


class TestBuilding:
    @pytest.fixture
    def stamp(self) -> Stamp:
        return Stamp("fake-3", "whole", "2")

    def test_it_is_kept_as_a_fact(self, store: Store, stamp: Stamp) -> None:
        assert Building.read(store) is None
        for building in (Building(stamp, 7), Building(stamp, 9, replaces="old")):
            building.write(store)
            assert Building.read(store) == building

    def test_what_it_needs_stays(self, house: House, store: Store, stamp: Stamp) -> None:
        """A rebuild reads the store at its own revision, while documents change and are published."""
        house.encode("fake-3")
        Building(replace(house.old, encoder="fake-3"), store.revision()).write(store)
        born = store.current(store.revision())
        for text in ("neu", "neuer", "am neuesten"):
            house.put("a", text)
            house.encode("fake-2")
            house.publish(keep_s=0)
        rows = list(store.entries(born, chunking=house.old.chunking, encoder="fake-3"))
        assert [entry.passage.text for entry in rows] == ["eins", "zwei"]
        assert all(store.document_born(revision) for revision in born)
        store.remember({"building": None})
        house.publish(keep_s=0)
        assert list(store.entries(born, chunking=house.old.chunking, encoder="fake-3")) == []
        assert store.document_born(born[0]) is None
        assert store.dimensions("fake-3") is None

    def test_its_folders_stay(self, house: House, store: Store, stamp: Stamp) -> None:
        Building(stamp, store.revision()).write(store)
        own = {f"000000001-{stamp.digest()}-12345678", f".000000001-{stamp.digest()}-12345678.partial"}
        for name in (*own, "000000001-another-12345678"):
            (house.folder / name).mkdir()
        before = {generation.name for generation in (house.generations.live(), house.generations.previous()) if generation}
        tidy(store, house.generations, 0, keep_s=float("inf"))
        assert house.names() == before | own
        store.remember({"building": None})
        tidy(store, house.generations, 0, keep_s=float("inf"))
        assert house.names() == before


class TestVerify:
    def test_a_generation_that_holds_all_passes(self, house: House) -> None:
        live = house.generations.live()
        assert live is not None
        house.generations.verify(live)

    def test_one_that_lacks_documents_or_chunks_does_not(self, house: House, store: Store, fakes: ModuleType) -> None:
        # Chunks that were added to a version which the index has already: it shows the revision, and lacks them.
        made = fakes.document("b", "drei")
        fakes.put_lines(store, fakes.FakeEncoder(), made, chunking="another")
        house.publish()
        shown = house.generations.live()
        assert shown is not None
        house.generations.verify(shown)
        chunk = fakes.Chunk(made.id, 0, 4, "drei")
        store.put_chunks(2, made.text, [fakes.IndexedChunk(chunk, ["de:drei"], "k")], chunking=fakes.STAMP.chunking)
        with pytest.raises(IndexDamaged, match=r"holds 2 documents in 2 chunks; the store holds 2 in 3"):
            house.generations.verify(shown)
