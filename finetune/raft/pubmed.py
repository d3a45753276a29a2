"""PubMedQA (arXiv 1909.06146): questions of papers' titles, an abstract without its conclusion, and yes, no or maybe.

The data names no evidence. By rule it is the sentence of the results that shares most words with the authors' conclusion.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from finetune.data.fields import Malformed, Text, parse
from finetune.data.lines import Problem
from finetune.data.schema import Answer, Context, Row
from retriever.analyze import analyze
from retriever.errors import BelegError
from retriever.sentences import sentences

__all__ = ["is_pubmed", "read_pubmed"]

_LEAST_SHARED = 3
"""Terms that a sentence must share with the conclusion to be evidence for it."""

_TELLING = ("RESULT", "CONCLUSION", "FINDING")


class _Record(BaseModel):
    question: Text = Field(alias="QUESTION")
    contexts: list[Text] = Field(alias="CONTEXTS", min_length=1)
    labels: list[Text] = Field([], alias="LABELS")
    conclusion: Text = Field(alias="LONG_ANSWER")
    decision: Text = Field(alias="final_decision", pattern="^(yes|no|maybe)$")


def is_pubmed(path: Path) -> bool:
    """Tell whether a file is an object of such records, by its beginning."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            head = file.read(4096)
    except (OSError, UnicodeDecodeError):
        return False
    return path.suffix.lower() == ".json" and '"QUESTION"' in head and '"CONTEXTS"' in head


def read_pubmed(path: Path) -> tuple[list[tuple[Row, tuple[int, int]]], list[Problem]]:
    """Return rows, each with where its evidence stands in its first positive, and what is wrong with the others.

    Raises:
        BelegError: the file cannot be read, or is no JSON object.
    """
    try:
        records: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise BelegError(f"{path} cannot be read: {error}.", way_out="Name the data as it was published.") from error
    if not isinstance(records, dict):
        raise BelegError(f"{path} is no JSON object.", way_out="Name the data as it was published.")
    rows, problems = [], []
    for name, record in records.items():
        origin = f"{path}, {name}"
        try:
            given = parse(_Record, record)
        except Malformed as error:
            problems.append(Problem(origin, error.field, error.message, fatal=True))
            continue
        found = _evidence(given)
        if found is None:
            why = "no sentence of its contexts shares enough words with its conclusion"
            problems.append(Problem(origin, "CONTEXTS", why, fatal=False, kind="unused"))
            continue
        number, span = found
        contexts = [given.contexts[number], *given.contexts[:number], *given.contexts[number + 1 :]]
        row = Row(
            id=str(name),
            question=given.question,
            answers=(Answer(given.decision),),
            positives=tuple(Context(text) for text in contexts),
            document=str(name),
            language="en",
            origin=origin,
        )
        rows.append((row, span))
    return rows, problems


def _evidence(given: _Record) -> tuple[int, tuple[int, int]] | None:
    wanted = set(analyze(f"{given.conclusion} {given.question}", "en"))
    telling = [
        number for number, label in enumerate(given.labels[: len(given.contexts)]) if any(map(label.upper().count, _TELLING))
    ]
    best: tuple[float, int, tuple[int, int]] | None = None
    for number in telling or range(len(given.contexts)):
        text = given.contexts[number]
        for start, end in sentences(text, "en"):
            terms = set(analyze(text[start:end], "en"))
            shared = len(terms & wanted)
            score = shared / math.sqrt(len(terms)) if terms else 0.0
            if shared >= _LEAST_SHARED and (best is None or score > best[0]):
                best = (score, number, (start, end))
    return (best[1], best[2]) if best else None
