"""From rows to a candidate, with an encoder of a few thousand weights; stopped, killed, and gone on from."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from finetune.candidate import Candidate, open_candidate
from finetune.recipe import Recipe
from finetune.train import Training
from finetune.training import Watch
from retriever.encode import MiniLM
from retriever.errors import BelegError, ModelError
from retriever.models import folder_fingerprint
from retriever.rerank import CrossEncoderReranker

Make = Callable[..., Training]


def weights(model: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return load_file(model / "model.safetensors")


def steps_of(folder: Path) -> int:
    return max(int(entry["step"]) for entry in json.loads((folder / "log.json").read_text()))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, lamps: list[dict[str, Any]]) -> Path:
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in lamps), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def settings(rows: Path, tiny_encoder: Path) -> dict[str, Any]:
    return {
        "task": "retriever",
        "base_model": str(tiny_encoder),
        "data": {"train": [str(rows)]},
        "chunk_tokens": 40,
        "chunk_overlap": 8,
        "trainer": {
            "epochs": 4,
            "batch_size": 8,
            "learning_rate": 3e-3,
            "eval_steps": 6,
            "logging_steps": 2,
            "precision": "fp32",
        },
    }


@pytest.fixture(scope="module")
def make(settings: dict[str, Any]) -> Make:
    def make(candidates: Path, name: str | None = None, notes: list[str] | None = None, **more: Any) -> Training:
        values = dict(settings)
        for key, value in more.items():
            values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
        watch = Watch(on_note=notes.append) if notes is not None else Watch()
        return Training(Recipe.model_validate(values), candidates, name, settings["base_model"], watch=watch)

    return make


@pytest.fixture(scope="module")
def trained(make: Make, tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    return make(tmp_path_factory.mktemp("data") / "candidates", "lamps").run()


def test_what_it_leaves(trained: Candidate, tiny_encoder: Path) -> None:
    manifest, folder = trained.manifest, trained.folder
    assert open_candidate("lamps", folder.parents[1]).manifest == manifest
    encoder = MiniLM(trained.model)
    assert encoder.fingerprint == folder_fingerprint(trained.model) == manifest.fingerprint
    assert manifest.fingerprint != manifest.base.fingerprint == folder_fingerprint(tiny_encoder)
    assert encoder.max_tokens == MiniLM(tiny_encoder).max_tokens
    assert encoder.tokenizer == manifest.tokenizer
    tuned = json.loads((trained.model / "beleg.json").read_text())
    assert encoder.alpha == tuned["alpha"] == manifest.alpha
    assert 0 <= tuned["alpha"] <= 1
    assert (manifest.data.train, manifest.data.dev, manifest.data.test) == (45, 6, 13)
    assert len((folder / "test.jsonl").read_text().splitlines()) == 13
    assert manifest.measured("before") is not None
    assert manifest.measured("after", "R@10") is not None
    assert not (folder / "checkpoints").exists()
    assert list((folder / "logs").glob("events*"))
    found = json.loads((folder / "negatives.json").read_text())
    assert len(found["easy"]) == len(found["hard"]) == 10
    assert {path.name for path in folder.iterdir()} >= {"report.html", "report.json", "curve.svg", "workspace"}


def test_it_learns(trained: Candidate) -> None:
    log = json.loads((trained.folder / "log.json").read_text())
    losses = [entry["loss"] for entry in log if "loss" in entry]
    ndcg = [entry["eval_dev_cosine_ndcg@10"] for entry in log if "eval_loss" in entry]
    assert losses[-1] < losses[0] / 2
    assert max(ndcg) > ndcg[0]
    picture = (trained.folder / "curve.svg").read_text()
    assert "line-training" in picture
    assert "line-development" in picture
    systems = trained.manifest.metrics["systems"]
    assert systems["dense · tuned"]["nDCG@10"] > systems["dense · base"]["nDCG@10"] + 0.1


def test_no_path_of_this_machine_is_in_the_model(trained: Candidate, tmp_path: Path) -> None:
    for file in trained.model.rglob("*"):
        if file.is_file():
            assert b"/tmp/" not in file.read_bytes(), file
            assert str(trained.folder.parent).encode() not in file.read_bytes(), file
    moved = tmp_path / "elsewhere"
    shutil.copytree(trained.folder, moved)
    opened = open_candidate(moved, tmp_path)
    texts = ["the red lamp stands in hall 0."]
    one, other = (MiniLM(folder, precision="fp32").encode_passages(texts) for folder in (opened.model, trained.model))
    np.testing.assert_array_equal(one, other)


def test_the_same_again(make: Make, trained: Candidate, rows: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    before = (trained.folder / "manifest.json").read_bytes()
    assert make(trained.folder.parent, "lamps", notes).run().manifest == trained.manifest
    assert "trained before" in notes[-1]
    # The same rows by another name are the same training.
    shutil.copy(rows, tmp_path / "copy.jsonl")
    make(trained.folder.parent, "lamps", notes, data={"train": [str(tmp_path / "copy.jsonl")]}).run()
    assert "trained before" in notes[-1]
    for more in ({"trainer": {"seed": 1}}, {"data": {"limit": 20}}):
        with pytest.raises(BelegError, match="name of another training"):
            make(trained.folder.parent, "lamps", **more).run()
    assert (trained.folder / "manifest.json").read_bytes() == before


def test_a_candidate_from_elsewhere_is_not_taken_for_ours(make: Make, trained: Candidate, tmp_path: Path) -> None:
    (tmp_path / "lamps").mkdir()
    shutil.copy(trained.folder / "manifest.json", tmp_path / "lamps")
    with pytest.raises(BelegError, match="name of another training"):
        make(tmp_path, "lamps").run()
    for text in ("", "{", "[]", "{}"):
        (tmp_path / "lamps" / "training.json").write_text(text)
        with pytest.raises(BelegError, match="name of another training"):
            make(tmp_path, "lamps").run()


def test_two_at_once(make: Make, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with FileLock(tmp_path / "x" / "training.lock"), pytest.raises(BelegError, match="being trained by another process"):
        make(tmp_path, "x").run()


@pytest.mark.parametrize("name", ["", "..", ".", ".hidden", "a/b", "/etc", "a\0b", "a b", "x" * 101, "-rf"])
def test_names_that_are_none(make: Make, tmp_path: Path, name: str) -> None:
    with pytest.raises(BelegError, match="no name for a candidate"):
        make(tmp_path / "candidates", name).run()
    assert not list(tmp_path.iterdir())


def test_a_missing_model_leaves_nothing(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model at"):
        make(tmp_path / "candidates", base_model="./missing").run()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made(make: Make, tmp_path: Path) -> None:
    (tmp_path / "candidates").write_text("")
    with pytest.raises(BelegError, match="cannot be written"):
        make(tmp_path / "candidates").run()


def test_neither_development_nor_test_rows(make: Make, tmp_path: Path) -> None:
    notes: list[str] = []
    more = {"data": {"split": "none"}, "trainer": {"early_stopping": None, "max_steps": 3, "logging_steps": 1}}
    found = make(tmp_path, None, notes, **more).run()
    assert any("no development rows" in note for note in notes)
    assert any("no test rows" in note for note in notes)
    assert (found.manifest.alpha, found.manifest.metrics, steps_of(found.folder)) == (None, {}, 3)
    assert found.name.startswith("retriever-")
    assert not (found.model / "beleg.json").exists()
    assert MiniLM(found.model).alpha is None
    assert "line-training" in (found.folder / "curve.svg").read_text()


def test_rows_that_flatter_are_told(make: Make, rows: Path, tmp_path: Path, tiny_encoder: Path) -> None:
    notes: list[str] = []
    data = {"dev": [str(rows)], "test": [str(rows)], "limit": 10}
    # No passage is left to tell answers apart from: all of them are measured on.
    with pytest.raises(BelegError, match="nothing to tell their answers apart from"):
        make(tmp_path, None, notes, data=data).run()
    assert any("20 development or test rows ask about contexts that are trained on" in note for note in notes)


@pytest.mark.parametrize(
    "more",
    [
        {"loss": {"type": "triplet"}},
        {"loss": {"type": "cached_multiple_negatives", "mini_batch": 3}},
        {"trainer": {"precision": "bf16"}},
        {"negatives": {"easy": 0, "hard": 0}},
        {"preprocessing": {"global_max_sequence_length": 16}},
    ],
    ids=str,
)
def test_other_ways(make: Make, tmp_path: Path, more: dict[str, Any], tiny_encoder: Path) -> None:
    more = {**more, "trainer": {"max_steps": 2, "logging_steps": 1, **more.get("trainer", {})}}
    found = make(tmp_path, "x", **more).run()
    assert steps_of(found.folder) == 2
    assert MiniLM(found.model).max_tokens == 126
    old, new = weights(tiny_encoder), weights(found.model)
    assert any(not np.array_equal(old[name], new[name]) for name in old)
    assert all(np.isfinite(value).all() for value in new.values())
    assert {value.dtype for value in new.values()} == {value.dtype for value in old.values()}


def test_it_stops_early_and_keeps_the_best(make: Make, tmp_path: Path) -> None:
    # A rate that wrecks the model: the first evaluation is as good as it gets.
    wild = {"epochs": 50, "eval_steps": 2, "early_stopping": 2, "learning_rate": 5.0, "warmup_steps": 3}
    found = make(tmp_path, "x", trainer=wild).run()
    log = json.loads((found.folder / "log.json").read_text())
    ndcg = {entry["step"]: entry["eval_dev_cosine_ndcg@10"] for entry in log if "eval_loss" in entry}
    best = max(ndcg, key=lambda step: (ndcg[step], -step))
    assert steps_of(found.folder) == best + 4 < 300


def test_a_reranker(make: Make, tmp_path: Path) -> None:
    more = {"trainer": {"max_steps": 4, "logging_steps": 1, "eval_steps": 2, "batch_size": 4}}
    found = make(tmp_path, "judge", task="reranker", **more).run()
    judge = CrossEncoderReranker(found.model)
    tuned = json.loads((found.model / "beleg.json").read_text())
    assert judge.weight == tuned["weight"] == found.manifest.weight
    assert judge.fingerprint == found.manifest.fingerprint == folder_fingerprint(found.model)
    assert found.manifest.kind == "reranker"
    assert all(0 <= score <= 1 for score in judge.scores("where is the red lamp?", ["the red lamp", "x"]))
    assert found.manifest.measured("after") is not None
    assert "line-score" in (found.folder / "curve.svg").read_text()
    again = make(tmp_path / "again", "judge", task="reranker", **more).run()
    assert again.manifest.fingerprint == found.manifest.fingerprint


@pytest.fixture(scope="module")
def long(settings: dict[str, Any], make: Make, tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    """A run of sixty steps that nobody stops."""
    return make(tmp_path_factory.mktemp("long"), "x", trainer=LONG).run()


LONG = {"max_steps": 60, "eval_steps": 10, "early_stopping": None}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_ends_goes_on_as_if_it_had_not(
    number: signal.Signals, make: Make, settings: dict[str, Any], long: Candidate, tmp_path: Path, beleg_command: Path,
    beleg_environment: Callable[[Mapping[str, str]], dict[str, str]],
) -> None:  # fmt: skip
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps({**settings, "trainer": settings["trainer"] | LONG}))
    told = tmp_path / "told.jsonl"
    command = [beleg_command, "train", "retriever", file, "--name", "x", "--journal", told]
    environment = beleg_environment({"BELEG_DATA_DIR": str(tmp_path)})
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        try:
            until = time.monotonic() + 200
            while run.poll() is None and time.monotonic() < until:
                lines = told.read_text().splitlines()[:-1] if told.exists() else []
                events = [json.loads(line) for line in lines if line]
                if any(event.get("phase") == "train" and event["done"] >= 13 for event in events):
                    run.send_signal(number)
                    break
                time.sleep(0.01)
            code = run.wait(100)
        finally:
            run.kill()
        _, said = run.communicate()
    folder = tmp_path / "candidates" / "x"
    assert not (folder / "model").exists()
    assert not (folder / "manifest.json").exists()
    if number == signal.SIGKILL:
        assert code == -signal.SIGKILL
        half = folder / "checkpoints" / "checkpoint-999"
        half.mkdir()
        (half / "trainer_state.json").write_text('{"global_st')
    else:
        assert code == 130, said
        assert "run the command again to go on" in said
        assert "Traceback" not in said
    notes: list[str] = []
    found = make(tmp_path / "candidates", "x", notes, trainer=LONG).run()
    (going,) = [note for note in notes if note.startswith("going on at step")]
    assert 10 <= int(going.rpartition(" ")[2]) < 60
    assert steps_of(found.folder) == steps_of(long.folder) == 60
    one, other = weights(found.model), weights(long.model)
    for name, value in other.items():
        np.testing.assert_allclose(one[name], value, atol=1e-4, err_msg=name)


def test_stopped_while_it_measures(make: Make, long: Candidate, tmp_path: Path) -> None:
    """What was learnt is kept, and a half-written `beleg.json` is nobody's trouble."""
    shutil.copytree(long.folder, tmp_path / "x")
    (tmp_path / "x" / "manifest.json").unlink()
    (tmp_path / "x" / "model" / "beleg.json").unlink()
    (tmp_path / "x" / "model" / ".beleg.json.partial").write_text('{"al')
    found = make(tmp_path, "x", trainer=LONG).run()
    assert found.manifest.fingerprint == long.manifest.fingerprint
    assert found.manifest.alpha == long.manifest.alpha
    assert (found.model / "beleg.json").exists()


def test_a_disk_that_is_full(
    make: Make, settings: dict[str, Any], tmp_path: Path, beleg_command: Path,
    beleg_environment: Callable[[Mapping[str, str]], dict[str, str]],
) -> None:  # fmt: skip
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps({**settings, "trainer": settings["trainer"] | {"max_steps": 2}}))
    limited = f"import resource, os, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); os.execv(sys.argv[1], sys.argv[1:])"  # noqa: E501, F541
    python = beleg_command.with_name("python")
    command = [python, "-c", limited, beleg_command, "train", "retriever", file, "--name", "x"]
    environment = beleg_environment({"BELEG_DATA_DIR": str(tmp_path)})
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 1, done
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "candidates" / "x" / "manifest.json").exists()


def test_rights_that_are_missing(make: Make, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(BelegError, match="cannot be written"):
        make(tmp_path / "closed").run()
