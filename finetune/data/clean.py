"""Clean training data by rules that are listed and can each be switched off. Knows no file and no model.

Rules that change texts move the starts of answers along. Cleaning twice changes nothing that cleaning once did not.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import combinations
from types import MappingProxyType
from typing import NamedTuple

from finetune.data.duplicates import near_pairs, near_texts, same, sketch, sorted_words
from finetune.data.edits import Edit, apply, blanks, follow, forms
from finetune.data.schema import Answer, Context, Row
from finetune.data.typos import Suggestion, corrected, suggest
from retriever.errors import BelegError

__all__ = ["DEFAULTS", "RULES", "Change", "Cleaned", "Rule", "clean"]


class Rule(NamedTuple):
    """What a rule does, in a line, and whether it is on if nobody says anything."""

    description: str
    on: bool


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "lowercase": Rule("Lower-case questions; contexts and answers never.", False),
        "unicode": Rule("Compose letters (NFC), remove soft hyphens and what has no width, make spaces plain.", True),
        "whitespace": Rule("One space for a run of blanks or tabs, none at a line's end; line breaks stay.", True),
        "empty": Rule("Drop rows without question, or positive and hard negative; drop empty contexts, answers.", True),
        "starts": Rule("Forget starts at which the answer does not stand; set those of answers that stand once.", True),
        "typos": Rule("Suggest words of the contexts for words of questions that look mistyped.", False),
        "contradictions": Rule("Drop rows of one question and context whose answers have nothing in common; "
                               "drop a negative that is a positive of its row.", True),
        "duplicates": Rule("Keep the first of rows with the same question and positives, with all their answers.", True),
        "near-duplicates": Rule("Keep the first of rows with nearly the same question and positive, if answers agree.", True),
    }
)  # fmt: skip
"""All rules, in the order in which they are applied."""

DEFAULTS = frozenset(name for name, rule in RULES.items() if rule.on)

_SHOWN = 60
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Change:
    """What a rule did to a row.

    Attributes:
        row: the row's id.
        before: what was there; of long texts, the surroundings of the first difference.
        after: what is there now; None if the row was dropped.
        note: which part of the row, or which other row is the reason.
    """

    rule: str
    row: str
    origin: str
    before: str
    after: str | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """Rows after cleaning, in the order in which they came, and all that was done to them."""

    rows: list[Row]
    changes: list[Change] = field(default_factory=list)
    suggestions: list[Suggestion] = field(default_factory=list)

    def counts(self) -> dict[str, dict[str, int]]:
        """Return for each rule that did something how many rows it changed and how many it dropped."""
        rows: dict[str, tuple[set[tuple[str, str]], list[Change]]] = defaultdict(lambda: (set(), []))
        for change in self.changes:
            changed, dropped = rows[change.rule]
            if change.after is None:
                dropped.append(change)
            else:
                changed.add((change.row, change.origin))
        return {name: {"changed": len(rows[name][0]), "dropped": len(rows[name][1])} for name in RULES if name in rows}


def clean(rows: Iterable[Row], *, rules: Collection[str] = DEFAULTS, apply_typos: bool = False) -> Cleaned:
    """Apply rules to rows; the order of rows stays.

    Args:
        rules: names of `RULES`; their order does not matter.
        apply_typos: carry out what the rule `typos` suggests.

    Raises:
        BelegError: a rule is unknown.

    >>> row = Row("1", "Wer  zahlt?", (Answer("der Chef", 2),), (Context("\\xadEs zahlt  der Chef."),))
    >>> cleaned = clean([row]).rows[0]
    >>> cleaned.question, cleaned.answers
    ('Wer zahlt?', (Answer(text='der Chef', start=9),))
    """
    unknown = sorted(set(rules) - set(RULES))
    if unknown:
        raise BelegError(f"There is no rule {', '.join(unknown)}.", way_out=f"The rules are {', '.join(RULES)}.")
    work = _Work(list(rows))
    steps: dict[str, Callable[[], None]] = {
        "lowercase": work.lowercase,
        "unicode": lambda: work.texts("unicode", forms, strip=False),
        "whitespace": lambda: work.texts("whitespace", lambda text: [blanks(text)], strip=True),
        "empty": work.empty,
        "starts": work.starts,
        "typos": lambda: work.typos(apply_typos),
        "contradictions": work.contradictions,
        "duplicates": work.duplicates,
        "near-duplicates": work.near_duplicates,
    }
    for name in RULES:
        if name in rules:
            steps[name]()
    return Cleaned(work.rows, work.changes, work.suggestions)


class _Work:
    """Rows on their way through the rules."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows
        self.changes: list[Change] = []
        self.suggestions: list[Suggestion] = []
        # Rows of one article share long contexts: each is looked at once, and forgotten with this object.
        self._same = cache(same)

    def lowercase(self) -> None:
        for at, row in enumerate(self.rows):
            self._change("lowercase", at, replace(row, question=row.question.lower()))

    def texts(self, rule: str, rounds: Callable[[str], list[list[Edit]]], *, strip: bool) -> None:
        """Edit all texts of all rows, in rounds; answers follow the first positive."""

        @cache
        def edited(text: str) -> tuple[str, list[list[Edit]]]:
            done = [edits for edits in rounds(text) if edits]
            for edits in done:
                text = apply(text, edits)
            return text, done

        def alone(text: str) -> str:
            return edited(text)[0].strip() if strip else edited(text)[0]

        def context(old: Context) -> Context:
            text, title = edited(old.text)[0], alone(old.title)
            return old if text == old.text and title == old.title else Context(text, title)

        def answer(old: Answer, row: Row) -> Answer:
            if old.start is None or not _stands(old, row):
                return Answer(alone(old.text))
            text, done = edited(row.positives[0].text)
            start, end = old.start, old.start + len(old.text)
            for edits in done:
                start, end = follow(edits, start, end)
            found = text[start:end]
            return Answer(found.strip(), start + len(found) - len(found.lstrip())) if strip else Answer(found, start)

        for at, row in enumerate(self.rows):
            new = replace(
                row,
                question=alone(row.question),
                answers=tuple(answer(old, row) for old in row.answers),
                positives=tuple(map(context, row.positives)),
                negatives=tuple(map(context, row.negatives)),
                hard_negatives=tuple(map(context, row.hard_negatives)),
            )
            self._change(rule, at, new)

    def empty(self) -> None:
        kept = []
        for at, row in enumerate(self.rows):
            positives, negatives, hard = (
                tuple(context for context in contexts if context.text.strip())
                for contexts in (row.positives, row.negatives, row.hard_negatives)
            )
            answers = tuple(answer for answer in row.answers if answer.text.strip())
            if positives[:1] != row.positives[:1]:
                answers = tuple(Answer(answer.text) for answer in answers)
            row = replace(row, answers=answers, positives=positives, negatives=negatives, hard_negatives=hard)
            lacks = "no question" if not row.question.strip() else "" if positives or hard else "no positive, no hard negative"
            if lacks:
                self._drop("empty", self.rows[at], lacks)
            else:
                self._change("empty", at, row)
                kept.append(row)
        self.rows = kept

    def starts(self) -> None:
        for at, row in enumerate(self.rows):
            if any(not _stands(answer, row) for answer in row.answers):
                self._change("starts", at, replace(row, answers=tuple(_placed(answer, row) for answer in row.answers)))

    def contradictions(self) -> None:
        for at, row in enumerate(self.rows):
            if row.positives and (row.negatives or row.hard_negatives):
                right = {self._same(context.text) for context in row.positives}
                negatives, hard = (
                    tuple(context for context in contexts if self._same(context.text) not in right)
                    for contexts in (row.negatives, row.hard_negatives)
                )
                self._change("contradictions", at, replace(row, negatives=negatives, hard_negatives=hard))
        groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in self.rows:
            if row.positives and row.answers:
                groups[self._same(row.question), self._same(row.positives[0].text)].append(row)
        reasons: dict[int, str] = {}
        for group in groups.values():
            # Logs ask the same thing a thousand times: rows with equal answers are compared once.
            distinct = list({row.answers: row for row in group}.values())
            against: dict[tuple[Answer, ...], Row] = {}
            for one, other in combinations(distinct, 2):
                if not _agree(one, other):
                    against.setdefault(one.answers, other)
                    against.setdefault(other.answers, one)
            reasons |= {id(row): _name(against[row.answers]) for row in group if row.answers in against}
        for row in self.rows:
            if id(row) in reasons:
                self._drop("contradictions", row, f"{_answers(row)}, against {reasons[id(row)]}")
        self.rows = [row for row in self.rows if id(row) not in reasons]

    def duplicates(self) -> None:
        first: dict[tuple[object, ...], int] = {}
        kept: list[Row] = []
        merged: dict[int, Row] = {}
        for row in self.rows:
            texts = [self._same(context.text) for context in row.positives]
            hard = frozenset() if texts else frozenset(self._same(context.text) for context in row.hard_negatives)
            at = first.setdefault((self._same(row.question), *texts[:1], frozenset(texts), hard), len(kept))
            if at == len(kept):
                kept.append(row)
            else:
                self._drop("duplicates", row, f"same as {_name(kept[at])}")
                merged[at] = self._merged(merged.get(at, kept[at]), row)
        self.rows = kept
        for at, row in merged.items():
            self._change("duplicates", at, row)

    def near_duplicates(self) -> None:
        classes: dict[str, int] = {}
        own = [classes.setdefault(sorted_words(row.question), len(classes)) for row in self.rows]
        near: dict[int, list[int]] = defaultdict(list)
        for one, other in near_pairs(list(classes)):
            near[one].append(other)
            near[other].append(one)
        sketched, alike = cache(sketch), cache(near_texts)
        sizes: dict[int, int] = defaultdict(int)
        for number in own:
            sizes[number] += 1
        kept: list[Row] = []
        by: dict[tuple[int, int], list[int]] = defaultdict(list)
        for row, number in zip(self.rows, own, strict=True):
            if not row.positives or (sizes[number] == 1 and number not in near):
                kept.append(row)
                continue
            text = self._same(row.positives[0].text)
            values = sketched(text)
            candidates = {at for other in (number, *near[number]) for value in values for at in by.get((other, value), ())}
            for at in sorted(candidates):
                other_text = self._same(kept[at].positives[0].text)
                if alike(*sorted((text, other_text))) and (not (row.answers and kept[at].answers) or _agree(row, kept[at])):
                    self._drop("near-duplicates", row, f"nearly {_name(kept[at])}: {kept[at].question}")
                    break
            else:
                for value in values:
                    by[number, value].append(len(kept))
                kept.append(row)
        self.rows = kept

    def typos(self, carry_out: bool) -> None:
        self.suggestions = suggest(self.rows)
        if carry_out:
            places = {id(row): at for at, row in enumerate(self.rows)}
            for old, new in corrected(self.rows, self.suggestions):
                self._change("typos", places[id(old)], new)

    def _merged(self, row: Row, other: Row) -> Row:
        """Return `row` with the answers of `other` that stand in its context, and with its negatives."""
        known = {self._same(answer.text) for answer in row.answers}
        answers = [_placed(answer, row) for answer in other.answers if self._same(answer.text) not in known]
        answers = [answer for answer in answers if answer.start is not None]
        return replace(
            row,
            answers=(*row.answers, *dict.fromkeys(answers)),
            negatives=self._union(row.negatives, other.negatives),
            hard_negatives=self._union(row.hard_negatives, other.hard_negatives),
        )

    def _union(self, one: Sequence[Context], other: Sequence[Context]) -> tuple[Context, ...]:
        known = {self._same(context.text) for context in one}
        new = {self._same(context.text): context for context in reversed(other)}
        return (*one, *(context for text, context in reversed(new.items()) if text not in known))

    def _change(self, rule: str, at: int, new: Row) -> None:
        old = self.rows[at]
        if new == old:
            return
        self.rows[at] = new
        for name in ("question", "answers", "positives", "negatives", "hard_negatives"):
            before, after = getattr(old, name), getattr(new, name)
            if before != after:
                shown = _difference(_shown(before), _shown(after))
                self.changes.append(Change(rule, old.id, old.origin, *shown, note=name))

    def _drop(self, rule: str, row: Row, why: str) -> None:
        self.changes.append(Change(rule, row.id, row.origin, row.question, None, why))


def _stands(answer: Answer, row: Row) -> bool:
    if answer.start is None or answer.start < 0 or not row.positives:
        return False
    return row.positives[0].text.startswith(answer.text, answer.start)


def _placed(answer: Answer, row: Row) -> Answer:
    """Return the answer with its start if it stands there, or else only once; without one otherwise."""
    if _stands(answer, row):
        return answer
    text = row.positives[0].text if row.positives and answer.text else ""
    start = text.find(answer.text)
    return Answer(answer.text, start if text and start >= 0 and start == text.rfind(answer.text) else None)


def _agree(one: Row, other: Row) -> bool:
    """Tell whether an answer of one shares a word, or a place in an equal context, with an answer of the other."""
    words = [{word for answer in row.answers for word in (same(answer.text), *_WORD.findall(same(answer.text)))}
             for row in (one, other)]  # fmt: skip
    if words[0] & words[1]:
        return True
    if one.positives[:1] != other.positives[:1]:
        return False
    return any(
        first.start < second.start + len(second.text) and second.start < first.start + len(first.text)
        for first in one.answers
        for second in other.answers
        if first.start is not None and second.start is not None
    )


def _name(row: Row) -> str:
    return row.origin or row.id


def _answers(row: Row) -> str:
    return " / ".join(answer.text for answer in row.answers)[:_SHOWN]


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return "\n".join(_shown(item) for item in value)
    if isinstance(value, Answer):
        return value.text if value.start is None else f"{value.text} @{value.start}"
    return "\n".join(filter(None, (value.title, value.text))) if isinstance(value, Context) else str(value)


def _difference(before: str, after: str) -> tuple[str, str]:
    """Return the surroundings of the first difference."""
    first = next((at for at, (one, other) in enumerate(zip(before, after, strict=False)) if one != other), None)
    at = min(len(before), len(after)) if first is None else first
    start = max(0, at - _SHOWN // 2)
    return tuple(  # type: ignore[return-value]
        ("…" if start else "") + text[start : start + _SHOWN] + ("…" if start + _SHOWN < len(text) else "")
        for text in (before, after)
    )
