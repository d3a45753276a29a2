"""Which sentence is taken for evidence, in cases that a reader can check by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from reader.evidence import Evidence, holding, rank
from reader.quotes import Span
from retriever.encode import Encoder, Vectors
from retriever.schema import Hit

Make = Callable[..., Hit]


class Indifferent:
    """An encoder to which all sentences are equally near, so that only words count."""

    fingerprint = tokenizer = "same"
    dimensions = 2
    max_tokens = 100

    def token_starts(self, text: str) -> list[int]:
        return []

    def encode_passages(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Vectors:
        return np.ones((len(texts), 2), np.float32)

    def encode_query(self, text: str) -> Vectors:
        return np.ones(2, np.float32)


def ranked(question: str, hits: Sequence[Hit], encoder: Encoder | None = None) -> list[str]:
    found = rank(question, hits, encoder or Indifferent())
    assert [item.score for item in found] == sorted((item.score for item in found), reverse=True)
    return [hits[item.span.passage - 1].text[item.span.start : item.span.end] for item in found]


@pytest.mark.parametrize(
    ("language", "text", "left"),
    [
        (
            "de",
            "3.2 Hotelkosten\nDie Grenze liegt bei 145 Euro.\nGilt das immer?\nJa.",
            {"Die Grenze liegt bei 145 Euro.", "Ja."},
        ),
        ("en", "Hotel costs\nWhat is the limit?\nThe limit is 145 euros.", {"The limit is 145 euros."}),
        ("de", "Schutzausrüstung\n- Brille\nPolen | 34 Euro", {"- Brille", "Polen | 34 Euro"}),
        ("en", "Only a heading", set()),
    ],
)
def test_headings_and_questions_are_no_evidence(make_hit: Make, language: str, text: str, left: set[str]) -> None:
    assert set(ranked("Wo liegt die Grenze? Where?", [make_hit(text, language=language)])) == left


@pytest.mark.parametrize(
    ("answer", "held"),
    [
        ("25 Euro", "Es sind 25 Euro."),
        ("25 Euro.", "Es sind 25 Euro."),
        ("euro", "Nie mehr als 125 Euro."),  # in other capitals, so the likeliest one
        ("sind", "Es sind 25 Euro."),
        ("5 Euro", None),  # a part of 25 and 125 only
        ("Dollar", None),
        ("(a) Straße*", "Siehe (a) Straße*."),
        ("", None),
        (" . ", None),
    ],
)
def test_the_likeliest_sentence_that_has_the_answer(make_hit: Make, answer: str, held: str | None) -> None:
    hit = make_hit("Es sind 25 Euro. Nie mehr als 125 Euro. Siehe (a) Straße*.", language="de")
    spans = [Span(1, hit.text.index(part), hit.text.index(part) + len(part)) for part in _PARTS]
    found = holding(answer, [Evidence(span, 0.0) for span in spans], [hit])
    assert (hit.text[found.start : found.end] if found else None) == held


_PARTS = ("Nie mehr als 125 Euro.", "Es sind 25 Euro.", "Siehe (a) Straße*.")


def test_no_passages_no_evidence() -> None:
    assert ranked("Wo?", []) == []


def test_the_sentence_with_the_questions_words_is_first(make_hit: Make) -> None:
    german = make_hit("Das Frühstück kostet 8 Euro. Die Grenze für Hotels liegt bei 145 Euro.", language="de")
    english = make_hit("Breakfast costs 8 euros. The limit for hotels is 145 euros.")
    assert ranked("Welche Grenze gilt für Hotels?", [german])[0] == "Die Grenze für Hotels liegt bei 145 Euro."
    assert ranked("Which limit applies to hotels?", [english])[0] == "The limit for hotels is 145 euros."


def test_a_heading_lends_its_words_to_what_stands_below_it(make_hit: Make) -> None:
    text = "Fahrrad\nEs gibt 5 Cent.\nMotorrad\nEs gibt 20 Cent.\nFlugzeug\nEs gibt nichts."
    assert ranked("Was gibt es für das Motorrad?", [make_hit(text, language="de")])[0] == "Es gibt 20 Cent."


def test_titles_and_headings_above_the_passage_count_too(make_hit: Make) -> None:
    hits = [
        make_hit("The allowance is 34 euros.", title="Travel", headings=("Poland",), document="a"),
        make_hit("The allowance is 75 euros.", title="Travel", headings=("Denmark",), document="b"),
    ]
    assert ranked("What is the allowance for Denmark?", hits)[0] == "The allowance is 75 euros."


def test_rare_words_weigh_more(make_hit: Make) -> None:
    text = "The device is red. The device is old. The device is new. The fuse is blown."
    assert ranked("Which device has the fuse?", [make_hit(text)])[0] == "The fuse is blown."


def test_a_better_passage_wins_where_words_are_equal(make_hit: Make) -> None:
    hits = [make_hit("It costs 5 euros.", score=0.1, document="a"), make_hit("It costs 9 euros.", score=0.9, document="b")]
    assert ranked("What does it cost?", hits)[0] == "It costs 9 euros."


def test_the_real_encoder_decides_where_no_word_is_shared(make_hit: Make, encoder: Encoder) -> None:
    hit = make_hit("Our office opens at nine. Cars may be left behind the building.")
    assert ranked("Where is the parking lot?", [hit], encoder)[0] == "Cars may be left behind the building."


def test_spans_place_the_sentence_in_its_passage(make_hit: Make, encoder: Encoder) -> None:
    hits = [make_hit("Erster Satz. Zweiter Satz 🧾.", language="de", start=7), make_hit("Third one.", start=50)]
    found = {(item.span.passage, item.span.start, item.span.end) for item in rank("Satz", hits, encoder)}
    assert found == {(1, 0, 12), (1, 13, 28), (2, 0, 10)}
