"""What a model knows apart from any passages: multiple-choice questions, before and after training. Knows no documents.

A model that was tuned to quote may forget what it knew. The questions are those of the AI2 Reasoning Challenge (ARC, arXiv
1803.05457) or any file of their form; the answer is one label, forced by a grammar where the engine obeys one.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from finetune.data.fields import Malformed, Name, Text, parse, unzipped
from finetune.data.lines import Problem, read_lines
from finetune.reading import chat
from reader.answering import Reader
from reader.engine.base import never
from retriever.errors import BelegError

__all__ = ["Accuracy", "Choice", "accuracy", "choose", "first_label", "read_choices"]

_SYSTEM = "You answer multiple-choice questions. Write only the label of the right choice, and nothing else."
_TOKENS = 12
"""Room for a label; a model that talks first is read as far as this."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A multiple-choice question.

    Attributes:
        choices: label and text of each.
        right: label of the right one.
    """

    id: str
    question: str
    choices: tuple[tuple[str, str], ...]
    right: str


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A share with its 95% interval (Clopper and Pearson, Biometrika 1934)."""

    right: int
    asked: int
    value: float
    low: float
    high: float


def read_choices(path: Path, *, limit: int | None = None, seed: int = 0) -> list[Choice]:
    """Read a file in the form of ARC: `{"question": {"stem", "choices": [{"label", "text"}]}, "answerKey"}` a line.

    The flat form of the hub is read too: `{"question", "choices": {"text": [], "label": []}, "answerKey"}`.

    Args:
        limit: at most so many, drawn by the seed.

    Raises:
        BelegError: the file cannot be read or holds no question, or a line is malformed; the message names line and field.
    """
    found: dict[str, Choice] = {}
    for item in read_lines(path):
        if isinstance(item, Problem):
            raise BelegError(f"{item.origin}: {item.message}.", way_out="Mend the line, or take it out.")
        number, record = item
        try:
            one = _choice(record, f"line {number}")
        except Malformed as error:
            field = f"{error.field}: " if error.field else ""
            raise BelegError(
                f"{path}, line {number}: {field}{error}.", way_out="See examples/arc for the form that is read."
            ) from error
        if one.id in found:
            raise BelegError(f"{path}, line {number}: the id {one.id} is there twice.", way_out="Give each an id of its own.")
        found[one.id] = one
    if not found:
        raise BelegError(f"{path} holds no question.", way_out="See examples/arc for the form that is read.")
    ids = list(found)
    if limit is not None and limit < len(ids):
        chosen = set(random.Random(seed).sample(ids, limit))
        ids = [key for key in ids if key in chosen]
    return [found[key] for key in ids]


def choose(reader: Reader, one: Choice) -> str:
    """Return the label that a reader chooses; "" if it writes none.

    Raises:
        BelegError: the reader failed.
    """
    labels = [label for label, _ in one.choices]
    question = "\n".join((one.question, *(f"{label}. {text}" for label, text in one.choices), "Label:"))
    engine = reader.engine
    rules = "start: " + " | ".join(json.dumps(label, ensure_ascii=False) for label in labels) if engine.constrained else None
    prompt = chat(reader, _SYSTEM, question)
    said = "".join(engine.generate(prompt, grammar=rules, max_tokens=_TOKENS, cancelled=never))
    return first_label(said, labels)


def first_label(said: str, labels: Sequence[str]) -> str:
    """Return the first label that stands alone in a text, or "".

    >>> first_label("Because (B) is", ["A", "B"]), first_label("A banana", ["A", "B"]), first_label("Blue", ["A", "B"])
    ('B', 'A', '')
    """
    found = re.search(rf"(?<!\w)(?:{'|'.join(map(re.escape, sorted(labels, key=len, reverse=True)))})(?!\w)", said)
    return found.group() if found else ""


def accuracy(right: Sequence[bool]) -> Accuracy:
    """Return the share of right answers with its interval.

    >>> accuracy([True] * 3 + [False])
    Accuracy(right=3, asked=4, value=0.75, low=0.1941, high=0.9937)
    """
    from scipy.stats import binomtest

    if not right:
        raise BelegError("No multiple-choice question was asked.")
    interval = binomtest(sum(right), len(right)).proportion_ci(0.95)
    low, high = round(float(interval.low), 4), round(float(interval.high), 4)
    return Accuracy(sum(right), len(right), sum(right) / len(right), low, high)


class _Option(BaseModel):
    model_config = ConfigDict(strict=True)

    label: Name
    text: Text


_Options = Annotated[list[_Option], BeforeValidator(unzipped), Field(min_length=2)]


class _Stem(BaseModel):
    stem: Text
    choices: _Options


class _Nested(BaseModel):
    id: Name = ""
    question: _Stem
    answerKey: Name  # noqa: N815 - the file's own name


class _Flat(BaseModel):
    id: Name = ""
    question: Text
    choices: _Options
    answerKey: Name  # noqa: N815


def _choice(record: object, place: str) -> Choice:
    if isinstance(record, dict) and isinstance(record.get("question"), dict):
        nested = parse(_Nested, record)
        name, question, options, right = nested.id, nested.question.stem, nested.question.choices, nested.answerKey
    else:
        flat = parse(_Flat, record)
        name, question, options, right = flat.id, flat.question, flat.choices, flat.answerKey
    if not question.strip():
        raise Malformed("question", "empty")
    labels = [option.label for option in options]
    if len(set(labels)) < len(labels) or "" in labels:
        raise Malformed("choices", "each needs a label of its own")
    if right not in labels:
        raise Malformed("answerKey", f"{right!r} is none of {', '.join(labels)}")
    return Choice(name or place, question.strip(), tuple((option.label, option.text) for option in options), right)
