"""`beleg train reader` as it is typed, and what a dry run of it says."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from finetune.cli_train import train
from finetune.raft.row import RaftRow, write_raft
from finetune.recipe_reader import ReaderRecipe
from finetune.sft.forecast import forecast_reader
from finetune.sft.parts import read_reader_parts
from finetune.training import Watch
from retriever.errors import BelegError, SettingsError

Make = Callable[..., ReaderRecipe]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the command in this process, which is quicker; what `beleg` makes of errors is tested elsewhere."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    environment = {name: None for name in os.environ if name.startswith("BELEG_")} | {"BELEG_DATA_DIR": str(tmp_path / "data")}
    return lambda *arguments: CliRunner().invoke(train, ["reader", *(str(part) for part in arguments)], env=environment)


@pytest.fixture
def file(recipe: Make, tmp_path: Path) -> Path:
    """A recipe without data."""
    values = recipe(trainer={"max_steps": 2, "eval_steps": 2}).model_dump(mode="json")
    values["data"] = {}
    written = tmp_path / "tiny.yaml"
    written.write_text(json.dumps(values))
    return written


def test_a_dry_run_leaves_nothing(run: Callable[..., Result], file: Path, raft_file: Path, tmp_path: Path) -> None:
    done = run(file, "--data", raft_file, "--dry-run", "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    found = json.loads(done.stdout)
    assert (found["train"], found["dev"], found["test"], found["steps"], found["precision"]) == (28, 4, 8, 2, "fp32")
    assert found["recipe"]["task"] == "reader"
    assert 0 < found["trained"] < found["parameters"]
    assert found["longest"] <= 2048
    shown = run(
        file, "--data", raft_file, "--dry-run", "--set", "preprocessing={too_long: drop, global_max_sequence_length: 400}"
    )
    assert shown.exit_code == 0, (shown.output, shown.exception)
    assert "28 to train on, 4 for development, 8 for the test." in shown.stdout
    assert "examples left out: they would be too long" in shown.stdout
    assert not (tmp_path / "data").exists()
    assert not list((tmp_path / "here").iterdir())


def test_trained_and_told(run: Callable[..., Result], file: Path, raft_file: Path, tmp_path: Path) -> None:
    told = tmp_path / "told.jsonl"
    done = run(file, "--data", raft_file, "--name", "x", "--journal", told, "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    found = json.loads(done.stdout)
    assert (found["candidate"], found["kind"], found["left_out"]) == ("x", "reader", [])
    events = [json.loads(line) for line in told.read_text().splitlines() if line]
    phases = list(dict.fromkeys(event["phase"] for event in events if event["event"] == "progress"))
    assert phases == ["read", "render", "train"]
    assert events[-1]["event"] == "result"
    again = run(file, "--data", raft_file, "--name", "x")
    assert again.exit_code == 0
    assert again.stdout.splitlines()[-1].startswith("`beleg export x`")


def test_rows_left_out(run: Callable[..., Result], file: Path, rows: list[RaftRow], tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    write_raft(data, rows[:12])
    with data.open("a") as more:
        more.write("{oops\n")
    done = run(file, "--data", data, "--json")
    assert done.exit_code == 3, (done.output, done.exception)
    (left,) = json.loads(done.stdout)["left_out"]
    assert "line 13" in left


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        (("retriever", "--data", "rows.jsonl"), SettingsError, "is for a retriever"),
        (("FILE",), SettingsError, "there is no data"),
        (("FILE", "--data", "missing.jsonl"), BelegError, "missing.jsonl"),
        (("FILE", "--data", "rows.jsonl", "--set", "trainer.epoch=1"), SettingsError, "trainer.epochs"),
        (("FILE", "--data", "rows.jsonl", "--documents", "x"), SettingsError, "data.documents is no key"),
        (("FILE", "--data", "rows.jsonl", "--set", "data.split=none"), SettingsError, "early_stopping to null"),
        (("FILE", "--data", "rows.jsonl", "--set", "base_model=./none"), BelegError, "no model at ./none"),
        (("FILE", "--data", "rows.jsonl", "--name", "../x"), SettingsError, "no name for a candidate"),
        (("FILE", "--data", "rows.jsonl", "--set", "preprocessing.global_max_sequence_length=99"), BelegError, "too_long"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_done(
    run: Callable[..., Result], file: Path, rows: list[RaftRow], tmp_path: Path, arguments: tuple[str, ...],
    kind: type[BelegError], said: str,
) -> None:  # fmt: skip
    write_raft(tmp_path / "here" / "rows.jsonl", rows[:8])
    result = run(*(str(file) if part == "FILE" else part for part in arguments))
    assert isinstance(result.exception, kind), (result.output, result.exception)
    assert said in str(result.exception) + str(result.exception.way_out)


@pytest.mark.parametrize(
    ("trainer", "steps"),
    [({}, 14), ({"batch_size": 4, "gradient_accumulation_steps": 1}, 7), ({"epochs": 0.5}, 7), ({"max_steps": 3}, 3),
     ({"packing": True, "batch_size": 2}, 2)],
    ids=str,
)  # fmt: skip
def test_a_forecast_is_measured(
    recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainer: dict[str, Any], steps: int
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    one = recipe(trainer=trainer)
    found = forecast_reader(one, read_reader_parts(one), Watch())
    assert found.steps == steps
    assert found.training_s == pytest.approx(steps * found.step_s, rel=0.05, abs=0.02)
    assert min(found.step_s, found.memory_mb, found.tokens) > 0
    assert not list(tmp_path.iterdir())


def test_a_forecast_of_one_row(recipe: Make, rows: list[RaftRow], tmp_path: Path) -> None:
    write_raft(tmp_path / "rows.jsonl", rows[:1])
    one = recipe(data={"train": [str(tmp_path / "rows.jsonl")]}, trainer={"batch_size": 4})
    found = forecast_reader(one, read_reader_parts(one), Watch())
    assert (found.train, found.examples, found.steps) == (1, 1, 1)
