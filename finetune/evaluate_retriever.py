"""How well search finds what answers questions: rankings, measures, and the weights that suit them best. Knows no files.

What search is asked of, and with which questions, is made by `trial`; `report` shows what comes out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from finetune.data.schema import Row
from retriever.chunk import passage_text
from retriever.encode import Encoder, Vectors
from retriever.errors import BelegError, QueryError
from retriever.fuse import convex
from retriever.index.base import Candidate, Filters, Index, Stamp
from retriever.metrics import Label, evaluate
from retriever.rerank import Reranker, blend
from retriever.schema import Document, Hit
from retriever.search import Mode, Searcher, hit_of
from retriever.store import Passage

__all__ = [
    "CURVE",
    "GRID",
    "MEASURES",
    "Change",
    "Remembering",
    "Scores",
    "System",
    "Tuned",
    "TunedWeight",
    "changes",
    "groups_of",
    "measure",
    "rank",
    "systems_of",
    "tune_alpha",
    "tune_weight",
]

MEASURES = ("nDCG@10", "RR@10", "R@1", "R@5", "R@10", "R@100")
CURVE = (1, 2, 3, 5, 10, 20, 30, 50, 100)
"""Depths at which recall is measured for its curve."""

GRID = tuple(step / 20 for step in range(21))
"""Weights that are tried: 0, .05 … 1. Finer differences are far within the noise of a thousand questions."""

_TUNED_BY = "nDCG@10"


class Remembering:
    """An encoder that encodes each query once, however many systems are asked it."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._known: dict[str, Vectors] = {}
        self.fingerprint = encoder.fingerprint
        self.tokenizer = encoder.tokenizer
        self.dimensions = encoder.dimensions
        self.max_tokens = encoder.max_tokens
        self.alpha = encoder.alpha

    def token_starts(self, text: str) -> list[int]:
        """Return the offset at which each of the text's tokens begins, ascending."""
        return self._encoder.token_starts(text)

    def encode_passages(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Vectors:
        """Return the vectors of passages, in order, which are not remembered: the store does that."""
        return self._encoder.encode_passages(texts, progress=progress)

    def encode_query(self, text: str) -> Vectors:
        """Return the vector of a query, shape (dimensions,)."""
        if text not in self._known:
            self._known[text] = self._encoder.encode_query(text)
        return self._known[text]

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of queries, in order, each encoded by itself: a batch moves a vector by a rounding."""
        import numpy as np

        return np.stack([self.encode_query(text) for text in texts])


@dataclass(frozen=True)
class System:
    """A way to search.

    Attributes:
        name: tells it apart from the others in tables.
        kind: `fused`, `dense`, `BM25` or `reranked`: systems of one kind are compared across encoders.
        encoder: name of the encoder.
        rerank: whether the searcher's reranker judges the best hits again.
    """

    name: str
    searcher: Searcher
    mode: Mode
    rerank: bool = False
    kind: str = ""
    encoder: str = ""


@dataclass(frozen=True)
class Scores:
    """What a system found.

    Attributes:
        rankings: by question, best first.
        values: by measure, then by question.
        ranks: by question, of the first hit that holds a label, from 1; None where none does.
    """

    system: System
    rankings: Mapping[str, Sequence[Hit]]
    values: Mapping[str, Mapping[str, float]]
    ranks: Mapping[str, int | None]


@dataclass(frozen=True, slots=True)
class Change:
    """A question with what two systems found for it.

    Attributes:
        key: the row's position as text.
        old, new: first hits; None where nothing was found.
        old_rank, new_rank: of the first hit that holds a label, from 1; None where none does.
        old_value, new_value: nDCG@10.
    """

    key: str
    old: Hit | None
    new: Hit | None
    old_rank: int | None
    new_rank: int | None
    old_value: float
    new_value: float

    @property
    def difference(self) -> float:
        """New minus old nDCG@10."""
        return self.new_value - self.old_value


@dataclass(frozen=True, slots=True)
class Tuned:
    """The weight of the dense side that suits questions best.

    Attributes:
        curve: every weight that was tried, with its mean nDCG@10.
    """

    alpha: float
    curve: list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class TunedWeight:
    """The weight of a reranker that suits questions best; `curve` as for `Tuned`."""

    weight: float
    curve: list[tuple[float, float]]


def systems_of(searcher: Searcher, *, encoder: str = "", keyword: bool = True) -> list[System]:
    """Return the ways to search with a searcher: fused first, then reranked if it has a reranker, dense, and BM25.

    Args:
        encoder: name of its encoder, put behind the systems' names where several are compared.
        keyword: False leaves BM25 out, which is the same for all encoders of one chunking.
    """
    behind = f" · {encoder}" if encoder else ""
    kinds: list[tuple[str, Mode, bool]] = [("fused", "fused", False), ("reranked", "fused", True), ("dense", "dense", False)]
    systems = [
        System(kind + behind, searcher, mode, again, kind, encoder)
        for kind, mode, again in kinds
        if searcher.reranker is not None or not again
    ]
    return [*systems, System("BM25", searcher, "keyword", False, "BM25", encoder)] if keyword else systems


def rank(
    system: System,
    rows: Sequence[Row],
    labels: Mapping[str, Sequence[Label]],
    *,
    limit: int = 100,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, list[Hit]]:
    """Ask a system every row that has labels; hits stay apart, so that passages are comparable.

    Args:
        labels: by the row's position as text.
        limit: hits of each; beyond fifty, each side is also asked for so many candidates.
        progress: called after each question.

    Returns:
        By the row's position, best first.

    Raises:
        BelegError: a question cannot be asked; the message says where it came from.
    """
    rankings = {}
    for key, row in _asked(rows, labels):
        with _named(row):
            rankings[key] = system.searcher.search(
                row.question, limit=limit, mode=system.mode, merge=False, rerank=system.rerank
            )
        progress()
    return rankings


def measure(
    system: System,
    rows: Sequence[Row],
    labels: Mapping[str, Sequence[Label]],
    *,
    limit: int = 100,
    progress: Callable[[], None] = lambda: None,
) -> Scores:
    """Rank, and measure by `MEASURES` and recall at the depths of `CURVE`; arguments and errors as for `rank`."""
    rankings = rank(system, rows, labels, limit=limit, progress=progress)
    depth = f"RR@{limit}"
    measures = tuple(dict.fromkeys((*MEASURES, *(f"R@{depth}" for depth in CURVE), depth)))
    values = evaluate(labels, rankings, measures=measures)
    ranks = {key: round(1 / value) if value else None for key, value in values[depth].items()}
    return Scores(system, rankings, values, ranks)


def groups_of(rows: Sequence[Row], keys: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """Return the questions by language, by difficulty and by the name of the file that they came from.

    Rows of unknown difficulty are in no group of it; where all are unknown, there is no such grouping.

    >>> groups_of([Row("1", "?", language="de", origin="data/a.jsonl, line 3")], ["0"])
    {'language': {'de': ['0']}, 'source': {'a.jsonl': ['0']}}
    """
    found: dict[str, dict[str, list[str]]] = {"language": {}, "difficulty": {}, "source": {}}
    for key in keys:
        row = rows[int(key)]
        names = {"language": row.language, "difficulty": row.difficulty, "source": _source(row)}
        for kind, name in names.items():
            if name:
                found[kind].setdefault(name, []).append(key)
    return {kind: dict(sorted(groups.items())) for kind, groups in found.items() if groups}


def changes(old: Scores, new: Scores, *, most: int = 10) -> tuple[list[Change], list[Change]]:
    """Return the questions that got better and those that got worse by nDCG@10, most changed first.

    Of equal changes that whose golden passage moved further comes first, then the one asked first.
    """
    found = []
    for key, value in new.values[_TUNED_BY].items():
        before, after = (next(iter(scores.rankings.get(key, ())), None) for scores in (old, new))
        found.append(Change(key, before, after, old.ranks[key], new.ranks[key], old.values[_TUNED_BY][key], value))
    found = [change for change in found if abs(change.difference) > 1e-9]
    found.sort(key=lambda change: (-abs(change.difference), -_moved(change), int(change.key)))
    better = [change for change in found if change.difference > 0]
    return better[:most], [change for change in found if change.difference < 0][:most]


def tune_alpha(
    index: Index,
    encoder: Encoder,
    rows: Sequence[Row],
    labels: Mapping[str, Sequence[Label]],
    *,
    grid: Sequence[float] = GRID,
    progress: Callable[[], None] = lambda: None,
) -> Tuned:
    """Find the weight of the dense side with the best mean nDCG@10; of equal ones that nearest to .5.

    Each question is searched once, and what both sides found is fused anew for each weight: the ranking is the one that
    `Searcher` gives at that weight for ten hits.

    Args:
        labels: by the row's position as text.
        grid: weights to try, 0 to 1.
        progress: called after each question.

    Raises:
        BelegError: no row has a label, or a question cannot be asked.
    """
    recorder = _Recorder(index)
    searcher = Searcher(recorder, encoder)
    found: dict[str, list[tuple[Candidate, Hit]]] = {}
    for key, row in _asked(rows, labels):
        with _named(row):
            searcher.search(row.question, merge=False)
        missing = [candidate.row for candidate in recorder.found if candidate.passage is None]
        passages = dict(index.passages(missing)) if missing else {}
        passages |= {candidate.row: candidate.passage for candidate in recorder.found if candidate.passage}
        # By id, as Searcher orders equals.
        held = sorted((item for item in recorder.found if item.row in passages), key=lambda item: item.row)
        found[key] = [(candidate, hit_of(passages[candidate.row], candidate)) for candidate in held]
        progress()

    def ranking(held: Sequence[tuple[Candidate, Hit]], alpha: float) -> list[Hit]:
        scores = convex([item.dense or 0.0 for item, _ in held], [item.keyword or 0.0 for item, _ in held], alpha=alpha)
        order = sorted(range(len(held)), key=lambda at: -scores[at])
        return [replace(held[at][1], score=scores[at]) for at in order[:10]]

    curve = _curve(labels, grid, lambda alpha: {key: ranking(held, alpha) for key, held in found.items()})
    return Tuned(_best(curve, near=0.5), curve)


def tune_weight(
    index: Index,
    encoder: Encoder,
    reranker: Reranker,
    rows: Sequence[Row],
    labels: Mapping[str, Sequence[Label]],
    *,
    alpha: float | None = None,
    grid: Sequence[float] = GRID,
    progress: Callable[[], None] = lambda: None,
) -> TunedWeight:
    """Find the weight of a reranker with the best mean nDCG@10; of equal ones the smallest.

    Each question is searched and judged once; the ranking is the one that `Searcher` gives at that weight for ten hits.

    Args:
        alpha: weight of the dense side before; None as for `Searcher`.
        labels, grid, progress: as for `tune_alpha`.

    Raises:
        BelegError: as `tune_alpha`.
    """
    searcher = Searcher(index, encoder, alpha=alpha)
    found: dict[str, tuple[list[Hit], list[float]]] = {}
    for key, row in _asked(rows, labels):
        with _named(row):
            hits = searcher.search(row.question, limit=max(10, reranker.depth), merge=False)
        texts = [passage_text(hit.title, hit.headings, hit.text, encoder) for hit in hits[: reranker.depth]]
        found[key] = hits, reranker.scores(row.question, texts) if texts else []
        progress()

    def ranking(hits: Sequence[Hit], judged: Sequence[float], weight: float) -> list[Hit]:
        scores = blend([hit.score for hit in hits], judged, weight=weight)
        order = sorted(range(len(hits)), key=lambda at: -scores[at])
        return [replace(hits[at], score=scores[at]) for at in order[:10]]

    curve = _curve(labels, grid, lambda weight: {key: ranking(*both, weight) for key, both in found.items()})
    return TunedWeight(_best(curve, near=0.0), curve)


class _Recorder:
    """An index that keeps what it last found: a search asks it for exactly what fusion needs, and as deep."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self.name: str = index.name
        self.stamp: Stamp = index.stamp
        self.found: list[Candidate] = []

    @property
    def revision(self) -> int:
        return self._index.revision

    @property
    def languages(self) -> tuple[str, ...]:
        return self._index.languages

    def candidates(self, *, vector: Vectors | None, terms: Sequence[str], depth: int, filters: Filters) -> list[Candidate]:
        self.found = self._index.candidates(vector=vector, terms=terms, depth=depth, filters=filters)
        return self.found

    def passages(self, rows: Sequence[int]) -> Mapping[int, Passage]:
        return self._index.passages(rows)

    def document(self, document: str, revision: int) -> Document | None:
        return self._index.document(document, revision)


@contextmanager
def _named(row: Row) -> Iterator[None]:
    """Say which row a question came from if it cannot be asked."""
    try:
        yield
    except QueryError as error:
        place = row.origin or f"The question {row.id!r}"
        raise BelegError(f"{place}: question: {error.message}", way_out=error.way_out) from error


def _asked(rows: Sequence[Row], labels: Mapping[str, Sequence[Label]]) -> Iterator[tuple[str, Row]]:
    if not labels:
        raise BelegError("No question has a passage that answers it.", way_out="Give data with known answers.")
    return ((key, rows[int(key)]) for key in labels)


def _curve(
    labels: Mapping[str, Sequence[Label]], grid: Sequence[float], rankings: Callable[[float], Mapping[str, Sequence[Hit]]]
) -> list[tuple[float, float]]:
    return [(weight, fmean(evaluate(labels, rankings(weight), measures=(_TUNED_BY,))[_TUNED_BY].values())) for weight in grid]


def _best(curve: Sequence[tuple[float, float]], *, near: float) -> float:
    # Means of equal rankings may differ in their last digit.
    return max(curve, key=lambda point: (round(point[1], 9), -abs(point[0] - near)))[0]


def _moved(change: Change) -> int:
    lowest = 101
    return abs((change.new_rank or lowest) - (change.old_rank or lowest))


def _source(row: Row) -> str:
    return Path(re.split(r", (?:line|record|question) ", row.origin)[0]).name
