"""Normal form: what every document's text must satisfy, whatever came in."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from retriever.load.html import render
from retriever.load.hyphens import Hyphens
from retriever.load.layout import compose
from retriever.load.lines import Line
from retriever.load.markdown import read as read_markdown
from retriever.load.normal import Extract, normalise
from retriever.load.text import read as read_text

# Surrogates too: they come out of file names and of damaged encoders.
ANY_TEXT = st.text(alphabet=st.characters(), max_size=200)
TOKENS = [
    *("<h1>", "</h1>", "<h2>", "<p>", "</p>", "<li>", "<ul>", "</ul>", "<ol>", "<pre>", "</pre>", "<br>", "<div>", "<b>"),
    *("<table>", "<tr>", "<td>", "</td>", "</tr>", "</table>", "</div>", "&amp;", "&nbsp;", "&#0;", "\n", "\n\n", " "),
    *("# ", "## ", "- ", "1. ", "| a | b |\n|---|---|\n", "```", "> ", "**"),
]
MARKUP = st.lists(
    st.one_of(
        st.sampled_from(TOKENS),
        ANY_TEXT,
    ),
    max_size=30,
).map("".join)


def holds(extract: Extract) -> None:
    text = extract.text
    assert normalise(text) == text
    for heading in extract.headings:
        assert text[heading.start : heading.end] == heading.text
        assert heading.text.strip()
    starts = [heading.start for heading in extract.headings]
    assert starts == sorted(starts)
    assert list(extract.pages) == sorted(extract.pages)
    assert all(0 <= page <= len(text) for page in extract.pages)
    assert not extract.pages or extract.pages[0] == 0


@given(ANY_TEXT)
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert "\0" not in once
    assert "\r" not in once
    assert "\n\n\n" not in once
    assert "\xad" not in once
    assert unicodedata.is_normalized("NFC", once)
    once.encode("utf-8")


@given(MARKUP)
def test_any_html_gives_normal_text_with_exact_headings(source: str) -> None:
    holds(render(source))


@given(MARKUP)
def test_any_markdown_gives_normal_text_with_exact_headings(source: str) -> None:
    # Controls make it binary, which is refused elsewhere.
    printable = "".join(character for character in source if character.isprintable() or character == "\n")
    holds(read_markdown(printable.encode("utf-8", "replace")))


@given(st.lists(ANY_TEXT.map(lambda text: "".join(filter(str.isprintable, text))), max_size=5))
def test_any_text_with_form_feeds_has_a_page_for_each(sheets: list[str]) -> None:
    extract = read_text("\f".join(sheets).encode("utf-8", "replace"))
    holds(extract)
    assert len(extract.pages) == (len(sheets) if len(sheets) > 1 else 0)


lines = st.builds(
    Line,
    text=st.sampled_from(["Ein Satz.", "ver-", "sicherung", "• Punkt", "1. Teil", "12 345", "(1)", "____", "und so"]),
    page=st.just(0),
    left=st.floats(0, 500),
    right=st.floats(0, 500),
    bottom=st.floats(0, 800),
    top=st.floats(0, 800),
    cells=st.integers(1, 4),
    bold=st.booleans(),
)


@given(st.lists(st.lists(lines, max_size=8), max_size=5))
def test_any_lines_anywhere_give_normal_text_and_a_page_each(pages: list[list[Line]]) -> None:
    numbered = [
        [Line(x.text, n, x.left, x.right, x.bottom, x.top, x.cells, x.bold) for x in page] for n, page in enumerate(pages)
    ]
    extract = compose(numbered)
    holds(extract)
    assert len(extract.pages) == len(pages)


def test_a_hyphen_goes_or_stays_as_the_document_writes_the_word() -> None:
    hyphens = Hyphens(["Die Versicherung zahlt.", "a land-grant university"])
    assert hyphens.join("eine Ver-", "sicherung") == "eine Versicherung"
    assert hyphens.join("a land-", "grant law") == "a land-grant law"
    assert hyphens.join("Haus-", "und Hofordnung") == "Haus- und Hofordnung"
    assert hyphens.join("eine E-", "Mail") == "eine E-Mail"
    assert hyphens.join("von 1 -", "bis 2") == "von 1 - bis 2"
