"""Which sentences of the passages are likely to answer the question, by the retriever's means alone.

A small reader chooses badly among sentences, and this says which ones it may quote. It also tells how strong the evidence is
before any reader has been asked.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from reader.quotes import Span
from retriever.analyze import analyze, analyze_query
from retriever.encode import Encoder
from retriever.schema import Hit
from retriever.sentences import sentences

__all__ = ["Evidence", "rank"]

# Logistic regression over 31,244 sentences of XQuAD-de, XQuAD-en and COVID-QA gave 7.8, 2.6 and 5.2; the answer's sentence is
# first in .72, .81 and .44 of the questions, and among the first three in .89, .94 and .60. See docs/log.md.
_HIT, _COSINE, _COVERAGE = 3.0, 1.0, 2.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """A sentence of a passage and how well it fits the question.

    Attributes:
        span: where it stands.
        score: what the list is ordered by.
        cosine: of question and sentence, -1 to 1.
        coverage: share of the question's terms that it has, weighted by how rare they are in the passages, 0 to 1.
    """

    span: Span
    score: float
    cosine: float
    coverage: float


def rank(question: str, hits: Sequence[Hit], encoder: Encoder) -> list[Evidence]:
    """Return every sentence of the passages, best first. Each distinct sentence is encoded once."""
    spans = [
        Span(number, start, end)
        for number, hit in enumerate(hits, start=1)
        for start, end in sentences(hit.text, hit.language)
    ]
    if not spans:
        return []
    texts = [hits[span.passage - 1].text[span.start : span.end] for span in spans]
    cosines = encoder.encode_passages(texts) @ encoder.encode_query(question)
    coverages = _coverages(question, texts, [hits[span.passage - 1].language for span in spans])
    ranked = [
        Evidence(
            span,
            _HIT * hits[span.passage - 1].score + _COSINE * float(cosine) + _COVERAGE * coverage,
            float(cosine),
            coverage,
        )
        for span, cosine, coverage in zip(spans, cosines, coverages, strict=True)
    ]
    return sorted(ranked, key=lambda evidence: -evidence.score)


def _coverages(question: str, texts: Sequence[str], languages: Sequence[str]) -> list[float]:
    asked = set(analyze_query(question, sorted(set(languages))))
    found = [asked.intersection(analyze(text, language)) for text, language in zip(texts, languages, strict=True)]
    count = Counter(term for terms in found for term in terms)
    weight = {term: math.log(1 + (len(texts) - count[term] + 0.5) / (count[term] + 0.5)) for term in asked}
    # A term of another language than the passages' can never be found, and must not make every sentence look weak.
    reachable = sum(weight[term] for term in count) or 1.0
    return [sum(weight[term] for term in terms) / reachable for terms in found]
