"""The threshold is the best there is, and the lowest of the best."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.calibrate import threshold

STRENGTHS = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.2, 0.35, 0.5, 0.8, 1.0]), st.booleans()), max_size=12)


def gain(least: float, strengths: list[tuple[float, bool]]) -> int:
    return sum(-1 if answerable else 1 for value, answerable in strengths if value < least)


@given(STRENGTHS)
def test_no_other_threshold_gains_more(strengths: list[tuple[float, bool]]) -> None:
    chosen = threshold(strengths)
    others = [0.0, *(value for value, _ in strengths)]
    best = max(gain(other, strengths) for other in others)
    assert gain(chosen, strengths) == best
    assert chosen == min(other for other in others if gain(other, strengths) == best)


@pytest.mark.parametrize(
    ("strengths", "expected"),
    [
        ([], 0.0),
        ([(0.3, True)], 0.0),
        ([(0.3, False), (0.6, True)], 0.6),
        ([(0.6, False), (0.3, True)], 0.0),
        ([(0.1, False), (0.2, True), (0.3, False), (0.4, False), (0.9, True)], 0.9),
    ],
)
def test_by_hand(strengths: list[tuple[float, bool]], expected: float) -> None:
    assert threshold(strengths) == expected
