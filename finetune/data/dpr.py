"""Records of dense passage retrieval, as in GermanDPR: question, answers, and contexts that answer it or do not.

What Beleg writes has more: id, document, language, difficulty and the places of the answers. See arXiv 2004.04906.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from finetune.data.fields import Contexts, Named, Text, Texts, make_row, parse
from finetune.data.schema import Answer, Context, Row

__all__ = ["NEEDS", "dpr_json", "dpr_row", "is_dpr"]

NEEDS = "question, answers, positive_ctxs (each with text and title)"


class _Record(Named):
    question: Text
    answers: Texts
    positive_ctxs: Contexts
    negative_ctxs: Contexts = Field([])
    hard_negative_ctxs: Contexts = Field([])
    answer_starts: list[int | None] | None = None

    @model_validator(mode="after")
    def _as_many_starts(self) -> _Record:
        if self.answer_starts is not None and len(self.answer_starts) != len(self.answers):
            raise ValueError(f"{len(self.answer_starts)} answer_starts for {len(self.answers)} answers")
        return self


def is_dpr(record: dict[str, Any]) -> bool:
    """Tell whether the record has the fields of this shape."""
    return "question" in record and "positive_ctxs" in record


def dpr_row(record: object, origin: str) -> Row:
    """Return the record as a row, answers unchecked.

    Raises:
        Malformed: a field is missing or of another type.
    """
    given = parse(_Record, record)
    starts = given.answer_starts or [None] * len(given.answers)
    return make_row(
        given,
        given.question,
        answers=[Answer(text, start) for text, start in zip(given.answers, starts, strict=True)],
        positives=[context.plain() for context in given.positive_ctxs],
        negatives=[context.plain() for context in given.negative_ctxs],
        hard_negatives=[context.plain() for context in given.hard_negative_ctxs],
        origin=origin,
    )


def dpr_json(row: Row) -> dict[str, Any]:
    """Return the row as such a record; nothing but its origin is lost."""
    return {
        "id": row.id,
        "question": row.question,
        "answers": [answer.text for answer in row.answers],
        "answer_starts": [answer.start for answer in row.answers],
        "positive_ctxs": _json(row.positives),
        "negative_ctxs": _json(row.negatives),
        "hard_negative_ctxs": _json(row.hard_negatives),
        "document": row.document,
        "language": row.language,
        "difficulty": row.difficulty,
    }


def _json(contexts: tuple[Context, ...]) -> list[dict[str, str]]:
    return [{"title": context.title, "text": context.text} for context in contexts]
