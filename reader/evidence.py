"""Which sentences of the passages are likely to answer the question, by the retriever's means alone.

A small reader chooses badly among sentences, and this says which ones it may quote. It knows no language model.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reader.quotes import Span
from retriever.analyze import analyze, analyze_query
from retriever.encode import Encoder
from retriever.schema import Hit
from retriever.sentences import sentences

__all__ = ["Evidence", "holding", "rank"]

# Measured in docs/log.md. The first three by logistic regression over 31,244 sentences of XQuAD-de, XQuAD-en and COVID-QA,
# where the best sentence holds the answer in .72, .81 and .44 of the questions. Those have no headings: the fourth, and
# leaving headings out, were chosen on the calibration half of the examples, where they raised it from .43 to .57.
_HIT, _COSINE, _OWN, _ABOVE = 3.0, 1.0, 2.0, 2.0

_NUMBERING = re.compile(r"^(?:§+\s*)?[\d.]+\w?\b\s*")
_ENDS = re.compile(r"[.!:;][\"”“’»)\]]*$")


@dataclass(frozen=True, slots=True)
class Evidence:
    """A sentence of a passage, and how well it fits the question: higher is better, comparable within one list only."""

    span: Span
    score: float


@dataclass(frozen=True, slots=True)
class _Sentence:
    span: Span
    hit: Hit
    text: str
    own: frozenset[str]  # the question's terms that it has
    above: frozenset[str]  # those that only its document's title and headings have


def rank(question: str, hits: Sequence[Hit], encoder: Encoder) -> list[Evidence]:
    """Return the sentences of the passages, best first; headings and questions are no evidence and are left out.

    The score adds up how good the passage is, the cosine of question and sentence, and the share of the question's terms that
    the sentence has, or that its title and headings have for it; rare terms weigh more.
    """
    asked = set(analyze_query(question, sorted({hit.language for hit in hits})))
    found = [item for number, hit in enumerate(hits, start=1) for item in _sentences(number, hit, asked)]
    if not found:
        return []
    count = Counter(term for item in found for term in item.own | item.above)
    weight = {term: math.log(1 + (len(found) - n + 0.5) / (n + 0.5)) for term, n in count.items()}
    # Terms that occur nowhere are left out of the whole, or a question in another language would make all look weak.
    whole = sum(weight.values()) or 1.0
    cosines = encoder.encode_passages([item.text for item in found]) @ encoder.encode_query(question)
    ranked = [
        Evidence(
            item.span,
            _HIT * item.hit.score
            + _COSINE * float(cosine)
            + _OWN * sum(weight[term] for term in item.own) / whole
            + _ABOVE * sum(weight[term] for term in item.above) / whole,
        )
        for item, cosine in zip(found, cosines, strict=True)
    ]
    return sorted(ranked, key=lambda evidence: -evidence.score)


def holding(answer: str, ranked: Iterable[Evidence], hits: Sequence[Hit]) -> Span | None:
    """Return the first sentence that has an answer as words of its own; None if none has.

    Capitals count only where a sentence with the very words is missing.

    Args:
        ranked: as `rank` gives it.
    """
    words = answer.strip(" .,;:!?")
    if not words:
        return None
    folded = None
    pattern = re.compile(rf"(?<!\w){re.escape(words)}(?!\w)", re.IGNORECASE)
    for item in ranked:
        hit = hits[item.span.passage - 1]
        found = pattern.search(hit.text, item.span.start, item.span.end)
        if found and found[0] == words:
            return item.span
        folded = folded or (item.span if found else None)
    return folded


def _sentences(number: int, hit: Hit, asked: set[str]) -> list[_Sentence]:
    found = []
    heading = ""
    for start, end in sentences(hit.text, hit.language):
        text = hit.text[start:end]
        if text in (hit.title, *hit.headings) or _only_announces(text):
            heading = text
            continue
        own = asked.intersection(analyze(text, hit.language))
        above = asked.intersection(analyze(" ".join((hit.title, *hit.headings, heading)), hit.language)) - own
        found.append(_Sentence(Span(number, start, end), hit, text, frozenset(own), frozenset(above)))
    return found


def _only_announces(text: str) -> bool:
    """Say whether a sentence is a heading or a question: what answers stands below it.

    >>> [_only_announces(text) for text in ("3.2 Ausland", "May I?", "Polen 34 Euro", "- Schutzbrille", "Es gilt § 3.")]
    [True, True, False, False, False]
    """
    if text.endswith("?"):
        return True
    holds_something = any(character.isdigit() for character in _NUMBERING.sub("", text)) or "|" in text or text[:2] == "- "
    return not holds_something and not _ENDS.search(text)
