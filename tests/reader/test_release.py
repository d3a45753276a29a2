"""The release id changes with everything that could change an answer, and with nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from types import SimpleNamespace
from typing import Any

import pytest

from reader.calibration import Calibration
from reader.engine.base import Engine
from reader.prompt import fingerprint
from reader.release import release_id
from retriever.index.base import Stamp

STAMP = Stamp(encoder="e", chunker="c", analyser="a")
OTHERS: dict[str, object] = {
    "reader": "other",
    "least_strength": 0.9,
    "quotable": 7,
    "may_abstain": False,
    "reasoning": False,
    "extractive": True,
    "quoting": False,
    "shots": False,
}


@pytest.fixture
def engine(fake_engine: Callable[..., Engine]) -> Engine:
    return fake_engine()


def test_it_is_stable_and_short(engine: Engine) -> None:
    first = release_id(STAMP, 0.5, Calibration(), engine)
    assert first == release_id(STAMP, 0.5, Calibration(), engine)
    assert len(first) == 12
    assert int(first, 16) >= 0


@pytest.mark.parametrize("field", [field.name for field in fields(Calibration)])
def test_every_part_of_the_calibration_counts(engine: Engine, field: str) -> None:
    changed = replace(Calibration(), **{field: OTHERS[field]})  # type: ignore[arg-type]
    assert release_id(STAMP, 0.5, changed, engine) != release_id(STAMP, 0.5, Calibration(), engine)


@pytest.mark.parametrize("field", [field.name for field in fields(Stamp)])
def test_every_part_of_the_stamp_counts(engine: Engine, field: str) -> None:
    changed = replace(STAMP, **{field: "other"})
    assert release_id(changed, 0.5, Calibration(), engine) != release_id(STAMP, 0.5, Calibration(), engine)


@pytest.mark.parametrize("attribute", ["model", "fingerprint", "chat_template"])
def test_engine_and_prompt_count(engine: Engine, attribute: str) -> None:
    before = release_id(STAMP, 0.5, Calibration(), engine)
    setattr(engine, attribute, "other")
    assert release_id(STAMP, 0.5, Calibration(), engine) != before


def test_fusion_counts(engine: Engine) -> None:
    assert release_id(STAMP, 0.5, Calibration(), engine) != release_id(STAMP, 0.4, Calibration(), engine)


def reranker(**changed: object) -> Any:
    return SimpleNamespace(**{"fingerprint": "r", "weight": 0.5, "depth": 30, **changed})


def test_without_a_reranker_it_is_what_it_was_before_there_were_any(engine: Engine) -> None:
    parts = {
        "index": {"encoder": "e", "chunker": "c", "analyser": "a"},
        "alpha": 0.5,
        "calibration": asdict(Calibration()),
        "reader": [engine.model, engine.fingerprint],
        "prompt": fingerprint(engine),
    }
    before = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
    assert release_id(STAMP, 0.5, Calibration(), engine) == release_id(STAMP, 0.5, Calibration(), engine, None) == before


@pytest.mark.parametrize("changed", [{"fingerprint": "s"}, {"weight": 0.4}, {"weight": 0.0}, {"depth": 31}])
def test_every_part_of_the_reranker_counts(engine: Engine, changed: dict[str, object]) -> None:
    ids = [release_id(STAMP, 0.5, Calibration(), engine, other) for other in (None, reranker(), reranker(**changed))]
    assert len(set(ids)) == 3
    assert release_id(STAMP, 0.5, Calibration(), engine, reranker()) == ids[1]
