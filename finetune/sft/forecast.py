"""What a reader's training would take: all examples are rendered, a few steps are really made, and thrown away."""

from __future__ import annotations

import math
import statistics
import tempfile
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path

from finetune.forecast import peak_mb, timed
from finetune.recipe_reader import ReaderRecipe
from finetune.sft.examples import lay_out
from finetune.sft.model import tokenizer_of
from finetune.sft.parts import ReaderParts
from finetune.sft.trainer import build_reader_trainer, steps_of
from finetune.training import Watch, precision

__all__ = ["ReaderForecast", "forecast_reader"]

_STEPS = 3
"""The first is left out: it makes room."""


@dataclass(frozen=True, slots=True)
class ReaderForecast:
    """What a training would take.

    Attributes:
        train, dev, test: rows, or documents.
        examples: that are seen in all epochs; `tokens` of them, `longest` of one.
        fewer: distractors that are not shown, and `dropped` examples that are left out, as examples would be too long.
        steps: at most; early stopping may end it before.
        step_s, training_s: seconds for a step, and for all; evaluations come on top.
        memory_mb: the most that these steps took, in MiB: of the GPU where there is one, else of this process. They were made
            on the longest examples.
        parameters, trained: of the model, adapter included, and how many of them learn.
    """

    train: int
    dev: int
    test: int
    examples: int
    tokens: int
    longest: int
    fewer: int
    dropped: int
    steps: int
    step_s: float
    training_s: float
    memory_mb: int
    parameters: int
    trained: int
    precision: str


def forecast_reader(recipe: ReaderRecipe, parts: ReaderParts, watch: Watch) -> ReaderForecast:
    """Make a few steps and multiply.

    Raises:
        BelegError: the model cannot be loaded, or examples are too long and the recipe does not say what to do with them.
    """
    learner = tokenizer_of(recipe)
    laid = lay_out(recipe, parts, learner, watch)
    steps = steps_of(recipe, laid)
    # The longest show how much memory it takes; as many tokens as usual, how long.
    rows = recipe.trainer.batch_size
    packs = sorted(laid.train, key=lambda pack: sum(len(one.tokens) for one in pack))
    few = replace(laid, train=[*packs[-rows:], *packs[:: max(1, len(packs) // (2 * rows))][: 2 * rows]], dev=(), shown=())
    short = recipe.model_copy(
        update={
            "trainer": recipe.trainer.model_copy(
                update={"max_steps": _STEPS, "gradient_accumulation_steps": 1, "eval_steps": 10_000, "early_stopping": None}
            )
        }
    )
    with tempfile.TemporaryDirectory(prefix="beleg-") as scratch:
        trainer = build_reader_trainer(short, few, learner, Path(scratch), Watch())
        times = timed(trainer)
    weights = list(trainer.model.parameters())  # type: ignore[union-attr]
    tokens = [
        sum(len(one.tokens) for pack in few.train[at : at + rows] for one in pack) for at in range(0, len(few.train), rows)
    ]
    # Few examples are seen again; the first step is left out.
    a_token = statistics.median([spent / count for spent, count in zip(times, cycle(tokens), strict=False)][1:])
    in_all = math.ceil(len(laid.train) / rows / recipe.trainer.gradient_accumulation_steps)
    step_s = a_token * laid.tokens / in_all
    return ReaderForecast(
        train=len(parts.train) + len(parts.paragraphs.train),
        dev=len(parts.dev) + len(parts.paragraphs.dev),
        test=len(parts.test) + len(parts.paragraphs.test),
        examples=sum(len(pack) for pack in laid.train),
        tokens=laid.tokens,
        longest=max(len(one.tokens) for pack in laid.train for one in pack),
        fewer=laid.fewer,
        dropped=laid.dropped,
        steps=steps,
        step_s=round(step_s, 3),
        training_s=round(steps * step_s, 3),
        memory_mb=peak_mb(),
        parameters=sum(one.numel() for one in weights),
        trained=sum(one.numel() for one in weights if one.requires_grad),
        precision=precision(recipe),
    )
