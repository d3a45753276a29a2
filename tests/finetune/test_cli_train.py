"""`beleg train` as it is typed: shapes of data, dry runs, journals, and errors that name file and line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from finetune.cli_train import train
from retriever.errors import BelegError, SettingsError

EXAMPLES = Path(__file__).parents[2] / "examples" / "training"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the command in this process, which is quicker; what `beleg` makes of errors is tested elsewhere."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    environment = {name: None for name in os.environ if name.startswith("BELEG_")} | {"BELEG_DATA_DIR": str(tmp_path / "data")}
    return lambda *arguments: CliRunner().invoke(train, [str(part) for part in arguments], env=environment)


@pytest.fixture
def recipe(tmp_path: Path, tiny_encoder: Path) -> Path:
    file = tmp_path / "recipes" / "tiny.yaml"
    file.parent.mkdir()
    file.write_text(
        f"task: retriever\nbase_model: {tiny_encoder}\nchunk_tokens: 90\nchunk_overlap: 8\n"
        "data: {split: none}\ntrainer: {max_steps: 2, batch_size: 4, logging_steps: 1, early_stopping: null, precision: fp32}\n"
    )
    return file


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.mark.parametrize("name", ["dpr.jsonl", "qca.jsonl", "squad.json", "beir", "feedback.jsonl"])
def test_every_shape_and_its_journal(run: Callable[..., Result], recipe: Path, tmp_path: Path, name: str) -> None:
    told = tmp_path / "told.jsonl"
    # Examples of feedback are too few to be told apart from one another, and rows bring no other passages.
    extra = ["--data", EXAMPLES / "qca.jsonl"] if name == "feedback.jsonl" else []
    done = run(
        "retriever", recipe, "--data", EXAMPLES / name, *extra, "--name", "x", "--journal", told, "--json",
        "--set", "negatives.margin=null",
    )  # fmt: skip
    assert done.exit_code == 0, (done.output, done.exception)
    found = json.loads(done.stdout)
    assert (found["candidate"], found["kind"], found["data"]["dev"]) == ("x", "retriever", 0)
    assert found["data"]["sources"][0]["rows"] > 0
    assert Path(found["folder"], "model", "model.safetensors").is_file()
    events = [json.loads(line) for line in told.read_text().splitlines() if line]
    assert list(dict.fromkeys(event["phase"] for event in events if event["event"] == "progress"))[:4] == [
        "read",
        "encode",
        "mine",
        "train",
    ]
    assert any(event["event"] == "note" and event["text"].startswith("rows: ") for event in events)
    assert events[-1] == {"event": "result", "candidate": "x", "before": None, "after": None}


def test_what_is_shown(run: Callable[..., Result], recipe: Path, tmp_path: Path, lamps: list[dict[str, Any]]) -> None:
    rows = write(tmp_path / "here" / "röws🧾.jsonl", lamps)
    sets = ("--set", "data.split={shares: [.7, .1, .2]}", "--set", "negatives.hard=2")
    done = run("retriever", recipe, "--data", rows.name, *sets, "--name", "x", "--limit", "20")
    assert done.exit_code == 0, (done.output, done.exception)
    lines = done.stdout.splitlines()
    assert sum(line.startswith("    − ") for line in lines) == 20
    assert any(line.startswith("Easy negatives: 20 used") for line in lines)
    assert any(line.startswith("nDCG@10 on 13 test questions: ") for line in lines)
    assert lines[-1].startswith("`beleg promote x`")


def test_a_dry_run_leaves_nothing(
    run: Callable[..., Result], recipe: Path, tmp_path: Path, lamps: list[dict[str, Any]]
) -> None:
    rows = write(tmp_path / "here" / "rows.jsonl", lamps)
    done = run("retriever", recipe, "--data", "rows.jsonl", "--dry-run", "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    found = json.loads(done.stdout)
    assert (found["train"], found["steps"], found["precision"]) == (64, 2, "fp32")
    assert found["memory_mb"] > 0
    assert found["recipe"]["data"]["train"] == ["rows.jsonl"]
    shown = run("retriever", recipe, "--data", rows, "--dry-run")
    assert "Rows: 64 to train on, 0 for development, 0 for the test; 64 contexts." in shown.stdout
    assert not (tmp_path / "data").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "recipes"]
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        (("reranker", "RECIPE", "--data", "rows.jsonl"), SettingsError, "is for a retriever"),
        (("retriever", "retreiver"), BelegError, "There is no recipe retreiver"),
        (("retriever", "RECIPE"), SettingsError, "there is no data"),
        (("retriever", "RECIPE", "--data", "missing.jsonl"), BelegError, "missing.jsonl"),
        (("retriever", "RECIPE", "--data", "empty.jsonl"), BelegError, "empty.jsonl holds no record"),
        (("retriever", "RECIPE", "--data", "rows.jsonl", "--set", "trainer.epoch=1"), SettingsError, "trainer.epochs"),
        (("retriever", "RECIPE", "--data", "rows.jsonl", "--name", "../x"), BelegError, "no name for a candidate"),
        (("retriever", "RECIPE", "--data", "rows.jsonl", "--set", "base_model=./none"), BelegError, "no model at ./none"),
        (("retriever", "RECIPE", "--data", "rows.jsonl", "--set", "chunk_tokens=500"), SettingsError, "chunk_tokens is 500"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_done(
    run: Callable[..., Result], recipe: Path, tmp_path: Path, lamps: list[dict[str, Any]], arguments: tuple[str, ...],
    kind: type[BelegError], said: str,
) -> None:  # fmt: skip
    write(tmp_path / "here" / "rows.jsonl", lamps[:8])
    write(tmp_path / "here" / "empty.jsonl", [])
    result = run(*(str(recipe) if part == "RECIPE" else part for part in arguments))
    assert isinstance(result.exception, kind), result.output
    assert said in str(result.exception)


def test_wrong_usage(run: Callable[..., Result]) -> None:
    for arguments in (("writer", "x"), ("retriever",), ("retriever", "x", "--limit", "0")):
        assert run(*arguments).exit_code == 2
    listed = run("--list")
    assert listed.exit_code == 0
    assert {line.split()[0] for line in listed.stdout.splitlines()} >= {"retriever", "reranker", "retriever-gpu"}


def test_rows_left_out_are_counted(
    run: Callable[..., Result], recipe: Path, tmp_path: Path, lamps: list[dict[str, Any]]
) -> None:
    rows = write(tmp_path / "here" / "rows.jsonl", lamps[:8])
    with rows.open("a", encoding="utf-8") as file:
        file.write("{oops\n")
    page = tmp_path / "here" / "empty.md"
    page.touch()
    done = run("retriever", recipe, "--data", rows, "--documents", page, "--json")
    assert done.exit_code == 3, (done.output, done.exception)
    left_out = json.loads(done.stdout)["left_out"]
    assert len(left_out) == 2
    assert "line 9" in left_out[0]
    assert "empty.md" in left_out[1]
    assert "rows: 8 training, 0 development, 0 test; 1 rows left out, see `beleg data check`" in done.stderr
