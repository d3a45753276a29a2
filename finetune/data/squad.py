"""SQuAD: articles of paragraphs with questions (version 1 and 2), or one question a record, as the hub has them.

See arXiv 1606.05250, and arXiv 1806.03822 for questions that the paragraph does not answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator

from finetune.data.fields import Malformed, Name, Named, Text, make_row, parse, short_hash, unzipped
from finetune.data.lines import LINE
from finetune.data.schema import Answer, Context, Row

__all__ = ["NEEDS", "flatten", "is_squad", "squad_json", "squad_row"]

NEEDS = "data, paragraphs, qas; or a record each: question, context, answers (with text and answer_start)"


class _Answer(BaseModel):
    text: Text
    answer_start: int | None = None


class _Record(Named):
    question: Text
    context: Text
    answers: Annotated[list[_Answer], BeforeValidator(unzipped)]
    is_impossible: bool = False
    document_id: Name = ""


def is_squad(record: dict[str, Any]) -> bool:
    """Tell whether the record is an article or a question of this shape."""
    if isinstance(record.get("paragraphs"), list) or isinstance(record.get("data"), list):
        return True
    answers = record.get("answers")
    objects = isinstance(answers, dict) or (isinstance(answers, list) and any(isinstance(one, dict) for one in answers))
    return {"question", "context", "answers"} <= record.keys() and (objects or "is_impossible" in record)


def flatten(record: Any, line: int) -> Iterator[tuple[int, Any] | Malformed]:
    """Yield the questions of an article as records of their own, with their lines; a record that is no article as it is."""
    if not isinstance(record, dict) or not {"data", "paragraphs"} & record.keys():
        yield line, record
        return
    within = "data" if "data" in record else "paragraphs"
    if not isinstance(record[within], list):
        yield Malformed(within, "not a list")
        return
    if within == "data":
        for article in record["data"]:
            yield from flatten(article, line)
        return
    paragraphs = record["paragraphs"]
    contexts = (paragraph.get("context") for paragraph in paragraphs if isinstance(paragraph, dict))
    first = next((context for context in contexts if isinstance(context, str)), "")
    names = ("document", "title", "document_id", "language")
    article = {name: record[name] for name in names if record.get(name) is not None}
    for paragraph in paragraphs:
        if not isinstance(paragraph, dict) or not isinstance(paragraph.get("qas"), list):
            yield Malformed("paragraphs.qas", "missing")
            continue
        own = {name: paragraph[name] for name in (*names, "context") if paragraph.get(name) is not None}
        for question in paragraph["qas"]:
            named = {"document": short_hash(first), **article, **own}
            if "document" not in {**article, **own}:
                named["document"] = str(article.get("title") or named.get("document_id") or named["document"])
            if isinstance(question, dict):
                at = question.get(LINE, line)
                yield at if isinstance(at, int) else line, {**named, **{key: question[key] for key in question if key != LINE}}
            else:
                yield line, question


def squad_row(record: object, origin: str) -> Row:
    """Return the flat record as a row, answers unchecked; a paragraph that does not answer becomes a hard negative.

    Raises:
        Malformed: a field is missing or of another type.
    """
    given = parse(_Record, record)
    context = Context(given.context, given.title)
    given.document = given.document or given.title or given.document_id
    answered = bool(given.answers) and not given.is_impossible
    return make_row(
        given,
        given.question,
        answers=[Answer(answer.text, answer.answer_start) for answer in given.answers] if answered else (),
        positives=[context] if answered else (),
        hard_negatives=() if answered else [context],
        origin=origin,
    )


def squad_json(rows: Iterable[Row]) -> dict[str, Any]:
    """Return rows as version 2 of the shape: each needs a place of an answer, or no positive and a hard negative."""
    articles = []
    for (document, title), group in _grouped(rows, lambda row: (row.document, _context(row).title)):
        paragraphs = [
            {"context": text, "qas": [_question(row) for row in asked]}
            for text, asked in _grouped(group, lambda row: _context(row).text)
        ]
        articles.append({"title": title, "document": document, "paragraphs": paragraphs})
    return {"version": "v2.0", "data": articles}


def _question(row: Row) -> dict[str, Any]:
    answers = [{"text": answer.text, "answer_start": answer.start} for answer in row.answers if answer.start is not None]
    return {
        "id": row.id,
        "question": row.question,
        "answers": answers,
        "is_impossible": not row.positives,
        "language": row.language,
    }


def _context(row: Row) -> Context:
    return (row.positives or row.hard_negatives)[0]


def _grouped(rows: Iterable[Row], key: Any) -> list[tuple[Any, list[Row]]]:
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.items())
