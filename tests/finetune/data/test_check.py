"""Whatever a row says of its answers: a place that comes out is where the answer stands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data.check import check_row
from finetune.data.schema import Answer, Context, Row

TEXT = "Die Spannung beträgt 210 N. Sie darf um 10 N abweichen."
LETTERS = st.text("ab \n\u00a0😀", max_size=12)
ROWS = st.builds(
    Row,
    id=st.just("q"),
    question=LETTERS,
    answers=st.lists(st.builds(Answer, LETTERS, st.none() | st.integers(-3, 60)), max_size=4).map(tuple),
    positives=st.lists(st.builds(Context, st.text("ab \n\u00a0😀", max_size=50)), max_size=3).map(tuple),
    negatives=st.lists(st.builds(Context, LETTERS), max_size=2).map(tuple),
    hard_negatives=st.lists(st.builds(Context, LETTERS), max_size=2).map(tuple),
)


def row(*answers: Answer, text: str = TEXT) -> Row:
    return Row("q", "Wie viel?", answers, (Context(text),), origin="a.jsonl, line 7")


@pytest.mark.parametrize(
    ("text", "answer", "start", "placed", "kind"),
    [
        (TEXT, "210 N", 21, ("210 N", 21), None),
        (TEXT, "210 N", None, ("210 N", 21), None),
        (TEXT, "210 N", -1, ("210 N", 21), None),
        (TEXT, "210 N", 20, ("210 N", 21), "repaired"),
        (TEXT, "210 N", 10_000, ("210 N", 21), "repaired"),
        (TEXT, " 210 N", 20, ("210 N", 21), "trimmed"),
        (TEXT, "\u00a0210 N\n", 20, ("210 N", 21), "trimmed"),
        (TEXT, " 210 N", 21, ("210 N", 21), "repaired"),
        (TEXT, " 210 N ", None, ("210 N", 21), None),
        (TEXT, "220 N", 21, ("220 N", None), "not found"),
        (TEXT, "220 N", None, ("220 N", None), "not found"),
        (TEXT, "0 N", None, ("0 N", None), "ambiguous"),
        (TEXT, "0 N", 24, ("0 N", 23), "repaired"),
        (TEXT, "0 N", 33, ("0 N", None), "ambiguous"),
        # As JavaScript counts: an emoji is two.
        ("😀😀 Hier gibt es 30 Tage.", "30 Tage", 18, ("30 Tage", 16), "repaired"),
        # 20 code points off, and 19 the other way: neither is nearer by far.
        ("ja" + " " * 18 + "_" + " " * 18 + "ja", "ja", 20, ("ja", None), "ambiguous"),
        ("ja" + " " * 100 + "ja", "ja", 20, ("ja", 0), "repaired"),
        ("ja" + " " * 100 + "ja", "ja", 21, ("ja", None), "ambiguous"),
        ("aaaa", "aa", 3, ("aa", None), "ambiguous"),
        ("aaaa", "aa", 1, ("aa", 1), None),
        # Composed and decomposed letters are different text.
        ("Köln", "Ko\u0308ln", 0, ("Ko\u0308ln", None), "not found"),
    ],
)
def test_where_an_answer_stands(
    text: str, answer: str, start: int | None, placed: tuple[str, int | None], kind: str | None
) -> None:
    checked, problems = check_row(row(Answer(answer, start), text=text))
    assert checked.answers == (Answer(*placed),)
    assert [problem.kind for problem in problems] == ([kind] if kind else [])
    assert all(
        problem.origin == "a.jsonl, line 7" and problem.field == "answers.0" and not problem.fatal for problem in problems
    )


def test_a_repair_names_both_places() -> None:
    _, [problem] = check_row(row(Answer("210 N", 20)))
    assert problem.message == "“210 N” stands at 21, not at 20"


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        (Row("q", " \n", (), (Context("a"),)), "question"),
        (Row("q", "?", (), (Context("a"), Context("\u00a0"))), "positives.1"),
        (Row("q", "?"), "positives"),
        (Row("q", "?", (), (), (Context(""),)), "positives"),
    ],
)
def test_what_cannot_be_used(broken: Row, field: str) -> None:
    same, [problem] = check_row(broken)
    assert same == broken
    assert (problem.field, problem.fatal, problem.left_out) == (field, True, True)


def test_what_is_empty_is_dropped() -> None:
    given_row = Row("q", "?", (Answer(" "), Answer("a")), (Context("a"),), (Context(""), Context("n")), (Context("\t"),))
    checked, problems = check_row(given_row)
    assert (checked.negatives, checked.hard_negatives, checked.answers) == ((Context("n"),), (), (Answer("a", 0),))
    assert [(problem.field, problem.kind) for problem in problems] == [
        ("negatives", "dropped"), ("hard_negatives", "dropped"), ("answers.0", "dropped"),
    ]  # fmt: skip


def test_the_context_with_the_answer_comes_first() -> None:
    contexts = (Context("nothing"), Context("here: a"), Context("a too"))
    checked, [problem] = check_row(Row("q", "?", (Answer("a"),), contexts))
    assert checked.positives == (contexts[1], contexts[0], contexts[2])
    assert checked.answers == (Answer("a", 6),)
    assert problem.kind == "repaired"
    stays = (Context("a too"), *contexts)
    assert check_row(Row("q", "?", (Answer("b"), Answer("a", 0)), stays))[0].positives == stays


def test_answers_of_a_question_that_nothing_answers_have_no_place() -> None:
    checked, [problem] = check_row(Row("q", "?", (Answer("a", 0),), hard_negatives=(Context("a"),)))
    assert (checked.answers, problem.kind) == ((Answer("a"),), "not found")


def test_an_answer_given_twice_is_kept_once() -> None:
    checked, _ = check_row(row(Answer("210 N", 21), Answer("210 N", 21), Answer("10 N", 40)))
    assert checked.answers == (Answer("210 N", 21), Answer("10 N", 40))


@given(ROWS)
def test_a_place_is_verbatim_or_none(given_row: Row) -> None:
    checked, problems = check_row(given_row)
    if any(problem.fatal for problem in problems):
        return
    assert checked.question.strip()
    assert all(context.text.strip() for context in (*checked.positives, *checked.negatives, *checked.hard_negatives))
    assert sorted(checked.positives, key=repr) == sorted(given_row.positives, key=repr)
    for answer in checked.answers:
        assert answer.text == answer.text.strip() != ""
        if answer.start is not None:
            assert checked.positives[0].text[answer.start : answer.start + len(answer.text)] == answer.text
    told = {problem.kind for problem in problems}
    assert {"ambiguous", "not found"} & told if any(answer.start is None for answer in checked.answers) else True


@given(ROWS)
def test_checking_twice_changes_nothing_more(given_row: Row) -> None:
    once, problems = check_row(given_row)
    if not any(problem.fatal for problem in problems):
        twice, more = check_row(once)
        assert twice == once
        assert {problem.kind for problem in more} <= {"ambiguous", "not found"}
