"""From an adapter to the reader that answers, with real models: exported, promoted, asked, taken back."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from finetune.candidate import Base, Manifest, write_manifest
from finetune.cli_candidates import candidates
from finetune.cli_promote import promote
from finetune.export import Export
from finetune.merge import open_adapter
from finetune.parity.limits import Effort
from finetune.raft.row import Passage, RaftRow, write_raft
from reader.cli_rollback import rollback
from reader.engine.weights import open_base
from reader.pipeline import Pipeline
from reader.prompt import fingerprint
from reader.quotes import Span
from reader.schema import Answer
from reader.served import open_reader
from retriever.cli_index import index
from retriever.errors import GateFailed
from retriever.models import folder_fingerprint
from retriever.settings import Settings

EFFORT = Effort(rendered=12, short=2, full=1, tail=16, context=1536, answers=2, answer_tokens=12)
TEXT = "Receipts over 25 euros must be handed in within 30 days."
QUESTION = "When must receipts be handed in?"


@pytest.fixture
def run(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    environment: dict[str, str | None] = {name: None for name in os.environ if name.startswith("BELEG_")}
    environment |= {"BELEG_DATA_DIR": str(tmp_path / "data"), "BELEG_READER": str(tiny_base), "BELEG_THREADS": "1"}
    return lambda command, *arguments: CliRunner().invoke(command, [str(part) for part in arguments], env=environment)


def done(result: Result) -> Any:
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


@pytest.fixture
def settings(tmp_path: Path, tiny_base: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", reader=str(tiny_base), threads=1)


@pytest.fixture
def folder(tmp_path: Path, settings: Settings, tiny_base: Path, lora: Path) -> Path:
    folder = tmp_path / "data" / "candidates" / "tuned"
    shutil.copytree(lora, folder / "model")
    passage = Passage(TEXT, "Reisen", (), "golden", "reisen.md", 0, len(TEXT), "en")
    row = RaftRow("1", QUESTION, (passage,), 1, (Span(1, 0, len(TEXT)),), "", "within 30 days", abstains=False, document="d")
    write_raft(folder / "test.jsonl", [row])
    # As its trainer does: by the base's own tokenizer.
    untuned = open_reader(settings)
    manifest = Manifest(
        kind="reader",
        name="tuned",
        created="2026-11-21T10:00:00+00:00",
        base=Base(reference=str(tiny_base), fingerprint=open_base(str(tiny_base)).fingerprint),
        fingerprint=folder_fingerprint(folder / "model"),
        prompt=fingerprint(untuned.engine, shots=False),
        metrics={"before": {"f1": 0.125}, "after": {"f1": 0.5}},
    )
    untuned.engine.close()
    write_manifest(folder, manifest)
    return folder


def state(run: Callable[..., Result]) -> tuple[str, str]:
    (row,) = done(run(candidates, "--json"))["candidates"]
    assert (row["before"], row["after"], row["measure"]) == (0.125, 0.5, "f1")
    return row["kind"], row["state"]


def answered(pipeline: Pipeline, wanted: Callable[[Answer], bool]) -> Answer:
    """Ask until an answer is one that is wanted."""
    until = time.monotonic() + 60
    while not wanted(answer := pipeline.answer(QUESTION)):
        assert time.monotonic() < until, pipeline.reader_state()
    return answer


def test_exported_and_promoted(run: Callable[..., Result], settings: Settings, folder: Path, tiny_base: Path) -> None:
    (settings.data_dir.parent / "reisen.md").write_text(f"# Reisen\n\n{TEXT}\n")
    assert run(index, settings.data_dir.parent / "reisen.md").exit_code == 0
    assert state(run) == ("reader", "")
    exporting = Export(open_base(str(tiny_base)), open_adapter(folder), folder / "export", effort=EFFORT, threads=1)
    exporting.run()
    (folder / "export" / "calibration.json").write_text('{"shots": false, "least_strength": 0.0}')

    # Three letters of noise are no better than others, on one document.
    refused = run(promote, "tuned")
    assert isinstance(refused.exception, GateFailed), refused.exception
    assert "about 1 documents" in str(refused.exception)
    assert state(run) == ("reader", "refused")

    with Pipeline.open(settings) as pipeline:
        before = pipeline.answer(QUESTION)
        taken = done(run(promote, "tuned", "--override", "a test", "--json"))
        assert (taken["status"], taken["kind"], taken["base"]) == ("live", "reader", None)
        assert taken["reader"] == str(folder / "export" / "model-q8_0.gguf")
        assert state(run) == ("reader", "live")
        assert "tuned is served already." in run(promote, "tuned").output
        # Noticed by the next question, opened behind it, and then it answers.
        during = answered(pipeline, lambda answer: answer.release != before.release)
        live = pipeline.reader_state()
        assert live is not None
        assert (live.model, live.candidate, live.release, live.problem) == (taken["reader"], "tuned", during.release, None)
        assert done(run(rollback, "--json"))["reader"] == str(tiny_base)
        assert state(run) == ("reader", "refused")
        after = answered(pipeline, lambda answer: answer.release == before.release)
        assert (after.answer, after.reasoning) == (before.answer, before.reasoning)


def test_promoted_unmerged(run: Callable[..., Result], settings: Settings, folder: Path, tiny_base: Path) -> None:
    (folder / "model" / "calibration.json").write_text('{"shots": false, "least_strength": 0.0}')
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
    write_manifest(folder, manifest.model_copy(update={"fingerprint": folder_fingerprint(folder / "model")}))
    told = run(promote, "tuned", "--unmerged", "--override", "a test")
    assert told.exit_code == 0, told.exception
    assert "tuned is served unmerged by transformers, which no parity gate proves." in " ".join(told.stderr.split())
    assert f"tuned is live: {folder / 'model'}" in told.stdout
    with Pipeline.open(settings) as pipeline:
        assert pipeline.calibration.shots is False
        assert state(run) == ("reader", "live")


def test_what_cannot_be_asked(run: Callable[..., Result], folder: Path) -> None:
    for options, said in [
        (("--questions", "x.jsonl"), "--questions goes with a retriever"),
        (("--file", "x", "--unmerged"), "--file goes with an export"),
    ]:
        result = run(promote, "tuned", *options)
        assert result.exit_code == 2
        assert said in result.output
