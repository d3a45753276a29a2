"""Tunes a cross-encoder, by sentence-transformers' own trainer: question and passage in, one logit out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.negatives import nearest
from finetune.prepare import Example, Prepared
from finetune.recipe import Recipe
from finetune.training import Point, Watch, arguments, drawn, fit_shortened, precision
from retriever.encode import cores
from retriever.models import locate

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers.cross_encoder import CrossEncoderTrainer
    from transformers import TrainerCallback

__all__ = ["build_trainer", "pairs", "train_reranker"]

_METRIC = "eval_dev_ndcg@10"

_AMONG = 20
"""Passages that each development question's positive is ranked among."""


def train_reranker(recipe: Recipe, prepared: Prepared, folder: Path, watch: Watch, points: list[Point]) -> int:
    """Train, and leave the best checkpoint's model in `model/`; see `finetune.training.fit_shortened`."""
    return fit_shortened(lambda: build_trainer(recipe, prepared, folder), recipe, folder, watch, points)


def build_trainer(recipe: Recipe, prepared: Prepared, folder: Path) -> CrossEncoderTrainer:
    """Return sentence-transformers' trainer for pairs with binary cross-entropy (Nogueira and Cho, arXiv 1901.04085)."""
    import torch
    from sentence_transformers.cross_encoder import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
    from transformers import EarlyStoppingCallback, PrinterCallback

    device = None if torch.cuda.is_available() else "cpu"
    # The head's first numbers are drawn here, before the trainer sets its seed.
    torch.manual_seed(recipe.trainer.seed)
    with _quiet():
        model = CrossEncoder(str(locate(recipe.base_model)), num_labels=1, device=device)
    model.model_card_data.widget = [{"text": ""}]  # no card is written, and no examples need be drawn for it
    torch.set_num_threads(cores())  # encoding queries and FAISS set one, for the whole process
    dev = bool(prepared.dev.examples)
    stop: list[TrainerCallback] = (
        [EarlyStoppingCallback(recipe.trainer.early_stopping)] if dev and recipe.trainer.early_stopping else []
    )
    some = drawn(recipe, prepared.dev.examples)
    trainer = CrossEncoderTrainer(
        model=model,
        args=CrossEncoderTrainingArguments(**arguments(recipe, folder, dev=dev, metric=_METRIC)),
        train_dataset=pairs(prepared, prepared.train.examples),
        eval_dataset=pairs(prepared, some) if dev else None,
        loss=BinaryCrossEntropyLoss(model),
        evaluator=_evaluator(recipe, prepared, some) if dev else None,
        callbacks=stop,
    )
    trainer.remove_callback(PrinterCallback)  # it writes to stdout, where results go
    return trainer


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries from warning that an encoder has no head yet: that is what is trained here."""
    import logging

    from transformers.utils import logging as transformers

    wrapped, before = logging.getLogger("sentence_transformers.base.model"), transformers.get_verbosity()
    level = wrapped.level
    transformers.set_verbosity_error()  # type: ignore[no-untyped-call]
    wrapped.setLevel(logging.ERROR)
    try:
        yield
    finally:
        transformers.set_verbosity(before)
        wrapped.setLevel(level)


def pairs(prepared: Prepared, examples: Sequence[Example]) -> Dataset:
    """Return question, passage and label: 1 for what answers, 0 for each negative."""
    from datasets import Dataset

    inputs = prepared.passages.inputs
    rows = [
        (item.question, inputs[number], float(number == item.positive))
        for item in examples
        for number in (item.positive, *item.negatives)
    ]
    questions, passages, labels = zip(*rows, strict=True) if rows else ((), (), ())
    return Dataset.from_dict({"question": list(questions), "passage": list(passages), "label": list(labels)})


def _evaluator(recipe: Recipe, prepared: Prepared, examples: Sequence[Example]) -> Any:
    """Return what ranks each development question's positive among its negatives and the passages most like the positive."""
    import torch
    from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

    class Evaluator(CrossEncoderRerankingEvaluator):
        # The trainer's own autocast covers steps, not evaluations.
        def __call__(self, model: Any, *args: Any, **kwargs: Any) -> Any:
            numbers = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision(recipe))
            with torch.autocast(model.device.type, numbers) if numbers else nullcontext():
                return super().__call__(model, *args, **kwargs)

    vectors, inputs = prepared.passages.vectors, prepared.passages.inputs
    alike = nearest(vectors[np.asarray([item.positive for item in examples])], vectors, depth=_AMONG)
    samples: list[dict[str, str | list[str]]] = []
    for item, near in zip(examples, alike, strict=True):
        among = dict.fromkeys([*item.negatives, *near.tolist()])
        others = [number for number in among if inputs[number] != inputs[item.positive]][:_AMONG]
        samples.append(
            {"query": item.question, "positive": [inputs[item.positive]], "negative": [inputs[number] for number in others]}
        )
    return Evaluator(samples, at_k=10, name="dev", write_csv=False, show_progress_bar=False)
