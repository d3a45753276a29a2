"""What is served is opened without making anything."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from finetune.served import open_served
from retriever.errors import IndexMissing
from retriever.settings import Settings


def test_nothing_is_made_where_nothing_is(tmp_path: Path, fakes: ModuleType) -> None:
    asked: list[tuple[str, int | None]] = []

    def open_(reference: str, *, threads: int | None = None) -> Any:
        asked.append((reference, threads))
        return fakes.FakeEncoder()

    settings = Settings(data_dir=tmp_path / "data", encoder="some/model", chunk_tokens=99, chunk_overlap=9)
    with open_served(settings, open_) as served:
        assert (served.reference(), served.size().tokens, served.size().overlap) == ("some/model", 99, 9)
        served.encoder(2)
        with pytest.raises(IndexMissing, match="Nothing has been indexed"):
            list(served.documents())
    assert asked == [("some/model", 2)]
    assert not list(tmp_path.iterdir())


def test_what_is_live_counts_not_what_is_set(tmp_path: Path, fakes: ModuleType) -> None:
    house = fakes.House(tmp_path)
    house.change(("a", "Ein Hotel."), ("b", "Ein Haus."))
    house.store.close()
    made: list[str] = []

    def open_(reference: str, *, threads: int | None = None) -> Any:
        made.append(reference)
        return fakes.FakeEncoder(fingerprint=reference)

    with open_served(Settings(data_dir=tmp_path, encoder="other", chunk_tokens=99), open_) as served:
        assert served.reference() == "fake-1"
        assert served.size() == fakes.SMALL
        assert sorted(document.source for document in served.documents()) == ["a", "b"]
        assert served.encoder(None).fingerprint == "fake-1"
    assert made == ["fake-1"]
