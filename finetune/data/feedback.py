"""What people said of answers, as Beleg's server writes it: good answers and corrections become rows.

An answer that was found good teaches that the passage it quotes answers the question. One that was found bad teaches
something only if the person said where the answer stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any, Literal

from pydantic import BaseModel

from finetune.data.fields import Name, Named, Text, make_row, parse
from finetune.data.schema import Answer, Context, Row

__all__ = ["NEEDS", "feedback_row", "is_feedback"]

NEEDS = "question, verdict (good or bad), quotes, hits, correction"

_SHARED = 40
"""A passage that shares a run of so many code points with a correction may hold part of the answer: it is no negative."""


class _Span(BaseModel):
    document: Name
    source: Name = ""
    title: Name = ""
    start: int
    end: int
    text: Text

    def within(self, other: _Span) -> bool:
        return self.document == other.document and other.start <= self.start and self.end <= other.end

    def overlaps(self, other: _Span) -> bool:
        return self.document == other.document and self.start < other.end and other.start < self.end


class _Correction(BaseModel):
    source: Name = ""
    text: Text


class _Record(BaseModel):
    question: Text
    verdict: Literal["good", "bad"]
    quotes: list[_Span] = []
    hits: list[_Span] = []
    correction: _Correction | None = None


def is_feedback(record: dict[str, Any]) -> bool:
    """Tell whether the record has the fields of this shape."""
    return {"question", "verdict"} <= record.keys()


def feedback_row(record: object, origin: str) -> Row | str:
    """Return the record as a row, or why nothing can be learnt from it.

    Raises:
        Malformed: a field is missing or of another type.
    """
    given = parse(_Record, record)
    if given.verdict == "good":
        return _confirmed(given, origin)
    if given.correction is None or not given.correction.text.strip():
        return "found bad, and no correction says what is right"
    return _corrected(given, given.correction, origin)


def _confirmed(given: _Record, origin: str) -> Row | str:
    proofs = [(quote, hit) for quote in given.quotes for hit in given.hits if quote.within(hit)]
    if not proofs:
        return "found good, but no quote stands in a hit"
    golden = list({id(hit): hit for _, hit in proofs}.values())
    first = golden[0]
    answers = {(quote.text, quote.start - first.start): None for quote in given.quotes if quote.within(first)}
    return make_row(
        Named(document=first.source or first.document),
        given.question,
        answers=[Answer(text, start) for text, start in answers],
        positives=_contexts(golden),
        hard_negatives=_contexts(
            [hit for hit in given.hits if not any(hit.overlaps(span) for span in (*golden, *given.quotes))]
        ),
        origin=origin,
    )


def _corrected(given: _Record, correction: _Correction, origin: str) -> Row:
    title = next((hit.title for hit in given.hits if correction.source and hit.source == correction.source), "")
    others = [hit for hit in given.hits if not _shares(hit.text, correction.text)]
    return make_row(
        Named(document=correction.source),
        given.question,
        positives=[Context(correction.text, title)],
        hard_negatives=_contexts(others),
        origin=origin,
    )


def _shares(hit: str, correction: str) -> bool:
    one, other = " ".join(hit.split()), " ".join(correction.split())
    if other in one or (one and one in other):
        return True
    return SequenceMatcher(None, one, other, autojunk=False).find_longest_match().size >= _SHARED


def _contexts(spans: Sequence[_Span]) -> list[Context]:
    return list(dict.fromkeys(Context(span.text, span.title) for span in spans))
