"""Which passages are shown: as many as asked for, the same for the same seed, and never a quote of one that is not there."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.raft.row import Passage, RaftRow, target
from finetune.recipe_reader import Passages, Prompt
from finetune.sft.drawing import drawn, only, plain
from reader.quotes import Span, parse


def made(texts: list[str], quoted: list[tuple[int, int, int]], golden: int | None, *, abstains: bool = False) -> RaftRow:
    shown = tuple(
        Passage(text, "", (), "golden" if at == golden else "hard", "d", 0, len(text)) for at, text in enumerate(texts, start=1)
    )
    spans = tuple(Span(*one) for one in quoted)
    return RaftRow("r", "Was?", shown, golden, spans, "Es steht dort." if spans else "", "neun", abstains)


@st.composite
def rows(draw: st.DrawFn) -> RaftRow:
    texts = draw(st.lists(st.text("aäß🧾 .\n", min_size=1, max_size=12), min_size=1, max_size=6))
    if draw(st.booleans()):
        return made(texts, [], None, abstains=True)
    golden = draw(st.integers(1, len(texts)))
    quotes = []
    for number in draw(st.lists(st.sampled_from([golden, golden, draw(st.integers(1, len(texts)))]), max_size=3)):
        start = draw(st.integers(0, len(texts[number - 1]) - 1))
        quotes.append((number, start, draw(st.integers(start + 1, len(texts[number - 1])))))
    return made(texts, quotes, golden)


@st.composite
def plans(draw: st.DrawFn) -> Passages:
    count = draw(st.none() | st.lists(st.integers(1, 8), min_size=1, max_size=4))
    return Passages(count=None if count is None else tuple(count), golden=draw(st.none() | st.floats(0, 1)))


@given(rows(), plans(), st.integers())
def test_quotes_stay_verbatim_whatever_is_drawn(row: RaftRow, plan: Passages, seed: int) -> None:
    shown = drawn(row, plan, random.Random(seed))
    assert shown == drawn(row, plan, random.Random(seed))
    assert sorted(one.text for one in shown.passages) == sorted(one.text for one in shown.passages if one in row.passages)
    needed = len({one.passage for one in row.quotes} | {row.golden})
    if plan.count:
        assert 1 <= len(shown.passages) <= max(*plan.count, needed)
    if shown.abstains:
        assert (shown.golden, shown.quotes, shown.reasoning) == (None, (), "")
        assert not any(one.kind == "golden" for one in shown.passages) or len(shown.passages) < len(row.passages)
        return
    assert shown.golden is not None
    assert row.golden is not None
    assert shown.passages[shown.golden - 1] == row.passages[row.golden - 1]
    assert shown.quoted() == row.quoted()
    assert [text for _, text in parse(target(shown)).quotes] == row.quoted()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_golden_share(share: float) -> None:
    row = made(["Neun.", "x", "y"], [(1, 0, 5)], 1)
    draw = random.Random(1)
    found = [drawn(row, Passages(count=(1, 2), golden=share), draw) for _ in range(2000)]
    assert sum(not one.abstains for one in found) / 2000 == pytest.approx(share, abs=0.03)
    assert {len(one.passages) for one in found} == {1, 2}


def test_numbers_that_stand_twice_are_drawn_twice_as_often() -> None:
    row = made(["Neun.", "x", "y", "z"], [(1, 0, 5)], 1)
    draw = random.Random(2)
    counts = [len(drawn(row, Passages(count=(1, 1, 4)), draw).passages) for _ in range(1500)]
    assert counts.count(1) / 1500 == pytest.approx(2 / 3, abs=0.04)
    assert counts.count(4) / 1500 == pytest.approx(1 / 3, abs=0.04)


def test_the_golden_passage_has_no_fixed_place() -> None:
    row = made(["Neun.", "x", "y"], [(1, 0, 5)], 1)
    draw = random.Random(3)
    assert {drawn(row, Passages(golden=1), draw).golden for _ in range(60)} == {1, 2, 3}


def test_nothing_else_to_show() -> None:
    row = made(["Neun."], [(1, 0, 5)], 1)
    assert drawn(row, Passages(count=(1,), golden=0), random.Random(0)) == row
    assert drawn(row, Passages(), random.Random(0)) is row


def test_an_answer_that_rests_on_two_passages_needs_both() -> None:
    row = made(["Neun.", "x", "Zehn."], [(1, 0, 5), (3, 0, 5)], 1)
    found = drawn(row, Passages(count=(1,)), random.Random(0))
    assert sorted(one.text for one in found.passages) == ["Neun.", "Zehn."]
    assert only(row, [1, 2]).abstains
    assert only(row, [3, 1]).quotes == (Span(2, 0, 5), Span(1, 0, 5))


def test_without_reasoning_the_answer_stands_alone() -> None:
    row = made(["Neun."], [(1, 0, 5)], 1)
    assert target(plain(row, Prompt(chain_of_thought=False))) == "<ANSWER>: neun"
    assert plain(row, Prompt()) is row
    lost = replace(row, passages=(), quotes=(), golden=None, abstains=True)
    assert target(plain(lost, Prompt(chain_of_thought=False))) == "<ANSWER>: NOT FOUND"
