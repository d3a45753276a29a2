"""Whether one system is better than another on the same questions, or only luckier. Knows numbers, and no system."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retriever.errors import BelegError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Numbers = npt.NDArray[np.float64]

__all__ = ["Mean", "Paired", "mean", "paired"]

_CELLS = 4_000_000
"""Numbers that resampling holds at once, 32 MB of them: ten thousand times a few thousand documents would not fit."""

_EQUAL = 1e-9
"""Differences below this are rounding."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Paired:
    """How a new system differs from an old one on the same questions.

    Attributes:
        difference: mean of new minus old.
        low, high: ends of the difference's interval. Of a single group nothing is known: -1 to 1.
        p: how often a difference at least as large in either direction comes about if the systems are interchangeable.
        better, worse, equal: questions on which the new one is so.
    """

    difference: float
    low: float
    high: float
    p: float
    better: int
    worse: int
    equal: int

    @property
    def verdict(self) -> str:
        """`better` or `worse` if the interval leaves zero out and `p` is at most .05, else `tie`."""
        if self.p > 0.05 or self.low <= 0 <= self.high:
            return "tie"
        return "better" if self.difference > 0 else "worse"


def paired(
    new: Mapping[str, float],
    old: Mapping[str, float],
    *,
    groups: Mapping[str, str] | None = None,
    seed: int = 0,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> Paired:
    """Compare two systems question by question.

    The interval is the percentile bootstrap's; the test is Fisher's randomisation, which flips the sign of differences at
    random, or tries all flips where there are no more than `resamples`. Smucker, Allan and Carterette, A Comparison of
    Statistical Significance Tests for Information Retrieval Evaluation (CIKM 2007), find both fit for measures such as nDCG.
    Questions on one document are alike, so with groups whole groups are drawn and flipped: the cluster bootstrap of Davison and
    Hinkley, Bootstrap Methods and their Application (1997), section 3.8. The mean stays that over questions.

    Args:
        new, old: value by question, each between 0 and 1.
        groups: document, or whatever else questions share, by question; without it each question stands for itself.
        resamples: draws of the interval and of the test.
        confidence: of the interval, 0 to 1.

    Raises:
        BelegError: the systems were asked different questions, or none; or a question has no group.

    >>> paired({"a": 1.0, "b": 0.5, "c": 1.0}, {"a": 0.5, "b": 0.5, "c": 0.5}).p
    0.5
    """
    import numpy as np
    from scipy import stats

    if new.keys() != old.keys():
        extra = sorted(new.keys() ^ old.keys())
        raise BelegError(
            f"The systems were not asked the same questions: {len(extra)} were asked of one only, such as {extra[0]!r}.",
            way_out="Measure both on the same questions.",
        )
    sums, counts = _grouped({key: new[key] - old[key] for key in new}, groups)
    changes = [new[key] - old[key] for key in new]
    difference = math.fsum(changes) / len(changes)
    if len(sums) > 1:
        low, high = _interval(sums, counts, seed, resamples, confidence)
        # Swapping the pair (d / 2, -d / 2) flips the sign of its difference d.
        test = stats.permutation_test(
            (sums / 2, -sums / 2),
            lambda first, second, axis: (first - second).sum(axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=resamples,
            batch=max(1, _CELLS // (2 * len(sums))),
            rng=np.random.default_rng(seed),
        )
        p = float(test.pvalue)
    else:
        low, high, p = min(-1.0, difference), max(1.0, difference), 1.0
    better, worse = sum(change > _EQUAL for change in changes), sum(change < -_EQUAL for change in changes)
    return Paired(difference, low, high, p, better, worse, len(changes) - better - worse)


def mean(
    values: Mapping[str, float],
    *,
    groups: Mapping[str, str] | None = None,
    seed: int = 0,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> Mean:
    """Return the mean over questions with its bootstrap interval; arguments and errors as for `paired`.

    Of a single group nothing is known: 0 to 1.

    >>> mean({"a": 0.5, "b": 0.5})
    Mean(value=0.5, low=0.5, high=0.5)
    """
    sums, counts = _grouped(values, groups)
    value = math.fsum(values.values()) / len(values)
    if len(sums) == 1:
        return Mean(value, min(0.0, value), max(1.0, value))
    return Mean(value, *_interval(sums, counts, seed, resamples, confidence))


def _interval(sums: Numbers, counts: Numbers, seed: int, resamples: int, confidence: float) -> tuple[float, float]:
    import numpy as np
    from scipy import stats

    found = stats.bootstrap(
        (sums, counts),
        lambda drawn, questions, axis: drawn.sum(axis=axis) / questions.sum(axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        confidence_level=confidence,
        n_resamples=resamples,
        batch=max(1, _CELLS // (2 * len(sums))),
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def _grouped(values: Mapping[str, float], groups: Mapping[str, str] | None) -> tuple[Numbers, Numbers]:
    """Return the sum and the number of each group's values, shape (groups,) each."""
    import numpy as np

    if not values:
        raise BelegError("There is no question to compare systems on.", way_out="Give data with known answers.")
    lacking = sorted(key for key in values if groups is not None and key not in groups)
    if lacking:
        raise BelegError(f"{len(lacking)} questions have no group, such as {lacking[0]!r}.")
    by_group: dict[str, list[float]] = {}
    # Sorted: the order of a mapping must not change which groups a seed draws.
    for key in sorted(values):
        by_group.setdefault(key if groups is None else groups[key], []).append(values[key])
    sums = np.array([sum(found) for found in by_group.values()], dtype=np.float64)
    return sums, np.array([len(found) for found in by_group.values()], dtype=np.float64)
