"""The measures of answers, with numbers that are checked by hand."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.measures import (
    MEASURES,
    WEIGHTS,
    exact_match,
    f1,
    from_passage,
    golden_sentence,
    parse_weights,
    per_question,
    rouge_l,
    weighted_total,
)
from finetune.raft.row import PassageKind
from finetune.reading import Asked, Outcome
from reader.schema import Answer, Quote, Reason
from retriever.errors import BelegError
from retriever.schema import Hit

WORDS = st.lists(st.sampled_from(["hier", "dort", "the", "9,40", "Euro", "ja"]), max_size=5).map(" ".join)
TEXTS = {
    "golden": "Guests pay 9.40 euros. Staff pay 6.80 euros.",
    "hard": "A tram ticket costs 2.90 euros.",
    "easy": "The library opens at nine.",
}


def asked(*kinds: PassageKind, answers: tuple[str, ...] = ("9.40 euros",), key: str = "q") -> Asked:
    hits = tuple(
        Hit(f"d{number}", "s", "t", "en", (), None, 100, 100 + len(TEXTS[kind]), TEXTS[kind], 1.0, 0.5, None, 1)
        for number, kind in enumerate(kinds)
    )
    golden = ("Guests pay 9.40 euros.",) if answers else ()
    return Asked(key, "What do guests pay?", answers, hits, kinds, golden, "canteen", "en")


def outcome(
    one: Asked,
    said: str | None,
    quoted: tuple[tuple[int, str], ...] = (),
    *,
    reason: Reason | None = None,
    written: str | None = None,
    closed: bool = False,
    failure: str = "",
) -> Outcome:
    """Answer `said` with proven quotes of passages, numbered from 1; None abstains."""
    quotes = []
    for number, text in quoted:
        hit = one.hits[number - 1]
        start = hit.start + hit.text.index(text)
        quotes.append(Quote(hit.document, hit.source, hit.title, None, start, start + len(text), text))
    steps = "".join(f"Passage {number}: ##begin_quote##{text}##end_quote##\n" for number, text in quoted)
    text = f"{steps}<ANSWER>: {said or 'NOT FOUND'}" if written is None else written
    abstained = said is None and not failure
    reason = (reason or "not_in_passages") if abstained else None
    answer = Answer(said or "", abstained, reason, tuple(quotes), one.hits, text, (), "r")
    return Outcome(one, answer, 2.0, closed=closed, failure=failure)


def values(one: Outcome, fakes: ModuleType) -> dict[str, float]:
    return {name: found[one.asked.id] for name, found in per_question([one], fakes.FakeEncoder()).items() if found}


@pytest.mark.parametrize(
    ("answer", "gold", "exact", "overlap"),
    [
        ("75 Euro", ["75 Euro"], 1, 1),
        ("75 euro.", ["75 Euro"], 1, 1),
        ("Die 75 Euro!", ["75 Euro"], 1, 1),
        ("der Informationssicherheitsbeauftragte", ["Informationssicherheitsbeauftragte"], 1, 1),
        ("0,30 Euro", ["0.30 Euro"], 0, 0.5),
        ("0,30", ["0,30"], 1, 1),
        ("0,30 Euro", ["030 Euro"], 0, 0.5),
        ("sechs Wochen", ["6 Wochen", "sechs Wochen"], 1, 1),
        ("innerhalb von sechs Wochen", ["sechs Wochen"], 0, 2 * 2 / 6),
        ("E-217", ["e-217"], 1, 1),
        ("GRÖSSE", ["größe"], 1, 1),
        ("nein", ["ja"], 0, 0),
        ("ja ja", ["ja"], 0, 2 / 3),
        ("", ["ja"], 0, 0),
        ("ja", [], 0, 0),
        ("the", ["a"], 1, 0),
    ],
)
def test_exact_match_and_f1(answer: str, gold: list[str], exact: float, overlap: float) -> None:
    assert exact_match(answer, gold) == exact
    assert f1(answer, gold) == pytest.approx(overlap)


@given(WORDS, st.lists(WORDS, max_size=3))
def test_measures_of_words_stay_in_their_range(answer: str, gold: list[str]) -> None:
    assert exact_match(answer, gold) in (0, 1)
    assert 0 <= rouge_l(answer, gold) <= f1(answer, gold) <= 1
    assert f1(answer, gold) == max((f1(other, [answer]) for other in gold), default=0)
    assert rouge_l(answer, gold) == pytest.approx(max((rouge_l(other, [answer]) for other in gold), default=0))


@given(WORDS)
def test_the_same_words_are_all_of_each_other(text: str) -> None:
    words = [word for word in text.split() if word != "the"]
    assert rouge_l(text, [text]) == (1.0 if words else 0.0)


@pytest.mark.parametrize(
    ("answer", "gold", "value"),
    [
        # one two three four / four one two: the longest in order is "one two", 2 * 2 / (4 + 3)
        ("one two three four", ["four one two"], 4 / 7),
        ("d c", ["c d"], 0.5),
        ("x", ["y", "x"], 1.0),
        ("", ["x"], 0.0),
    ],
)
def test_rouge_l(answer: str, gold: list[str], value: float) -> None:
    assert rouge_l(answer, gold) == pytest.approx(value)


def test_a_right_answer_with_its_proof(fakes: ModuleType) -> None:
    one = asked("golden", "hard", "easy")
    found = values(outcome(one, "9.40 euros", ((1, "Guests pay 9.40 euros."),)), fakes)
    assert found == {
        "exact_match": 1, "f1": 1, "rouge_l": 1, "cosine": pytest.approx(1), "keyword_recall": 1, "golden_quote": 1,
        "abstained_rightly": 1, "quote_valid": 1, "quote_proven": 1, "quote_support": 1, "hard_quoted": 0, "easy_quoted": 0,
        "seconds": 2,
    }  # fmt: skip
    assert set(found) <= set(MEASURES)


def test_a_wrong_answer_from_a_distractor(fakes: ModuleType) -> None:
    one = asked("golden", "hard", "easy")
    found = values(outcome(one, "2.90 euros", ((2, "A tram ticket costs 2.90 euros."),)), fakes)
    assert (found["exact_match"], found["f1"], found["golden_quote"]) == (0, 0.5, 0)
    assert (found["hard_quoted"], found["easy_quoted"], found["quote_valid"]) == (1, 0, 1)
    # 9.40, 940, 9, 40, euro, guest, pay are wanted; of them the answer and its quote have `euro` alone.
    assert 0 < found["keyword_recall"] < 0.3


def test_an_abstention_on_an_answerable_question_counts_as_nothing(fakes: ModuleType) -> None:
    found = values(outcome(asked("golden"), None), fakes)
    assert found == {
        "exact_match": 0, "f1": 0, "rouge_l": 0, "cosine": 0, "keyword_recall": 0, "golden_quote": 0, "abstained_rightly": 0,
        "seconds": 2,
    }  # fmt: skip


@pytest.mark.parametrize(("said", "right"), [(None, 1), ("9.40 euros", 0)])
def test_a_question_that_nothing_answers(fakes: ModuleType, said: str | None, right: int) -> None:
    one = asked("hard", answers=())
    found = values(outcome(one, said, ((1, "A tram ticket costs 2.90 euros."),) if said else ()), fakes)
    assert found["abstained_rightly"] == right
    assert not {"f1", "exact_match", "rouge_l", "cosine", "keyword_recall", "golden_quote"} & set(found)
    assert found["hard_quoted"] == 1 - right
    if said:
        # The quote does not have 9.40.
        assert (found["quote_support"], found["quote_valid"]) == (0, 1)


def test_a_failure_counts_as_wrong_everywhere_and_as_fast_nowhere(fakes: ModuleType) -> None:
    found = values(outcome(asked("golden", "easy"), None, failure="The server is down."), fakes)
    assert "seconds" not in found
    assert "quote_valid" not in found
    assert set(found.values()) == {0.0}
    assert values(outcome(asked("easy", answers=()), None, failure="down"), fakes)["abstained_rightly"] == 0


def test_without_passages_only_the_answer_is_measured(fakes: ModuleType) -> None:
    found = values(outcome(asked("golden"), "9.40 euros", closed=True), fakes)
    assert set(found) == {"exact_match", "f1", "rouge_l", "cosine", "seconds"}


def test_a_quote_that_is_nowhere_is_told_apart_from_one_that_was_kept_back(fakes: ModuleType) -> None:
    one = asked("golden")
    lie = "Passage 1: ##begin_quote##Guests eat for free.##end_quote##\n<ANSWER>: free"
    unproven = values(outcome(one, None, reason="unproven", written=lie), fakes)
    assert unproven["quote_proven"] == 0
    assert "quote_valid" not in unproven
    half = f"Passage 1: ##begin_quote##Guests pay 9.40 euros.##end_quote##\n{lie}"
    kept = values(outcome(one, "free", ((1, "Guests pay 9.40 euros."),), written=half), fakes)
    assert (kept["quote_valid"], kept["quote_proven"]) == (1, 0)
    unsupported = "Passage 1: ##begin_quote##Staff pay 6.80 euros.##end_quote##\n<ANSWER>: 9.41 euros"
    withheld = values(outcome(one, None, ((1, "Staff pay 6.80 euros."),), reason="unsupported", written=unsupported), fakes)
    assert (withheld["quote_support"], withheld["quote_proven"], withheld["golden_quote"]) == (0, 1, 0)


def test_a_quote_belongs_to_the_passage_whose_place_and_words_it_has() -> None:
    (hit,) = asked("golden").hits
    quote = Quote(hit.document, "s", "t", None, 100, 106, "Guests")
    assert from_passage(quote, hit)
    for change in ({"document": "d9"}, {"start": 101, "end": 107}, {"start": 0, "end": 6}, {"text": "guests"}):
        changed: dict[str, Any] = {**{name: getattr(quote, name) for name in Quote.__slots__}, **change}
        assert not from_passage(Quote(**changed), hit)


def test_white_space_does_not_keep_a_quote_from_being_the_sentence() -> None:
    quote = Quote("d0", "s", "t", None, 0, 1, "Guests  pay\n9.40 euros.")
    assert golden_sentence(quote, asked("golden"))
    assert not golden_sentence(Quote("d0", "s", "t", None, 0, 1, "Staff pay 6.80 euros."), asked("golden"))


def test_the_total_weighs_what_applies() -> None:
    found = {"f1": {"a": 0.5}, "golden_quote": {"a": 1.0}, "abstained_rightly": {"a": 1.0, "b": 1.0}, "cosine": {"a": -0.5}}
    # .4 * .5 + .2 + .2, of .4 + .2 + .2 + .1
    assert weighted_total(found) == {"a": pytest.approx(0.6 / 0.9), "b": 1.0}
    assert weighted_total(found, {"cosine": 1}) == {"a": 0.0}
    assert weighted_total({}, WEIGHTS) == {}
    assert math.fsum(WEIGHTS.values()) == pytest.approx(1)


@pytest.mark.parametrize("typed", ["f1", "f1=much", "speed=1", "f1=-1", "f1=nan", "f1=inf", "f1=0", "seconds=1", "f1=.5,,"])
def test_weights_that_mean_nothing_are_refused(typed: str) -> None:
    with pytest.raises(BelegError) as caught:
        parse_weights(typed)
    assert caught.value.message
