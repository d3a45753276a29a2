"""A rebuild loses nothing, shows nothing half-made, and can be taken back: with either engine, whatever happens meanwhile."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from retriever.chunk import ChunkSize
from retriever.errors import GateFailed, IndexDamaged, IndexMismatch, IndexMissing, StoreLocked, SwapLost
from retriever.fill import Maker, size_of
from retriever.gate import Gate
from retriever.index.base import Generation, Generations
from retriever.publish import Building, publish
from retriever.questions import Proof, Question
from retriever.rebuild import Rebuild
from retriever.store import Store

HERE = Path(__file__).parent
SIZE = ChunkSize(8, 2)


@pytest.fixture(params=["embedded", "elasticsearch"])
def engine(request: pytest.FixtureRequest) -> Sequence[str]:
    """Return what `open_fake_generations` takes."""
    if request.param == "embedded":
        return ()
    return request.getfixturevalue("elastic_place")


@pytest.fixture
def house(tmp_path: Path, fakes: ModuleType, engine: Sequence[str]) -> Iterator[Any]:
    house = fakes.House(tmp_path / "data", engine)
    house.change(*((f"d{number}", f"Hotel Nummer {number}.\n\nZimmer {number} hat ein Bad.") for number in range(12)))
    yield house
    house.store.close()


def named(*numbers: int) -> set[str]:
    return {f"d{number}" for number in numbers}


def test_another_encoder(house: Any) -> None:
    before = house.generations.live()
    report = house.rebuild()
    assert report.replaced == before
    assert report.generation == house.generations.live()
    assert (report.documents, house.stamp()) == (12, "fake-2")
    assert report.generation.encoder == "fake-2"
    assert house.generations.previous() == before
    assert house.shown() == named(*range(12))
    # Documents that change from now on are encoded by the new one.
    encoded = len(house.encoder("fake-1").encoded)
    house.change(("d12", "Hotel neu"), remove=["d0"])
    assert house.shown() == named(*range(1, 13))
    assert len(house.encoder("fake-1").encoded) == encoded


def test_another_chunking(house: Any, fakes: ModuleType) -> None:
    _, before = house.store.count(house.store.revision(), house.generations.live().stamp.chunking)  # type: ignore[union-attr]
    report = house.rebuild("fake-1", ChunkSize(4, 0))
    assert report.chunks > before
    assert size_of(report.generation) == ChunkSize(4, 0)
    assert house.shown() == named(*range(12))
    for number in range(12):
        document = house.store.document(fakes.document(f"d{number}").id)
        assert document is not None
        hits = house.live.searcher().search(f"Zimmer {number}", limit=100, merge=False)
        assert all(hit.text == document.text[hit.start : hit.end] for hit in hits if hit.document == document.id)


def test_just_afresh_encodes_nothing(house: Any) -> None:
    encoded = len(house.encoder("fake-1").encoded)
    report = house.rebuild("fake-1")
    assert report.replaced is not None
    assert report.generation.name != report.replaced.name
    assert len(house.encoder("fake-1").encoded) == encoded
    assert house.shown() == named(*range(12))


def test_the_first_index_may_be_a_rebuild(tmp_path: Path, fakes: ModuleType, engine: Sequence[str]) -> None:
    house = fakes.House(tmp_path / "data", engine)
    report = house.rebuild()
    assert report.replaced is None
    assert house.generations.previous() is None
    house.change(("d1", "Hotel"))
    assert house.shown() == {"d1"}
    assert house.stamp() == "fake-2"
    house.store.close()


def test_what_changes_meanwhile_is_carried_over(house: Any) -> None:
    """At each phase a document is added, one is changed and one is removed, and all of it is live at once."""
    expected, seen, texts = named(*range(12)), [], {}

    def on_phase(phase: str, _: int | None) -> None:
        if phase == "swap":
            # The last moment: the writer's lock is taken right after.
            assert house.stamp() == "fake-1"
        number = 20 + len(seen)
        texts[f"d{number}"] = f"Hotel hinzugekommen {number}."
        texts["d11"] = f"Hotel geändert {number}."
        expected.add(f"d{number}")
        gone = f"d{len(seen)}"
        expected.discard(gone)
        house.change((f"d{number}", texts[f"d{number}"]), ("d11", texts["d11"]), remove=[gone])
        assert house.shown() == expected
        seen.append(phase)

    house.rebuild(on_phase=on_phase)
    assert seen == ["encode", "build", "verify", "swap"]
    assert house.stamp() == "fake-2"
    assert house.shown() == expected
    found = {hit.source: hit.text for hit in house.live.searcher().search("Hotel", limit=100, merge=False)}
    for source, text in texts.items():
        assert found[source] == text


def test_a_rollback_brings_the_old_one_back_with_all_changes(house: Any) -> None:
    house.rebuild()
    house.change(("d12", "Hotel neu"), ("d1", "Hotel anders"), remove=["d0"])
    report = house.rollback()
    assert house.stamp() == "fake-1"
    assert report.documents == 12
    assert house.shown() == named(*range(1, 13))
    assert "Hotel anders" in {hit.text for hit in house.live.searcher().search("anders", mode="keyword")}
    house.change(("d13", "Hotel"), remove=["d2"])
    house.rollback()
    assert house.stamp() == "fake-2"
    assert house.shown() == named(1, *range(3, 14))


def test_there_may_be_nothing_to_go_back_to(house: Any) -> None:
    with pytest.raises(IndexMissing, match=r"no earlier index to go back to\. .* `beleg rebuild` makes a new one"):
        house.rollback()
    house.rebuild()
    with house.store.writer():
        live = house.generations.live()
        publish(house.store, house.generations, live, dimensions=32, keep_s=0)
    assert house.generations.previous() is None
    with pytest.raises(IndexMissing, match="no earlier index"):
        house.rollback()
    # And what only the old one needed is freed.
    assert house.store.dimensions("fake-1") is None


def test_the_way_back_survives_changes(house: Any) -> None:
    house.rebuild()
    before = house.generations.previous()
    for number in range(3):
        house.change((f"e{number}", "Hotel"))
    assert house.generations.previous() == before
    assert house.store.dimensions("fake-1") == 32


def test_a_lost_encoder_cannot_come_back(house: Any) -> None:
    house.rebuild()
    house.made["fake-1"].fingerprint = "trained over"
    with pytest.raises(IndexMismatch, match="fake-1"):
        house.rollback()
    assert house.stamp() == "fake-2"


class TestGate:
    def gate(self, margin: float) -> Gate:
        questions = [
            Question(f"q{n}", "", "de", f"Nummer {n}", ("x",), Proof(f"d{n}", f"Hotel Nummer {n}."), "") for n in range(12)
        ]
        return Gate(questions, margin)

    def test_it_passes(self, house: Any) -> None:
        verdict = house.rebuild(gate=self.gate(1.0)).verdict
        assert verdict is not None
        assert verdict.questions == 12
        assert 0 < verdict.live <= 1
        assert 0 < verdict.new <= 1

    def test_it_fails_and_nothing_has_happened(self, house: Any) -> None:
        before = house.generations.live()
        with pytest.raises(GateFailed, match=r"new index has an nDCG@10 of [01]\.\d+ on 12 questions, the live one [01]\.\d+"):
            house.rebuild("fake-1", ChunkSize(1, 0), gate=self.gate(-1.0))  # even a better one is too bad
        assert house.generations.live() == before
        assert house.generations.previous() is None
        assert Building.read(house.store) is None
        house.change(("d12", "Hotel"))
        assert house.shown() == named(*range(13))
        assert list(house.store.without_chunks(before.stamp.chunking)) == []  # type: ignore[union-attr]


class Meddled:
    """Generations with one method replaced."""

    def __init__(self, real: Generations, **methods: Callable[..., Any]) -> None:
        self._real, self._methods = real, methods

    def __getattr__(self, name: str) -> Any:
        return self._methods.get(name) or getattr(self._real, name)


def test_a_generation_that_lacks_something_is_not_shown(house: Any, fakes: ModuleType) -> None:
    real = house.generations

    def build(stamp: Any, encoder: str, **more: Any) -> Generation:
        built = real.build(stamp, encoder, **more)
        house.store.put(fakes.document("late", "Hotel"), [], loader="1", chunking=stamp.chunking, encoder="", vectors={})
        revision = house.store.revision()
        # A document of an earlier revision that the index does not have.
        house.store._connection().execute("UPDATE documents SET revision = -1 WHERE revision = ?", (revision,))
        return built

    house.generations = Meddled(real, build=build)  # type: ignore[assignment]
    with pytest.raises(IndexDamaged, match="12 documents"):
        house.rebuild()
    house.generations = real
    assert house.stamp() == "fake-1"
    assert Building.read(house.store) is None


def test_whoever_swaps_first_wins(house: Any) -> None:
    """Somebody goes around the rebuild's lock: the later swap fails, and what is live then stays live."""
    real = house.generations

    def on_phase(phase: str, _: int | None) -> None:
        if phase == "swap":
            maker = Maker(house.encoder("fake-3"), SIZE)
            maker.fill(house.store)
            other = real.build(maker.stamp, "fake-3", dimensions=32)
            real.swap(other, expected=real.live(), keep=True)

    with pytest.raises(SwapLost, match=r"Another index has become live meanwhile\. Nothing has changed"):
        house.rebuild(on_phase=on_phase)
    assert house.stamp() == "fake-3"
    assert house.shown() == named(*range(12))


def test_a_stale_swap_fails(house: Any) -> None:
    stale = house.generations.live()
    house.rebuild()
    live = house.generations.live()
    maker = Maker(house.encoder("fake-3"), SIZE)
    maker.fill(house.store)
    other = house.generations.build(maker.stamp, "fake-3", dimensions=32)
    for expected in (stale, None):
        with pytest.raises(SwapLost):
            house.generations.swap(other, expected=expected, keep=True)
    assert house.generations.live() == live
    assert house.generations.previous() == stale


def test_one_rebuild_at_a_time(house: Any) -> None:
    errors: list[BaseException] = []

    def on_phase(phase: str, _: int | None) -> None:
        if phase == "build":
            thread = threading.Thread(target=attempt)
            thread.start()
            thread.join()

    def attempt() -> None:
        with Store(house.data) as store:
            try:
                Rebuild(store, house.generations, Maker(house.encoder("fake-3"), SIZE), "fake-3", house.encoders, 0.5).run()
            except StoreLocked as error:
                errors.append(error)

    house.rebuild(on_phase=on_phase)
    assert [str(error).startswith("Another rebuild of ") for error in errors] == [True]
    assert house.stamp() == "fake-2"


def run_and_kill(house: Any, fingerprint: str, when: Callable[[list[str]], bool]) -> list[str]:
    process = subprocess.Popen(
        [sys.executable, HERE / "rebuild_program.py", house.data, fingerprint, *house.engine],
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
        stdout=subprocess.PIPE,
        text=True,
    )
    said: list[str] = []
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line.strip())
            if when(said):
                process.kill()
        process.wait(60)
    return said


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_at_every_step_it_goes_on(house: Any) -> None:
    """Every line that the program says is a place to die at; between two deaths documents change."""
    house.change(*((f"m{number}", "\n\n".join(f"Hotel {number} Satz {line}." for line in range(60))) for number in range(20)))
    numbers = set(range(12))
    dice = random.Random(3)
    steps = 0
    while True:
        # With a server every line takes longer.
        steps += dice.randint(1, 3) * (3 if house.engine else 1) if house.stamp() == "fake-1" else 1000
        wanted = steps
        said = run_and_kill(house, "fake-2", lambda said, wanted=wanted: len(said) >= wanted)  # type: ignore[misc]
        expected = {f"d{number}" for number in numbers} | {f"m{number}" for number in range(20)}
        assert house.shown() >= expected
        assert house.shown() == expected
        if said[-1] == "done":
            break
        new, old = max(numbers) + 1, min(numbers)
        numbers = numbers - {old} | {new}
        house.change((f"d{new}", f"Hotel Nummer {new}."), remove=[f"d{old}"])
    assert house.stamp() == "fake-2"
    assert steps > 6
    house.change(("last", "Hotel"))
    assert house.shown() == expected | {"last"}


def test_searching_and_changing_go_on_without_a_pause(house: Any, fakes: ModuleType) -> None:
    """Four who ask and one who changes documents, while the index is rebuilt with other encoders and rolled back."""
    done = threading.Event()
    problems: list[object] = []
    asked = [0] * 4
    settled: dict[str, float] = {}  # removed documents, by when the removal was finished
    cosines: dict[str, set[float]] = {}  # of the question and each chunk that stays, by one and the same encoder
    for number in range(6, 12):
        document = fakes.document(f"d{number}", f"Hotel Nummer {number}.\n\nZimmer {number} hat ein Bad.")
        for encoder in map(house.encoder, ("fake-1", "fake-2", "fake-3")):
            chunks, inputs = Maker(encoder, SIZE).chunks(document)
            for chunk in chunks:
                cosine = float(encoder.encode_query("Hotel") @ encoder.encode_query(inputs[chunk.key]))
                cosines.setdefault(chunk.chunk.text, set()).add(round(cosine, 4))

    def ask(who: int) -> None:
        while not done.is_set():
            begin = time.monotonic()
            try:
                hits = house.live.searcher().search("Hotel", limit=100, merge=False)
            except BaseException as error:  # noqa: BLE001 - whatever it is, the test fails with it
                problems.append(error)
                return
            found = {hit.source for hit in hits}
            if not named(*range(6, 12)) <= found:
                problems.append(("lost", named(*range(6, 12)) - found))
            known = [hit for hit in hits if hit.text in cosines]
            problems.extend(("mismatched", hit) for hit in known if round(hit.dense or 0.0, 4) not in cosines[hit.text])
            # A second or two is how long a server may take to notice; so long the fakes never need.
            problems.extend(("back", source) for source in found if begin > settled.get(source, begin) + 2)
            asked[who] += 1

    def change() -> None:
        number = 100
        while not done.is_set():
            try:
                house.change((f"n{number}", f"Hotel {number}"))
                house.change(remove=[f"n{number}"])
            except BaseException as error:  # noqa: BLE001 - as above
                problems.append(error)
                return
            settled[f"n{number}"] = time.monotonic()
            number += 1

    threads = [threading.Thread(target=ask, args=(who,)) for who in range(4)] + [threading.Thread(target=change)]
    for thread in threads:
        thread.start()
    for encoder in ("fake-2", "fake-3"):
        house.rebuild(encoder)
    house.rollback()
    time.sleep(1)
    done.set()
    for thread in threads:
        thread.join()
    assert problems == []
    assert min(asked) > 5
    assert len(settled) > 1
    assert house.stamp() == "fake-2"
    assert house.shown() == named(*range(12))


class Stopped(BaseException):
    """Ends a run where a kill would."""


@pytest.mark.parametrize("back", [False, True], ids=["rebuild", "rollback"])
def test_killed_right_after_the_swap_it_only_tidies_up(house: Any, back: bool) -> None:
    """The way back stays what it was, and a rollback that is run again does not go forward again."""
    if back:
        house.rebuild()
    run = house.rollback if back else house.rebuild
    before, real = house.generations.live(), house.generations

    def swap(new: Generation, **more: Any) -> None:
        real.swap(new, **more)
        raise Stopped

    house.generations = Meddled(real, swap=swap)  # type: ignore[assignment]
    with pytest.raises(Stopped):
        run()
    house.generations = real
    after = house.generations.live()
    house.change(("d12", "Hotel neu"))
    assert run().replaced == before
    assert house.stamp() == after.stamp.encoder  # type: ignore[union-attr]
    assert house.generations.previous() == before
    assert Building.read(house.store) is None
    assert house.shown() == named(*range(13))


def test_a_rebuild_that_was_given_up_is_forgotten(house: Any) -> None:
    def on_phase(phase: str, _: int | None) -> None:
        if phase == "verify":
            raise Stopped

    with pytest.raises(Stopped):
        house.rebuild(on_phase=on_phase)
    house.change(("d1", "Hotel"))
    assert house.store.dimensions("fake-2") == 32
    building = Building.read(house.store)
    assert building is not None
    Building(building.stamp, building.revision, time.time() - 3 * 86400).write(house.store)
    with house.store.rebuilding():
        house.change(("d2", "Hotel"))
    assert Building.read(house.store) is not None
    house.change(("d3", "Hotel"))
    assert Building.read(house.store) is None
    assert house.store.dimensions("fake-2") is None
    assert house.shown() == named(*range(12))


def test_a_rebuild_that_was_killed_after_its_swap_can_be_rolled_back(house: Any) -> None:
    before, real = house.generations.live(), house.generations

    def swap(new: Generation, **more: Any) -> None:
        real.swap(new, **more)
        raise Stopped

    house.generations = Meddled(real, swap=swap)
    with pytest.raises(Stopped):
        house.rebuild()
    house.generations = real
    assert house.stamp() == "fake-2"
    house.rollback()
    assert house.stamp() == before.stamp.encoder
    house.rebuild("fake-3")
    assert house.stamp() == "fake-3"
    assert house.shown() == named(*range(12))


def test_the_gate_compares_with_what_is_live_by_then(house: Any) -> None:
    def on_phase(phase: str, _: int | None) -> None:
        if phase == "gate":
            house.change(("d1", "Hotel Nummer 1. Und mehr."))
            house.change(("d2", "Hotel Nummer 2. Und mehr."))

    report = house.rebuild(gate=TestGate().gate(1.0), on_phase=on_phase)
    assert report.verdict is not None
    assert house.shown() == named(*range(12))


def test_what_another_engine_needs_stays(tmp_path: Path, fakes: ModuleType, elastic_place: tuple[str, str]) -> None:
    """One store, searched by both engines: whichever is rebuilt, the other goes on with its own chunks and encoder."""
    first = fakes.House(tmp_path / "data")
    first.change(*((f"d{number}", f"Hotel Nummer {number}.\n\nZimmer {number} hat ein Bad.") for number in range(12)))
    second = fakes.House(tmp_path / "data", elastic_place)
    second.rebuild("fake-2", ChunkSize(4, 0))
    second.change(("d12", "Hotel"), remove=["d0"])
    second.change(("d13", "Hotel"))
    assert second.shown() == named(*range(1, 14))
    assert first.stamp() == "fake-1"
    assert first.shown() == named(*range(12))  # as of its last run
    first.change()
    assert first.shown() == named(*range(1, 14))
    first.rebuild("fake-3")
    assert second.shown() == named(*range(1, 14))
    for house in (first, second):
        house.store.close()
