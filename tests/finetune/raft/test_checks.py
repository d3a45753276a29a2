"""Each thing that can be wrong is found, by its name, and what is right is left alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from finetune.raft.checks import KINDS, check_rows, kind_of, row_problems
from finetune.raft.row import RaftRow
from finetune.raft.selfcontained import leans_on
from reader.quotes import Span

Make = Callable[..., RaftRow]


def kinds(row: RaftRow) -> list[str]:
    return [kind_of(problem) for problem in row_problems(row)]


def test_a_good_row_has_no_problem(make_row: Make) -> None:
    assert row_problems(make_row()) == []
    assert row_problems(make_row(golden=None, quotes=(), abstains=True, passages=make_row().passages[:1])) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"quotes": ()}, ["quote missing"]),
        ({"quotes": (Span(1, 0, 43),), "answer": "Bahn"}, ["quote not golden"]),
        ({"quotes": (Span(2, 0, 23),)}, ["quote cut"]),
        ({"quotes": (Span(2, 4, 33),)}, ["quote cut"]),
        ({"answer": "211 N"}, ["not supported"]),
        ({"answer": "Herr Kunze"}, ["not supported"]),
        ({"question": "Was sagt diese Studie über 210 N?"}, ["not self-contained"]),
        ({"golden": None}, ["golden missing"]),
        ({"abstains": True, "quotes": ()}, ["golden unused", "holds the answer"]),
        ({"abstains": True, "quotes": (), "golden": None}, ["holds the answer"]),
        ({"question": "Wie straff muss der Gurt sein? " * 30}, ["too long"]),
        ({"answer": "210 N\nist"}, ["form"]),
        ({"answer": "210 N <b>"}, ["form"]),
        ({"reasoning": "Passage 2 says."}, ["form"]),
        ({"question": " "}, ["empty"]),
        ({"answer": ""}, ["empty", "form"]),
    ],
)
def test_what_is_wrong_has_a_name(make_row: Make, changes: dict[str, Any], expected: list[str]) -> None:
    found = kinds(make_row(**changes))
    assert found == expected
    assert set(found) <= set(KINDS)


def test_the_same_text_cannot_answer_and_not_answer(make_row: Make) -> None:
    golden = make_row().passages[1]
    assert kinds(make_row(passages=(replace(golden, kind="retrieved"), golden))) == ["answers elsewhere"]


def test_a_whole_article_is_no_passage(make_row: Make) -> None:
    first, golden = make_row().passages
    assert kinds(make_row(passages=(replace(first, text=first.text * 300), golden))) == ["too long"]


def test_a_passage_with_our_marks_cannot_be_quoted(make_row: Make) -> None:
    text = "Es steht ##end_quote## da: 210 N."
    passages = (make_row().passages[0], replace(make_row().passages[1], text=text))
    assert "quote not proven" in kinds(make_row(passages=passages, quotes=(Span(2, 0, len(text)),)))


def test_what_stands_in_the_quote_is_supported_beside_another_number_too(make_row: Make) -> None:
    first, golden = make_row().passages
    text = "Seit Februar 1974 20 % mehr."
    row = make_row(passages=(first, replace(golden, text=text)), quotes=(Span(2, 0, len(text)),))
    assert kinds(replace(row, answer="20 %")) == []
    assert kinds(replace(row, answer="30 %")) == ["not supported"]


def test_a_verdict_needs_no_words_of_the_quote(make_row: Make) -> None:
    assert kinds(make_row(answer="ja")) == []
    assert kinds(make_row(answer="yes")) == []
    assert kinds(make_row(abstains=True, golden=None, quotes=(), answer="ja")) == []


def test_an_answer_in_another_language_is_told(make_row: Make) -> None:
    answer = "the belt must be tightened with a force that the manual gives as 210 N in total"
    assert "language mismatch" in kinds(make_row(answer=answer))


def test_duplicates_are_the_later_ones_and_old_problems_go(make_row: Make) -> None:
    rows = [
        make_row(problems=("too long: gone",)),
        make_row(id="q2", question="Wie straff muss der  trägergurt sein ?"),
        make_row(id="q3", question="Wer ist zuständig?", answer="Frau Ihde", quotes=(Span(2, 34, 60),)),
    ]
    assert [row.problems for row in check_rows(rows)] == [(), ("duplicate: of q1",), ()]


@pytest.mark.parametrize(
    ("question", "language"),
    [
        ("What did this study find?", "en"),
        ("What is the main point of the passage above?", "en"),
        ("According to the article, who won?", "en"),
        ("When was he elected by Nixon?", "en"),
        ("When was it built?", "en"),
        ("What did the authors conclude?", "en"),
        ("Was ergab diese Untersuchung?", "de"),
        ("Wie viele Preise hat sie laut Text gewonnen?", "de"),
        ("Wovon handelt der vorliegende Bericht?", "de"),
        ("Wann wurde er von Nixon ausgewählt?", "de"),
        ("Wo lehrte dieser reformwillige Anführer?", "de"),
        ("Was wird im obigen Abschnitt beschrieben?", "de"),
    ],
)
def test_questions_that_lean_on_a_text(question: str, language: str) -> None:
    assert leans_on(question, language)


@pytest.mark.parametrize(
    ("question", "language"),
    [
        ("How long does it take to boil an egg?", "en"),
        ("What did Marie Curie do before she moved to Paris?", "en"),
        ("Other than his scientific achievements what was Tesla famous for?", "en"),
        ("Who lends books to guests, and what do they pay?", "en"),
        ("Ear drops with steroids: do they reduce toxicity?", "en"),
        ("What was the first passage through the Panama Canal?", "en"),
        ("Wann starb Goethe, und wo wurde er begraben?", "de"),
        ("Wer darf Texte freigeben?", "de"),
        ("Muss ich den Vertrag lesen, bevor ich ihn unterschreibe?", "de"),
        ("Was kostet es, ein Poolfahrzeug zu buchen?", "de"),
        ("Wo sind Sie zu erreichen?", "de"),
    ],
)
def test_questions_that_stand_by_themselves(question: str, language: str) -> None:
    assert leans_on(question, language) == ""
