"""What fusion promises for any scores."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriever.fuse import convex, reciprocal_rank

cosines = st.floats(-1, 1)
bm25 = st.floats(0, 200)
pairs = st.lists(st.tuples(cosines, bm25), max_size=30)
alphas = st.floats(0, 1)


def split(both: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [dense for dense, _ in both], [keyword for _, keyword in both]


@given(pairs, alphas)
def test_convex_stays_between_zero_and_one(both: list[tuple[float, float]], alpha: float) -> None:
    fused = convex(*split(both), alpha=alpha)
    assert len(fused) == len(both)
    assert all(0 <= score <= 1 for score in fused)


@given(pairs, alphas)
def test_convex_never_prefers_what_both_sides_like_less(both: list[tuple[float, float]], alpha: float) -> None:
    fused = convex(*split(both), alpha=alpha)
    for first, one in zip(both, fused, strict=True):
        for second, other in zip(both, fused, strict=True):
            if first[0] >= second[0] and first[1] >= second[1]:
                assert one >= other


@given(pairs)
def test_alpha_zero_and_one_are_the_sides_alone(both: list[tuple[float, float]]) -> None:
    dense, keyword = split(both)
    for side, alpha in ((dense, 1.0), (keyword, 0.0)):
        fused = convex(dense, keyword, alpha=alpha)
        expected = sorted(range(len(side)), key=lambda at: -max(side[at], 0.0))
        assert sorted(range(len(fused)), key=lambda at: -fused[at]) == expected or len(set(fused)) < len(set(side))
        assert all((fused[a] >= fused[b]) for a in range(len(side)) for b in range(len(side)) if side[a] >= side[b])


@given(st.lists(st.tuples(st.integers(-100, 100), st.integers(0, 100)), max_size=20), st.sampled_from([0.25, 2.0, 1024.0]))
def test_neither_depends_on_the_scale_of_a_side(both: list[tuple[int, int]], scale: float) -> None:
    dense, keyword = [float(one) for one, _ in both], [float(other) for _, other in both]
    larger = [score * scale for score in keyword]
    assert reciprocal_rank(dense, keyword) == reciprocal_rank(dense, larger)
    assert convex(dense, keyword, alpha=0.25) == pytest.approx(convex(dense, larger, alpha=0.25))


@given(st.lists(st.tuples(st.integers(-100, 100), st.integers(1, 100)), max_size=20))
def test_rank_fusion_depends_on_order_only(both: list[tuple[int, int]]) -> None:
    dense, keyword = [float(one) for one, _ in both], [float(other) for _, other in both]
    bent = [math.exp(score / 50) for score in keyword]
    assert reciprocal_rank(dense, keyword) == reciprocal_rank(dense, bent)


def test_without_candidates() -> None:
    assert convex([], [], alpha=0.5) == []
    assert reciprocal_rank([], []) == []


def test_a_side_without_any_score_counts_nothing() -> None:
    assert convex([-0.2, 0.0], [0.0, 0.0], alpha=0.5) == [0, 0]
    assert convex([0.5, 0.25], [0.0, 0.0], alpha=0.5) == [0.5, 0.25]


def test_rank_fusion_by_hand() -> None:
    assert reciprocal_rank([0.9, 0.5, 0.1], [0.0, 4.0, 8.0], k=0) == [1, 1 / 2 + 1 / 2, 1 / 3 + 1]
