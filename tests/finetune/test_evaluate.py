"""The measures of answers, checked by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.evaluate import Answered, exact_match, f1, score_answers
from reader.schema import Answer, Quote
from retriever.questions import Proof, Question

WORDS = st.lists(st.sampled_from(["hier", "dort", "the", "9,40", "Euro", "ja"]), max_size=5).map(" ".join)


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
def test_measures_stay_in_their_range(answer: str, gold: list[str]) -> None:
    assert exact_match(answer, gold) in (0, 1)
    assert 0 <= f1(answer, gold) <= 1
    assert f1(answer, gold) == max((f1(other, [answer]) for other in gold), default=0)


def answered(
    language: str,
    *,
    gold: str | None,
    given: str | None,
    golden: bool | None = None,
    verbatim: bool = True,
    quotes: int = 1,
    seconds: float = 1.0,
) -> Answered:
    question = Question("q", "", language, "?", (gold,) if gold else (), Proof("s", "t") if gold else None, "")
    quote = Quote("d", "s", "t", None, 0, 1, "x")
    more: dict[str, Any] = {
        "hits": (),
        "reasoning": "",
        "notes": (),
        "release": "r",
        "timings": {"search": 0.0, "read": seconds},
    }
    reason = "unproven" if given is None else None
    answer = Answer(given or "Nichts.", given is None, reason, (quote,) * quotes, **more)  # type: ignore[arg-type]
    return Answered(question, answer, verbatim, golden)


def test_scores_by_hand() -> None:
    table = score_answers(
        [
            answered("de", gold="75 Euro", given="75 Euro", golden=True, seconds=2),
            answered("de", gold="75 Euro", given="70 Euro", golden=False, seconds=2),
            answered("de", gold="75 Euro", given=None, quotes=0, seconds=0),
            answered("de", gold=None, given=None, quotes=0, seconds=0),
            answered("en", gold=None, given="yes", verbatim=False, seconds=1),
            answered("en", gold="yes", given="yes", golden=True, seconds=1),
        ]
    )
    assert list(table) == ["all", "de", "en"]
    assert table["all"] == {
        "questions": 6,
        "answerable": 4,
        "answered": 3,
        "verbatim_share": 0.75,
        "golden_quote_share": round(2 / 3, 4),
        "exact_match": 0.5,
        "f1": round((1 + 0.5 + 0 + 1) / 4, 4),
        "answered_f1": round((1 + 0.5 + 1) / 3, 4),
        "abstention_precision": 0.5,
        "abstention_recall": 0.5,
        "seconds_per_question": 1.0,
    }
    assert table["de"]["abstention_recall"] == 1
    assert table["en"]["abstention_precision"] is None
    assert table["en"]["abstention_recall"] == 0


def test_nothing_answered_gives_no_shares() -> None:
    scores = score_answers([answered("de", gold=None, given=None, quotes=0)])["all"]
    assert scores["verbatim_share"] is None
    assert scores["f1"] is None
    assert (scores["abstention_precision"], scores["abstention_recall"]) == (1, 1)
