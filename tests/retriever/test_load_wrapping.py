"""Hard-wrapped lines are joined, and nothing else changes."""

import textwrap

from hypothesis import given
from hypothesis import strategies as st

from retriever.load.wrapping import unwrap


def test_a_wrapped_paragraph_becomes_one_line() -> None:
    text = (
        "Teilzeitkräfte erhalten den Umfang anteilig, aufgerundet auf volle Tage, und das in jedem Monat des Jahres von neuem."
    )
    assert unwrap(textwrap.fill(text, 50)) == text


def test_lists_tables_addresses_and_headings_keep_their_lines() -> None:
    for text in (
        "Mitzubringen sind zur Unterweisung in der Werkhalle:\n- Sicherheitsschuhe der Klasse S3, knöchelhoch, mit Kappe",
        "05:52  The monitoring reports that SRV-0417 no longer answers at all.\n06:10  The early shift calls the number.",
        "Wendelbruck GmbH\nAm Wehr 4\n12345 Lauterhausen",
        "§ 3 Umfang der mobilen Arbeit und ihre Grenzen im Einzelnen\n\nBeschäftigte dürfen mobil arbeiten.",
    ):
        assert unwrap(text) == text


@given(st.text(alphabet=st.sampled_from("ab \n-1."), max_size=400))
def test_only_line_breaks_become_spaces(text: str) -> None:
    after = unwrap(text)
    assert len(after) == len(text)
    assert all(a == b or (a, b) == ("\n", " ") for a, b in zip(text, after, strict=True))
