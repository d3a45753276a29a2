"""Classes come out in the ratio asked for, and rows that nothing answers are left alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data.balance import balance, difficulty
from finetune.data.schema import Context, Difficulty, Row
from retriever.errors import BelegError

CLASSES: list[Difficulty] = ["easy", "medium", "hard", ""]


def made(**counts: int) -> list[Row]:
    names = [name if name != "none" else "" for name, count in counts.items() for _ in range(count)]
    return [Row(str(number), "?", difficulty=name) for number, name in enumerate(names)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("keyword", "dense", "expected"),
    [(1, 1, "easy"), (3, 3, "easy"), (3, 4, "medium"), (1, None, "medium"), (10, None, "medium"), (11, None, "hard"),
     (None, None, "hard"), (11, 11, "hard"), (11, 10, "medium")],
)  # fmt: skip
def test_classes(keyword: int | None, dense: int | None, expected: str) -> None:
    rows = [Row("1", "?", positives=(Context("x"),)), Row("2", "?")]
    judged = difficulty(rows, lambda _: keyword, lambda _: dense)
    assert [row.difficulty for row in judged] == [expected, ""]


def test_borders_can_be_moved_and_an_old_judgement_is_replaced() -> None:
    row = Row("1", "?", positives=(Context("x"),), difficulty="easy")
    assert difficulty([row], lambda _: 2, lambda _: 2, easy=1, hard=1)[0].difficulty == "hard"
    assert difficulty([replace(row, positives=())], lambda _: 1, lambda _: 1)[0].difficulty == ""


@settings(deadline=None)
@given(st.lists(st.sampled_from(CLASSES), max_size=40), st.integers(0, 5), st.booleans())
def test_equal_shares(names: list[Difficulty], seed: int, repeat: bool) -> None:
    rows = [Row(str(number), "?", difficulty=name) for number, name in enumerate(names)]
    measured = Counter(name for name in names if name)
    if not measured:
        with pytest.raises(BelegError, match="No row has a difficulty"):
            balance(rows, seed=seed, repeat=repeat)
        return
    balanced = balance(rows, seed=seed, repeat=repeat)
    wanted = (max if repeat else min)(measured.values())
    assert {name: number for name, number in balanced.after.items() if name} == dict.fromkeys(measured, wanted) | {}
    assert balanced.after.get("", 0) == names.count("")
    numbers = [int(row.id) for row in balanced.rows]
    assert numbers == sorted(numbers)
    assert repeat or len(set(numbers)) == len(numbers)
    assert not repeat or set(numbers) == set(range(len(rows)))
    assert balance(rows, seed=seed, repeat=repeat) == balanced


def test_other_shares() -> None:
    rows = made(easy=100, medium=20, hard=10)
    assert balance(rows, shares={"easy": 1, "medium": 2, "hard": 1}).after == {"easy": 10, "medium": 20, "hard": 10}
    assert balance(rows, shares={"hard": 3, "medium": 1}).after == {"medium": 3, "hard": 10}
    assert balance(rows, shares={"easy": 1, "hard": 1}, repeat=True).after == {"easy": 100, "hard": 100}
    assert balance(rows, shares={"easy": 1e6, "medium": 0, "hard": 1}).after == {"easy": 100, "hard": 1}


def test_repeats_are_spread_evenly() -> None:
    balanced = balance(made(easy=10, hard=4), repeat=True)
    assert sorted(Counter(row.id for row in balanced.rows if row.difficulty == "hard").values()) == [2, 2, 3, 3]


def test_an_absent_class_and_a_great_loss_are_told() -> None:
    assert balance(made(easy=5, medium=5)).warnings == ["No row is hard, so nothing can be balanced with it."]
    assert balance(made(easy=100, medium=50, hard=2)).warnings == ["6 of 152 rows are left, since only 2 are hard."]


def test_another_seed_leaves_out_others() -> None:
    rows = made(easy=50, hard=5)
    assert balance(rows, seed=1).rows != balance(rows, seed=2).rows


@pytest.mark.parametrize(
    "shares", [{"easy": -1}, {"trivial": 1}, {}, {"easy": 0}, {"easy": float("nan")}, {"easy": float("inf")}]
)
def test_shares_that_cannot_be(shares: dict[str, float]) -> None:
    with pytest.raises(BelegError, match="shares cannot be used"):
        balance(made(easy=1), shares=shares)


def test_only_absent_classes_are_wanted() -> None:
    balanced = balance(made(easy=3, none=1), shares={"hard": 1})
    assert [row.difficulty for row in balanced.rows] == [""]
    assert balanced.warnings
