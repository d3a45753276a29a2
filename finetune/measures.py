"""How good answers are, question by question. Knows outcomes and texts; neither models nor files.

A measure leaves out the questions that it does not apply to. Whatever people would not be shown counts as nothing: an
abstention, or a failure, on a question that has an answer scores 0.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from finetune.raft.row import PassageKind
from finetune.reading import Asked, Outcome
from reader.quotes import parse
from reader.schema import Quote
from reader.support import missing_from_quotes
from retriever.analyze import analyze_query
from retriever.encode import Encoder
from retriever.errors import BelegError
from retriever.schema import Hit

__all__ = [
    "MEASURES",
    "TOTAL",
    "WEIGHTS",
    "exact_match",
    "f1",
    "from_passage",
    "golden_sentence",
    "parse_weights",
    "per_question",
    "rouge_l",
    "weighted_total",
]

MEASURES = {
    "exact_match": "the answer is a golden one, apart from case, articles and punctuation (SQuAD)",
    "f1": "words that answer and golden answer share (SQuAD)",
    "rouge_l": "words that both have in the same order (ROUGE-L, F-measure)",
    "cosine": "nearness in meaning of answer and golden answer, by the served encoder; raw, -1 to 1",
    "keyword_recall": "share of the terms of golden answer and golden sentence that stand in the answer or its quotes",
    "golden_quote": "a quote is from the passage that answers",
    "abstained_rightly": "it abstained if nothing answers, and only then",
    "quote_valid": "every quote of an answer stands word for word in its passage",
    "quote_proven": "its words were proven: every quote that the model wrote, or what it only answered; whatever became of it",
    "quote_support": "the quotes have the numbers, dates and names of the answer",
    "retrieved_quoted": "a quote is from a passage that search found and that does not answer",
    "hard_quoted": "a quote is from a hard distractor",
    "easy_quoted": "a quote is from an easy distractor",
    "seconds": "time that an answer took",
}
"""Every measure, in the order in which they are shown, with what it means."""

TOTAL = "total"
"""Name of the weighted total among the measures."""

WEIGHTS: Mapping[str, float] = {"f1": 0.4, "golden_quote": 0.2, "abstained_rightly": 0.2, "cosine": 0.1, "keyword_recall": 0.1}
"""What the weighted total is made of by default."""

_WEIGHABLE = (
    "exact_match", "f1", "rouge_l", "cosine", "keyword_recall", "golden_quote", "abstained_rightly", "quote_valid",
    "quote_proven", "quote_support",
)  # fmt: skip
_DISTRACTORS: tuple[PassageKind, ...] = ("retrieved", "hard", "easy")


def per_question(outcomes: Sequence[Outcome], encoder: Encoder) -> dict[str, dict[str, float]]:
    """Return the value of each measure for each question that it applies to: by measure, then by the question's id.

    Questions that nothing answers have `abstained_rightly` alone, and what concerns their quotes. Questions asked without
    passages have no measure of quotes and abstentions.

    Args:
        encoder: for `cosine`; texts are compared as passages, all of them encoded together.
    """
    found: dict[str, dict[str, float]] = {name: {} for name in MEASURES}
    for outcome in outcomes:
        for name, value in _values(outcome).items():
            found[name][outcome.asked.id] = value
    found["cosine"] = _cosines(outcomes, encoder)
    return found


def weighted_total(values: Mapping[str, Mapping[str, float]], weights: Mapping[str, float] = WEIGHTS) -> dict[str, float]:
    """Return the weighted mean of measures for each question, 0 to 1.

    A question that some of the measures do not apply to is weighed by the others: one that nothing answers counts by whether
    the reader abstained. A cosine below zero counts as zero, since unrelated texts have about zero.

    Args:
        values: as `per_question` gives them.
        weights: by measure; they need not add up to 1.

    Raises:
        BelegError: a weight is for no measure that can be weighed, below zero, or all are zero.

    >>> values = {"f1": {"a": 0.5}, "golden_quote": {"a": 1.0}, "abstained_rightly": {"a": 1.0, "b": 0.0}}
    >>> weighted_total(values, {"f1": 2, "golden_quote": 1, "abstained_rightly": 1})
    {'a': 0.75, 'b': 0.0}
    """
    used = {name: weight for name, weight in _checked(weights).items() if weight > 0}
    ids = dict.fromkeys(key for name in used for key in values.get(name, ()))
    totals = {}
    for key in ids:
        applies = {name: weight for name, weight in used.items() if key in values.get(name, ())}
        total = sum(weight * max(0.0, values[name][key]) for name, weight in applies.items())
        totals[key] = total / sum(applies.values())
    return totals


def parse_weights(text: str) -> dict[str, float]:
    """Return weights as they are typed; those by default if nothing is.

    Raises:
        BelegError: they are malformed, or `weighted_total` does not take them.

    >>> parse_weights("f1=.5, golden_quote=.5")
    {'f1': 0.5, 'golden_quote': 0.5}
    """
    if not text.strip():
        return dict(WEIGHTS)
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, equals, number = part.partition("=")
        try:
            weights[name.strip()] = float(number)
        except ValueError as error:
            raise BelegError(f"{part.strip()!r} is no weight.", way_out="Write them as f1=.4,golden_quote=.2.") from error
        if not equals:
            raise BelegError(f"{part.strip()!r} is no weight.", way_out="Write them as f1=.4,golden_quote=.2.")
    return _checked(weights)


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


def rouge_l(answer: str, gold: Sequence[str]) -> float:
    """Return the best ROUGE-L of the answer against the golden ones: precision and recall of the longest common subsequence.

    The F-measure weighs both alike. Words are normalised as for `f1`, not stemmed. Lin, ROUGE: A Package for Automatic
    Evaluation of Summaries (ACL workshop, 2004).

    >>> rouge_l("police killed the gunman", ["police kill the gunman"])  # 2 of 3 words on either side
    0.6666666666666666
    >>> f1("gunman police", ["police gunman"]), rouge_l("gunman police", ["police gunman"])
    (1.0, 0.5)
    """
    return max((_rouge_l(_words(answer), _words(other)) for other in gold), default=0.0)


def from_passage(quote: Quote, hit: Hit) -> bool:
    """Say whether a quote is a part of a passage."""
    return (
        quote.document == hit.document
        and hit.start <= quote.start
        and hit.text[quote.start - hit.start : quote.end - hit.start] == quote.text
    )


def golden_sentence(quote: Quote, asked: Asked) -> bool:
    """Say whether a quote holds a text that proves the answer, or is a part of one."""
    quoted = _plain(quote.text)
    return any(quoted in text or text in quoted for text in map(_plain, asked.golden))


def _values(outcome: Outcome) -> dict[str, float]:
    asked, answer = outcome.asked, outcome.answer
    found = {} if outcome.failure else {"seconds": outcome.seconds}
    said = "" if answer.abstained or outcome.failure else answer.answer
    if asked.answers:
        found |= {
            "exact_match": exact_match(said, asked.answers) if said else 0.0,
            "f1": f1(said, asked.answers),
            "rouge_l": rouge_l(said, asked.answers),
        }
    if outcome.closed:
        return found
    abstained = answer.abstained and not outcome.failure
    found["abstained_rightly"] = float(not outcome.failure and abstained != bool(asked.answers))
    # Quotes of an answer that was withheld are shown to nobody.
    quotes = answer.quotes if said else ()
    if asked.answers:
        found["keyword_recall"] = _keyword_recall(asked, said, quotes)
        found["golden_quote"] = float(_quoted(asked, quotes, "golden"))
    if said:
        found["quote_valid"] = float(bool(quotes) and all(any(from_passage(q, hit) for hit in asked.hits) for q in quotes))
    if said or answer.reason == "unsupported":
        found["quote_support"] = float(not missing_from_quotes(*_claim(outcome)))
    written = parse(answer.reasoning)
    if not outcome.failure and not written.abstained and (said or answer.reason in ("unproven", "unsupported")):
        proven = {_plain(quote.text) for quote in answer.quotes}
        found["quote_proven"] = float(bool(answer.quotes) and all(_plain(text) in proven for _, text in written.quotes))
    for kind in _DISTRACTORS:
        if kind in asked.kinds:
            found[f"{kind}_quoted"] = float(_quoted(asked, answer.quotes, kind))
    return found


def _claim(outcome: Outcome) -> tuple[str, str, list[str]]:
    """Return what the model answered, what it was asked, and what it quoted."""
    said = outcome.answer.answer
    if outcome.answer.abstained:
        said = parse(outcome.answer.reasoning).answer or ""
    return said, outcome.asked.question, [quote.text for quote in outcome.answer.quotes]


def _quoted(asked: Asked, quotes: Iterable[Quote], kind: PassageKind) -> bool:
    hits = [hit for hit, one in zip(asked.hits, asked.kinds, strict=True) if one == kind]
    return any(from_passage(quote, hit) for quote in quotes for hit in hits)


def _keyword_recall(asked: Asked, said: str, quotes: Sequence[Quote]) -> float:
    # Quotes stay in the document's language, and the answer is in the question's.
    languages = sorted({asked.language, *(hit.language for hit in asked.hits)})
    given = set(analyze_query(" ".join((said, *(quote.text for quote in quotes))), languages))
    best = 0.0
    for answer in asked.answers:
        wanted = set(analyze_query(" ".join((answer, *asked.golden)), languages))
        best = max(best, len(wanted & given) / len(wanted) if wanted else 0.0)
    return best


def _cosines(outcomes: Sequence[Outcome], encoder: Encoder) -> dict[str, float]:
    able = [outcome for outcome in outcomes if outcome.asked.answers]
    given = {
        outcome.asked.id: outcome.answer.answer
        for outcome in able
        if not outcome.answer.abstained and not outcome.failure and outcome.answer.answer
    }
    texts = list(dict.fromkeys([*given.values(), *(text for outcome in able for text in outcome.asked.answers)]))
    if not texts:
        return {}
    vectors = dict(zip(texts, encoder.encode_passages(texts), strict=True))
    found = {}
    for outcome in able:
        said = given.get(outcome.asked.id)
        cosines = [float(vectors[said] @ vectors[text]) for text in outcome.asked.answers] if said else [0.0]
        found[outcome.asked.id] = min(1.0, max(cosines))
    return found


def _f1(given: Counter[str], gold: Counter[str]) -> float:
    common = sum((given & gold).values())
    return 2 * common / (sum(given.values()) + sum(gold.values())) if common else 0.0


def _rouge_l(given: Sequence[str], gold: Sequence[str]) -> float:
    # A row of the table at a time: longest[at] is that of the words so far and the first `at` of the golden ones.
    longest = [0] * (len(gold) + 1)
    for word in given:
        diagonal = 0
        for at, other in enumerate(gold, start=1):
            diagonal, longest[at] = longest[at], diagonal + 1 if word == other else max(longest[at], longest[at - 1])
    return 2 * longest[-1] / (len(given) + len(gold)) if longest[-1] else 0.0


def _words(text: str) -> list[str]:
    # As SQuAD, with German articles too; separators inside numbers stay.
    kept = re.sub(rf"(?<!\d)[{re.escape(string.punctuation)}]|[{re.escape(string.punctuation)}](?!\d)", " ", text.casefold())
    return [word for word in kept.split() if word not in {"a", "an", "the", "der", "die", "das", "ein", "eine"}]


def _plain(text: str) -> str:
    return " ".join(text.split())


def _checked(weights: Mapping[str, float]) -> dict[str, float]:
    for name, weight in weights.items():
        if name not in _WEIGHABLE:
            raise BelegError(f"{name!r} cannot be weighed.", way_out=f"Weigh some of {', '.join(_WEIGHABLE)}.")
        if not 0 <= weight < float("inf"):
            raise BelegError(f"The weight {weight} of {name} is not a number from 0 on.")
    if not any(weights.values()):
        raise BelegError("All weights are zero.", way_out="Leave `--weights` out for the usual ones.")
    return dict(weights)
