"""Which rows may share a batch, in which each is told apart from the others' passages. Knows no model.

Two rows may not if one brings a passage, as its answer or as a negative, that answers the other: it would be told that what
answers it is wrong. Negatives that rows have in common are no reason: the farthest passages are the same few for most rows, and
a batch without repetitions would hold no more rows than there are of those.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Shown", "batches"]


@dataclass(frozen=True, slots=True)
class Shown:
    """A row as a batch sees it.

    Attributes:
        question: its text.
        passages: texts of its positive and its negatives.
        answers: texts of all that answers it, the positive among them.
    """

    question: str
    passages: Collection[str]
    answers: Collection[str]


def batches(rows: Sequence[Shown], order: Iterable[int], size: int) -> Iterator[list[int]]:
    """Yield all rows in batches of at most `size`, in the given order; what cannot join a batch comes in a later one.

    >>> one, other, third = Shown("a?", "AX", "A"), Shown("b?", "BX", "B"), Shown("c?", "CA", "C")
    >>> list(batches([one, other, third], [0, 1, 2], 3))
    [[0, 1], [2]]
    """
    left = list(order)
    while left:
        batch: list[int] = []
        later: list[int] = []
        questions: set[str] = set()
        passages: set[str] = set()
        answers: set[str] = set()
        for place, at in enumerate(left):
            row = rows[at]
            if row.question in questions or not passages.isdisjoint(row.answers) or not answers.isdisjoint(row.passages):
                later.append(at)
                continue
            batch.append(at)
            questions.add(row.question)
            passages.update(row.passages)
            answers.update(row.answers)
            if len(batch) == size:
                later += left[place + 1 :]
                break
        yield batch
        left = later
