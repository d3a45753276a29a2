"""Elasticsearch goes away under those who search and those who change documents: said clearly, and nothing is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from retriever.errors import BelegError, IndexUnavailable

OpenHouse = Callable[..., tuple[Any, Any]]


@pytest.fixture
def open_house(tmp_path: Path, fakes: ModuleType, elastic_nodes: ModuleType) -> Iterator[OpenHouse]:
    """Start nodes of its own, and return them with a house whose index they hold."""
    opened = []

    def make(*arguments: str, replicas: int = 0) -> tuple[Any, Any]:
        node = elastic_nodes.Node(*arguments)
        opened.append(node)
        house = fakes.House(tmp_path / "data", (node.url, "test", str(replicas)))
        house.change(*((f"d{number}", f"Hotel Nummer {number}.") for number in range(12)))
        return node, house

    yield make
    for node in opened:
        node.close()


class Crowd:
    """Two who search without a pause, and one who adds a document, removes it, and tries again until it is done."""

    def __init__(self, house: Any) -> None:
        self.house = house
        self.answered = 0
        self.changed = 0
        self.away: list[BelegError] = []
        self.problems: list[object] = []
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(2)] + [threading.Thread(target=self._change)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def wait(self, changes: int) -> None:
        """Wait until so many more changes are done, and shown."""
        wanted, patience = self.changed + changes, time.monotonic() + 120
        while self.changed < wanted and not self.problems:
            assert time.monotonic() < patience
            time.sleep(0.05)

    def _ask(self) -> None:
        while not self._done.is_set():
            try:
                found = {hit.source for hit in self.house.live.searcher().search("Hotel", limit=100, merge=False)}
            except IndexUnavailable as error:
                self.away.append(error)
                continue
            except BaseException as error:  # noqa: BLE001 - whatever it is, the test fails with it
                self.problems.append(error)
                return
            self.answered += 1
            # All of them, or it is no answer: a part of the index would be a lie.
            if not {f"d{number}" for number in range(12)} <= found:
                self.problems.append(found)

    def _change(self) -> None:
        number = 0
        while not self._done.is_set():
            number += 1
            self._insist(lambda: self.house.change((f"n{number}", f"Hotel {number}")))  # noqa: B023 - called at once
            self._expect({f"n{number}"})
            known = self.house.store.known()
            gone = [source for source in known if source.startswith("n")]
            self._insist(lambda: self.house.change(remove=[source for source in gone if source in self.house.store.known()]))  # noqa: B023
            self._expect(set())
            self.changed += 1

    def _insist(self, change: Callable[[], None]) -> None:
        while not self._done.is_set():
            try:
                change()
            except IndexUnavailable as error:
                self.away.append(error)
                time.sleep(0.2)
            except BaseException as error:  # noqa: BLE001 - as above
                self.problems.append(error)
                return
            else:
                return

    def _expect(self, there: set[str]) -> None:
        while not self._done.is_set() and not self.problems:
            try:
                found = self.house.shown()
            except IndexUnavailable as error:
                self.away.append(error)
                continue
            if {source for source in found if source.startswith("n")} != there:
                self.problems.append((found, there))
            return


def test_a_node_that_is_killed_and_comes_back(open_house: OpenHouse) -> None:
    node, house = open_house()
    crowd = Crowd(house)
    crowd.wait(2)
    assert crowd.away == []
    node.kill()
    while not crowd.away:
        time.sleep(0.05)
    time.sleep(1)
    node.start()
    crowd.wait(2)
    answered = crowd.answered
    crowd.wait(1)
    crowd.stop()
    assert crowd.problems == []
    assert crowd.answered > answered
    for error in crowd.away:
        assert "Elasticsearch at http://127.0.0.1:" in error.message
        assert error.way_out
    assert house.shown() >= {f"d{number}" for number in range(12)}
    house.generations.verify(house.generations.live())


def test_one_node_of_three_is_killed(open_house: OpenHouse) -> None:
    """With a replica of everything, nobody notices."""
    node, house = open_house("--nodes", "3", replicas=1)
    crowd = Crowd(house)
    crowd.wait(2)
    node.kill(1)
    crowd.wait(3)
    crowd.stop()
    assert crowd.problems == []
    assert crowd.away == []
    assert crowd.answered > 20
    house.generations.verify(house.generations.live())
