"""Passages that do not answer a question, to learn from: the farthest ones, and near ones that only look right.

Works on numbers of passages and on vectors that are given. Knows neither stores nor models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal

import numpy as np
import numpy.typing as npt

from retriever.encode import Vectors, cores

__all__ = ["Filter", "Hard", "Reason", "far", "farthest", "hard", "nearest", "stands"]

Numbers = npt.NDArray[np.int64]
"""Numbers of passages."""

Reason = Literal["answers it", "same text", "holds the answer", "too near", "cross-encoder"]
"""Why a passage is no negative: it overlaps the golden span; its text equals, contains or is contained in the positive's; an
answer stands in it; it scores about as well as the positive; a cross-encoder takes it for an answer."""

_BLOCK = 65_536
"""Passages that are compared with at once."""

_SLACK = 32
"""Passages beyond those wanted that are looked at, since some of the farthest may answer in a small corpus."""

_RESULTS = 4_000_000
"""Results of a batch of queries, which are held at once."""


def nearest(queries: Vectors, passages: Vectors, *, depth: int, block: int = _BLOCK) -> Numbers:
    """Return the passages with the largest inner product, exactly, best first; shape (queries, depth).

    Args:
        queries: shape (queries, dimensions).
        passages: shape (passages, dimensions); may be a memory map, blocks of it are read.
        depth: at most the number of passages.
        block: passages that are compared with at once; the result is the same for any.
    """
    depth = min(depth, len(passages))
    found = np.empty((len(queries), depth), dtype=np.int64)
    at = 0
    for part in _search(queries, passages, depth, block):
        found[at : at + len(part)] = part
        at += len(part)
    return found


def farthest(queries: Vectors, passages: Vectors, *, depth: int, block: int = _BLOCK) -> Numbers:
    """Return the passages with the largest L2 distance, exactly, farthest first; shape (queries, depth).

    Vectors have length 1, so that the largest distance is the largest inner product with the query turned round.
    """
    return nearest(-queries, passages, depth=depth, block=block)


def far(
    positives: Vectors,
    passages: Vectors,
    *,
    count: int = 1,
    share: float = 0.0,
    seed: int = 0,
    same: Callable[[int, int], bool] = lambda *_: False,
    block: int = _BLOCK,
) -> Numbers:
    """Return easy negatives for each row, no two the same: the passages farthest from its positive; shape (rows, count).

    The farthest tend to be the same few outliers, whatever the question: drawing from a share of them spreads them.

    Args:
        positives: vectors of the passages that answer the rows, shape (rows, dimensions).
        passages: vectors of those to choose from, shape (passages, dimensions).
        share: 0 takes the farthest; .05 draws from the farthest 5%.
        same: says of a passage and a row that the passage answers it.
        block: as for `nearest`.

    Returns:
        -1 where there is none, or none left, that does not answer the row.
    """
    pool = min(len(passages), max(1, round(share * len(passages))))
    depth = min(len(passages), pool + count + _SLACK)
    draw = np.random.default_rng(seed)
    chosen = np.full((len(positives), count), -1, dtype=np.int64)
    row = 0
    for part in _search(-positives, passages, depth, block):
        for found in part:
            for at in range(count):
                place = int(draw.integers(pool)) if pool > 1 else 0
                order = chain(found[place:].tolist(), found[:place].tolist())
                taken = chosen[row, :at]
                chosen[row, at] = next((number for number in order if number not in taken and not same(number, row)), -1)
            row += 1
    return chosen


def _search(queries: Vectors, passages: Vectors, depth: int, size: int) -> Iterator[Numbers]:
    """Yield the `depth` best passages of batches of queries, best first."""
    import faiss

    if depth < 1:
        yield np.empty((len(queries), 0), dtype=np.int64)
        return
    faiss.omp_set_num_threads(cores())
    batch = max(1, _RESULTS // depth)
    for start in range(0, len(queries), batch):
        some = np.ascontiguousarray(queries[start : start + batch], dtype=np.float32)
        scores = np.empty((len(some), 0), dtype=np.float32)
        numbers = np.empty((len(some), 0), dtype=np.int64)
        for begin in range(0, len(passages), size):
            block = np.ascontiguousarray(passages[begin : begin + size], dtype=np.float32)
            more, found = faiss.knn(some, block, min(depth, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
            scores, numbers = np.hstack([scores, more]), np.hstack([numbers, found + begin])
            if begin:
                keep = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
                scores, numbers = np.take_along_axis(scores, keep, 1), np.take_along_axis(numbers, keep, 1)
        yield numbers


@dataclass(frozen=True)
class Filter:
    """Tells false negatives: passages that answer the question although nobody said so.

    See Qu et al., RocketQA (arXiv 2010.08191), where unfiltered hard negatives did harm, and Moreira et al., NV-Retriever
    (arXiv 2407.15831), for the margin relative to the positive.

    Args:
        texts: of all passages.
        vectors: of all passages, shape (passages, dimensions).
        margin: a passage that scores above so much of the positive's score is dropped; None asks nothing, and so does a
            positive that scores 0 or less: every passage that is found at all scores above it.
        answers: drop passages in which an answer stands.
        judge: probability that a passage answers a question, for a list of passages; a cross-encoder.
        limit: a passage that `judge` gives more is dropped.
        inputs: what `judge` reads of each passage; their texts if that is empty.
    """

    texts: Sequence[str]
    vectors: Vectors
    margin: float | None = 0.95
    answers: bool = True
    judge: Callable[[str, Sequence[str]], Sequence[float]] | None = None
    limit: float = 0.5
    inputs: Sequence[str] = ()
    _plain: dict[int, str] = field(default_factory=dict)

    def reasons(
        self,
        question: str,
        query: Vectors,
        answers: Sequence[str],
        positive: int,
        golden: Collection[int],
        found: Sequence[int],
    ) -> list[Reason | None]:
        """Return for each passage found why it is no negative, or None.

        Args:
            query: vector of the question.
            positive: the passage that answers it.
            golden: passages that overlap what answers it.
        """
        right = self._text(positive)
        wanted = [_plain(answer) for answer in answers] if self.answers else []
        near = self.vectors[np.asarray([positive, *found], dtype=np.int64)] @ query
        limit = self.margin * near[0] if self.margin is not None and near[0] > 0 else np.inf
        given: list[Reason | None] = []
        for number, score in zip(found, near[1:], strict=True):
            text = self._text(number)
            if number == positive or number in golden:
                given.append("answers it")
            elif text in right or right in text:
                given.append("same text")
            elif any(stands(answer, text) for answer in wanted):
                given.append("holds the answer")
            elif score > limit:
                given.append("too near")
            else:
                given.append(None)
        if self.judge:
            left = [at for at, reason in enumerate(given) if reason is None]
            chances = self.judge(question, [(self.inputs or self.texts)[found[at]] for at in left]) if left else []
            for at, chance in zip(left, chances, strict=True):
                given[at] = "cross-encoder" if chance > self.limit else None
        return given

    def _text(self, number: int) -> str:
        if number not in self._plain:
            self._plain[number] = _plain(self.texts[number])
        return self._plain[number]


@dataclass(frozen=True)
class Hard:
    """Hard negatives.

    Attributes:
        chosen: passages for each row, hardest first; some rows may have fewer than asked for, or none.
        dropped: how many were dropped for what reason, and how many had been looked at (`seen`).
    """

    chosen: list[list[int]]
    dropped: Counter[str]


def hard(
    rows: Sequence[tuple[str, Vectors, Sequence[str], int, Collection[int]]],
    found: Sequence[Sequence[Sequence[int]]],
    filter_: Filter,
    *,
    wanted: int,
    first: Sequence[Sequence[int]] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> Hard:
    """Return up to `wanted` hard negatives for each row.

    Args:
        rows: question, its vector, its answers, its positive, and the passages that overlap what answers it.
        found: for each row the passages that each source has found, best first: keyword search's, the encoder's. They take
            turns.
        first: for each row passages that come before all these, such as those given by people.
    """
    chosen: list[list[int]] = []
    dropped: Counter[str] = Counter()
    before = first or [()] * len(rows)
    for (question, query, answers, positive, golden), given, sources in zip(rows, before, found, strict=True):
        order = list(dict.fromkeys([*given, *_in_turns(sources)]))
        reasons = filter_.reasons(question, query, answers, positive, golden, order)
        chosen.append([number for number, reason in zip(order, reasons, strict=True) if reason is None][:wanted])
        dropped.update(reason for reason in reasons if reason)
        dropped["seen"] += len(order)
        progress(1)
    return Hard(chosen, dropped)


def _in_turns(sources: Sequence[Sequence[int]]) -> Iterator[int]:
    for at in range(max((len(source) for source in sources), default=0)):
        for source in sources:
            if at < len(source):
                yield int(source[at])


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def stands(answer: str, text: str) -> bool:
    """Say whether an answer stands in a text in whole words; case counts.

    >>> stands("30 days", "within 30 days."), stands("30 days", "130 days"), stands("", "text")
    (True, False, False)
    """
    at = text.find(answer) if answer else -1
    while at >= 0:
        before, after = text[at - 1 : at], text[at + len(answer) : at + len(answer) + 1]
        if not (before.isalnum() and answer[0].isalnum()) and not (after.isalnum() and answer[-1].isalnum()):
            return True
        at = text.find(answer, at + 1)
    return False
