"""A forecast is measured, and leaves nothing behind."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from finetune.forecast import forecast
from finetune.prepare import read_parts
from finetune.recipe import Recipe


@pytest.mark.parametrize(
    ("more", "steps"),
    [
        ({}, 12),
        ({"trainer": {"batch_size": 8, "max_steps": 5}}, 5),
        ({"trainer": {"batch_size": 8, "epochs": 0.5}}, 3),
        ({"loss": {"type": "triplet"}}, 24),
        ({"task": "reranker"}, 34),
    ],
    ids=str,
)
def test_measured_and_gone(
    tmp_path: Path, tiny_encoder: Path, lamps: list[dict[str, Any]], more: dict[str, Any], steps: int, monkeypatch: Any
) -> None:
    file, scratch = tmp_path / "rows.jsonl", tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.chdir(scratch)
    file.write_text("".join(json.dumps(row) + "\n" for row in lamps))
    recipe = Recipe.model_validate(
        {"task": "retriever", "base_model": str(tiny_encoder), "data": {"train": [str(file)]}, "chunk_tokens": 40,
         "chunk_overlap": 8, "trainer": {"batch_size": 8}, **more}
    )  # fmt: skip
    found = forecast(recipe, read_parts(recipe), served=str(tiny_encoder))
    assert (found.train, found.dev, found.test, found.texts, found.steps) == (45, 6, 13, 64, steps)
    assert min(found.step_s, found.training_s, found.memory_mb, found.parameters) > 0
    assert found.encoding_s >= 0
    assert not list(scratch.iterdir())
