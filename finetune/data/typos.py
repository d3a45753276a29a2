"""Suggest what a mistyped word of a question was to be, from the words of the contexts. Suggests only; people decide."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from finetune.data.schema import Row
from retriever.analyze import analyze

__all__ = ["Suggestion", "corrected", "suggest"]

_WORD = re.compile(r"[^\W\d_]+")
_SHORTEST = 5
_LONG = 8
_OFTEN = 3
"""In so many distinct contexts a word must stand to be suggested."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Write `instead` for `word` in a question.

    Attributes:
        row: the row's id.
        contexts: how many distinct contexts have the word to write instead.
    """

    row: str
    origin: str
    question: str
    word: str
    instead: str
    contexts: int


def suggest(rows: Sequence[Row]) -> list[Suggestion]:
    """Return a suggestion for each word of a question that no context has while a word of its own contexts is near.

    Near is one letter more, less, other or swapped with its neighbour; two for words of more than eight letters. Left alone are
    words of fewer than five letters, words that several distinct questions have, and other forms of the same stem. The word to
    write instead must stand in a positive context of the row, and be frequent in the set: without that, two of three
    suggestions are wrong, such as one word of the language for another.
    """
    contexts = {text.text for row in rows for text in (*row.positives, *row.negatives, *row.hard_negatives)}
    words = {text: frozenset(word.casefold() for word in _WORD.findall(text)) for text in contexts}
    counts = Counter(word for found in words.values() for word in found)
    asked: Counter[str] = Counter()
    for question in {row.question for row in rows}:
        asked.update({word.casefold() for word in _WORD.findall(question)})
    found = []
    for row in rows:
        for word in dict.fromkeys(_WORD.findall(row.question)):
            small = word.casefold()
            if len(small) < _SHORTEST or small in counts or asked[small] > 1:
                continue
            own = {other for context in row.positives for other in words[context.text] if counts[other] >= _OFTEN}
            instead = _nearest(small, row.language, own, counts)
            if instead:
                found.append(
                    Suggestion(row.id, row.origin, row.question, word, _cased(instead, word), contexts=counts[instead])
                )
    return found


def corrected(rows: Sequence[Row], suggestions: Sequence[Suggestion]) -> Iterator[tuple[Row, Row]]:
    """Yield each row that a suggestion is for, and what it becomes."""
    by: dict[tuple[str, str, str], dict[str, str]] = defaultdict(dict)
    for item in suggestions:
        by[item.row, item.origin, item.question][item.word] = item.instead
    for row in rows:
        words = by.get((row.id, row.origin, row.question))
        if words:
            yield row, replace(row, question=_replaced(row.question, words))


def _replaced(question: str, words: Mapping[str, str]) -> str:
    return _WORD.sub(lambda match: words.get(match.group(), match.group()), question)


def _nearest(word: str, language: str, choices: Iterable[str], counts: Mapping[str, int]) -> str:
    from rapidfuzz.distance import OSA
    from rapidfuzz.process import extract

    most = 2 if len(word) > _LONG else 1
    near = extract(word, list(choices), scorer=OSA.distance, score_cutoff=most, limit=None)
    ranked = sorted((distance, -counts[other], other) for other, distance, _ in near if not _forms(word, other, language))
    return ranked[0][2] if ranked else ""


def _forms(one: str, other: str, language: str) -> bool:
    """Tell whether two words are forms of one: Snowball keeps some apart, such as Nummer and Nummern."""
    return one.startswith(other) or other.startswith(one) or analyze(one, language) == analyze(other, language)


def _cased(word: str, like: str) -> str:
    return word.upper() if like.isupper() else word.capitalize() if like[:1].isupper() else word
