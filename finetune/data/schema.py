"""What training data is, whatever shape it came in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Answer", "Context", "Difficulty", "Row"]

Difficulty = Literal["", "easy", "medium", "hard"]


@dataclass(frozen=True, slots=True)
class Context:
    """A text that answers come from, or do not: a paragraph, a passage, a whole article."""

    text: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer in words.

    Attributes:
        start: where it stands in the row's first positive context, in code points; None if it is not said, or not there.
    """

    text: str
    start: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A question, what answers it, and what does not.

    Attributes:
        id: of the question; translations of one question may share it.
        answers: may be empty, as in BEIR folders, where whole contexts are relevant.
        positives: contexts that answer it, the one that `answers` point into first; empty if nothing answers it.
        negatives: contexts given as easy ones to tell apart.
        hard_negatives: contexts given as hard ones.
        document: what the contexts were cut from; rows of one document never fall on two sides of a split.
        language: ISO 639-1 code, `und` where it is not known.
        origin: file and line that it came from.
        difficulty: how hard the positive is to find, once `finetune.data.balance` has measured it.
    """

    id: str
    question: str
    answers: tuple[Answer, ...] = ()
    positives: tuple[Context, ...] = ()
    negatives: tuple[Context, ...] = ()
    hard_negatives: tuple[Context, ...] = ()
    document: str = ""
    language: str = "und"
    origin: str = ""
    difficulty: Difficulty = ""
