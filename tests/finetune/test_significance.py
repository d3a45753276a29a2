"""Differences between systems: known by hand where they can be, and what must hold of all of them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.significance import Mean, mean, paired
from retriever.errors import BelegError

VALUES = st.floats(0, 1, allow_subnormal=False)
PAIRS = st.lists(st.tuples(VALUES, VALUES, st.sampled_from("abcd")), min_size=1, max_size=30)
FEW = 200


def three(pairs: list[tuple[float, float, str]]) -> tuple[dict[str, float], dict[str, float], dict[str, str]]:
    return tuple({str(at): pair[side] for at, pair in enumerate(pairs)} for side in range(3))  # type: ignore[return-value]


@settings(deadline=None)
@given(PAIRS, st.booleans())
def test_turned_round_everything_is_its_mirror_image(pairs: list[tuple[float, float, str]], by_group: bool) -> None:
    new, old, groups = three(pairs)
    given = groups if by_group else None
    forth, back = (paired(*sides, groups=given, resamples=FEW) for sides in ((new, old), (old, new)))
    assert forth.difference == pytest.approx(-back.difference, abs=1e-12)
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low), abs=1e-12)
    assert forth.p == back.p
    assert (forth.better, forth.worse, forth.equal) == (back.worse, back.better, back.equal)
    assert forth.better + forth.worse + forth.equal == len(new)


@settings(deadline=None)
@given(PAIRS, st.integers(0, 3))
def test_what_must_hold_of_every_comparison(pairs: list[tuple[float, float, str]], seed: int) -> None:
    new, old, groups = three(pairs)
    found = paired(new, old, groups=groups, seed=seed, resamples=FEW)
    assert -1 <= found.low <= found.high <= 1
    assert 0 < found.p <= 1
    assert paired(dict(reversed(new.items())), old, groups=groups, seed=seed, resamples=FEW) == found
    same = paired(new, new, groups=groups, resamples=FEW)
    assert (same.difference, same.p, same.better, same.worse, same.verdict) == (0, 1, 0, 0, "tie")


def test_a_test_that_is_small_enough_tries_all_flips() -> None:
    # Of the 2 ** 5 ways to flip five equal differences, the two extreme ones are as large as what was found.
    new, old = {str(at): 0.75 for at in range(5)}, {str(at): 0.5 for at in range(5)}
    found = paired(new, old)
    assert found.p == 2 / 2**5
    assert (found.difference, found.low, found.high) == (0.25, 0.25, 0.25)
    assert found.verdict == "tie"
    assert paired(new | {"5": 1.0}, old | {"5": 0.75}).verdict == "better"
    assert paired(old | {"5": 0.75}, new | {"5": 1.0}).verdict == "worse"


def test_questions_on_one_document_count_as_one_witness() -> None:
    new = {str(at): 0.75 for at in range(60)}
    old = {key: 0.5 if int(key) % 6 else 0.8 for key in new}
    alone = paired(new, old)
    grouped = paired(new, old, groups={key: "even" if int(key) % 2 else "odd" for key in new})
    assert alone.difference == grouped.difference
    assert (alone.p < 0.001, grouped.p) == (True, 0.5)
    assert (alone.verdict, grouped.verdict) == ("better", "tie")


def test_the_mean_is_over_questions_and_not_over_groups() -> None:
    groups = {"a": "x", "b": "x", "c": "x", "d": "y"}
    assert paired(dict.fromkeys("abc", 1.0) | {"d": 0.0}, dict.fromkeys("abcd", 0.0), groups=groups).difference == 0.75
    assert mean({"a": 1, "b": 1, "c": 1, "d": 0}, groups=groups) == Mean(0.75, 0, 1)


def test_one_group_tells_nothing() -> None:
    found = paired({"a": 1.0, "b": 0.5}, {"a": 0.5, "b": 0.0}, groups={"a": "x", "b": "x"})
    assert (found.difference, found.low, found.high, found.p, found.verdict) == (0.5, -1, 1, 1, "tie")
    assert mean({"a": 0.5}) == Mean(0.5, 0, 1)


def test_the_interval_holds_the_true_mean_about_as_often_as_it_says() -> None:
    import numpy as np

    draws = np.random.default_rng(7).binomial(1, 0.3, size=(200, 60)) * 1.0
    found = [mean({str(at): value for at, value in enumerate(row)}, resamples=500) for row in draws]
    assert 0.88 <= sum(item.low <= 0.3 <= item.high for item in found) / len(found) <= 0.99
    narrow = [mean({str(at): value for at, value in enumerate(row)}, resamples=500, confidence=0.5) for row in draws]
    assert 0.35 <= sum(item.low <= 0.3 <= item.high for item in narrow) / len(found) <= 0.65


@pytest.mark.parametrize(
    ("new", "old", "groups", "message"),
    [
        ({"a": 1.0}, {"b": 1.0}, None, r"not asked the same questions: 2 .* such as 'a'"),
        ({"a": 1.0, "b": 1.0}, {"a": 1.0}, None, r"1 were asked of one only, such as 'b'"),
        ({}, {}, None, "no question"),
        ({"a": 1.0}, {"a": 1.0}, {"b": "x"}, r"1 questions have no group, such as 'a'"),
    ],
)
def test_what_cannot_be_compared(
    new: dict[str, float], old: dict[str, float], groups: dict[str, str] | None, message: str
) -> None:
    with pytest.raises(BelegError, match=message):
        paired(new, old, groups=groups)
