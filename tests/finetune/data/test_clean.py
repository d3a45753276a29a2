"""Cleaning keeps every answer where it stands, changes nothing the second time, and names all that it does."""

from __future__ import annotations

import sys
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from finetune.data.clean import DEFAULTS, RULES, clean
from finetune.data.edits import apply, blanks, follow, forms
from finetune.data.schema import Answer, Context, Row
from finetune.data.typos import suggest
from retriever.errors import BelegError
from retriever.load.normal import normalise

TEXT = st.text(
    st.sampled_from(" \t\n\r\xa0\xad\u200b\ufeffaAäu\u0308\u0323ßé👩\u200d💻İ가ᄀ\u1161\u11a8.?1\ud800\u2001"), max_size=14
)
CONTEXTS = st.builds(Context, TEXT, TEXT)


@st.composite
def rows(draw: st.DrawFn) -> Row:
    positives = draw(st.lists(CONTEXTS, max_size=2))
    answers = []
    for _ in range(draw(st.integers(0, 3))):
        text = positives[0].text if positives else ""
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, len(text)))
        answers.append(draw(st.sampled_from([Answer(text[start:end], start), Answer(text[start:end]), Answer("x", start)])))
    return Row(
        draw(st.sampled_from(["1", "2"])),
        draw(TEXT),
        tuple(answers),
        tuple(positives),
        tuple(draw(st.lists(CONTEXTS, max_size=1))),
        tuple(draw(st.lists(CONTEXTS, max_size=2))),
        language=draw(st.sampled_from(["de", "und"])),
        origin=draw(st.sampled_from(["a.json, line 1", "a.json, line 2"])),
    )


RULE_SETS = st.sets(st.sampled_from(sorted(set(RULES) - {"typos"}))) | st.just(set(DEFAULTS))


@settings(deadline=None)
@given(st.lists(rows(), max_size=6), RULE_SETS)
def test_starts_stay_verbatim(given_rows: list[Row], rules: set[str]) -> None:
    for row in clean(given_rows, rules=rules | {"starts"}).rows:
        for answer in row.answers:
            assert answer.start is None or row.positives[0].text[answer.start :].startswith(answer.text)


@settings(deadline=None)
@given(st.lists(rows(), max_size=6), RULE_SETS)
def test_cleaning_twice_changes_nothing_more(given_rows: list[Row], rules: set[str]) -> None:
    once = clean(given_rows, rules=rules)
    twice = clean(once.rows, rules=rules)
    assert twice.rows == once.rows
    assert twice.changes == []


@settings(deadline=None)
@given(st.lists(rows(), max_size=6))
def test_order_stays_and_every_drop_is_named(given_rows: list[Row]) -> None:
    numbered = [replace(row, id=str(number), origin=f"f, line {number}") for number, row in enumerate(given_rows)]
    cleaned = clean(numbered)
    assert [int(row.id) for row in cleaned.rows] == sorted(int(row.id) for row in cleaned.rows)
    dropped = [change.row for change in cleaned.changes if change.after is None]
    assert sorted([row.id for row in cleaned.rows] + dropped) == sorted(row.id for row in numbered)
    assert sum(count["dropped"] for count in cleaned.counts().values()) == len(dropped)


@settings(deadline=None)
@given(st.lists(rows(), max_size=4))
def test_without_rules_nothing_happens(given_rows: list[Row]) -> None:
    cleaned = clean(given_rows, rules=())
    assert cleaned.rows == given_rows
    assert cleaned.changes == []


@settings(deadline=None)
@given(TEXT | st.text(max_size=30))
@example("A\u030a\u0323")
@example("\u1112\u1161\u11ab")
def test_texts_look_as_documents_are_stored(text: str) -> None:
    """Word for word: documents also lose blank lines, which would be line breaks here."""
    for edits in forms(text):
        text = apply(text, edits)
    assert normalise(apply(text, blanks(text))).split() == normalise(text).split()
    assert unicodedata.is_normalized("NFC", text)


def test_whatever_composes_with_the_letter_before_is_a_mark() -> None:
    from finetune.data.edits import _joins

    pairs = [
        unicodedata.decomposition(chr(code)).split()
        for code in range(sys.maxunicode + 1)
        if not unicodedata.decomposition(chr(code)).startswith("<")
    ]
    second = {chr(int(pair[1], 16)) for pair in pairs if len(pair) == 2}
    assert len(second) > 50
    assert [f"{ord(letter):x}" for letter in second if not _joins(letter)] == []
    assert all(_joins(chr(code)) for code in (0x1161, 0x11A8))


@settings(deadline=None)
@given(st.text("ab \t\n", max_size=20), st.data())
def test_a_span_of_words_has_the_same_words_afterwards(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    edits = blanks(text)
    new_start, new_end = follow(edits, start, end)
    assert apply(text, edits)[new_start:new_end].split() == text[start:end].split()


def row(number: int, question: str, text: str, answer: str = "", **more: object) -> Row:
    answers = (Answer(answer, text.find(answer) if answer in text else None),) if answer else ()
    made = Row(str(number), question, answers, (Context(text),), origin=f"f, line {number}")
    return replace(made, **more)  # type: ignore[arg-type]


def test_an_answer_across_a_soft_hyphen_and_blanks_follows() -> None:
    text = "\ufeffDie  Ver\xadsiche\xadrung\u200b  u\u0308ber\xa0\xa0nimmt. \r\nEnde"
    given_row = row(1, " Wer?\t", text, "Ver\xadsiche\xadrung\u200b  u\u0308ber")
    cleaned = clean([given_row]).rows[0]
    assert cleaned.positives[0].text == "Die Versicherung über nimmt.\r\nEnde"
    assert cleaned.answers == (Answer("Versicherung über", 4),)
    assert cleaned.question == "Wer?"


def test_emoji_and_line_breaks_stay() -> None:
    given_row = row(1, "Was?", "😀 ja\n\n\n  nein", "nein")
    cleaned = clean([given_row]).rows[0]
    assert cleaned.positives[0].text == "😀 ja\n\n\n nein"
    assert cleaned.answers == (Answer("nein", 8),)


def test_empty_contexts_go_and_take_starts_along() -> None:
    given_row = Row("1", "Was?", (Answer(" ", 0), Answer("Tee", 0)), (Context(" \n"), Context("Es gibt Tee.")), (Context(""),))
    cleaned = clean([given_row]).rows
    assert cleaned == [Row("1", "Was?", (Answer("Tee", 8),), (Context("Es gibt Tee."),))]


def test_rows_that_teach_nothing_are_dropped() -> None:
    given_rows = [Row("1", "\u200b "), Row("2", "Wer?"), Row("3", "Wer?", hard_negatives=(Context("Niemand."),)),
                  Row("4", "Wer?", negatives=(Context("x"),)), Row("5", " ", positives=(Context("x"),))]  # fmt: skip
    cleaned = clean(given_rows)
    assert [left.id for left in cleaned.rows] == ["3"]
    assert cleaned.counts()["empty"]["dropped"] == 4


def test_duplicates_give_their_answers_and_negatives() -> None:
    text = "Der Vorstand und die Leitung zahlen."
    one = row(1, "Wer zahlt?", text, "Der Vorstand", hard_negatives=(Context("A"),))
    other = row(2, "wer  ZAHLT?", text.upper(), "VORSTAND UND DIE LEITUNG", hard_negatives=(Context("a"), Context("B")))
    third = row(3, "Wer zahlt?", text, "Vorstand und die Leitung")
    cleaned = clean([one, other, third]).rows
    assert [left.id for left in cleaned] == ["1"]
    assert [answer.text for answer in cleaned[0].answers] == ["Der Vorstand", "Vorstand und die Leitung"]
    assert [context.text for context in cleaned[0].hard_negatives] == ["A", "B"]


def test_the_same_question_on_another_context_stays() -> None:
    given_rows = [row(1, "Wann war das?", "1990 war das.", "1990"), row(2, "Wann war das?", "Das war 1850.", "1850")]
    assert clean(given_rows).rows == given_rows


def test_contradictions_are_all_dropped_and_reported() -> None:
    text = "Anna zahlt. Bert nicht. Carla auch nicht."
    given_rows = [row(1, "Wer?", text, "Anna"), row(2, "Wer?", text, "Bert"), row(3, "Wo?", text, "Carla")]
    cleaned = clean(given_rows)
    assert [left.id for left in cleaned.rows] == ["3"]
    assert [(change.row, change.rule, change.after) for change in cleaned.changes] == [
        ("1", "contradictions", None),
        ("2", "contradictions", None),
    ]
    assert "line 2" in cleaned.changes[0].note


def test_answers_that_overlap_or_share_a_word_are_no_contradiction() -> None:
    text = "Frau Anna Berg zahlt 100 Euro."
    given_rows = [row(1, "Wer?", text, "Anna"), row(2, "Wer?", text, "Frau Anna Berg"), row(3, "Wer?", text, "ANNA")]
    assert len(clean(given_rows, rules={"contradictions"}).rows) == 3


def test_a_positive_is_not_a_negative_of_its_row() -> None:
    given_row = row(1, "Wer?", "Anna zahlt.", negatives=(Context("ANNA  zahlt."),), hard_negatives=(Context("Bert."),))
    cleaned = clean([given_row])
    assert cleaned.rows[0].negatives == ()
    assert cleaned.rows[0].hard_negatives == (Context("Bert."),)
    assert cleaned.counts()["contradictions"] == {"changed": 1, "dropped": 0}


LONG = "Der Verein übernimmt die Kosten der Reise zu Tagungen, wenn der Vorstand vorher zugestimmt hat. " * 3


@pytest.mark.parametrize(
    ("question", "text", "answer", "kept"),
    [
        ("Wer muss vorher der Reise zu einer Tagung zustimen?", LONG, "der Vorstand", 1),
        ("Wer muss vorher der Reise zu einer Tagung zustimmen?", LONG.replace("Tagungen,", "Tagungen"), "Vorstand", 1),
        (
            "Wer muss vorher der Reise zu einer Tagung zustimmen?",
            "Ganz anderes steht hier, aber der Vorstand auch.",
            "Vorstand",
            2,
        ),
        ("Wer muss vorher der Reise zu einer Tagung zustimen?", LONG, "Kosten", 2),
        ("Wer muss vorher der Reise zu einer Tagung 2 zustimmen?", LONG, "der Vorstand", 2),
        ("Wer muss vorher der Reise zu einer Tagung zustimmen, und wann genau?", LONG, "der Vorstand", 2),
    ],
)
def test_near_duplicates(question: str, text: str, answer: str, kept: int) -> None:
    given_rows = [
        row(1, "Wer muss vorher der Reise zu einer Tagung zustimmen?", LONG, "der Vorstand"),
        row(2, question, text, answer),
    ]
    cleaned = clean(given_rows)
    assert len(cleaned.rows) == kept
    assert len(clean(given_rows, rules=DEFAULTS - {"near-duplicates"}).rows) == 2


def test_lowercase_leaves_contexts_alone() -> None:
    given_row = row(1, "WER zahlt?", "ANNA zahlt.", "ANNA")
    cleaned = clean([given_row], rules={"lowercase"}).rows[0]
    assert cleaned == replace(given_row, question="wer zahlt?")


def typo_rows() -> list[Row]:
    texts = [f"Der Vorstand berät über die Nummer {number}." for number in ("eins", "zwei", "drei")]
    return [
        row(1, "Was macht der Vorstadn mit Äpfeln?", texts[0]),
        *(row(2 + at, "Worüber?", text) for at, text in enumerate(texts[1:])),
    ]


def test_typos_are_suggested_and_nothing_changes() -> None:
    cleaned = clean(typo_rows(), rules={"typos"})
    assert cleaned.rows == typo_rows()
    assert [(item.word, item.instead, item.contexts) for item in cleaned.suggestions] == [("Vorstadn", "Vorstand", 3)]


def test_typos_are_applied_on_demand() -> None:
    cleaned = clean(typo_rows(), rules={"typos"}, apply_typos=True)
    assert cleaned.rows[0].question == "Was macht der Vorstand mit Äpfeln?"
    assert cleaned.counts()["typos"] == {"changed": 1, "dropped": 0}


def test_words_that_several_questions_have_or_other_forms_are_no_typos() -> None:
    given_rows = typo_rows()
    assert suggest([*given_rows, row(9, "Noch ein Vorstadn?", "Nichts.")]) == []
    assert suggest([row(1, "Wie viele Nummern?", given_rows[0].positives[0].text), *given_rows[1:]]) == []


def test_an_unknown_rule_is_named_with_all_rules() -> None:
    with pytest.raises(BelegError, match=r"no rule spelling.*near-duplicates"):
        clean([], rules={"spelling"})


def test_a_huge_text_and_no_rows() -> None:
    assert clean([]).rows == []
    text = "Wort\t " * 200_000
    cleaned = clean([row(1, "Wie viele?", text + "Ende", "Ende")]).rows[0]
    assert cleaned.answers == (Answer("Ende", 1_000_000),)
