"""A cross-encoder's head is drawn by the recipe's seed, and development questions are ranked among passages like their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from finetune.prepare import Example, Mined, Parts, Prepared
from finetune.recipe import Recipe
from finetune.train_reranker import build_trainer
from finetune.workspace import Passages

TEXTS = [f"the lamp stands in hall {number}." for number in range(30)]
EXAMPLES = [Example(at, f"where is lamp {at}?", at, (9,), frozenset({at})) for at in range(3)]


def prepared(texts: list[str]) -> Prepared:
    vectors = np.random.default_rng(0).normal(size=(len(texts), 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    count = len(texts)
    passages = Passages(np.arange(count), [""] * count, np.zeros((count, 2), int), texts, texts, vectors)
    mined = Mined(EXAMPLES, [], [], {})
    return Prepared(Parts([], [], [], {}, []), passages, mined, mined)


def trainer(tiny_encoder: Path, folder: Path, texts: list[str] = TEXTS, seed: int = 0) -> Any:
    values = {"batch_size": 4, "max_steps": 1, "precision": "fp32", "seed": seed}
    recipe = {"task": "reranker", "data": {"train": ["x"]}, "base_model": str(tiny_encoder), "trainer": values}
    return build_trainer(Recipe.model_validate(recipe), prepared(texts), folder)


def test_the_seed_draws_the_head(tiny_encoder: Path, tmp_path: Path) -> None:
    def head(seed: int) -> Any:
        made = trainer(tiny_encoder, tmp_path, seed=seed).model.named_parameters()
        return next(value.tolist() for name, value in made if name.endswith("classifier.weight"))

    assert head(0) == head(0) != head(1)


def test_development_questions_have_twenty_others_and_never_their_own_text(tiny_encoder: Path, tmp_path: Path) -> None:
    twice = [*TEXTS[:29], TEXTS[0]]  # another passage of the same text
    samples = sorted(trainer(tiny_encoder, tmp_path, twice).evaluator.samples, key=lambda sample: str(sample["query"]))
    assert [sample["positive"] for sample in samples] == [[TEXTS[at]] for at in range(3)]
    for sample in samples:
        assert len(sample["negative"]) in (19, 20)
        assert sample["positive"][0] not in sample["negative"]
        assert TEXTS[9] in sample["negative"]
