"""Checkpoints that can be gone on from, models that are there only when they are whole, and the learning curve."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune.recipe import Recipe
from finetune.training import Point, arguments, curve, drawn, keep, last_checkpoint, precision, shorten, stopping
from retriever.errors import BelegError, SettingsError


def recipe(**more: Any) -> Recipe:
    return Recipe.model_validate({"task": "retriever", "data": {"train": ["x"]}, **more})


def checkpoint(folder: Path, step: int, model: Path) -> Path:
    import torch

    made = folder / "checkpoints" / f"checkpoint-{step}"
    shutil.copytree(model, made)
    torch.save({"a": 1}, made / "optimizer.pt")
    torch.save({"a": 1}, made / "scheduler.pt")
    (made / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return made


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_the_last_whole_checkpoint(tmp_path: Path, tiny_encoder: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    nine = checkpoint(tmp_path, 9, tiny_encoder)
    assert last_checkpoint(tmp_path) == str(nine)
    ten = checkpoint(tmp_path, 10, tiny_encoder)  # by number, not by name
    assert last_checkpoint(tmp_path) == str(ten)
    (tmp_path / "checkpoints" / "checkpoint-x").mkdir()
    (tmp_path / "checkpoints" / "runs").mkdir()
    for step, harm in enumerate(
        (
            lambda made: cut(made / "trainer_state.json"),
            lambda made: (made / "trainer_state.json").unlink(),
            lambda made: (made / "trainer_state.json").write_bytes(b""),
            lambda made: cut(made / "model.safetensors"),
            lambda made: (made / "model.safetensors").write_bytes(b""),
            lambda made: (made / "model.safetensors").unlink(),
            lambda made: cut(made / "optimizer.pt"),
            lambda made: (made / "scheduler.pt").unlink(),
        ),
        start=11,
    ):
        harm(checkpoint(tmp_path, step, tiny_encoder))
        assert last_checkpoint(tmp_path) == str(ten), step


def saving(error: BaseException | None = None) -> Callable[[Path], None]:
    """Return what writes a file, and then perhaps fails."""

    def save(folder: Path) -> None:
        folder.mkdir()
        (folder / "weights").write_text("x")
        if error:
            raise error

    return save


def test_a_model_is_there_once_it_is_whole(tmp_path: Path) -> None:
    from safetensors import SafetensorError

    for error in (OSError(28, "No space left on device"), SafetensorError("No space left on device")):
        with pytest.raises(BelegError, match="No space left"):
            keep(saving(error), tmp_path / "model")
        assert not (tmp_path / "model").exists()
    with pytest.raises(KeyboardInterrupt):
        keep(saving(KeyboardInterrupt()), tmp_path / "model")
    assert not (tmp_path / "model").exists()
    keep(saving(), tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_asked_once_and_asked_again() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stopping() as asked:
        assert not asked.asked
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_development_examples_are_always_the_same() -> None:
    few = recipe(trainer={"eval_rows": 5})
    assert drawn(few, range(100)) == drawn(few, range(100))
    assert len(set(drawn(few, range(100)))) == 5
    assert sorted(drawn(few, range(3))) == [0, 1, 2]


def test_numbers() -> None:
    assert precision(recipe(trainer={"precision": "fp16"})) == "fp16"
    assert precision(recipe()) in ("fp32", "bf16", "fp16")


def test_without_development_rows_nothing_is_evaluated(tmp_path: Path) -> None:
    assert "eval_strategy" not in arguments(recipe(), tmp_path, dev=False, metric="m")
    assert arguments(recipe(), tmp_path, dev=True, metric="m")["metric_for_best_model"] == "m"


class Windowed:
    def __init__(self, length: int | None) -> None:
        self.max_seq_length = length


def test_texts_are_shortened_for_training_only() -> None:
    model = Windowed(128)
    assert shorten(model, recipe(preprocessing={"global_max_sequence_length": 64})) == 128
    assert model.max_seq_length == 64
    model = Windowed(128)
    assert (shorten(model, recipe()), model.max_seq_length) == (128, 128)
    with pytest.raises(SettingsError, match=r"256, but package:\S+ sees 128 tokens"):
        shorten(Windowed(128), recipe(preprocessing={"global_max_sequence_length": 256}))


@pytest.mark.parametrize(
    ("points", "labels"),
    [
        ([Point(2, 1.5), Point(4, 1.0, 1.01, 0.5), Point(6, 0.6), Point(8, 0.5, 0.51, 0.75)], {"training", "development"}),
        ([Point(1, 1.0)], {"training"}),
        ([Point(1, dev_loss=1.0, score=0.0)], {"development"}),
    ],
)
def test_the_curve(tmp_path: Path, points: list[Point], labels: set[str]) -> None:
    curve(points, tmp_path / "curve.svg", title="Name <&> Größe 🧾 $x_1$")
    text = (tmp_path / "curve.svg").read_text(encoding="utf-8")
    assert text.startswith("<?xml")
    drawn_ = {label for label in ("training", "development") if f"line-{label}" in text}
    assert drawn_ == labels
