"""Development rows that are answered while a reader learns, to look at. Knows nothing of losses and checkpoints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from finetune.measures import exact_match, f1
from finetune.raft.row import RaftRow, hits_of, target
from finetune.recipe_reader import ReaderRecipe
from finetune.sft.model import Learner
from finetune.training import Watch, precision
from reader.engine.base import never
from reader.prompt import render
from reader.quotes import parse

if TYPE_CHECKING:
    from transformers import TrainerCallback

__all__ = ["sampling"]

_SAMPLE_TOKENS = 160


def sampling(rows: Sequence[RaftRow], learner: Learner, path: Path, watch: Watch, recipe: ReaderRecipe) -> TrainerCallback:
    """Return what has development rows answered at each evaluation, freely, and keeps what was written."""
    from transformers import TrainerCallback

    class Sampling(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, model: Any = None, metrics: Any = None, **_: Any) -> None:
            del args, control
            found = _answered(rows, learner, model, recipe)
            score = fmean(one["f1"] for one in found)
            # The trainer has put down what it measured, and everybody looks there.
            metrics["eval_samples_f1"] = score
            state.log_history[-1]["eval_samples_f1"] = score
            with path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps({"step": state.global_step, **one}, ensure_ascii=False) + "\n" for one in found)
            first = found[(state.global_step // max(1, state.eval_steps or 1)) % len(found)]
            watch.on_note(f"{first['question']} → {' '.join(str(first['wrote']).split())}")

    return Sampling()


def _judged(wrote: str, row: RaftRow) -> dict[str, float]:
    """Return what a freely written answer is worth; quotes are judged where there are any."""
    parsed = parse(wrote)
    right = parsed.abstained == row.abstains
    answered = right and not row.abstains
    measures = {
        "f1": f1(parsed.answer or "", [row.answer]) if answered else float(right),
        "exact_match": exact_match(parsed.answer or "", [row.answer]) if answered else float(right),
        "abstained_rightly": float(right),
    }
    if parsed.quotes:
        shown = {number: passage.text for number, passage in enumerate(row.passages, start=1)}
        verbatim = [bool(text.strip()) and text.strip() in shown.get(number, "") for number, text in parsed.quotes]
        measures["quote_proven"] = float(all(verbatim))
        measures["golden_quote"] = float(
            any(number == row.golden and proven for (number, _), proven in zip(parsed.quotes, verbatim, strict=True))
        )
    return measures


def _answered(rows: Sequence[RaftRow], learner: Learner, model: Any, recipe: ReaderRecipe) -> list[dict[str, Any]]:
    import torch

    was_training, model_cache = model.training, model.config.use_cache
    model.eval()
    model.config.use_cache = True
    learner.weights = model
    numbers = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision(recipe))
    found = []
    try:
        for row in rows:
            prompt = render(learner, row.question, hits_of(row), answer_tokens=1, shots=recipe.prompt.shots).prompt
            with torch.autocast(model.device.type, dtype=numbers or torch.bfloat16, enabled=numbers is not None):
                wrote = "".join(learner.generate(prompt, grammar=None, max_tokens=_SAMPLE_TOKENS, cancelled=never))
            found.append({"id": row.id, "question": row.question, "wanted": target(row), "wrote": wrote, **_judged(wrote, row)})
    finally:
        learner.weights = None
        model.config.use_cache = model_cache
        model.train(was_training)
    return found
