"""The quality gate: a new generation must not find less than the live one, on questions with known answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from retriever.errors import BelegError, GateFailed
from retriever.metrics import Label, evaluate
from retriever.questions import Question, place, read_questions
from retriever.search import Searcher
from retriever.store import Store

__all__ = ["Gate", "Verdict"]

_MEASURE = "nDCG@10"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Mean nDCG@10 of the live generation and of the new one, over the questions that have a proof."""

    live: float
    new: float
    questions: int


@dataclass(frozen=True)
class Gate:
    """Lets a new generation pass if its nDCG@10 is at most `margin` below the live one's."""

    questions: Sequence[Question]
    margin: float

    @classmethod
    def read(cls, path: Path, *, margin: float) -> Gate:
        """Read the questions; see `read_questions`.

        Raises:
            BelegError: none has a proof.
        """
        questions = [question for question in read_questions(path) if question.proof]
        if not questions:
            raise BelegError(
                f"{path} has no question with a proof.", way_out="Only those tell a better index from a worse one."
            )
        return cls(questions, margin)

    def place(self, store: Store) -> dict[str, list[Label]]:
        """Return where the proofs stand in the stored documents, by question.

        Raises:
            BelegError: one of them does not.
        """
        return place(self.questions, store)

    def check(self, live: Searcher, new: Searcher, store: Store) -> Verdict:
        """Return how both did.

        Raises:
            GateFailed: the new one is worse by more than the margin.
            BelegError: a question's proof is not in the stored documents.
        """
        labels = self.place(store)
        means = []
        for searcher in (live, new):
            rankings = {question.id: searcher.search(question.question) for question in self.questions}
            means.append(fmean(evaluate(labels, rankings, measures=[_MEASURE])[_MEASURE].values()))
        verdict = Verdict(means[0], means[1], len(labels))
        if verdict.new < verdict.live - self.margin:
            raise GateFailed(
                f"The new index has an nDCG@10 of {verdict.new:.3f} on {verdict.questions} questions, "
                f"the live one {verdict.live:.3f}.",
                way_out="The live one stays. Raise `--margin` if you accept that.",
            )
        return verdict
