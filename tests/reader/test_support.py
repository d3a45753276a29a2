"""When an answer is withheld: hand-checkable cases in German and English."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reader.schema import Reason
from reader.support import in_words, missing_from_quotes, strength, unknown_identifiers
from retriever.schema import Hit

Make = Callable[..., Hit]


@pytest.mark.parametrize(
    ("answer", "quote"),
    [
        ("9,40 Euro", "Gäste zahlen 9.40 Euro."),
        ("1.000 Euro", "Höchstens 1000 Euro."),
        ("1,000 euros", "At most 1000 euros."),
        ("12 Minuten", "Warten Sie zwölf Minuten."),
        ("12 minutes", "Wait twelve minutes."),
        ("1 Tag", "Es dauert einen Tag."),
        ("zwölf Minuten", "Warten Sie 12 Minuten."),
        ("20 %", "Ihr gehörten 1974 20 % der Tankstellen."),
        ("12 000 Euro", "Höchstens 12000 Euro im Jahr 2024."),
        ("12000 Euro", "Bis 2024 12 000 Euro."),
        ("3. Mai 2024", "Der Vertrag endet am 3. Mai 2024."),
        ("14:30 Uhr", "Beginn ist 14:30 Uhr."),
        ("Frau Ihde", "Anträge nimmt Frau Ihde an."),
        ("Den Antrag stellt man bei Miriam Fröhlich.", "Miriam Fröhlich leitet die Reisestelle; Antrag genügt."),
        ("Mr Osei", "Books are lent by Mr Osei."),
        ("Ihdes Büro", "Das Büro von Ihde."),
        ("Ja", "Das ist erlaubt."),
        ("Nein.", "Das ist verboten."),
        ("Yes", "You may."),
        ("Binnen zwei Wochen", "Innerhalb von zwei Wochen."),
        ("Das geht. Anträge sind nicht nötig.", "Das geht ohne weiteres, ist also nicht nötig."),
        ("Ihde.", "Anträge nimmt Frau Ihde an."),
        ("in the yard", "Meet in the yard."),
        ("", "Nothing."),
    ],
)
def test_what_the_quote_has_is_supported(answer: str, quote: str) -> None:
    assert missing_from_quotes(answer, "Was?", [quote]) == []


@pytest.mark.parametrize(
    ("answer", "quote", "missing"),
    [
        ("9,50 Euro", "Gäste zahlen 9.40 Euro.", ["9,50"]),
        ("94 Euro", "Gäste zahlen 9.40 Euro.", ["94"]),
        ("940 und 12", "Code 940.", ["12"]),
        ("123", "Gerät 12345.", ["123"]),
        ("am 4. Mai 2024", "Der Vertrag endet am 3. Mai 2024.", ["4"]),
        ("am 3. Juni 2024", "Der Vertrag endet am 3. Mai 2024.", ["Juni"]),
        ("11 Minuten", "Warten Sie zwölf Minuten.", ["11"]),
        ("15 minutes", "Wait fifteen minutes.", ["15"]),
        ("bei Frau Meier", "Anträge nimmt Frau Ihde an.", ["Meier"]),
        ("Meier", "Anträge nimmt Frau Ihde an.", ["Meier"]),
        ("Hamburg.", "The office is in Munich.", ["Hamburg"]),
        ("Das ist Dr. Meier", "Das ist Dr. Ihde.", ["Meier"]),
        ("by Mrs Osei", "Books are lent by Mr Osei.", ["Mrs"]),
        ("E-218", "Error E-217.", ["218", "E-218"]),
    ],
)
def test_what_it_does_not_have_is_missing(answer: str, quote: str, missing: list[str]) -> None:
    assert missing_from_quotes(answer, "Was?", [quote]) == missing


def test_the_question_may_be_repeated_and_quotes_add_up() -> None:
    assert missing_from_quotes("the DSH-2 waits 12 minutes", "What does the DSH-2 do in Harrowick?", ["Wait 12 minutes."]) == []
    assert missing_from_quotes("von 8 bis 18 Uhr", "Wann?", ["Ab 8 Uhr.", "Bis 18 Uhr."]) == []


@given(st.text(max_size=60))
def test_a_quote_supports_itself(text: str) -> None:
    assert missing_from_quotes(text, "", [text]) == []


@given(st.integers(13, 10**9), st.integers(13, 10**9))
def test_another_number_is_never_supported(asked: int, quoted: int) -> None:
    assert missing_from_quotes(str(asked), "", [f"Es sind {quoted} Stück."]) == ([] if asked == quoted else [str(asked)])


@pytest.mark.parametrize(
    ("question", "text", "unknown"),
    [
        ("Wie schwer ist die DSH-1?", "Die DSH-2 wiegt 20 kg.", ["DSH-1"]),
        ("Wie schwer ist die DSH-2?", "Die DSH-2 wiegt 20 kg.", []),
        ("wie schwer ist die dsh-2?", "Die DSH-2 wiegt 20 kg.", []),
        ("Wofür steht E-218 bei der DSH-2?", "DSH-2: E-217 Lichtschranke.", ["E-218"]),
        ("Where is device 12345?", "Device 12346 is in the yard.", ["12345"]),
        ("Where is device 12345?", "Device 12345 is in the yard.", []),
        ("What does § 12a say?", "§ 12 Data. § 12b Else.", ["12a"]),
        ("What happened in 2024?", "Nothing.", []),
        ("Wie lang sind M10-Schrauben?", "Die M10 ist 40 mm lang.", []),
        ("What do 3 people pay?", "Nothing.", []),
    ],
)
def test_unknown_identifiers(make_hit: Make, question: str, text: str, unknown: list[str]) -> None:
    assert unknown_identifiers(question, [make_hit("Other text."), make_hit(text, language="de")]) == unknown


def test_identifiers_in_titles_and_headings_are_known(make_hit: Make) -> None:
    assert unknown_identifiers("Was ist bei der DSH-3 zu tun?", [make_hit("Öl prüfen.", title="Wartung DSH-3")]) == []
    assert unknown_identifiers("Was gilt nach HP-11?", [make_hit("Öl prüfen.", headings=("HP-11",))]) == []


@given(
    question=st.text(max_size=40),
    texts=st.lists(st.tuples(st.text(max_size=40), st.none() | st.floats(-1, 1)), max_size=3),
)
def test_strength_lies_between_nothing_and_one(make_hit: Make, question: str, texts: list[tuple[str, float | None]]) -> None:
    hits = [make_hit(text, dense=dense) for text, dense in texts]
    assert 0 <= strength(question, hits) <= 1


def test_strength_by_hand(make_hit: Make) -> None:
    both = make_hit("The parking lot is behind the house.", dense=0.5)
    assert strength("Where is the parking lot?", [both]) == pytest.approx((0.5 + 1) / 2)
    assert strength("Where is the parking garage?", [both]) == pytest.approx((0.5 + 0.5) / 2)
    assert strength("Where is the parking lot?", [make_hit("Nothing.", dense=0.9), both]) == pytest.approx((0.9 + 1) / 2)
    assert strength("Where?", []) == 0


@pytest.mark.parametrize("reason", get_args(Reason))
def test_reasons_are_told_in_the_questions_language(reason: Reason) -> None:
    german = in_words(reason, "Wie viele Tage Urlaub habe ich im Jahr?")
    english = in_words(reason, "How many days of holiday do I have in a year?")
    assert german != english
    assert {"ich", "die", "nichts"} & set(german.casefold().split())
    assert {"the", "i", "that"} & set(english.casefold().split())
