"""What a training would take, from a few steps of it that are really made, on a few rows, and thrown away."""

from __future__ import annotations

import math
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.prepare import Parts, prepare
from finetune.recipe import Recipe
from finetune.training import Watch, precision, shorten
from finetune.workspace import Workspace
from retriever.chunk import ChunkSize
from retriever.encode import open_encoder

__all__ = ["Forecast", "forecast", "peak_mb", "timed"]

_STEPS = 4
"""The first is left out: it makes room."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a training would take.

    Attributes:
        steps: at most; early stopping may end it before.
        texts: distinct contexts of the rows; `documents` of the recipe come on top.
        step_s, training_s: seconds for a step, and for all of them; evaluations come on top.
        encoding_s: seconds for encoding the contexts.
        memory_mb: the most that these steps took, in MiB: of the GPU where there is one, else of this process.
        parameters: of the model.
    """

    train: int
    dev: int
    test: int
    texts: int
    steps: int
    step_s: float
    training_s: float
    encoding_s: float
    memory_mb: int
    parameters: int
    precision: str


def forecast(recipe: Recipe, parts: Parts, *, served: str) -> Forecast:
    """Make a few steps and multiply.

    Args:
        served: model reference of the served encoder, which finds a reranker's passages.
    """
    # From everywhere: neighbours often share a context.
    some = [*parts.train[:: max(1, len(parts.train) // (_STEPS * recipe.trainer.batch_size))]]
    texts = {text for row in (*parts.train, *parts.dev, *parts.test) for text in row.positives}
    short = recipe.model_copy(
        update={
            "trainer": recipe.trainer.model_copy(update={"max_steps": _STEPS, "eval_steps": 10_000, "early_stopping": None})
        }
    )
    few = Parts(some, [], [], {}, [])
    encoder = open_encoder(recipe.base_model if recipe.task == "retriever" else recipe.encoder or served)
    with tempfile.TemporaryDirectory(prefix="beleg-") as scratch:
        with Workspace(Path(scratch, "workspace"), ChunkSize(recipe.chunk_tokens, recipe.chunk_overlap)) as workspace:
            workspace.add_rows(some)
            begun = time.monotonic()
            workspace.fill(encoder)
            spent = time.monotonic() - begun
            prepared = prepare(short, few, workspace, encoder, Watch())
        trainer = _builder(recipe)(short, prepared, Path(scratch))
        shorten(trainer.model, recipe)
        times = timed(trainer)
    seen = sum(len(text) for text in prepared.passages.texts)
    step_s = statistics.median(times[1:] or times)
    steps = _steps(recipe, parts)
    return Forecast(
        train=len(parts.train),
        dev=len(parts.dev),
        test=len(parts.test),
        texts=len(texts),
        steps=steps,
        step_s=round(step_s, 3),
        training_s=round(steps * step_s, 3),
        encoding_s=round(spent * sum(len(text.text) for text in texts) / max(1, seen), 3),
        memory_mb=peak_mb(),
        parameters=sum(weights.numel() for weights in trainer.model.parameters()),
        precision=precision(recipe),
    )


_KIB_PER_MIB = 2**20 if sys.platform == "darwin" else 2**10
"""macOS counts bytes there."""


def _builder(recipe: Recipe) -> Any:
    if recipe.task == "retriever":
        from finetune.train_retriever import build_trainer

        return build_trainer
    from finetune.train_reranker import build_trainer as build_reranker_trainer

    return build_reranker_trainer


def _steps(recipe: Recipe, parts: Parts) -> int:
    wide = recipe.negatives.easy + recipe.negatives.hard
    examples = len(parts.train)
    if recipe.task == "reranker":
        examples *= 1 + wide
    elif recipe.loss.type == "triplet":
        examples *= wide
    return recipe.trainer.max_steps or math.ceil(-(-examples // recipe.trainer.batch_size) * recipe.trainer.epochs)


def peak_mb() -> int:
    """Return the most memory that was taken so far, in MiB: of the GPU where there is one, else of this process."""
    import torch

    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**20)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KIB_PER_MIB)


def timed(trainer: Any) -> list[float]:
    """Train, and return the seconds of each step."""
    from transformers import TrainerCallback

    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            times.append(-time.monotonic())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            times[-1] += time.monotonic()

    trainer.add_callback(Clock())
    trainer.train()
    return times
