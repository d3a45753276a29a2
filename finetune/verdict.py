"""Whether a candidate is better than what is served, and how a refusal is said and kept. Knows values, and no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import NoReturn

from finetune.significance import paired
from retriever.errors import GateFailed
from retriever.releases import Releases

__all__ = ["NOTHING_HELD_OUT", "WAY_OUT", "Verdict", "compare", "refuse"]

WAY_OUT = "What is served stays. `--override REASON` takes it all the same, and keeps the reason."
NOTHING_HELD_OUT = "has no held-out questions, so nobody knows whether it is better."

_CONFIDENCE = 0.90
"""Of the two-sided interval: its lower end is that of a one-sided one of 95%."""

_CHANCE = 0.10
"""The same of the test's p. On four documents or fewer no difference is that unlikely, however large: they prove nothing."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a candidate did on its held-out questions, against something else.

    Attributes:
        served, candidate: means of the measure, of the other one first.
        questions, documents: that were measured on.
        difference: of the means; `low` and `high` are the ends of its 90% interval, over documents.
        p: how likely a difference as large is by chance, in either direction.
        better, worse, equal: questions by what became of them.
        measure: in words.
        against: what it was compared with, in words.
    """

    served: float
    candidate: float
    questions: int
    documents: int
    difference: float
    low: float
    high: float
    p: float
    better: int
    worse: int
    equal: int
    measure: str = "nDCG@10"
    against: str = "served"

    @property
    def passed(self) -> bool:
        """Whether it is better, and not only by luck."""
        return self.difference > 0 and self.low >= 0 and self.p <= _CHANCE

    @property
    def worse_for_sure(self) -> bool:
        """Whether it is worse, and not only by bad luck."""
        return self.difference < 0 and self.high <= 0 and self.p <= _CHANCE

    def why(self, name: str) -> str:
        """Return why a candidate of this name does not pass."""
        how = "worse than" if self.high < 0 else "not better than"
        return f"{name} is {how} {'what is served' if self.against == 'served' else self.against}: {self}."

    def __str__(self) -> str:
        """Say it in words."""
        return (
            f"{self.measure} {self.candidate:.3f}, {self.against} {self.served:.3f}: {self.difference:+.3f} "
            f"(90% interval {self.low:+.3f} to {self.high:+.3f}, p {self.p:.3f}) on {self.questions} questions about "
            f"{self.documents} documents; {self.better} better, {self.worse} worse"
        )


def compare(
    candidate: Mapping[str, float],
    other: Mapping[str, float],
    *,
    groups: Mapping[str, str],
    measure: str,
    against: str = "served",
) -> Verdict:
    """Compare what a candidate and something else reached on the same questions.

    Args:
        candidate, other: value by question, 0 to 1.
        groups: document by question.

    Raises:
        BelegError: they were asked different questions, or none.
    """
    found = paired(candidate, other, groups=groups, confidence=_CONFIDENCE)
    return Verdict(
        served=fmean(other.values()),
        candidate=fmean(candidate.values()),
        questions=len(candidate),
        documents=len({groups[key] for key in candidate}),
        difference=found.difference,
        low=found.low,
        high=found.high,
        p=found.p,
        better=found.better,
        worse=found.worse,
        equal=found.equal,
        measure=measure,
        against=against,
    )


def refuse(reason: str, releases: Releases, facts: Mapping[str, object] | None) -> NoReturn:
    """Keep that a candidate was refused, and raise it.

    Args:
        facts: of the attempt; None keeps nothing.

    Raises:
        GateFailed: always.
        BelegError: the disk refuses.
    """
    if facts is not None:
        releases.add(**facts, outcome="refused", reason=reason)
    raise GateFailed(reason, way_out=WAY_OUT)
