"""The release id changes with everything that could change an answer, and with nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import pytest

from reader.calibration import Calibration
from reader.engine.base import Engine
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
