"""The encoder of an index is found by its fingerprint, wherever it lies, and opened once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from retriever.encode import Encoder
from retriever.encoders import Encoders
from retriever.errors import IndexMismatch, ModelError
from retriever.index.base import Generation, Stamp


def made_by(fingerprint: str, reference: str) -> Generation:
    return Generation("g", Stamp(fingerprint, "lines", "1"), reference)


class Models:
    """What lies on a machine: fingerprints by reference. Notes what is opened."""

    def __init__(self, fakes: ModuleType, **here: str) -> None:
        self.here, self.opened, self._fakes = here, list[str](), fakes

    def __call__(self, reference: str) -> Encoder:
        self.opened.append(reference)
        if reference not in self.here:
            raise ModelError(f"{reference} is not on this machine.")
        encoder: Encoder = self._fakes.FakeEncoder(fingerprint=self.here[reference])
        return encoder


@pytest.fixture
def models(fakes: ModuleType) -> Callable[..., Models]:
    return lambda **here: Models(fakes, **here)


def test_the_reference_of_the_generation_comes_first(models: Callable[..., Models]) -> None:
    found = models(mine="one", settings="one")
    encoders = Encoders("settings", open_=found)
    assert encoders.of(made_by("one", "mine")) is encoders.open("mine")
    assert found.opened == ["mine"]


def test_then_that_of_the_settings(models: Callable[..., Models]) -> None:
    """A replica may keep its models elsewhere; an index of an earlier version does not say where its encoder was."""
    found = models(settings="one")
    encoders = Encoders("settings", open_=found)
    assert encoders.of(made_by("one", "elsewhere")).fingerprint == "one"
    assert encoders.of(made_by("one", "")) is encoders.open("settings")


def test_another_model_in_its_place_is_not_taken(models: Callable[..., Models]) -> None:
    encoders = Encoders("settings", open_=models(mine="two", settings="one"))
    assert encoders.of(made_by("one", "mine")) is encoders.open("settings")


def test_one_that_is_nowhere_says_what_was_tried(models: Callable[..., Models]) -> None:
    encoders = Encoders("settings", open_=models(settings="two"))
    with pytest.raises(IndexMismatch) as caught:
        encoders.of(made_by("one", "mine"))
    assert caught.value.message == (
        "The index was made by the encoder mine, which is not here: mine is not on this machine. settings is another one."
    )
    assert "`encoder`" in caught.value.way_out
    with pytest.raises(IndexMismatch, match="by the encoder 0123456789ab, which"):
        encoders.of(made_by("0123456789abcdef", ""))


def test_a_missing_one_may_come(models: Callable[..., Models]) -> None:
    found = models()
    encoders = Encoders("settings", open_=found)
    with pytest.raises(IndexMismatch):
        encoders.of(made_by("one", "mine"))
    found.here["mine"] = "one"
    assert encoders.of(made_by("one", "mine")).fingerprint == "one"


def test_a_folder_that_holds_another_model_by_now(models: Callable[..., Models]) -> None:
    """Fine-tuning may have written a new model to the same folder, and a rebuild made an index with it."""
    found = models(folder="one")
    encoders = Encoders("settings", open_=found)
    before = encoders.of(made_by("one", "folder"))
    found.here["folder"] = "two"
    assert encoders.of(made_by("one", "folder")) is before
    assert encoders.of(made_by("two", "folder")).fingerprint == "two"
    assert encoders.loaded("two")


def test_loaded(models: Callable[..., Models]) -> None:
    encoders = Encoders("settings", open_=models(mine="one"))
    assert not encoders.loaded("one")
    encoders.of(made_by("one", "mine"))
    assert encoders.loaded("one")
    assert not encoders.loaded("two")


def test_many_threads_open_it_once(fakes: ModuleType) -> None:
    opened, start = list[str](), threading.Barrier(8)

    def open_(reference: str) -> Any:
        opened.append(reference)
        threading.Event().wait(0.05)
        return fakes.FakeEncoder(fingerprint=reference)

    encoders, found = Encoders("one", open_=open_), list[Encoder]()

    def look() -> None:
        start.wait()
        encoders.loaded("one")
        found.append(encoders.of(made_by("one", "one")))

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened == ["one"]
    assert len(found) == 8
    assert len({id(encoder) for encoder in found}) == 1
