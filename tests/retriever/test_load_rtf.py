"""RTF: what a word processor shows of it, whatever its groups and control words do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriever.load.normal import Unreadable, normalise
from retriever.load.rtf import read

LETTER = rb"""{\rtf1\ansi\ansicpg1252\deff0{\fonttbl{\f0\fnil Calibri;}{\f1\fcharset204 Arial;}}{\colortbl;\red0\green0\blue0;}
{\stylesheet{\ql Normal;}{\s1\outlinelevel0 Gliederung;}{\s5\'dcberschrift 2;}{\*\cs10 Default;}}
{\info{\title Reklamation}{\author Eva M\'fcller}{\creatim\yr2023\mo1\dy2}{\revtim\yr2024\mo5\dy3\hr10\min1}}
{\header Kopfzeile}{\*\generator Riched20 10.0;}
\pard\s1 Reklamation von Lieferungen\par
\pard\s5 Ablauf\par\pard Die R\'fcge{\footnote \chftn  Siehe \'a7 377 HGB.} geht\line
an \u8364? und \u-10179?\u-8704? weiter.{\v geheim}{\deleted alt}\par
{\pard{\listtext\'b7\tab}Eins\par}{\pard{\listtext 2.\tab}Zwei\par}
\trowd\cellx1\cellx2\intbl Stufe\cell Tage\par in Summe\cell\row \trowd\intbl A\cell 25\cell\row
\pard {\f1 \'cc\'e8\'f0} {\field{\*\fldinst HYPERLINK "https://example.org"}{\fldrslt Verweis}}
\bin5 }}}}}ok.{\pict\bin3 {{{89504e47}\par}"""


def test_a_letter_is_read_as_it_is_shown() -> None:
    extract = read(LETTER)
    assert extract.text == (
        "Reklamation von Lieferungen\n\nAblauf\n\nDie Rüge geht\nan € und 😀 weiter.\n\nSiehe § 377 HGB.\n\n- Eins\n2. Zwei\n\n"
        "Stufe | Tage in Summe\nA | 25\n\nМир Verweisok."
    )
    assert [(h.level, extract.text[h.start : h.end]) for h in extract.headings] == [
        (1, "Reklamation von Lieferungen"),
        (2, "Ablauf"),
    ]
    assert (extract.title, extract.metadata) == ("Reklamation", {"author": "Eva Müller", "date": "20240503"})


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (rb"{\rtf1 a}}}}} b{}", "a"),
        (rb"{\rtf1\ansicpg99999 \'e4}", "ä"),
        (rb"{\rtf1\mac \'8a}", "ä"),
        (rb"{\rtf1\uc2 \u228 xyz}", "äz"),
        (rb"{\rtf1\u-10179?x}", "\ufffdx"),
        (rb"{\rtf1{\fonttbl{\f3\fcharset128 X;}}\f3 \'93\'fa\'96\'7b}", "日本"),
        (rb"{\rtf1 a\~b\_c\-d\{e\}\\f}", "a b\u2011cd{e}\\f"),
        (rb"{\rtf1\outlinelevel9 Text\par}", "Text"),
        (rb"{\rtf1 a{\*\unknown weg{noch \b mehr}}b}", "ab"),
        (rb"{\rtf1{\shp{\*\shpinst{\sp{\sn x}{\sv 1}}{\shptxt Kasten\par}}}Text\par}", "Text\n\nKasten"),
        (rb"{\rtf1 " + b"{" * 3000 + b"tief" + b"}" * 3000 + b"}", "tief"),
        (rb"{\rtf1}", ""),
    ],
)
def test_whatever_it_does_it_is_read(source: bytes, text: str) -> None:
    assert read(source).text == text


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (b"Kein RTF", "no RTF"),
        (b"x{\\rtf1 a}", "no RTF"),
        (LETTER[:-200], "ends in its middle"),
        (rb"{\rtf1{{{ a}", "ends in its middle"),
        (rb"{\rtf1\bin999999999 a}", "ends in its middle"),
    ],
)
def test_what_is_cut_off_or_none_is_refused(source: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason) as caught:
        read(source)
    assert caught.value.way_out


WORDS = (
    rb"{ } \par \bin4 \u-9999? \'e4 \* \footnote \s1 \cell \row \stylesheet \f1 \fcharset128 \uc-3 \outlinelevel-5 \s999999999 "
    rb"\yr-1 \revtim \intbl \listtext \v \title text \x"
).split(b" ")


@given(st.lists(st.sampled_from(WORDS) | st.binary(max_size=4), max_size=40))
def test_any_words_are_a_text_or_a_refusal(words: list[bytes]) -> None:
    try:
        extract = read(b"{\\rtf1 " + b" ".join(words) + b"}")
    except Unreadable:
        return
    assert normalise(extract.text) == extract.text
    assert all(extract.text[h.start : h.end] == h.text and 1 <= h.level <= 6 for h in extract.headings)
