"""Terms: identifiers survive, words lose case and endings, languages stay apart."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriever.analyze import analyze, analyze_query


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("12345", ["12345"]),
        ("DSH-2", ["dsh-2", "dsh2", "de:dsh", "2"]),
        ("DSH 2", ["de:dsh", "2"]),
        ("DSH2", ["dsh2"]),
        ("DSH‑2", ["dsh-2", "dsh2", "de:dsh", "2"]),  # U+2011, a hyphen that does not break
        ("§ 12a", ["§12a", "12a"]),
        ("§12a", ["§12a", "12a"]),
        ("§§ 12a, 13", ["§12a", "12a", "13"]),
        ("1.234,56", ["1.234,56", "1", "234", "56"]),
        ("10.1000/xyz", ["10.1000/xyz", "101000xyz", "10", "1000", "de:xyz"]),
        ("v1.0", ["v1.0", "v10", "v1", "0"]),
        ("2024-03-01", ["2024-03-01", "2024", "03", "01"]),
        ("anna@example.org", ["de:anna", "de:exampl", "de:org"]),
        ("E-Mail-Adresse", ["de:mail", "de:adress"]),
        ("A_B", []),
        ("B", ["de:b"]),
        ("", []),
        (" \n\t…!?«»", []),
    ],
)
def test_identifiers(text: str, terms: list[str]) -> None:
    assert analyze(text, "de") == terms


@pytest.mark.parametrize(
    ("language", "text", "terms"),
    [
        ("de", "Die Häuser und das Haus", ["de:haus", "de:haus"]),
        ("en", "The houses and a house", ["en:hous", "en:hous"]),
        ("fr", "maisons", ["fr:maison"]),
        ("und", "Häuser", ["und:häuser"]),
        ("xx", "die Häuser", ["xx:die", "xx:häuser"]),
    ],
)
def test_each_language_has_its_own_terms(language: str, text: str, terms: list[str]) -> None:
    assert analyze(text, language) == terms


def test_identifiers_belong_to_no_language() -> None:
    assert set(analyze("12345 §7", "de")) == set(analyze("12345 §7", "en")) == {"12345", "§7", "7"}


def test_a_query_is_read_in_each_language_without_repetitions() -> None:
    assert analyze_query("Hotel Hotel 7", ["de", "en"]) == ["de:hotel", "7", "en:hotel"]
    assert analyze_query("Hotel", []) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Straße", "STRASSE"),
        ("Häuser", unicodedata.normalize("NFD", "Häuser")),
        ("Ａｂｃ１２", "abc12"),  # full width
        ("ﬁnden", "finden"),  # a ligature, as PDFs have them
        ("don’t", "don't"),
        ("m²", "m2"),
        ("E‐Mail", "e-mail"),
    ],
)
def test_what_is_written_alike_is_alike(one: str, other: str) -> None:
    assert analyze(one, "de") == analyze(other, "de")
    assert analyze(one, "en") == analyze(other, "en")


LETTERS = "abcdefghijklmnopqrstuvwxyzäöüßàâçèéêëîïñôùûæœåøčšžőű0123456789 -._/§'’@,"


@given(st.text(LETTERS), st.sampled_from(["de", "en", "fr", "sv", "hu", "und"]))
def test_case_does_not_matter(text: str, language: str) -> None:
    assert analyze(text.upper(), language) == analyze(text.lower(), language) == analyze(text.casefold(), language)


@given(st.text(), st.sampled_from(["de", "en", "und"]))
def test_any_text_gives_terms_that_an_index_can_split(text: str, language: str) -> None:
    terms = analyze(text, language)
    assert " ".join(terms).split() == terms
    assert all(terms)


@given(st.text(LETTERS), st.sampled_from(["de", "en"]))
def test_a_query_finds_the_text_it_was_copied_from(text: str, language: str) -> None:
    assert set(analyze_query(text, [language])) == set(analyze(text, language))
