"""Count and measure rows: how many, how long, how repetitive, how much a question gives away. Knows no picture.

What cannot be read off one number is a quantile: an average length hides the article of twenty thousand words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypedDict

from finetune.data.duplicates import same
from finetune.data.schema import Row
from retriever.analyze import analyze

__all__ = [
    "LENGTHS",
    "NOT_MEASURED",
    "QUANTILES",
    "LengthName",
    "Lengths",
    "Measured",
    "Repeated",
    "Stats",
    "measure",
    "overlap",
    "stats",
]

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
NOT_MEASURED = "not measured"
_MOST = 10
_SHOWN = 120
_WORD = re.compile(r"\w+")

Lengths = dict[str, float]
"""By the name of the quantile: least, p10, p25, median, p75, p90, most."""

_NAMES = ("least", "p10", "p25", "median", "p75", "p90", "most")


LengthName = Literal[
    "question_words",
    "context_words",
    "answer_words",
    "rows_per_document",
    "negatives_per_row",
    "hard_negatives_per_row",
    "overlap",
]

LENGTHS: Mapping[LengthName, str] = {
    "question_words": "Words in a question",
    "context_words": "Words in a context",
    "answer_words": "Words in an answer",
    "rows_per_document": "Questions from one document",
    "negatives_per_row": "Negatives of a row",
    "hard_negatives_per_row": "Hard negatives of a row",
    "overlap": "Share of a question's terms that its context has",
}
"""What there are quantiles of, in words."""


class Repeated(TypedDict):
    """A context that stands in many rows."""

    rows: int
    document: str
    text: str


class Stats(TypedDict):
    """What `stats` counts; lengths are in words."""

    rows: int
    documents: int
    contexts: int
    languages: dict[str, int]
    answers: dict[str, int]
    unanswerable: int
    negatives_per_row: Lengths
    hard_negatives_per_row: Lengths
    rows_per_document: Lengths
    question_words: Lengths
    context_words: Lengths
    answer_words: Lengths
    overlap: Lengths
    difficulty: dict[str, int]
    most_repeated: list[Repeated]


class Measured(TypedDict):
    """One number for each row, answer, document or distinct context: what the pictures are drawn from."""

    question_words: list[int]
    context_words: list[int]
    answer_words: list[int]
    rows_per_document: list[int]
    overlap: list[float]


def stats(rows: Sequence[Row]) -> Stats:
    """Return counts and quantiles of rows; quantiles of nothing are all 0."""
    measured = measure(rows)
    repeated = Counter(same(context.text) for row in rows for context in row.positives)
    shown = {same(context.text): (row.document, context.text) for row in reversed(rows) for context in row.positives}
    texts = {same(context.text) for row in rows for context in (*row.positives, *row.negatives, *row.hard_negatives)}
    answers = [answer for row in rows for answer in row.answers]
    placed = sum(answer.start is not None for answer in answers)
    return Stats(
        rows=len(rows),
        documents=len({row.document for row in rows if row.document}),
        contexts=len(texts),
        languages=dict(sorted(Counter(row.language for row in rows).items(), key=lambda item: (-item[1], item[0]))),
        answers={
            "with_start": placed,
            "without_start": len(answers) - placed,
            "rows_without": sum(not row.answers for row in rows),
        },
        unanswerable=sum(not row.positives for row in rows),
        negatives_per_row=_quantiles([len(row.negatives) for row in rows]),
        hard_negatives_per_row=_quantiles([len(row.hard_negatives) for row in rows]),
        rows_per_document=_quantiles(measured["rows_per_document"]),
        question_words=_quantiles(measured["question_words"]),
        context_words=_quantiles(measured["context_words"]),
        answer_words=_quantiles(measured["answer_words"]),
        overlap=_quantiles(measured["overlap"]),
        difficulty={
            name or NOT_MEASURED: number
            for name in ("easy", "medium", "hard", "")
            if (number := sum(row.difficulty == name for row in rows))
        },
        most_repeated=[
            Repeated(rows=number, document=shown[text][0], text=_short(shown[text][1]))
            for text, number in sorted(repeated.items(), key=lambda item: (-item[1], item[0]))[:_MOST]
            if number > 1
        ],
    )


def measure(rows: Sequence[Row]) -> Measured:
    """Return the numbers that quantiles and pictures are made of."""
    contexts = {context.text for row in rows for context in (*row.positives, *row.negatives, *row.hard_negatives)}
    terms: dict[tuple[str, str], frozenset[str]] = {}
    overlaps = []
    for row in rows:
        if row.positives:
            key = (row.language, row.positives[0].text)
            if key not in terms:
                terms[key] = frozenset(analyze(key[1], row.language))
            overlaps.append(_share(row.question, row.language, terms[key]))
    return Measured(
        question_words=[_words(row.question) for row in rows],
        context_words=sorted(map(_words, contexts)),
        answer_words=[_words(answer.text) for row in rows for answer in row.answers],
        rows_per_document=list(Counter(row.document for row in rows if row.document).values()),
        overlap=overlaps,
    )


def overlap(question: str, context: str, language: str) -> float:
    """Return the share of a question's terms, as keyword search sees them, that its context has: 1 is a gift to BM25.

    >>> overlap("Wer zahlt die Reisen?", "Die Reise zahlt der Verein.", "de")
    1.0
    """
    return _share(question, language, frozenset(analyze(context, language)))


def _share(question: str, language: str, terms: frozenset[str]) -> float:
    asked = set(analyze(question, language))
    return len(asked & terms) / len(asked) if asked else 0.0


def _words(text: str) -> int:
    return len(_WORD.findall(text))


def _quantiles(values: Iterable[float]) -> Lengths:
    import numpy as np

    found = np.quantile([*values] or [0.0], QUANTILES).tolist()
    return {name: round(value, 3) for name, value in zip(_NAMES, found, strict=True)}


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
