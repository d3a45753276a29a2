"""Nothing leaks, whatever rows look like; the same rows and seed give the same split."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data.duplicates import near_pairs, same
from finetune.data.schema import Answer, Context, Row
from finetune.data.split import PARTS, groups, split
from retriever.errors import BelegError

NAMES = st.sampled_from(["", "a", "b", "c", "d", "e", "f"])
CONTEXTS = st.builds(Context, st.sampled_from(["", " ", "Haus", "HAUS ", "Tee", "Bär 😀", "\r\n"]))
ROWS = st.builds(
    Row,
    id=NAMES,
    question=st.sampled_from(
        ["Wer?", "wer", "Wie hoch ist der Beitrag?", "Wie hoch ist der Betrag?", "Wo?", "", "Wann war 1990?"]
    ),
    positives=st.lists(CONTEXTS, max_size=2).map(tuple),
    hard_negatives=st.lists(CONTEXTS, max_size=1).map(tuple),
    document=NAMES,
    language=st.sampled_from(["de", "en"]),
    origin=st.sampled_from(["a.json, line 1", "b.jsonl, line 7, id x"]),
)
SHARES = st.sampled_from([(0.7, 0.1, 0.2), (0.8, 0.0, 0.2), (1.0, 0.0, 0.0), (0.34, 0.33, 0.33)])


@settings(deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=25), SHARES, st.integers(0, 3))
def test_no_document_id_context_or_near_question_in_two_parts(
    rows: list[Row], shares: tuple[float, float, float], seed: int
) -> None:
    parts = split(rows, shares=shares, seed=seed).parts()
    for one, other in combinations(parts.values(), 2):
        assert not {row.document for row in one if row.document} & {row.document for row in other}
        assert not {row.id for row in one if row.id} & {row.id for row in other}
        texts = [
            {same(context.text) for row in part for context in row.positives if context.text.strip()} for part in (one, other)
        ]
        assert not texts[0] & texts[1]
        for row in one:
            assert not any(list(near_pairs([row.question, against.question])) for against in other)


@settings(deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=25), st.randoms(), st.integers(0, 3))
def test_order_does_not_matter_and_nothing_is_lost(rows: list[Row], chance: random.Random, seed: int) -> None:
    parts = split(rows, seed=seed).parts()
    shuffled = split(chance.sample(rows, len(rows)), seed=seed).parts()
    for name in PARTS:
        assert sorted(map(repr, parts[name])) == sorted(map(repr, shuffled[name]))
    assert sorted(repr(row) for part in parts.values() for row in part) == sorted(map(repr, rows))


def made(count: int, *, per_document: int = 1, **more: object) -> list[Row]:
    rows = []
    for number in range(count):
        word = "".join(chr(ord("a") + int(digit)) * 3 for digit in f"{number:05d}")
        language = "de" if number % 2 else "en"
        made_row = Row(
            f"id{number}", f"Was bedeutet {word} bei {word[::-1]}?", (Answer("x"),), (Context(f"Text {word}"),),
            document=f"doc{number // per_document}", language=language, origin=f"f.json, line {number}",
        )  # fmt: skip
        rows.append(replace(made_row, **more))  # type: ignore[arg-type]
    return rows


def test_shares_and_languages_are_kept() -> None:
    parts = split(made(400)).parts()
    assert [len(part) for part in parts.values()] == [280, 40, 80]
    for part in parts.values():
        assert sum(row.language == "de" for row in part) == len(part) / 2


def test_sources_are_kept_in_each_part() -> None:
    rows = [replace(row, origin=f"{'a' if number < 100 else 'b'}.json, line {number}") for number, row in enumerate(made(200))]
    for name, part in split(rows).parts().items():
        assert sum(row.origin.startswith("a") for row in part) == len(part) / 2, name


def test_translations_that_share_an_id_stay_together() -> None:
    rows = [
        *made(20),
        *(
            replace(row, question=f"What? {row.question[::-1]}", document=f"en{row.document}", language="en")
            for row in made(20)
        ),
    ]
    assert len(groups(rows)) == 20
    for part in split(rows).parts().values():
        assert len({row.id for row in part}) * 2 == len(part)


def test_a_positive_that_is_another_rows_negative_does_not_join() -> None:
    one, other = made(2)
    assert len(groups([one, replace(other, hard_negatives=one.positives, negatives=one.positives)])) == 2


def test_links_reach_through_others() -> None:
    rows = made(4)
    rows[1] = replace(rows[1], document=rows[0].document)
    rows[2] = replace(rows[2], id=rows[1].id)
    rows[3] = replace(rows[3], positives=(Context("TEXT  " + rows[2].positives[0].text[5:]),))
    assert groups(rows) == [[0, 1, 2, 3]]


def test_a_single_giant_group_is_for_training_and_warned_of() -> None:
    parts = split(made(30, document="manual.pdf"))
    assert (len(parts.train), parts.dev, parts.test, parts.largest) == (30, [], [], 30)
    assert "'manual.pdf'" in parts.warnings[0]
    assert [warning.split()[2] for warning in parts.warnings[1:]] == ["dev", "test"]


def test_with_few_groups_no_part_goes_without() -> None:
    assert split(made(30, per_document=10)).groups == (1, 1, 1)


def test_another_seed_gives_another_split() -> None:
    rows = made(60)
    assert split(rows, seed=1).test != split(rows, seed=2).test
    assert split(rows, seed=1) == split(rows, seed=1)


def test_none_for_dev() -> None:
    parts = split(made(50), shares=(0.8, 0, 0.2))
    assert (len(parts.train), len(parts.dev), len(parts.test)) == (40, 0, 10)
    assert parts.warnings == []


@pytest.mark.parametrize(
    "shares",
    [(0.7, 0.3), (0.7, 0.1, 0.1), (0, 0.5, 0.5), (1.2, -0.1, -0.1), (float("nan"), 0.5, 0.5), (), (0.5, 0.2, 0.2, 0.1)],
)
def test_shares_that_cannot_be(shares: tuple[float, ...]) -> None:
    with pytest.raises(BelegError, match="three numbers that add up to 1"):
        split(made(5), shares=shares)


def test_no_rows() -> None:
    with pytest.raises(BelegError, match="no rows"):
        split([])
