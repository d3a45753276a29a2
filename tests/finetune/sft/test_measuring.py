"""How a reader is used that has been trained: it may do what it has learnt, and no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from finetune.raft.row import RaftRow
from finetune.recipe_reader import ReaderRecipe
from finetune.sft.measuring import usage_of
from reader.calibration import Calibration


@pytest.fixture
def recipe() -> Callable[..., ReaderRecipe]:
    def make(**more: Any) -> ReaderRecipe:
        return ReaderRecipe.model_validate({"task": "reader", "data": {"train": ["rows.jsonl"]}, **more})

    return make


def test_who_learnt_to_quote_quotes(recipe: Callable[..., ReaderRecipe], rows: list[RaftRow]) -> None:
    assert usage_of(recipe(), rows) == Calibration(shots=False)
    silent = [replace(row, reasoning="") for row in rows if not row.abstains]
    assert usage_of(recipe(), silent) == Calibration(may_abstain=False, reasoning=False, shots=False)
    assert usage_of(recipe(passages={"golden": 0.9}), silent).may_abstain


def test_who_learnt_bare_answers_answers_in_words_of_a_sentence(
    recipe: Callable[..., ReaderRecipe], rows: list[RaftRow]
) -> None:
    bare = Calibration(reasoning=False, extractive=True, quoting=False, shots=False)
    assert usage_of(recipe(prompt={"chain_of_thought": False}), rows) == bare
    without = [replace(row, quotes=()) for row in rows]
    assert not usage_of(recipe(), without).quoting


def test_who_read_documents_only_is_used_like_any_other(recipe: Callable[..., ReaderRecipe], rows: list[RaftRow]) -> None:
    assert usage_of(recipe(data={"train": ["a"], "format": "paragraphs"}, loss={"scope": "full"}), rows) == Calibration()
