"""A line for each event, there at once, and readable whatever an earlier run left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from retriever.errors import BelegError, IndexUnavailable, StoreError, StoreLocked
from retriever.journal import Journal


def events(path: Path) -> list[dict[str, Any]]:
    """Read it like one who watches: empty lines, and a last one without an end, are left out."""
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return [json.loads(line) for line in whole.split("\n") if line]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def test_each_event_is_there_at_once(path: Path) -> None:
    with Journal(path) as told:
        told.tell("total", documents=2)
        assert events(path) == [{"event": "total", "documents": 2}]
        told.tell("queued", source="/Übersicht\n2.txt")
        assert events(path)[1:] == [{"event": "queued", "source": "/Übersicht\n2.txt"}]
        assert path.read_text(encoding="utf-8").count("\n") == 2
    assert len(events(path)) == 2


def test_a_second_run_goes_on_after_a_line_that_was_cut_off(path: Path) -> None:
    path.write_text('{"event": "total"}\n{"event": "que', encoding="utf-8")
    assert events(path) == [{"event": "total"}]
    with Journal(path) as told:
        told.tell("result")
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line]
    assert lines == ['{"event": "total"}', '{"event": "que', '{"event": "result"}']


def test_it_is_appended_to(path: Path) -> None:
    for number in range(3):
        with Journal(path) as told:
            told.tell("result", number=number)
    assert [event["number"] for event in events(path)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("error", "temporary"),
    [
        (IndexUnavailable("The search engine is full.", way_out="Wait."), True),
        (StoreLocked("Another process is writing.", way_out="Wait."), True),
        (StoreError("The disk is broken.", way_out=""), False),
    ],
)
def test_an_error_that_ends_it_is_told(path: Path, error: BelegError, temporary: bool) -> None:
    with pytest.raises(type(error)), Journal(path):
        raise error
    told = {"event": "error", "message": error.message, "way_out": error.way_out, "temporary": temporary}
    assert events(path) == [told]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), ValueError("a bug")])
def test_what_is_no_error_of_beleg_is_not(path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), Journal(path):
        raise error
    assert events(path) == []


def test_without_a_file_nothing_is_written() -> None:
    with Journal(None) as told:
        told.tell("total", documents=2)
    with pytest.raises(StoreError), Journal(None):
        raise StoreError("The disk is broken.")


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(BelegError, match=r"journal\.jsonl cannot be written: No such file"):
        Journal(tmp_path / "nowhere" / "journal.jsonl")
