"""What the reader gives back: quotes, answers, and why there is none. Plain frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from retriever.schema import Hit, hit_json

__all__ = ["Answer", "Quote", "Reason", "Turn", "answer_json"]

Reason = Literal["nothing_found", "weak_retrieval", "not_in_passages", "unproven", "unsupported", "changed"]
"""Why an answer was withheld.

nothing_found: no passage at all. weak_retrieval: the passages are too far from the question. not_in_passages: the model
says that they do not answer it. unproven: no quote could be proven. unsupported: the answer says something that its quotes
do not. changed: while it was made, what it quotes was taken out of the document, twice.
"""


@dataclass(frozen=True, slots=True)
class Quote:
    """Words of a document, verbatim: `text == document.text[start:end]`, checked after the answer was made.

    `start` and `end` count Unicode code points in the document's text; `page` is the one that `start` lies on.
    """

    document: str
    source: str
    title: str
    page: int | None
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Turn:
    """An earlier question of the same conversation and its answer."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with its proof, or an abstention with its reason.

    Attributes:
        answer: for people, in the question's language; says so where the documents do not tell.
        abstained: True if the documents do not answer the question, as far as Beleg can prove.
        reason: why it abstained, else None.
        quotes: at least one, unless abstained.
        hits: the passages that were looked at, best first.
        reasoning: what the model wrote before its answer, quotes included.
        notes: what was left out on the way, in words.
        release: id of the encoder, index, prompt and reader that made this, together.
        timings: seconds, by step.
        query: what was searched for: the question, made self-contained if it followed up on others.
        cached: it was made for somebody who asked the same before, and nothing has changed since.
    """

    answer: str
    abstained: bool
    reason: Reason | None
    quotes: tuple[Quote, ...]
    hits: tuple[Hit, ...]
    reasoning: str
    notes: tuple[str, ...]
    release: str
    timings: Mapping[str, float] = field(default_factory=dict)
    query: str = ""
    cached: bool = False


def answer_json(answer: Answer) -> dict[str, object]:
    """Return an answer as other programs see it, over HTTP and on the command line."""
    return {
        "answer": answer.answer,
        "abstained": answer.abstained,
        "reason": answer.reason,
        "quotes": [asdict(quote) for quote in answer.quotes],
        "hits": [hit_json(hit) for hit in answer.hits],
        "reasoning": answer.reasoning,
        "notes": list(answer.notes),
        "release": answer.release,
        "timings": dict(answer.timings),
        "query": answer.query,
        "cached": answer.cached,
    }
