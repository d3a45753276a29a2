"""Two rankings into one. The same code for every engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["convex", "reciprocal_rank"]

Scores = Sequence[float]


def convex(dense: Scores, keyword: Scores, *, alpha: float) -> list[float]:
    """Return `alpha * dense + (1 - alpha) * keyword`, each side scaled so that its best candidate has 1 and zero stays 0.

    See Bruch et al., An Analysis of Fusion Functions for Hybrid Retrieval (arXiv 2210.11934), where the floor of a side is its
    least possible score rather than the least one found: the worst of fifty good hits is not worthless. BM25 ends at zero;
    a cosine below zero counts as zero. Both sides need a score for every candidate: one that is missing because the other
    side's list was too short would count as the worst.

    Args:
        alpha: weight of the dense side, 0 to 1.

    >>> convex([0.8, 0.4, -0.1], [0.0, 8.0, 4.0], alpha=0.5)
    [0.5, 0.75, 0.25]
    """
    return [float(score) for score in alpha * _scale(dense) + (1 - alpha) * _scale(keyword)]


def reciprocal_rank(dense: Scores, keyword: Scores, *, k: int = 60) -> list[float]:
    """Return `1 / (k + rank in dense) + 1 / (k + rank in keyword)`, ranks counted from 1.

    See Cormack et al., Reciprocal Rank Fusion (SIGIR 2009), whose `k` of 60 is the default. A keyword score of zero is no rank.

    >>> [round(score, 4) for score in reciprocal_rank([0.9, 0.5], [0.0, 8.0])]
    [0.0164, 0.0325]
    """
    by_dense, by_keyword = 1 / (k + _ranks(dense)), 1 / (k + _ranks(keyword))
    return [float(score) for score in by_dense + np.where(np.asarray(keyword) > 0, by_keyword, 0.0)]


def _scale(scores: Scores) -> npt.NDArray[np.float64]:
    values = np.maximum(np.asarray(scores, dtype=np.float64), 0.0)
    best = values.max(initial=0.0)
    return values / best if best > 0 else values


def _ranks(scores: Scores) -> npt.NDArray[np.int64]:
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(1, len(order) + 1)
    return ranks
