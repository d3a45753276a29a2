"""The chunk that a row is trained on is the one that holds its answer."""

from __future__ import annotations

import numpy as np
import pytest

from finetune.data.schema import Answer, Context, Row
from finetune.pairs import Finder
from finetune.workspace import Passages, source_of_context
from retriever.metrics import Label
from retriever.schema import document_id

TEXT = "Alpha is one. Beta is two. Gamma is three. Delta is four."
CONTEXT = Context(TEXT, "Greek")
DOCUMENT = document_id(source_of_context(CONTEXT))
SPANS = [(0, 26), (14, 42), (43, 57)]


@pytest.fixture
def finder() -> Finder:
    other = "elsewhere"
    # Stored in another order than they stand in the text.
    documents = [DOCUMENT, other, DOCUMENT, DOCUMENT]
    spans = [SPANS[2], (0, 4), SPANS[0], SPANS[1]]
    texts = [TEXT[slice(*span)] if name == DOCUMENT else "else" for name, span in zip(documents, spans, strict=True)]
    return Finder(Passages(np.arange(4), documents, np.array(spans), texts, texts, np.eye(4, dtype=np.float32)))


def row(*answers: Answer, question: str = "?") -> Row:
    return Row("1", question, answers, (CONTEXT,))


@pytest.mark.parametrize(
    ("start", "end", "wanted"),
    [
        (0, 5, 2),  # only the first chunk has it
        (21, 25, 3),  # two have all of it: it stands nearer the second one's middle
        (40, 50, 0),  # across a border: the one with more of it
        (27, 57, 3),  # longer than any chunk
    ],
)
def test_by_place(finder: Finder, start: int, end: int, wanted: int) -> None:
    assert finder.best(row(), [Label(DOCUMENT, start, end)]) == wanted


def test_all_that_overlap(finder: Finder) -> None:
    assert finder.holding(Label(DOCUMENT, 14, 26)) == [2, 3]
    assert finder.holding(Label(DOCUMENT, 42, 43)) == []  # white space between chunks
    assert finder.holding(Label("unknown", 0, 99)) == []
    assert finder.of_context(CONTEXT) == [2, 3, 0]
    assert finder.of_context(Context(TEXT, "Latin")) == []
    assert finder.best(row(), [Label(DOCUMENT, 42, 43)]) is None


def test_by_words_where_the_place_is_not_said(finder: Finder) -> None:
    whole = [Label(DOCUMENT, 0, len(TEXT), share=0.0)]
    assert finder.best(row(question="What is Delta?"), whole) == 0
    # An answer that stands there counts more than words of the question.
    assert finder.best(row(Answer("Delta  is FOUR"), question="Alpha is one, Beta is two, isn't it?"), whole) == 0
    assert finder.positives([row(question="delta"), Row("2", "?")], {"0": whole}) == [0, None]
