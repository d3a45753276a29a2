"""Farthest and nearest are exact, and nothing that a filter names is ever a hard negative."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.negatives import Filter, far, farthest, hard, nearest, stands


def unit(rows: int, seed: int, dimensions: int = 5) -> Any:
    vectors = np.random.default_rng(seed).normal(size=(rows, dimensions)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 6), st.integers(1, 40), st.integers(1, 50), st.integers(1, 45), st.integers(0, 9))
def test_exact_whatever_the_block(queries: int, passages: int, depth: int, block: int, seed: int) -> None:
    one, many = unit(queries, seed), unit(passages, seed + 100)
    wanted = min(depth, passages)
    distances = np.linalg.norm(one[:, None] - many[None], axis=2)
    for found, order in ((nearest, np.sort(distances, axis=1)), (farthest, -np.sort(-distances, axis=1))):
        numbers = found(one, many, depth=depth, block=block)
        assert numbers.shape == (queries, wanted)
        assert all(len(set(row)) == wanted for row in numbers.tolist())
        got = np.take_along_axis(distances, numbers, 1) if queries else np.empty((0, wanted))
        np.testing.assert_allclose(got, order[:, :wanted], atol=1e-5)


def test_of_no_passages_nothing_is_found() -> None:
    nothing = np.empty((0, 5), np.float32)
    assert nearest(unit(2, 0), nothing, depth=3).shape == (2, 0)
    assert far(unit(2, 0), nothing).tolist() == [[-1], [-1]]


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_far_takes_the_farthest(block: int) -> None:
    one, many = unit(6, 1), unit(30, 2)
    order = farthest(one, many, depth=30)
    assert far(one, many, count=3, block=block).tolist() == order[:, :3].tolist()
    # What answers is passed over, however many of the farthest do.
    barred = {row: set(order[row, :20].tolist()) for row in range(6)}
    chosen = far(one, many, count=2, block=block, same=lambda number, row: number in barred[row])
    assert chosen.tolist() == order[:, 20:22].tolist()


def test_a_share_of_the_farthest_is_drawn_from() -> None:
    one, many = np.repeat(unit(1, 1), 200, axis=0), unit(100, 2)
    order = farthest(one[:1], many, depth=100)[0].tolist()
    drawn = far(one, many, share=0.05, seed=3)[:, 0].tolist()
    assert set(drawn) == set(order[:5])
    assert far(one, many, share=0.05, seed=3)[:, 0].tolist() == drawn
    assert far(one, many, share=0.05, seed=4)[:, 0].tolist() != drawn
    assert len(set(far(one, many, share=1.0)[:, 0].tolist())) > 50
    assert set(far(one, many, share=0.0)[:, 0].tolist()) == {order[0]}
    for row in far(one, many, share=0.05, count=4).tolist():
        assert len(set(row)) == 4


@pytest.mark.parametrize("share", [0.0, 0.05, 1.0])
def test_a_tiny_corpus_runs_out(share: float) -> None:
    alone = far(unit(1, 1), unit(1, 2), share=share, count=2)
    assert alone.tolist() == [[0, -1]]
    assert far(unit(1, 1), unit(1, 2), share=share, same=lambda *_: True).tolist() == [[-1]]
    two = far(unit(1, 1), unit(2, 2), share=share, count=2, same=lambda number, _: number == 0)
    assert two.tolist() == [[1, -1]]


E1, E2, E3 = np.eye(3, dtype=np.float32)


def between(cosine: float) -> Any:
    """Return a vector of this cosine with the first axis, exactly enough to stand on a border."""
    return np.array([cosine, np.sqrt(1 - cosine**2), 0], dtype=np.float32)


def reasons(
    texts: Sequence[str], vectors: Sequence[Any], answers: Sequence[str] = (), query: Any = E1, **more: Any
) -> list[Any]:
    golden = more.pop("golden", set())
    filter_ = Filter(list(texts), np.stack(vectors), **more)
    return filter_.reasons("who?", query, answers, 0, golden, list(range(len(texts))))


def test_each_reason_by_hand() -> None:
    texts = ["Refunds take 30 days.", "overlaps", "REFUNDS  take\n30 DAYS.", "x Refunds take 30 days. y", "30 days.",
             "It is 30 days here", "It is 130 days", "near", "fine"]  # fmt: skip
    vectors = [between(0.8), *[E2] * 6, between(0.79), E2]
    found = reasons(texts, vectors, ["30 Days"], golden={1})
    assert found == [
        "answers it",
        "answers it",
        "same text",
        "same text",
        "same text",
        "holds the answer",
        None,
        "too near",
        None,
    ]
    kept = Filter(texts, np.stack(vectors), answers=False, margin=None).reasons("?", E1, ["30 days"], 0, (), [5, 7])
    assert kept == [None, None]


def test_the_margin_holds_up_to_its_border() -> None:
    vectors = [E1, between(0.5), between(0.5001), between(0.4999)]
    assert reasons("abcd", vectors, margin=0.5) == ["answers it", None, "too near", None]
    assert reasons("abcd", vectors, margin=1.0) == ["answers it", None, None, None]


@pytest.mark.parametrize("cosine", [0.0, -0.5])
def test_a_positive_that_is_not_found_at_all_sets_no_margin(cosine: float) -> None:
    assert reasons("abc", [between(cosine), E1, -E1]) == ["answers it", None, None]


def test_a_cross_encoder_judges_what_is_left_by_what_the_encoder_reads() -> None:
    asked: list[list[str]] = []

    def judge(question: str, texts: Sequence[str]) -> list[float]:
        asked.append(list(texts))
        return [0.5 if "B" in text else 0.51 for text in texts]

    inputs = [f"Title\n{text}" for text in "ABC"]
    found = reasons("ABC", [E1, E2, E2], judge=judge, inputs=inputs)
    assert found == ["answers it", None, "cross-encoder"]
    assert asked == [["Title\nB", "Title\nC"]]
    assert reasons("A", [E1], judge=lambda *_: pytest.fail("nothing is left to judge")) == ["answers it"]


@pytest.mark.parametrize(
    ("answer", "text", "wanted"),
    [
        ("30 days", "130 days", False),
        ("30 days", "30 daystar", False),
        ("30 days", "130 days, or 30 days", True),
        ("30", "(30)", True),
        ("§ 5", "nach§ 5", True),
        ("5 %", "15 % und 5 %ig", True),
        ("übung", "die übung.", True),
        ("übung", "einübung", False),
        ("", "", False),
    ],
)
def test_answers_stand_as_whole_words(answer: str, text: str, wanted: bool) -> None:
    assert stands(answer, text) is wanted


def test_sources_take_turns_after_what_is_given() -> None:
    filter_ = Filter(list("abcdefgh"), np.stack([E1, *[E2] * 7]))
    rows = [("?", E1, [], 0, set[int]())] * 2
    found = [[[5, 6], [7, 5]], [[], []]]
    made = hard(rows, found, filter_, wanted=4, first=[[3, 0, 4], []])
    assert made.chosen == [[3, 4, 5, 7], []]
    assert made.dropped == {"answers it": 1, "seen": 6}
    assert hard(rows, found, filter_, wanted=1).chosen == [[5], []]
    assert hard([], [], filter_, wanted=3).chosen == []


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_nothing_chosen_violates_a_filter(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 8))
    texts = data.draw(st.lists(st.text("ab 1", min_size=1, max_size=4), min_size=count, max_size=count))
    vectors = unit(count, data.draw(st.integers(0, 50)), 3)
    query = unit(1, data.draw(st.integers(51, 99)), 3)[0]
    answers = data.draw(st.lists(st.text("ab1", max_size=2), max_size=2))
    positive = data.draw(st.integers(0, count - 1))
    golden = data.draw(st.sets(st.integers(0, count - 1)))
    sources = data.draw(st.lists(st.lists(st.integers(0, count - 1), max_size=8), max_size=3))
    given_ = data.draw(st.lists(st.integers(0, count - 1), max_size=3))
    filter_ = Filter(texts, vectors, judge=lambda _, found: [0.9 if "a1" in text else 0.1 for text in found])
    row = ("?", query, answers, positive, golden)
    (chosen,) = hard([row], [sources], filter_, wanted=3, first=[given_]).chosen
    assert len(chosen) == len(set(chosen)) <= 3
    right = " ".join(texts[positive].split())
    for number in chosen:
        text = " ".join(texts[number].split())
        assert number != positive
        assert number not in golden
        assert text not in right
        assert right not in text
        assert not any(stands(answer, text) for answer in answers)
        assert "a1" not in texts[number]
        score = float(vectors[positive] @ query)
        assert score <= 0 or float(vectors[number] @ query) <= 0.95 * score + 1e-6
