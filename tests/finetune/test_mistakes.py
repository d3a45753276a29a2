"""Every kind of mistake, from an answer that makes it."""

from __future__ import annotations

import pytest

from finetune.mistakes import KINDS, count_mistakes, mistake, worst
from finetune.raft.row import PassageKind
from finetune.reading import Asked, Outcome
from reader.schema import Answer, Quote, Reason
from retriever.schema import Hit

GOLDEN = "Guests pay 9.40 euros. Staff pay 6.80 euros."
OTHER = "A tram ticket costs 2.90 euros."
PROOF = "Guests pay 9.40 euros."


def made(
    said: str | None,
    quoted: str = "",
    *,
    kinds: tuple[PassageKind, ...] = ("golden", "hard"),
    answers: tuple[str, ...] = ("9.40 euros",),
    reason: Reason = "not_in_passages",
    written: str = "",
    closed: bool = False,
    failure: str = "",
    key: str = "q",
) -> Outcome:
    texts = {"golden": GOLDEN, "hard": OTHER}
    hits = tuple(Hit(kind, "s", "t", "en", (), None, 0, len(texts[kind]), texts[kind], 1.0, None, None, 1) for kind in kinds)
    quotes = tuple(
        Quote(hit.document, "s", "t", None, hit.text.index(quoted), hit.text.index(quoted) + len(quoted), quoted)
        for hit in hits
        if quoted and quoted in hit.text
    )
    asked = Asked(key, "What do guests pay?", answers, hits, kinds, (PROOF,) if answers else (), "d", "en")
    abstained = said is None
    answer = Answer(said or "", abstained, reason if abstained else None, quotes, hits, written, (), "r")
    return Outcome(asked, answer, 1.0, closed=closed, failure=failure)


LIE = "Passage 1: ##begin_quote##Guests eat for free.##end_quote##\n<ANSWER>: free"
GERMAN = "Das lässt sich aus den vorliegenden Unterlagen leider nicht mit hinreichender Sicherheit entnehmen."
CASES = [
    (made("9.40 euros", PROOF), ""),
    (made("9.40", PROOF), ""),
    (made(None, kinds=("hard",), answers=()), ""),
    (made(None, reason="unproven", kinds=("hard",), answers=(), written="rubbish"), ""),
    (made(None, failure="down"), "failed"),
    (made(None, reason="unproven", written="Guests pay 9.40 euros."), "form"),
    (made(None, reason="unproven", written="Passage 1: ##begin_quote##Guests pay"), "form"),
    (made(None, reason="unproven", written=LIE), "quote not proven"),
    (made(None, PROOF, reason="unsupported"), "unsupported"),
    (made(None), "abstained wrongly"),
    (made(None, reason="weak_retrieval"), "abstained wrongly"),
    (made("2.90 euros", OTHER, kinds=("hard",), answers=()), "should have abstained"),
    (made(None, kinds=("hard",)), "golden passage not shown"),
    (made("2.90 euros", OTHER, kinds=("hard",)), "golden passage not shown"),
    (made("2.90 pounds", OTHER), "wrong passage quoted"),
    (made("6.80 pounds", "Staff pay 6.80 euros."), "right passage, wrong sentence"),
    (made("a tram ticket", PROOF), "right quote, wrong answer"),
    (made("as far as the canteen says they will have to pay 9.40 euros", PROOF), "wordy"),
    (made(GERMAN, PROOF), "wrong language"),
    (made("a fortune", closed=True), "wrong answer"),
    (made("9.40 euros", closed=True), ""),
]


@pytest.mark.parametrize(("outcome", "kind"), CASES)
def test_the_kind_of_a_mistake(outcome: Outcome, kind: str) -> None:
    assert mistake(outcome) == kind


def test_every_kind_has_a_case() -> None:
    assert {kind for _, kind in CASES} - {""} == set(KINDS)


def test_a_verdict_in_a_sentence_does_not_make_it_wordy() -> None:
    said = made("there is no fee for anybody who has a badge", PROOF, answers=("no",))
    assert mistake(said) == "right quote, wrong answer"


def test_a_right_answer_with_a_quote_that_holds_it_is_right_wherever_it_is_from() -> None:
    assert mistake(made("2.90 euros", OTHER, answers=("2.90 euros",))) == ""


def test_counts_leave_out_what_is_right_and_keep_the_order() -> None:
    counted = count_mistakes([outcome for outcome, _ in CASES])
    assert list(counted) == [kind for kind in KINDS if kind in counted]
    assert sum(counted.values()) == sum(bool(kind) for _, kind in CASES)


def test_the_worst_are_of_every_kind() -> None:
    wrong = [made(None, key=f"a{number}") for number in range(20)] + [made("2.90 pounds", OTHER, key="b")]
    right = made("9.40 euros", PROOF, key="c")
    totals = {**{f"a{number}": 0.0 for number in range(20)}, "b": 0.0, "c": 0.0}
    found = [outcome.asked.id for outcome in worst([*wrong, right], totals)]
    assert len(found) == 10
    assert "b" in found
    assert "c" not in found
    totals["a7"] = -1.0
    assert worst(wrong, totals)[0].asked.id == "a7"
