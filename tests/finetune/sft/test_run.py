"""From rows to a reader's candidate; stopped, killed, gone on from, and asked by the engine that serves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import finetune.sft.trainer
from finetune.candidate import Candidate, open_candidate
from finetune.merge import merge, open_adapter
from finetune.raft.row import RaftRow, hits_of, read_raft, write_raft
from finetune.recipe_reader import ReaderRecipe
from finetune.sft.run import ReaderTraining
from finetune.training import Watch
from reader.calibration import read_calibration
from reader.engine.base import never
from reader.engine.hf import Transformers, open_source
from reader.engine.weights import open_base
from reader.prompt import fingerprint, render
from reader.quotes import Freedom, grammar, parse
from retriever.errors import BelegError, ModelError
from retriever.models import folder_fingerprint

Make = Callable[..., ReaderRecipe]


def train(recipe: ReaderRecipe, candidates: Path, notes: list[str] | None = None, name: str | None = "x") -> Candidate:
    return ReaderTraining(recipe, candidates, name, Watch(on_note=(notes if notes is not None else []).append)).run()


def weights(candidate: Candidate) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    (file,) = candidate.model.glob("*.safetensors")
    return load_file(file)


def log_of(candidate: Candidate) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((candidate.folder / "log.json").read_text())
    return found


def steps_of(candidate: Candidate) -> int:
    return max(int(entry["step"]) for entry in log_of(candidate))


def dev_losses(candidate: Candidate) -> dict[int, float]:
    return {entry["step"]: entry["eval_loss"] for entry in log_of(candidate) if "eval_loss" in entry}


@pytest.fixture(scope="module")
def trained(recipe: Make, tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    return train(recipe(trainer={"epochs": 3, "eval_steps": 14}), tmp_path_factory.mktemp("data") / "candidates", name="ort")


def test_what_it_leaves(trained: Candidate, llama: Path, raft_file: Path) -> None:
    manifest, folder = trained.manifest, trained.folder
    assert open_candidate("ort", folder.parents[1]).manifest == manifest
    assert (manifest.kind, manifest.name, manifest.chunk) == ("reader", "ort", None)
    assert manifest.base.reference == str(llama)
    assert manifest.base.fingerprint == folder_fingerprint(llama)
    assert manifest.fingerprint == folder_fingerprint(trained.model)
    assert (manifest.data.train, manifest.data.dev, manifest.data.test) == (28, 4, 8)
    assert [(source.name, source.rows) for source in manifest.data.sources] == [("rows", 40)]
    assert manifest.data.hash
    assert manifest.recipe["adapter"]["r"] == 4
    assert manifest.version
    assert manifest.machine
    assert manifest.seconds > 0
    with engine_of(trained) as engine:
        assert manifest.prompt == fingerprint(engine, shots=False)
    assert {path.name for path in folder.iterdir()} >= {
        "curve.svg",
        "curve.json",
        "samples.html",
        "samples.json",
        "samples.jsonl",
        "test.jsonl",
        "log.json",
        "logs",
    }
    assert not (folder / "checkpoints").exists()
    assert "line-development" in (folder / "curve.svg").read_text()
    assert "F1 of samples" in (folder / "curve.svg").read_text()
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert [one["step"] for one in samples] == list(dev_losses(trained))
    assert {"id", "question", "wanted", "wrote", "f1"} <= samples[0].keys()
    held = read_raft(folder / "test.jsonl")
    assert len(held) == 8
    usage = read_calibration(folder, manifest.fingerprint, trained.model)
    assert (usage.may_abstain, usage.reasoning, usage.shots, usage.quotable) == (True, True, False, 0)


def test_it_learns(trained: Candidate) -> None:
    losses = dev_losses(trained)
    assert losses[max(losses)] < 0.9 * losses[min(losses)]
    points = json.loads((trained.folder / "curve.json").read_text())
    assert [point["step"] for point in points if point["score"] is not None] == list(losses)


@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_no_path_of_this_machine_is_in_the_model(
    recipe: Make, llama: Path, tmp_path: Path, adapter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base is named as the recipe does, whatever folder it was loaded from."""
    gone = tmp_path / "where-it-was-loaded"
    shutil.copytree(llama, tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    one = recipe(base_model="./base", adapter={"type": adapter}, trainer={"max_steps": 1, "samples": 0})
    load = finetune.sft.trainer.load_learner

    def elsewhere(recipe: ReaderRecipe) -> Any:
        """Load it as a GGUF is that is quantized: from a folder that is gone afterwards."""
        model = load(recipe)
        model.name_or_path = model.config._name_or_path = str(gone)
        return model

    monkeypatch.setattr(finetune.sft.trainer, "load_learner", elsewhere)
    found = train(one, tmp_path / "c")
    if adapter == "lora":
        assert json.loads((found.model / "adapter_config.json").read_text())["base_model_name_or_path"] == "./base"
    for file in found.model.rglob("*"):
        assert str(tmp_path).encode() not in file.read_bytes(), file


def test_the_same_again(recipe: Make, trained: Candidate, raft_file: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    shutil.copy(raft_file, tmp_path / "copy.jsonl")
    again = recipe(trainer={"epochs": 3, "eval_steps": 14}, data={"train": [str(tmp_path / "copy.jsonl")]})
    begun = time.monotonic()
    assert train(again, trained.folder.parent, notes, "ort").manifest == trained.manifest
    assert time.monotonic() - begun < 2
    assert "trained before" in notes[-1]
    for more in ({"trainer": {"seed": 1}}, {"data": {"limit": 20}}, {"adapter": {"r": 8}}):
        other = recipe(**{**more, "trainer": {"epochs": 3, "eval_steps": 14, **more.get("trainer", {})}})
        with pytest.raises(BelegError, match="name of another training"):
            train(other, trained.folder.parent, name="ort")


def engine_of(candidate: Candidate, base: str = "", bits: int = 0) -> Any:
    from contextlib import closing

    source = open_source(candidate.model, base=base, bits=bits)
    return closing(Transformers(source, model="x", fingerprint="", context_size=2048, threads=1))


KINDS: list[tuple[dict[str, Any], int]] = [
    ({"type": "none"}, 0),
    ({"type": "lora", "rslora": True}, 0),
    ({"type": "lora"}, 4),
    ({"type": "lora"}, 8),
    ({"type": "adalora"}, 0),
    ({"type": "adalora"}, 4),
    ({"type": "adaption_prompt"}, 0),
]


@pytest.mark.parametrize(("adapter", "bits"), KINDS, ids=lambda value: str(value))
def test_every_kind_trains_and_is_served(
    recipe: Make, rows: list[RaftRow], mistral: Path, tmp_path: Path, adapter: dict[str, Any], bits: int
) -> None:
    one = recipe(base_model=str(mistral), adapter=adapter, quantization={"bits": bits or None},
                 trainer={"max_steps": 6, "eval_steps": 3, "samples": 0, "learning_rate": 0.02})  # fmt: skip
    found = train(one, tmp_path)
    assert steps_of(found) == 6
    assert all(torch.isfinite(value).all() for value in weights(found).values())
    whole = adapter["type"] == "none"
    if not whole:
        assert json.loads((found.model / "adapter_config.json").read_text())["base_model_name_or_path"] == str(mistral)
    hits = hits_of(rows[0])
    with engine_of(found, bits=bits) as engine:
        prompt = render(engine, rows[0].question, hits, answer_tokens=100, shots=False).prompt
        wrote = "".join(engine.generate(prompt, grammar=grammar(hits, Freedom()), max_tokens=100, cancelled=never))
        assert fingerprint(engine, shots=False) == found.manifest.prompt
        assert parse(wrote).quotes or parse(wrote).abstained or len(wrote) > 50
    if adapter["type"] == "adaption_prompt":
        with pytest.raises(ModelError, match="cannot be merged"):
            open_adapter(found.folder)
        return
    opened = open_adapter(found.folder)
    assert (opened.kind == "FULL", opened.bits) == (whole, bits or None)
    merge(open_base(str(mistral)), opened, tmp_path / "merged", "dequantized" if bits else "original")
    assert (tmp_path / "merged" / "model.safetensors").is_file()
    assert (tmp_path / "merged" / "tokenizer.model").is_file()


def test_ranks_move_and_what_is_saved_is_what_was_measured(recipe: Make, tmp_path: Path) -> None:
    one = recipe(adapter={"type": "adalora"}, trainer={"epochs": 1, "samples": 0, "learning_rate": 0.05})
    found = train(one, tmp_path)
    kept = [int((value != 0).sum()) for name, value in weights(found).items() if "lora_E" in name]
    assert len(set(kept)) > 1
    assert sum(kept) == 4 * len(kept)  # six at the beginning
    losses = dev_losses(found)
    assert loss_of(one, found) == pytest.approx(min(losses.values()), rel=1e-4)


@pytest.mark.parametrize("kind", ["none", "lora", "adalora"])
def test_it_stops_early_and_keeps_the_best(
    recipe: Make, rows: list[RaftRow], tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rate that wrecks the model after a few steps: the best is one of the first, and it is what is saved."""
    wild = {"epochs": 9, "eval_steps": 2, "early_stopping": 2, "learning_rate": 0.3, "warmup_steps": 8, "samples": 0,
            "max_grad_norm": 1000}  # fmt: skip
    one = recipe(adapter={"type": kind}, trainer=wild)
    found = train(one, tmp_path)
    losses = dev_losses(found)
    best = min(losses, key=lambda step: (losses[step], step))
    assert steps_of(found) == best + 4 < 126
    assert losses[best] < losses[max(losses)]
    assert loss_of(one, found) == pytest.approx(losses[best], rel=1e-3)


def loss_of(recipe: ReaderRecipe, candidate: Candidate) -> float:
    """Return the development loss of what was saved, as it is opened again."""
    from finetune.sft.batches import collate, columns, mean_weight
    from finetune.sft.examples import lay_out
    from finetune.sft.model import tokenizer_of
    from finetune.sft.parts import read_reader_parts
    from reader.engine.weights import adapt, load_base

    model = load_base(
        open_base(str(candidate.model if recipe.adapter.type == "none" else recipe.base_model)), dtype=torch.float32
    )
    if recipe.adapter.type != "none":
        model = adapt(model, candidate.model)
    dev = lay_out(recipe, read_reader_parts(recipe), tokenizer_of(recipe), Watch()).dev
    total = 0.0
    for pack in dev:
        batch = collate(packed=False, pad=0)(columns([pack]))
        with torch.no_grad():
            logits = model(input_ids=batch["input_ids"]).logits[0, :-1].log_softmax(-1)
        costs = -logits.gather(1, batch["input_ids"][0, 1:, None])[:, 0]
        total += float((costs * batch["weights"][0, 1:]).sum())
    return total / len(dev) / mean_weight(dev)


LONG = {"epochs": 3, "samples": 0, "early_stopping": None, "learning_rate": 0.02, "eval_steps": 5, "eval_rows": 1}
FEW = {"data": {"limit": 10}}


class Interrupted:
    """Ctrl-C, a few steps after a training has begun."""

    def __init__(self, after: int, times: int = 1) -> None:
        self.after, self.times, self.training, self.done = after, times, False, 0
        self.notes: list[str] = []

    def watch(self) -> Watch:
        return Watch(self.phase, self.progress, self.notes.append)

    def phase(self, name: str, _: int | None) -> None:
        self.training = name == "train"

    def progress(self, more: int) -> None:
        self.done += more if self.training else 0
        if self.training and self.done >= self.after:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    "more",
    [
        {"adapter": {"dropout": 0.1}},
        {"adapter": {"type": "none"}},
        {"adapter": {"type": "adalora"}},
        {"adapter": {"type": "adaption_prompt"}},
        {"trainer": {**LONG, "packing": True, "batch_size": 2, "epochs": 9}, "passages": {"count": [1, 2], "golden": 0.8}},
    ],
    ids=str,
)
def test_stopped_and_gone_on_from(recipe: Make, tmp_path: Path, more: dict[str, Any]) -> None:
    """A step is finished and saved, or if asked twice left at once; both ways the end is that of a run nobody stopped."""
    one = recipe(**{"trainer": LONG, **FEW, **more, "preprocessing": {"global_max_sequence_length": 1024}})
    whole = train(one, tmp_path / "whole")
    last = steps_of(whole)
    for stop in (Interrupted(after=last // 3), Interrupted(after=last - 2, times=2)):
        with pytest.raises(KeyboardInterrupt):
            ReaderTraining(one, tmp_path / "stopped", "x", stop.watch()).run()
        assert not (tmp_path / "stopped" / "x" / "model").exists()
    notes: list[str] = []
    found = train(one, tmp_path / "stopped", notes)
    (going,) = [note for note in notes if note.startswith("going on at step")]
    assert last // 3 < int(going.rpartition(" ")[2]) < last
    assert dev_losses(found).keys() == dev_losses(whole).keys()
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(found)[name], value, atol=1e-5, rtol=1e-4)


def test_a_killed_run_goes_on_as_if_it_had_not_been(
    recipe: Make, raft_file: Path, tmp_path: Path, beleg_command: Path,
    beleg_environment: Callable[[Mapping[str, str]], dict[str, str]],
) -> None:  # fmt: skip
    one = recipe(trainer={**LONG, "epochs": 8}, **FEW)
    file, told = tmp_path / "recipe.yaml", tmp_path / "told.jsonl"
    file.write_text(json.dumps(one.model_dump(mode="json")))
    command = [beleg_command, "train", "reader", file, "--name", "x", "--journal", told]
    with subprocess.Popen(command, env=beleg_environment({"BELEG_DATA_DIR": str(tmp_path)}), stderr=subprocess.PIPE) as run:
        try:
            until = time.monotonic() + 200
            while run.poll() is None and time.monotonic() < until:
                lines = told.read_text().splitlines()[:-1] if told.exists() else []
                events = [json.loads(line) for line in lines if line]
                if any(event.get("phase") == "train" and event["done"] >= 13 for event in events):
                    run.kill()
                    break
                time.sleep(0.01)
            assert run.wait(100) == -signal.SIGKILL
        finally:
            run.kill()
        said = run.stderr.read().decode() if run.stderr else ""
    for noise in ("Warning", "gemm_4bit", "Token indices", "Traceback"):
        assert noise not in said
    folder = tmp_path / "candidates" / "x"
    assert not (folder / "manifest.json").exists()
    half = folder / "checkpoints" / "checkpoint-999"
    half.mkdir()
    (half / "trainer_state.json").write_text('{"global_st')
    notes: list[str] = []
    found = train(one, tmp_path / "candidates", notes)
    whole = train(one, tmp_path / "whole")
    assert any(note.startswith("going on at step") for note in notes)
    assert steps_of(found) == steps_of(whole)
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(found)[name], value, atol=1e-5, rtol=1e-4)


def test_killed_while_it_is_written_down(recipe: Make, trained: Candidate, tmp_path: Path) -> None:
    """What was learnt is kept; nothing is trained again."""
    shutil.copytree(trained.folder, tmp_path / "x")
    (tmp_path / "x" / "manifest.json").unlink()
    (tmp_path / "x" / "model" / "calibration.json").unlink()
    (tmp_path / "x" / "model" / "calibration.partial").write_text('{"may')
    (tmp_path / "x" / ".model.partial").mkdir()
    notes: list[str] = []
    found = train(recipe(trainer={"epochs": 3, "eval_steps": 14}), tmp_path, notes)
    assert not any("tokens" in note for note in notes)
    assert found.manifest.fingerprint == trained.manifest.fingerprint


def test_paragraphs(recipe: Make, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for at in range(12):
        (tmp_path / "docs" / f"d{at}.md").write_text(f"# Halle {at}\n\n" + f"Die Lampe {at} steht in Halle {at}. " * 30)
    (tmp_path / "docs" / "broken.pdf").write_bytes(b"%PDF-1.4 no")
    data = {"format": "paragraphs", "train": [str(tmp_path / "docs")]}
    one = recipe(data=data, loss={"scope": "full"}, adapter={"type": "none"}, trainer={"packing": True, "samples": 0},
                 preprocessing={"global_max_sequence_length": 128})  # fmt: skip
    notes: list[str] = []
    training = ReaderTraining(one, tmp_path / "c", "x", Watch(on_note=notes.append))
    found = training.run()
    assert (found.manifest.data.train + found.manifest.data.dev + found.manifest.data.test) == 12
    assert found.manifest.data.dev
    assert any("broken.pdf" in text for text in training.left_out)
    assert any(note.startswith("documents: ") for note in notes)
    assert (found.folder / "test.jsonl").read_text() == ""
    losses = dev_losses(found)
    assert losses[max(losses)] < losses[min(losses)]


def test_instructions(recipe: Make, lamps: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lamps))
    one = recipe(data={"format": "instructions", "train": [str(tmp_path / "rows.jsonl")]}, prompt={"chain_of_thought": False},
                 trainer={"max_steps": 4, "eval_steps": 2})  # fmt: skip
    found = train(one, tmp_path / "c")
    samples = [json.loads(line) for line in (found.folder / "samples.jsonl").read_text().splitlines()]
    assert all(one["wanted"].startswith("<ANSWER>: hall ") for one in samples)
    assert found.manifest.data.train + found.manifest.data.dev + found.manifest.data.test == 64


def written(tmp_path: Path, rows: list[RaftRow]) -> dict[str, Any]:
    write_raft(tmp_path / "rows.jsonl", rows)
    return {"train": [str(tmp_path / "rows.jsonl")]}


@pytest.mark.parametrize(
    ("trainer", "more"),
    [
        ({"batch_size": 4, "epochs": 0.5}, {}),
        ({"batch_size": 2, "packing": True}, {"adapter": {"type": "none"}}),
        ({"max_steps": 20, "eval_steps": 0.5}, {}),
        ({"precision": "bf16"}, {"adapter": {"type": "none"}}),
        ({"weight_decay": 0.1, "eval_rows": 1, "samples": 9}, {"passages": {"golden": 0}}),
    ],
    ids=str,
)
def test_other_ways(recipe: Make, rows: list[RaftRow], tmp_path: Path, trainer: dict[str, Any], more: dict[str, Any]) -> None:
    one = recipe(data=written(tmp_path, rows[:12]), trainer=trainer, **more)
    found = train(one, tmp_path / "c")
    assert steps_of(found) == (20 if "max_steps" in trainer else steps_of(found))
    assert all(torch.isfinite(value).all() for value in weights(found).values())


def test_one_row(recipe: Make, rows: list[RaftRow], tmp_path: Path) -> None:
    notes: list[str] = []
    found = train(recipe(data=written(tmp_path, rows[:1]), trainer={"batch_size": 4}), tmp_path / "c", notes)
    assert (found.manifest.data.train, found.manifest.data.dev) == (1, 0)
    assert any("no development rows" in note for note in notes)
    assert any("no test rows" in note for note in notes)
    assert not (found.folder / "samples.jsonl").exists()


def test_rows_without_a_golden_passage(recipe: Make, rows: list[RaftRow], tmp_path: Path) -> None:
    lone = [replace(row, golden=None, quotes=(), problems=("golden missing",)) for row in rows[:10]]
    notes: list[str] = []
    one = recipe(data=written(tmp_path, lone), passages={"count": [1, 2], "golden": 0.5}, trainer={"max_steps": 2})
    assert steps_of(train(one, tmp_path / "c", notes)) == 2
    assert any("flagged by `beleg raft check`" in note for note in notes)


@pytest.mark.parametrize("text", ["", "\n", "{oops\n"])
def test_files_that_hold_nothing(recipe: Make, tmp_path: Path, text: str) -> None:
    (tmp_path / "rows.jsonl").write_text(text)
    with pytest.raises(BelegError):
        train(recipe(data={"train": [str(tmp_path / "rows.jsonl")]}), tmp_path / "c")
    assert not (tmp_path / "c").exists()
