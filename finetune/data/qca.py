"""Records of query, context and answer: the plainest shape, for people who write their data by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import AliasChoices, Field, model_validator

from finetune.data.fields import Contexts, Malformed, Named, Text, Texts, make_row, parse
from finetune.data.schema import Answer, Context, Row

__all__ = ["NEEDS", "is_qca", "qca_json", "qca_row"]

NEEDS = "query (or question), context (or contexts), and answer (or answers) if not the whole context answers"


class _Record(Named):
    query: Text = Field(validation_alias=AliasChoices("query", "question"))
    context: Contexts = Field(validation_alias=AliasChoices("context", "contexts"))
    answer: Texts = Field([], validation_alias=AliasChoices("answer", "answers"))
    negatives: Contexts = Field([])
    hard_negatives: Contexts = Field([])

    @model_validator(mode="after")
    def _has_context(self) -> _Record:
        if not self.context:
            raise ValueError("there is no context")
        return self


def is_qca(record: dict[str, Any]) -> bool:
    """Tell whether the record has the fields of this shape."""
    return bool({"query", "question"} & record.keys()) and bool({"context", "contexts"} & record.keys())


def qca_row(record: object, origin: str) -> Row:
    """Return the record as a row, answers unchecked.

    Raises:
        Malformed: a field is missing or of another type, or the answer is null: that may mean that the context does not answer.
    """
    if isinstance(record, dict):
        for name in ("answer", "answers"):
            if name in record and record[name] is None:
                raise Malformed(
                    name, "null: if the context does not answer the query, it belongs under negatives; else leave it out"
                )
    given = parse(_Record, record)
    return make_row(
        given,
        given.query,
        answers=[Answer(text) for text in given.answer],
        positives=_titled(given.context, given.title),
        negatives=_titled(given.negatives, ""),
        hard_negatives=_titled(given.hard_negatives, ""),
        origin=origin,
    )


def qca_json(row: Row) -> dict[str, Any]:
    """Return the row as such a record, without the places of the answers and the difficulty."""
    first = row.positives[0]
    # Contexts that have titles of their own stand as objects.
    plain = {context.title for context in row.positives} == {first.title}
    contexts: list[Any] = [
        context.text if plain else {"title": context.title, "text": context.text} for context in row.positives
    ]
    answers = [answer.text for answer in row.answers]
    record: dict[str, Any] = {"id": row.id, "query": row.question}
    record |= {"context": contexts[0]} if len(contexts) == 1 else {"contexts": contexts}
    if answers:
        record |= {"answer": answers[0]} if len(answers) == 1 else {"answers": answers}
    if plain and first.title:
        record["title"] = first.title
    for name, negatives in (("negatives", row.negatives), ("hard_negatives", row.hard_negatives)):
        if negatives:
            record[name] = [{"title": one.title, "text": one.text} if one.title else one.text for one in negatives]
    return {**record, "document": row.document, "language": row.language}


def _titled(contexts: list[Any], title: str) -> list[Context]:
    plain = [context.plain() for context in contexts]
    return [context if context.title else replace(context, title=title) for context in plain]
