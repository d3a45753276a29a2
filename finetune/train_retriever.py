"""Tunes an encoder contrastively, by sentence-transformers' own trainer. Knows no data shapes and no files but its folder's."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.batches import Shown, batches
from finetune.prepare import Example, Prepared
from finetune.recipe import Recipe
from finetune.training import Point, Watch, arguments, drawn, fit_shortened, precision
from retriever.encode import cores
from retriever.models import locate

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from transformers import TrainerCallback

__all__ = ["build_trainer", "columns", "train_retriever"]

_METRIC = "eval_dev_cosine_ndcg@10"


def train_retriever(recipe: Recipe, prepared: Prepared, folder: Path, watch: Watch, points: list[Point]) -> int:
    """Train, and leave the best checkpoint's model in `model/`; see `finetune.training.fit_shortened`."""
    return fit_shortened(lambda: build_trainer(recipe, prepared, folder), recipe, folder, watch, points)


def build_trainer(recipe: Recipe, prepared: Prepared, folder: Path) -> SentenceTransformerTrainer:
    """Return sentence-transformers' trainer with everything a recipe says.

    The loss is multiple negatives ranking (Henderson et al., arXiv 1705.00652), cached if the recipe says so (Gao et al.,
    GradCache, arXiv 2101.06983), or triplets. What may share a batch: see `finetune.batches`.
    """
    import torch
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from transformers import EarlyStoppingCallback, PrinterCallback

    model = SentenceTransformer(str(locate(recipe.base_model)), device=_device())
    model.model_card_data.widget = [{"text": ""}]  # no card is written, and no examples need be drawn for it
    torch.set_num_threads(cores())  # encoding queries and FAISS set one, for the whole process
    dev = bool(prepared.dev.examples)
    arguments_ = SentenceTransformerTrainingArguments(**arguments(recipe, folder, dev=dev, metric=_METRIC))
    stop: list[TrainerCallback] = (
        [EarlyStoppingCallback(recipe.trainer.early_stopping)] if dev and recipe.trainer.early_stopping else []
    )
    some = drawn(recipe, prepared.dev.examples)

    class Trainer(SentenceTransformerTrainer):
        def get_batch_sampler(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Any:
            if recipe.loss.type == "triplet":
                return super().get_batch_sampler(dataset, *args, **kwargs)
            return _sampler(dataset, answers, *args, **kwargs)

    answers = _answers(prepared)
    trainer = Trainer(
        model=model,
        args=arguments_,
        train_dataset=columns(recipe, prepared, prepared.train.examples),
        eval_dataset=columns(recipe, prepared, some) if dev else None,
        loss=_loss(recipe, model),
        evaluator=_evaluator(recipe, prepared, some) if dev else None,
        callbacks=stop,
    )
    trainer.remove_callback(PrinterCallback)  # it writes to stdout, where results go
    return trainer


def columns(recipe: Recipe, prepared: Prepared, examples: Sequence[Example]) -> Dataset:
    """Return examples as the columns that the loss takes: anchor, positive, negative_1 … ; of triplets one row a negative."""
    from datasets import Dataset

    inputs = prepared.passages.inputs
    if recipe.loss.type == "triplet":
        triples = [(item, number) for item in examples for number in item.negatives]
        return Dataset.from_dict(
            {
                "anchor": [item.question for item, _ in triples],
                "positive": [inputs[item.positive] for item, _ in triples],
                "negative": [inputs[number] for _, number in triples],
            }
        )
    width = len(examples[0].negatives) if examples else 0
    return Dataset.from_dict(
        {
            "anchor": [item.question for item in examples],
            "positive": [inputs[item.positive] for item in examples],
            **{f"negative_{at + 1}": [inputs[item.negatives[at]] for item in examples] for at in range(width)},
        }
    )


def _answers(prepared: Prepared) -> dict[str, set[str]]:
    """Return the texts that answer each question; one that is asked twice is answered by what answers either."""
    found: dict[str, set[str]] = defaultdict(set)
    for item in (*prepared.train.examples, *prepared.dev.examples):
        found[item.question].update(prepared.passages.inputs[number] for number in (item.positive, *item.golden))
    return found


def _sampler(dataset: Dataset, answers: Mapping[str, Collection[str]], *args: Any, **kwargs: Any) -> Any:
    """Return what draws batches in which nothing is told apart from its answer; arguments as of every such sampler."""
    import torch
    from sentence_transformers.base.sampler import DefaultBatchSampler

    rows = [
        Shown(row["anchor"], {text for name, text in row.items() if name != "anchor"}, answers[row["anchor"]])
        for row in dataset.to_list()
    ]

    class Sampler(DefaultBatchSampler):
        def __iter__(self) -> Iterator[list[int]]:
            # Seeded anew for each epoch, so that a run that goes on sees the batches that it would have seen.
            draw = torch.Generator().manual_seed(self.seed + self.epoch)
            order = torch.randperm(len(rows), generator=draw).tolist()
            yield from batches(rows, order, self.batch_size)

        def __len__(self) -> int:
            # Rows that are kept apart make more batches than rows / size, and the trainer goes by what it was promised.
            return sum(1 for _ in self)

    return Sampler(dataset, *args, **kwargs)


def _loss(recipe: Recipe, model: SentenceTransformer) -> Any:
    from sentence_transformers.sentence_transformer import losses

    wanted = recipe.loss
    if wanted.type == "triplet":
        distance = losses.TripletDistanceMetric.COSINE
        return losses.TripletLoss(model, distance_metric=distance, triplet_margin=wanted.margin)
    if wanted.type == "cached_multiple_negatives":
        return losses.CachedMultipleNegativesRankingLoss(model, scale=wanted.scale, mini_batch_size=wanted.mini_batch)
    return losses.MultipleNegativesRankingLoss(model, scale=wanted.scale)


def _evaluator(recipe: Recipe, prepared: Prepared, examples: Sequence[Example]) -> Any:
    """Return what ranks the development questions' passages: among all if they are few, else among theirs and drawn ones."""
    import torch
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    class Evaluator(InformationRetrievalEvaluator):
        # The trainer's own autocast covers steps, not evaluations, which then take three times as long.
        def __call__(self, model: Any, *args: Any, **kwargs: Any) -> Any:
            numbers = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision(recipe))
            with torch.autocast(model.device.type, numbers) if numbers else nullcontext():
                return super().__call__(model, *args, **kwargs)

    inputs = prepared.passages.inputs
    needed = {number for item in examples for number in (item.positive, *item.negatives)}
    others = [number for number in range(len(inputs)) if number not in needed]
    sample = random.Random(0).sample(others, min(len(others), max(0, recipe.trainer.eval_passages - len(needed))))
    return Evaluator(
        queries={str(at): item.question for at, item in enumerate(examples)},
        corpus={str(number): inputs[number] for number in (*needed, *sample)},
        relevant_docs={str(at): {str(item.positive)} for at, item in enumerate(examples)},
        ndcg_at_k=[10],
        mrr_at_k=[10],
        accuracy_at_k=[1],
        precision_recall_at_k=[10],
        map_at_k=[10],
        batch_size=32,
        name="dev",
        write_csv=False,
        score_functions={"cosine": _cosine},
        main_score_function="cosine",
    )


def _cosine(one: Any, other: Any) -> Any:
    from sentence_transformers.util import cos_sim

    return cos_sim(one.float(), other.float())


def _device() -> str | None:
    import torch

    return None if torch.cuda.is_available() else "cpu"
