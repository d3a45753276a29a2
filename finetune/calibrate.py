"""Chooses when to abstain, from questions with and without an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from reader.calibration import Calibration
from reader.pipeline import Pipeline
from reader.support import strength
from retriever.errors import BelegError
from retriever.questions import Question

__all__ = ["Calibrated", "calibrated", "threshold"]


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A calibration, and how many development questions it leaves unanswered, rightly and wrongly."""

    calibration: Calibration
    rightly: int
    wrongly: int


def calibrated(pipeline: Pipeline, questions: Sequence[Question]) -> Calibrated:
    """Return the pipeline's calibration with the threshold that suits these questions best.

    Raises:
        BelegError: there are only questions of one kind.
    """
    strengths = [
        (strength(item.question, pipeline.search(item.question, limit=pipeline.settings.passages)), item.proof is not None)
        for item in questions
    ]
    if len({answerable for _, answerable in strengths}) < 2:
        raise BelegError("Calibrating takes questions with an answer and questions without one.")
    least = threshold(strengths)
    return Calibrated(
        replace(pipeline.calibration, least_strength=least),
        rightly=sum(value < least for value, answerable in strengths if not answerable),
        wrongly=sum(value < least for value, answerable in strengths if answerable),
    )


def threshold(strengths: Sequence[tuple[float, bool]]) -> float:
    """Return the threshold below which abstaining has the best F1, in the middle of its gap; of equal ones the lowest.

    Args:
        strengths: of each question, with whether the documents answer it.

    >>> threshold([(0.1, False), (0.2, False), (0.4, True), (0.45, True), (0.5, False)])
    0.3
    """
    values = sorted({0.0, *(value for value, _ in strengths)})
    candidates = [0.0, *((low + high) / 2 for low, high in pairwise(values))]
    unanswerable = sum(not answerable for _, answerable in strengths)

    def f1(least: float) -> float:
        abstained = [answerable for value, answerable in strengths if value < least]
        return 2 * abstained.count(False) / max(1, len(abstained) + unanswerable)

    best: float = max(candidates, key=lambda least: (f1(least), -least))
    return round(best, 3)
