"""What people said becomes rows: what they confirmed, what they corrected, and nothing from what they only disliked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune.data.read import Problem, read_rows, shape_of
from finetune.data.schema import Answer, Context, Row

PASSAGE = "Im Inland werden 28 Euro gezahlt. Im Ausland gelten die Sätze der Tabelle."
NEXT = "Im Ausland gelten die Sätze der Tabelle. Für Länder, die dort fehlen, gilt der Satz von Luxemburg."
OTHER = "Flüge innerhalb Deutschlands werden nicht erstattet."


def span(text: str, start: int, document: str = "d1") -> dict[str, Any]:
    named = {"document": document, "source": f"{document}.pdf", "title": document.upper()}
    return {**named, "start": start, "end": start + len(text), "text": text}


HITS = [span(PASSAGE, 100), span(NEXT, 134), span(OTHER, 900), span(OTHER, 100, "d2")]
QUOTE = span("Im Inland werden 28 Euro gezahlt.", 100)


def said(verdict: str, **more: Any) -> dict[str, Any]:
    return {
        "time": "2025-03-04T09:12:00+00:00", "question": "Wie viel?", "verdict": verdict, "answer": "28 Euro", "release": "r",
        "comment": "", "correction": None, "quotes": [QUOTE], "hits": HITS, **more,
    }  # fmt: skip


def read(folder: Path, *records: dict[str, Any]) -> tuple[list[Row], list[Problem]]:
    path = folder / "feedback.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    problems: list[Problem] = []
    assert shape_of(path) == "feedback"
    return list(read_rows(path, on_problem=problems.append)), problems


def test_a_good_answer(tmp_path: Path) -> None:
    [row], problems = read(tmp_path, said("good"))
    assert problems == []
    assert (row.question, row.document, row.language) == ("Wie viel?", "d1.pdf", "de")
    assert (row.positives, row.answers) == ((Context(PASSAGE, "D1"),), (Answer(QUOTE["text"], 0),))
    # The second hit overlaps the first; the last is of another document, at the same places.
    assert row.hard_negatives == (Context(OTHER, "D1"), Context(OTHER, "D2"))


def test_a_good_answer_with_quotes_of_several_passages(tmp_path: Path) -> None:
    quotes = [QUOTE, span("28 Euro", 117), span("Flüge", 900), span("Luxemburg", 223)]
    [row], _ = read(tmp_path, said("good", quotes=quotes))
    assert row.positives == (Context(PASSAGE, "D1"), Context(OTHER, "D1"), Context(NEXT, "D1"))
    assert row.answers == (Answer(QUOTE["text"], 0), Answer("28 Euro", 17))
    assert row.hard_negatives == (Context(OTHER, "D2"),)


@pytest.mark.parametrize("quotes", [[], [span("Im Inland", 100, "d3")], [span("x" * 30, 90)]])
def test_a_good_answer_whose_quotes_are_in_no_hit(tmp_path: Path, quotes: list[Any]) -> None:
    rows, [problem] = read(tmp_path, said("good", quotes=quotes))
    assert (rows, problem.kind, problem.fatal, problem.left_out) == ([], "unused", False, True)
    assert problem.origin.endswith("feedback.jsonl, line 1")


def test_a_correction(tmp_path: Path) -> None:
    [row], problems = read(tmp_path, said("bad", correction={"source": "d2.pdf", "text": "Es gibt 30 Tage Urlaub."}))
    assert problems == []
    assert (row.positives, row.answers, row.document) == ((Context("Es gibt 30 Tage Urlaub.", "D2"),), (), "d2.pdf")
    assert row.hard_negatives == (Context(PASSAGE, "D1"), Context(NEXT, "D1"), Context(OTHER, "D1"), Context(OTHER, "D2"))


@pytest.mark.parametrize(
    "text",
    [
        "Im  Ausland gelten die Sätze\nder Tabelle.",
        f"Davor. {PASSAGE} {NEXT}",
        # Ends in the first passage where the second goes on.
        "gezahlt. Im Ausland gelten die Sätze der Tabelle. Für alle.",
    ],
)
def test_a_passage_that_shares_the_correction_is_no_negative(tmp_path: Path, text: str) -> None:
    [row], _ = read(tmp_path, said("bad", correction={"source": "d1.pdf", "text": text}))
    assert row.hard_negatives == (Context(OTHER, "D1"), Context(OTHER, "D2"))


@pytest.mark.parametrize("correction", [None, {"source": "d1.pdf", "text": "  "}])
def test_a_bad_answer_without_a_correction(tmp_path: Path, correction: object) -> None:
    rows, problems = read(tmp_path, said("bad", correction=correction), said("good"))
    assert (len(rows), [problem.kind for problem in problems]) == (1, ["unused"])


def test_what_nothing_can_be_learnt_from_is_no_error(tmp_path: Path) -> None:
    read(tmp_path, said("bad"), said("good"))
    assert len(list(read_rows(tmp_path / "feedback.jsonl"))) == 1


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"verdict": "great"}, "verdict"),
        ({"question": 3}, "question"),
        ({"hits": [{**HITS[0], "start": "x"}]}, "hits.0.start"),
        ({"quotes": [{"text": "x"}]}, "quotes.0.document"),
        ({"correction": {"source": "d1.pdf"}}, "correction.text"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, more: dict[str, Any], field: str) -> None:
    rows, [problem] = read(tmp_path, {**said("good"), **more})
    assert (rows, problem.field, problem.fatal) == ([], field, True)
