"""The tables of a question file by language: how good search and answers were. `evaluate_reader` has the other measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import get_args

from finetune.measures import exact_match, f1, from_passage
from finetune.reading import Outcome
from retriever.metrics import Label, evaluate
from retriever.search import Mode, Searcher

__all__ = ["golden_span", "score_answers", "score_search", "verbatim"]

MEASURES = ("nDCG@10", "RR@10", "Success@5")


def score_search(
    searcher: Searcher,
    questions: Mapping[str, str],
    labels: Mapping[str, Sequence[Label]],
    languages: Mapping[str, str],
    *,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, dict[str, dict[str, float]]]:
    """Return mean measures of every search mode: by mode, language (or `all`), measure.

    Args:
        questions, labels, languages: by the question's id; those that have a label are asked.
        progress: is called after each search.
    """
    asked = {key: questions[key] for key in labels}
    table: dict[str, dict[str, dict[str, float]]] = {}
    for mode in get_args(Mode):
        rankings = {}
        for key, question in asked.items():
            rankings[key] = searcher.search(question, limit=10, mode=mode)
            progress()
        values = evaluate(labels, rankings, measures=MEASURES)
        table[mode] = {
            language: {
                measure: fmean(found[key] for key in asked if language in ("all", languages[key]))
                for measure, found in values.items()
            }
            for language in _languages([languages[key] for key in asked])
        }
    return table


def score_answers(
    outcomes: Sequence[Outcome], labels: Mapping[str, Sequence[Label]], searching: Mapping[str, float]
) -> dict[str, dict[str, float | int | None]]:
    """Return the measures of answers by language, and over all as `all`.

    `exact_match` and `f1` are over the questions with an answer, abstentions counting zero; `answered_f1` over those of them
    that were answered. Abstention counts as right for questions without an answer.

    Args:
        labels: where the proof of each answer stands, by the question's id.
        searching: seconds that finding its passages took.
    """
    return {
        language: _scores([one for one in outcomes if language in ("all", one.asked.language)], labels, searching)
        for language in _languages([one.asked.language for one in outcomes])
    }


def golden_span(outcome: Outcome, labels: Sequence[Label]) -> bool:
    """Say whether a quote overlaps a span that proves the answer."""
    return any(
        quote.document == label.document and quote.start < label.end and label.start < quote.end
        for quote in outcome.answer.quotes
        for label in labels
    )


def verbatim(outcome: Outcome) -> bool:
    """Say whether every quote stands word for word in a passage that was shown, at the place that it claims."""
    return all(any(from_passage(quote, hit) for hit in outcome.asked.hits) for quote in outcome.answer.quotes)


def _scores(
    outcomes: Sequence[Outcome], labels: Mapping[str, Sequence[Label]], searching: Mapping[str, float]
) -> dict[str, float | int | None]:
    able = [one for one in outcomes if one.asked.answers]
    given = [one for one in able if _given(one)]
    abstained = [one for one in outcomes if one.answer.abstained]
    unable = len(outcomes) - len(able)
    rightly = sum(not one.asked.answers for one in abstained)
    return {
        "questions": len(outcomes),
        "answerable": len(able),
        "answered": len(given),
        "verbatim_share": _mean([verbatim(one) for one in outcomes if one.answer.quotes]),
        "golden_quote_share": _mean([golden_span(one, labels.get(one.asked.id, ())) for one in given]),
        "exact_match": _mean([exact_match(_given(one), one.asked.answers) if _given(one) else 0.0 for one in able]),
        "f1": _mean([f1(_given(one), one.asked.answers) for one in able]),
        "answered_f1": _mean([f1(_given(one), one.asked.answers) for one in given]),
        "abstention_precision": rightly / len(abstained) if abstained else None,
        "abstention_recall": rightly / unable if unable else None,
        "seconds_per_question": _mean([one.seconds + searching.get(one.asked.id, 0.0) for one in outcomes if not one.failure]),
    }


def _given(outcome: Outcome) -> str:
    return "" if outcome.answer.abstained else outcome.answer.answer


def _mean(values: Sequence[float]) -> float | None:
    return round(fmean(values), 4) if values else None


def _languages(found: Sequence[str]) -> list[str]:
    return ["all", *sorted(set(found))]
