"""How good a ranking is. Labels are spans of documents, never chunk ids, so that they survive another chunking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from retriever.schema import Hit

__all__ = ["Label", "evaluate"]


@dataclass(frozen=True, slots=True)
class Label:
    """A span that answers a question; `document` is the document's id, `end` is exclusive.

    Attributes:
        share: of the span that a hit must hold to count, and never nothing: a chunk border may fall into a long span.
    """

    document: str
    start: int
    end: int
    share: float = 0.5


def evaluate(
    labels: Mapping[str, Sequence[Label]], rankings: Mapping[str, Sequence[Hit]], *, measures: Sequence[str] = ("nDCG@10",)
) -> dict[str, dict[str, float]]:
    """Return each question's value of each measure, by ir-measures (https://ir-measur.es).

    A label is found by the first hit that holds enough of it; further hits on the same label count as misses, so that
    overlapping chunks do not count twice.

    Args:
        labels: by question; a question with several labels has them all as relevant.
        rankings: by question, best first; a question without a ranking scores 0.
        measures: names as ir-measures writes them: `nDCG@10`, `RR@10`, `R@5`, `Success@5`.

    Returns:
        By measure, then by question.

    >>> hit = Hit("d", "s", "t", "en", (), None, 0, 10, "", 1.0, None, None, 1)
    >>> evaluate({"q": [Label("d", 4, 8)]}, {"q": [hit]}, measures=["nDCG@10"])
    {'nDCG@10': {'q': 1.0}}
    """
    import ir_measures

    parsed = {ir_measures.parse_measure(name): name for name in measures}
    qrels = [ir_measures.Qrel(question, str(number), 1) for question, spans in labels.items() for number in range(len(spans))]
    run = [
        ir_measures.ScoredDoc(question, name, float(-rank))
        for question, hits in rankings.items()
        if question in labels
        for rank, name in enumerate(_found(labels[question], hits))
    ]
    values: dict[str, dict[str, float]] = {name: dict.fromkeys(labels, 0.0) for name in measures}
    for metric in ir_measures.iter_calc(list(parsed), qrels, run):
        values[parsed[metric.measure]][metric.query_id] = float(metric.value)
    return values


def _found(labels: Sequence[Label], hits: Sequence[Hit]) -> list[str]:
    """Name each hit after the label that it is the first to find, or after its rank."""
    names: list[str] = []
    left = dict(enumerate(labels))
    for rank, hit in enumerate(hits):
        number = next((number for number, label in left.items() if _holds(hit, label)), None)
        if number is None:
            names.append(f"miss {rank}")
        else:
            del left[number]
            names.append(str(number))
    return names


def _holds(hit: Hit, label: Label) -> bool:
    common = min(hit.end, label.end) - max(hit.start, label.start)
    return hit.document == label.document and common >= label.share * (label.end - label.start) and common > 0
