"""What kind of mistake an answer is, by rules, so that people see where to begin. Knows outcomes, and no model.

The rules are coarse: an answer in other words than the golden one may be right and be called wrong. Read the answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from finetune.measures import f1, from_passage, golden_sentence
from finetune.negatives import stands
from finetune.raft.checks import verdict_words
from finetune.reading import Outcome
from reader.quotes import parse
from retriever.load.language import detect

__all__ = ["KINDS", "RIGHT", "count_mistakes", "mistake", "worst"]

KINDS = {
    "failed": "the reader could not be asked, or failed",
    "form": "the model did not write quotes and an answer in the asked form",
    "quote not proven": "no quote that the model wrote stands in the passage that it named",
    "unsupported": "the answer was withheld: it says something that its quotes do not",
    "abstained wrongly": "the passage that answers was shown, and it abstained",
    "should have abstained": "nothing answers the question, and it answered",
    "golden passage not shown": "search did not find the passage that answers",
    "wrong passage quoted": "the quotes are from passages that do not answer",
    "right passage, wrong sentence": "it quotes the passage that answers, but not the sentence",
    "right quote, wrong answer": "it quotes what proves the answer, and answers something else",
    "wordy": "the golden answer stands in the answer, among many other words",
    "wrong language": "the answer is in neither the question's language nor the golden answer's",
    "wrong answer": "asked without passages, it answered something else",
}
"""What can be wrong with an answer, with what it means."""

RIGHT = 0.5
"""Least F1 at which an answer counts as right: longer and shorter ways to say the same share about half of their words."""

_LANGUAGE_LETTERS = 40
"""Below this the language of an answer is a guess."""


def mistake(outcome: Outcome) -> str:
    """Return the kind of an answer's mistake, one of `KINDS`, or "" if it is right."""
    asked, answer = outcome.asked, outcome.answer
    if outcome.failure:
        return "failed"
    if not asked.answers:
        return "" if answer.abstained else "should have abstained"
    if outcome.closed:
        return "" if _right(outcome) else _wordy(outcome) or _language(outcome) or "wrong answer"
    if answer.abstained:
        return _withheld(outcome)
    golden = [hit for hit, kind in zip(asked.hits, asked.kinds, strict=True) if kind == "golden"]
    quoted = any(from_passage(quote, hit) for quote in answer.quotes for hit in golden)
    # Several passages may answer, and not all of them are known.
    proves = any(stands(text, quote.text) for text in asked.answers for quote in answer.quotes)
    if _right(outcome) and (quoted or proves or not asked.golden):
        return ""
    if _language(outcome):
        return "wrong language"
    if not quoted:
        return "wrong passage quoted" if golden else "golden passage not shown"
    if asked.golden and not any(golden_sentence(quote, asked) for quote in answer.quotes):
        return "right passage, wrong sentence"
    return _wordy(outcome) or "right quote, wrong answer"


def count_mistakes(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Return how often each kind occurs, in the order of `KINDS`; kinds that do not occur are left out."""
    counts = Counter(map(mistake, outcomes))
    return {kind: counts[kind] for kind in KINDS if counts[kind]}


def worst(outcomes: Sequence[Outcome], totals: Mapping[str, float], *, count: int = 10) -> list[Outcome]:
    """Return the answers with a mistake that have the lowest totals, worst first; equal ones take turns by kind.

    Args:
        totals: by question; one without a total comes first.
    """
    wrong = [outcome for outcome in outcomes if mistake(outcome)]
    nth: Counter[tuple[float, str]] = Counter()
    ranked: list[tuple[float, int, int, Outcome]] = []
    for outcome in wrong:
        total = totals.get(outcome.asked.id, 0.0)
        kind = mistake(outcome)
        ranked.append((total, nth[total, kind], len(ranked), outcome))
        nth[total, kind] += 1
    # Else ten of the most frequent kind would hide all others.
    return [outcome for *_, outcome in sorted(ranked, key=lambda item: item[:3])[:count]]


def _withheld(outcome: Outcome) -> str:
    """Say why there is no answer to a question that has one."""
    written = parse(outcome.answer.reasoning)
    if outcome.answer.reason == "unproven":
        return "quote not proven" if written.quotes and written.answer else "form"
    if outcome.asked.golden and "golden" not in outcome.asked.kinds:
        return "golden passage not shown"
    return "unsupported" if outcome.answer.reason == "unsupported" else "abstained wrongly"


def _right(outcome: Outcome) -> bool:
    return not outcome.answer.abstained and f1(outcome.answer.answer, outcome.asked.answers) >= RIGHT


def _wordy(outcome: Outcome) -> str:
    """Return `wordy` if an answer holds a golden one; a yes or no stands in too many sentences to tell anything."""
    said = outcome.answer.answer.casefold()
    held = any(stands(text.casefold(), said) for text in outcome.asked.answers if not verdict_words(text))
    return "wordy" if held and not outcome.answer.abstained else ""


def _language(outcome: Outcome) -> str:
    """Return `wrong language` if an answer is long enough to tell and is in none that it may be in."""
    said = outcome.answer.answer
    if outcome.answer.abstained or sum(map(str.isalpha, said)) < _LANGUAGE_LETTERS:
        return ""
    allowed = {outcome.asked.language, detect(outcome.asked.question), *map(detect, outcome.asked.answers), "und"}
    return "" if detect(said) in allowed else "wrong language"
