"""Pairs that are nearly the same are found, and only these, whatever else is there."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz import fuzz

from finetune.data.duplicates import near_pairs, near_texts, same, sketch, sorted_words

WORDS = ["Vorstand", "Reise", "zahlt", "Kosten", "wer", "wann", "genehmigt", "Tagung", "über", "2024", "No", "nicht", "Frist"]
QUESTIONS = st.lists(st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join), max_size=12)


def numbers(text: str) -> list[str]:
    return [word for word in sorted_words(text).split() if any(map(str.isdigit, word))]


@settings(deadline=None)
@given(QUESTIONS)
def test_every_pair_is_near_and_the_lower_comes_first(texts: list[str]) -> None:
    for one, other in near_pairs(texts):
        assert one < other
        assert fuzz.ratio(sorted_words(texts[one]), sorted_words(texts[other])) >= 95 or not sorted_words(texts[one])
        assert numbers(texts[one]) == numbers(texts[other])


@settings(deadline=None)
@given(QUESTIONS, st.randoms())
def test_what_is_a_pair_depends_on_nothing_else(texts: list[str], chance: random.Random) -> None:
    distinct = list({sorted_words(text): text for text in texts}.values())
    shuffled = chance.sample(distinct, len(distinct))
    found = {frozenset((distinct[one], distinct[other])) for one, other in near_pairs(distinct)}
    again = {frozenset((shuffled[one], shuffled[other])) for one, other in near_pairs(shuffled)}
    assert found == again
    for pair in found:
        assert list(near_pairs(sorted(pair))) == [(0, 1)]


def test_mistyped_questions_are_found() -> None:
    chance = random.Random(7)
    letters = "abcdefghijklmnopqrstuvwxyz"
    texts = [" ".join("".join(chance.choices(letters, k=chance.randint(3, 9))) for _ in range(8)) for _ in range(300)]
    changed = []
    for text in texts:
        at = chance.randrange(len(text))
        changed.append(text[:at] + chance.choice(letters) + text[at + 1 :])
    found = set(near_pairs([*texts, *changed]))
    near = [
        number
        for number, (one, other) in enumerate(zip(texts, changed, strict=True))
        if fuzz.ratio(sorted_words(one), sorted_words(other)) >= 95
    ]
    assert len(near) > 200
    assert sum((number, number + 300) in found for number in near) >= 0.99 * len(near)
    assert len(found) <= 1.05 * len(near)


def test_equal_texts_are_chained() -> None:
    assert list(near_pairs(["Wer zahlt?", "wer ZAHLT", "Was?", "zahlt wer"])) == [(0, 1), (1, 3)]


@pytest.mark.parametrize(
    "texts", [[], ["Wer?"], ["", ""], ["?", "!"], ["\ud800", "😀"], ["東京はどこですか", "京都はどこですか"]]
)
def test_little_or_odd_text(texts: list[str]) -> None:
    assert set(near_pairs(texts)) <= {(0, 1)}


def test_contexts() -> None:
    text = same("Der Verein übernimmt die Kosten der Reise, wenn der Vorstand vorher zugestimmt hat.")
    assert near_texts(text, text.replace("vorher", "vorhin"))
    assert sketch(text) & sketch(text.replace("vorher", "vorhin"))
    assert not near_texts(text, text[: len(text) // 2])
    assert len(sketch("")) == len(sketch("Wort")) == 1
