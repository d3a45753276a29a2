"""Which chunk of a workspace answers each row. Knows no model."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence

from finetune.data.schema import Context, Row
from finetune.negatives import stands
from finetune.workspace import Passages, source_of_context
from retriever.metrics import Label
from retriever.schema import document_id

__all__ = ["Finder"]

_WORD = re.compile(r"\w+")


class Finder:
    """Finds chunks by place.

    Args:
        passages: of the workspace that the rows were put into.
    """

    def __init__(self, passages: Passages) -> None:
        self._passages = passages
        self._of: dict[str, list[int]] = defaultdict(list)
        for number, document in enumerate(passages.documents):
            self._of[document].append(number)
        for numbers in self._of.values():
            numbers.sort(key=lambda number: int(passages.spans[number][0]))

    def best(self, row: Row, labels: Sequence[Label]) -> int | None:
        """Return the chunk to train on as the row's positive; None if no chunk answers it.

        That is the one that holds most of the label, and of several the one where it stands nearest the middle. Where a whole
        context is the label, it is a chunk in which an answer stands, and of several the one that shares most words with
        question and answers.
        """
        label = labels[0]
        numbers = self.holding(label)
        if not numbers:
            return None
        if label.share == 0:
            answers = [" ".join(answer.text.casefold().split()) for answer in row.answers]
            words = {word for text in (row.question, *answers) for word in _WORD.findall(text.casefold())}

            def alike(number: int) -> tuple[bool, int]:
                text = " ".join(self._passages.texts[number].casefold().split())
                return any(stands(answer, text) for answer in answers), len(words.intersection(_WORD.findall(text)))

            return max(numbers, key=alike)
        middle = (label.start + label.end) / 2

        def fit(number: int) -> tuple[int, float]:
            start, end = self._passages.spans[number]
            return int(min(end, label.end) - max(start, label.start)), -abs(float(start + end) / 2 - middle)

        return max(numbers, key=fit)

    def holding(self, label: Label) -> list[int]:
        """Return the chunks that hold any part of a label, in text order."""
        numbers = self._of.get(label.document, [])
        ends = [int(self._passages.spans[number][1]) for number in numbers]
        found = []
        for number in numbers[bisect_left(ends, label.start + 1) :]:
            if self._passages.spans[number][0] >= label.end:
                break
            found.append(number)
        return found

    def of_context(self, text: Context) -> list[int]:
        """Return the chunks of one of the rows' contexts, in text order."""
        return self._of.get(document_id(source_of_context(text)), [])

    def positives(self, rows: Sequence[Row], labels: Mapping[str, Sequence[Label]]) -> list[int | None]:
        """Return the chunk to train on for each row; see `best`. Labels are those of `Workspace.labels`."""
        return [self.best(row, labels[str(number)]) if str(number) in labels else None for number, row in enumerate(rows)]
