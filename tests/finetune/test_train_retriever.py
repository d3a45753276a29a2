"""What the encoder's trainer is given: columns for the loss, and batches in which nothing is told apart from its answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.prepare import Example, Mined, Parts, Prepared
from finetune.recipe import Recipe
from finetune.train_reranker import pairs
from finetune.train_retriever import build_trainer, columns
from finetune.workspace import Passages


def recipe(**more: Any) -> Recipe:
    values = {"task": "retriever", "data": {"train": ["x"]}, "trainer": {"batch_size": 4, "max_steps": 2, "precision": "fp32"}}
    return Recipe.model_validate({**values, **more})


def prepared(examples: list[Example], texts: list[str], dev: list[Example] | None = None) -> Prepared:
    count = len(texts)
    vectors = np.eye(count, 32, dtype=np.float32)
    passages = Passages(np.arange(count), [f"d{at}" for at in range(count)], np.zeros((count, 2), int), texts, texts, vectors)
    parts = [Mined(rows, [], [], {}) for rows in (examples, dev or [])]
    return Prepared(Parts([], [], [], {}, []), passages, *parts)


TEXTS = [f"the lamp stands in hall {number}." for number in range(10)]
EXAMPLES = [Example(at, f"where is lamp {at}?", at, (9, (at + 1) % 4), frozenset({at})) for at in range(4)]


def test_columns() -> None:
    made = prepared(EXAMPLES, TEXTS)
    wide = columns(recipe(), made, EXAMPLES)
    assert wide.column_names == ["anchor", "positive", "negative_1", "negative_2"]
    assert wide[1] == {"anchor": "where is lamp 1?", "positive": TEXTS[1], "negative_1": TEXTS[9], "negative_2": TEXTS[2]}
    triples = columns(recipe(loss={"type": "triplet"}), made, EXAMPLES)
    assert (len(triples), triples[3]["negative"]) == (8, TEXTS[2])
    assert columns(recipe(), made, [Example(0, "?", 1, ())]).column_names == ["anchor", "positive"]
    labelled = pairs(made, EXAMPLES[:1])
    assert labelled.to_dict() == {
        "question": ["where is lamp 0?"] * 3,
        "passage": [TEXTS[0], TEXTS[9], TEXTS[1]],
        "label": [1.0, 0.0, 0.0],
    }
    assert len(pairs(made, [])) == 0


def batches_of(trainer: Any, epoch: int = 0) -> list[list[str]]:
    sampler = trainer.get_batch_sampler(trainer.train_dataset, batch_size=4, drop_last=False, seed=0)
    sampler.set_epoch(epoch)
    return [[trainer.train_dataset[at]["anchor"] for at in batch] for batch in sampler]


def test_one_farthest_passage_for_all_does_not_make_batches_of_one(tmp_path: Path, tiny_encoder: Path) -> None:
    # Here each row's hard negative answers the next: those two must part, the common easy one is no reason.
    trainer = build_trainer(recipe(base_model=str(tiny_encoder)), prepared(EXAMPLES, TEXTS), tmp_path)
    assert sorted(len(batch) for batch in batches_of(trainer)) == [2, 2]
    # The trainer stops after as many batches as it was promised.
    assert len(trainer.get_batch_sampler(trainer.train_dataset, batch_size=4, drop_last=False, seed=0)) == 2
    apart = [Example(at, f"where is lamp {at}?", at, (9,), frozenset({at})) for at in range(8)]
    trainer = build_trainer(recipe(base_model=str(tiny_encoder)), prepared(apart, TEXTS), tmp_path)
    assert [len(batch) for batch in batches_of(trainer)] == [4, 4]
    assert batches_of(trainer) == batches_of(trainer)
    assert batches_of(trainer) != batches_of(trainer, epoch=1)


def test_translations_share_no_batch(tmp_path: Path, tiny_encoder: Path) -> None:
    both = frozenset({0, 1})
    examples = [Example(0, "where is it?", 0, (), both), Example(1, "wo ist es?", 1, (), both), Example(2, "why?", 2, ())]
    trainer = build_trainer(recipe(base_model=str(tiny_encoder)), prepared(examples, TEXTS), tmp_path)
    for batch in batches_of(trainer):
        assert not {"where is it?", "wo ist es?"} <= set(batch)


@pytest.mark.parametrize("dev", [None, EXAMPLES])
def test_development_is_looked_at_only_if_there_is_some(tmp_path: Path, tiny_encoder: Path, dev: list[Example] | None) -> None:
    trainer = build_trainer(recipe(base_model=str(tiny_encoder)), prepared(EXAMPLES, TEXTS, dev), tmp_path)
    assert (trainer.eval_dataset is not None) == (trainer.args.eval_strategy == "steps") == bool(dev)
