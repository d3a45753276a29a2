"""Chunks are exact slices, cover the text, keep to their size and begin at headings."""

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from retriever.chunk import CONTEXT_TOKENS, ChunkSize, chunk, context, passage_text
from retriever.schema import Document, Heading


class Words:
    """Counts words, so that a test can be checked by hand."""

    def token_starts(self, text: str) -> list[int]:
        return [match.start() for match in re.finditer(r"\S+", text)]


class Characters:
    """The other extreme: every character that is not white space is a token."""

    def token_starts(self, text: str) -> list[int]:
        return [match.start() for match in re.finditer(r"\S", text)]


def document(text: str, headings: tuple[Heading, ...] = (), language: str = "de") -> Document:
    return Document("d", "s", "Titel", text, language, "", headings=headings)


def test_whole_sentences_with_overlap() -> None:
    chunks = chunk(document("Eins zwei. Drei vier. Fünf sechs. Sieben acht."), ChunkSize(4, 2), Words())
    assert [piece.text for piece in chunks] == [
        "Eins zwei. Drei vier.",
        "Drei vier. Fünf sechs.",
        "Fünf sechs. Sieben acht.",
    ]


def test_a_heading_begins_a_chunk_and_is_never_overlapped() -> None:
    text = "A\nEins zwei drei vier. Fünf.\nB\nSechs sieben."
    heads = (Heading(1, "A", 0, 1), Heading(2, "B", 29, 30))
    chunks = chunk(document(text, heads), ChunkSize(10, 5), Words())
    assert [(piece.text, piece.headings) for piece in chunks] == [
        ("A\nEins zwei drei vier. Fünf.", ("A",)),
        ("B\nSechs sieben.", ("A", "B")),
    ]


def test_a_short_section_joins_the_next_one() -> None:
    text = "A\nB\nEins zwei drei."
    heads = (Heading(1, "A", 0, 1), Heading(2, "B", 2, 3))
    assert len(chunk(document(text, heads), ChunkSize(8, 0), Words())) == 1


def test_a_sibling_heading_replaces_the_one_before() -> None:
    text = "A eins zwei.\nB drei vier."
    heads = (Heading(2, "A eins zwei.", 0, 12), Heading(2, "B drei vier.", 13, 25))
    assert [piece.headings for piece in chunk(document(text, heads), ChunkSize(4, 0), Words())] == [
        ("A eins zwei.",),
        ("B drei vier.",),
    ]


def test_context_does_not_repeat_the_title() -> None:
    assert context("Reisen", ["Reisen", "Verpflegung"], Words()) == "Reisen > Verpflegung"


def test_a_passage_stands_below_its_place() -> None:
    assert passage_text("Reisen", ("Reisen", "Hotel"), "145 Euro", Words()) == "Reisen > Hotel\n145 Euro"
    assert passage_text("", (), "145 Euro", Words()) == "\n145 Euro"
    long = passage_text("Reise > " + "kosten " * (CONTEXT_TOKENS + 5), ("Hotel",), "145 Euro", Words())
    assert long.split() == ["Reise", ">", *["kosten"] * (CONTEXT_TOKENS - 2), "145", "Euro"]


def test_context_is_cut_where_it_would_crowd_out_the_chunk() -> None:
    assert len(context("Wort " * 100, [], Words()).split()) == CONTEXT_TOKENS


texts = st.text(
    alphabet=st.one_of(st.sampled_from(" .!?\n\tab§1Ü…\u2028\u3000😀e\u0301"), st.characters(exclude_categories=["Cs"]))
)


@given(
    text=texts,
    tokens=st.integers(1, 12),
    overlap=st.integers(0, 12),
    counter=st.sampled_from([Words(), Characters()]),
    language=st.sampled_from(["de", "en", "und"]),
    cuts=st.lists(st.integers(0, 60), max_size=4),
)
def test_any_text(text: str, tokens: int, overlap: int, counter: Words, language: str, cuts: list[int]) -> None:
    heads = tuple(
        Heading(1 + n % 3, text[at : at + 2], at, at + 2) for n, at in enumerate(sorted(set(cuts))) if at + 2 <= len(text)
    )
    chunks = chunk(document(text, heads, language), ChunkSize(tokens, overlap), counter)
    starts = counter.token_starts(text)
    covered: set[int] = set()
    for piece in chunks:
        assert text[piece.start : piece.end] == piece.text
        assert piece.text == piece.text.strip() != ""
        inside = sum(piece.start <= start < piece.end for start in starts)
        assert inside <= tokens or len(piece.text.split()) == 1
        covered.update(range(piece.start, piece.end))
    assert [(a.start, a.end) < (b.start, b.end) for a, b in pairwise(chunks)].count(False) == 0
    assert all(character.isspace() or at in covered for at, character in enumerate(text))
