"""The threshold is the best there is, in the middle of its gap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.calibrate import threshold

STRENGTHS = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.2, 0.35, 0.5, 0.8, 1.0]), st.booleans()), max_size=12)


def f1(least: float, strengths: list[tuple[float, bool]]) -> float:
    abstained = [answerable for value, answerable in strengths if value < least]
    rightly = abstained.count(False)
    return 2 * rightly / (len(abstained) + sum(not answerable for _, answerable in strengths)) if rightly else 0.0


@given(STRENGTHS)
def test_no_other_threshold_has_a_better_f1(strengths: list[tuple[float, bool]]) -> None:
    highest = max((value for value, _ in strengths), default=0.0)
    best = max(f1(other / 100, strengths) for other in range(int(highest * 100) + 1))
    assert f1(threshold(strengths), strengths) == pytest.approx(best)


@pytest.mark.parametrize(
    ("strengths", "expected"),
    [
        ([], 0.0),
        ([(0.3, True)], 0.0),
        ([(0.3, False), (0.6, True)], 0.45),
        ([(0.6, False), (0.3, True)], 0.0),
        ([(0.1, False), (0.2, True), (0.3, False), (0.4, False), (0.9, True)], 0.65),
    ],
)
def test_by_hand(strengths: list[tuple[float, bool]], expected: float) -> None:
    assert threshold(strengths) == expected
