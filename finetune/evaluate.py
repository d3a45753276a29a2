"""How good search and answers are, on questions with known answers: the numbers, and every answer behind them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import get_args

from reader.pipeline import Pipeline
from reader.schema import Answer
from retriever.metrics import Label, evaluate
from retriever.questions import Question, place
from retriever.search import Mode

__all__ = ["Answered", "answer_all", "exact_match", "f1", "score_answers", "score_search"]

MEASURES = ("nDCG@10", "RR@10", "Success@5")


@dataclass(frozen=True, slots=True)
class Answered:
    """A question with what became of it.

    Attributes:
        verbatim: every quote, read again from the store by its offsets, is what it claims to be.
        golden: a quote overlaps the span that proves the answer; None if there is none.
    """

    question: Question
    answer: Answer
    verbatim: bool
    golden: bool | None


def score_search(
    pipeline: Pipeline, questions: Sequence[Question], *, progress: Callable[[], None] = lambda: None
) -> dict[str, dict[str, dict[str, float]]]:
    """Return mean measures of every search mode over the questions that have a proof: by mode, language (or `all`), measure."""
    asked = [question for question in questions if question.proof]
    labels = place(asked, pipeline.store)
    table: dict[str, dict[str, dict[str, float]]] = {}
    for mode in get_args(Mode):
        rankings = {}
        for question in asked:
            rankings[question.id] = pipeline.search(question.question, limit=10, mode=mode)
            progress()
        values = evaluate(labels, rankings, measures=MEASURES)
        table[mode] = {
            language: {
                measure: fmean(by_question[question.id] for question in asked if language in ("all", question.language))
                for measure, by_question in values.items()
            }
            for language in _languages(asked)
        }
    return table


def answer_all(
    pipeline: Pipeline, questions: Sequence[Question], *, progress: Callable[[], None] = lambda: None
) -> list[Answered]:
    """Ask every question and check every quote of every answer against the stored documents, independently of the reader."""
    labels = place(questions, pipeline.store)
    found = []
    for question in questions:
        answer = pipeline.answer(question.question)
        golden = _golden(answer, labels[question.id]) if question.proof else None
        found.append(Answered(question, answer, _verbatim(answer, pipeline), golden))
        progress()
    return found


def score_answers(answered: Sequence[Answered]) -> dict[str, dict[str, float | int | None]]:
    """Return the measures of answers by language, and over all as `all`.

    `exact_match` and `f1` are over the questions with an answer, abstentions counting zero; `answered_f1` over those of them
    that were answered. Abstention counts as right for questions without an answer.
    """
    return {
        language: _scores([item for item in answered if language in ("all", item.question.language)])
        for language in _languages([item.question for item in answered])
    }


def exact_match(answer: str, gold: Sequence[str]) -> float:
    """Return 1 if the answer equals one of the golden ones after normalisation, else 0.

    >>> exact_match("The 75 Euro.", ["75 euro"])
    1.0
    """
    return max((float(_words(answer) == _words(other)) for other in gold), default=0.0)


def f1(answer: str, gold: Sequence[str]) -> float:
    """Return the best F1 of the answer's words against the golden answers, as SQuAD does it (arXiv 1606.05250).

    >>> f1("within twelve hours", ["twelve hours"])
    0.8
    """
    return max((_f1(Counter(_words(answer)), Counter(_words(other))) for other in gold), default=0.0)


def _f1(given: Counter[str], gold: Counter[str]) -> float:
    common = sum((given & gold).values())
    return 2 * common / (sum(given.values()) + sum(gold.values())) if common else 0.0


def _words(text: str) -> list[str]:
    # As SQuAD, with German articles too; separators inside numbers stay.
    kept = re.sub(rf"(?<!\d)[{re.escape(string.punctuation)}]|[{re.escape(string.punctuation)}](?!\d)", " ", text.casefold())
    return [word for word in kept.split() if word not in {"a", "an", "the", "der", "die", "das", "ein", "eine"}]


def _scores(answered: Sequence[Answered]) -> dict[str, float | int | None]:
    able = [item for item in answered if item.question.proof]
    unable = [item for item in answered if not item.question.proof]
    given = [item for item in able if not item.answer.abstained]
    abstained = [item for item in answered if item.answer.abstained]
    quoting = [item for item in answered if item.answer.quotes]
    rightly = sum(not item.question.proof for item in abstained)
    return {
        "questions": len(answered),
        "answerable": len(able),
        "answered": len(given),
        "verbatim_share": _mean([item.verbatim for item in quoting]),
        "golden_quote_share": _mean([bool(item.golden) for item in given]),
        "exact_match": _mean([_given(item, exact_match) for item in able]),
        "f1": _mean([_given(item, f1) for item in able]),
        "answered_f1": _mean([_given(item, f1) for item in given]),
        "abstention_precision": rightly / len(abstained) if abstained else None,
        "abstention_recall": rightly / len(unable) if unable else None,
        "seconds_per_question": _mean([sum(item.answer.timings.values()) for item in answered]),
    }


def _given(item: Answered, measure: Callable[[str, Sequence[str]], float]) -> float:
    return 0.0 if item.answer.abstained else measure(item.answer.answer, item.question.answers)


def _mean(values: Sequence[float]) -> float | None:
    return round(fmean(values), 4) if values else None


def _languages(questions: Sequence[Question]) -> list[str]:
    return ["all", *sorted({question.language for question in questions})]


def _golden(answer: Answer, labels: Sequence[Label]) -> bool:
    return any(
        quote.document == label.document and quote.start < label.end and label.start < quote.end
        for quote in answer.quotes
        for label in labels
    )


def _verbatim(answer: Answer, pipeline: Pipeline) -> bool:
    documents = {quote.document: pipeline.store.document(quote.document) for quote in answer.quotes}
    return all(
        (document := documents[quote.document]) is not None and document.text[quote.start : quote.end] == quote.text
        for quote in answer.quotes
    )
