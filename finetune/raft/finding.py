"""The passages of an example: the one that answers, and what search finds beside it that does not.

Search is the served one, neighbours joined as people are shown them. Knows nothing of quotes and of who writes answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from finetune.data.schema import Context, Row
from finetune.negatives import Filter, stands
from finetune.pairs import Finder
from finetune.raft.checks import verdict_words
from finetune.raft.row import Passage, PassageKind
from finetune.workspace import Passages, Workspace, source_of_context
from retriever.metrics import Label
from retriever.schema import Hit, document_id
from retriever.search import Searcher

__all__ = ["Finding", "Golden", "given_passages"]

_DEPTH = 20
"""Hits that are looked at: enough for fifteen distractors where a few of them answer too."""


@dataclass(frozen=True, slots=True)
class Golden:
    """The passage that answers a question.

    Attributes:
        span: where the answer stands in it, in code points; None if that is not known.
        number: of the chunk that it was made of.
        answering: numbers of all chunks that answer, as far as is known.
    """

    passage: Passage
    span: tuple[int, int] | None
    number: int
    answering: frozenset[int]


class Finding:
    """Finds passages in a workspace.

    Args:
        space: filled and indexed by the searcher's encoder.
        rows: all rows whose contexts lie there, not only those that are built: what answers a question's translation, which
            shares its id, answers it too.

    Attributes:
        dropped: hits that are no distractors, by reason.
    """

    def __init__(self, space: Workspace, searcher: Searcher, rows: Sequence[Row] = ()) -> None:
        self._searcher = searcher
        self.passages: Passages = space.passages(searcher.encoder)
        self._finder = Finder(self.passages)
        self._filter = Filter(self.passages.texts, self.passages.vectors, margin=None)
        self.dropped: Counter[str] = Counter()
        self._known: dict[str, set[int]] = {}
        labels = space.labels(rows)
        for at, row in enumerate(rows):
            for label in labels.get(str(at), ()):
                self._known.setdefault(row.id, set()).update(self._finder.holding(label))
            for text in row.positives[1:]:
                self._known.setdefault(row.id, set()).update(self._finder.of_context(text))

    def hits(self, question: str) -> list[Hit]:
        """Return what people would be shown for a question, best first."""
        return self._searcher.search(question, limit=_DEPTH)

    def golden(self, row: Row, evidence: tuple[int, int] | None, hits: Sequence[Hit]) -> Golden | None:
        """Return the passage that answers a row: the hit that has it, else its chunk; None if no chunk holds the answer whole.

        Args:
            evidence: what proves the answer, in the row's first positive; None takes the place of its first answer.
        """
        first = document_id(source_of_context(row.positives[0]))
        placed = next(((one.start, one.start + len(one.text)) for one in row.answers if one.start is not None), None)
        span = evidence or placed
        label = Label(first, *span) if span else Label(first, 0, len(row.positives[0].text), share=0.0)
        number = self._finder.best(row, [label])
        if number is None:
            return None
        passage = self._shown(number, hits)
        inside = (span[0] - passage.start, span[1] - passage.start) if span else _only_place(row, passage)
        if span and inside and not 0 <= inside[0] < inside[1] <= len(passage.text):
            return None
        # Where the answer stands is not always known: then any part of the context may hold it.
        answering = frozenset((number, *self._finder.holding(label), *self._known.get(row.id, ())))
        return Golden(passage, inside, number, answering)

    def chunk(self, number: int) -> Golden:
        """Return a chunk as the passage that answers what is asked about it."""
        return Golden(self._shown(number, ()), None, number, frozenset({number}))

    def distractors(
        self,
        question: str,
        hits: Sequence[Hit],
        count: int,
        *,
        answers: Sequence[str],
        golden: Golden | None,
        titles: Collection[str] = (),
    ) -> list[Passage]:
        """Return the best hits that do not answer, at most `count`.

        What overlaps the golden passage, has or contains its text, or holds an answer is no distractor.

        Args:
            answers: of the question; verdicts such as yes are not looked for.
            golden: None where nothing answers: then documents of these `titles` are left out, since they may.
        """
        wanted = [answer for answer in answers if not verdict_words(answer)]
        found: list[Passage] = []
        for hit in hits:
            if len(found) == count:
                break
            reason = self._reason(question, hit, wanted, golden, titles)
            if not reason and any(_plain(one.text) == _plain(hit.text) for one in found):
                reason = "same text"
            if reason:
                self.dropped[reason] += 1
            else:
                found.append(_passage(hit, "retrieved"))
        return found

    def _reason(
        self, question: str, hit: Hit, answers: Sequence[str], golden: Golden | None, titles: Collection[str]
    ) -> str | None:
        text = _plain(hit.text)
        one = golden.passage if golden else None
        if one and hit.source == one.source and hit.start < one.end and hit.end > one.start:
            return "answers it"
        if any(stands(_plain(answer), text) for answer in answers):
            return "holds the answer"
        if golden is None or one is None:
            return "may answer" if hit.title and hit.title in titles else None
        right = _plain(one.text)
        if text in right or right in text:
            return "same text"
        spans = self.passages.spans
        held = self._finder.holding(Label(hit.document, hit.start, hit.end))
        inside = [number for number in held if spans[number][0] >= hit.start and spans[number][1] <= hit.end]
        # The positive's own vector stands for the query's: without a margin no score is compared.
        query = self.passages.vectors[golden.number]
        reasons = self._filter.reasons(question, query, answers, golden.number, golden.answering, inside)
        return next((reason for reason in reasons if reason), None)

    def _shown(self, number: int, hits: Sequence[Hit]) -> Passage:
        document, (start, end) = self.passages.documents[number], self.passages.spans[number]
        for hit in hits:
            if hit.document == document and hit.start <= start and hit.end >= end:
                return _passage(hit, "golden")
        row = int(self.passages.rows[number])
        one = self._searcher.index.passages([row])[row]
        return Passage(one.text, one.title, one.headings, "golden", one.source, one.start, one.end, one.language)


def given_passages(row: Row, present: bool) -> tuple[Passage | None, list[Passage], Counter[str]]:
    """Return a row's own contexts: the golden one, up to three hard and one easy negative, and what was left out.

    A negative in which an answer stands is left out, and so is one that is part of the golden passage or there already.

    Args:
        present: whether the golden one is shown; if not, its text only keeps others away.
    """
    answers = [_plain(one.text) for one in row.answers if not verdict_words(one.text)]
    right = _plain(row.positives[0].text) if row.positives else ""
    dropped: Counter[str] = Counter()
    chosen: list[Passage] = []
    kinds: tuple[tuple[PassageKind, int], ...] = (("hard", 3), ("easy", 1))
    for kind, most in kinds:
        taken = 0
        for context in row.hard_negatives if kind == "hard" else row.negatives:
            text = _plain(context.text)
            if taken == most:
                break
            if any(stands(answer, text) for answer in answers):
                dropped["holds the answer"] += 1
            elif (right and (text in right or right in text)) or text in map(_plain, (one.text for one in chosen)):
                dropped["same text"] += 1
            else:
                chosen.append(_context(row, context.text, context.title, kind))
                taken += 1
    golden = _context(row, row.positives[0].text, row.positives[0].title, "golden") if row.positives and present else None
    return golden, chosen, dropped


def _context(row: Row, text: str, title: str, kind: PassageKind) -> Passage:
    return Passage(text, title, (), kind, source_of_context(Context(text, title)), 0, len(text), row.language)


def _passage(hit: Hit, kind: PassageKind) -> Passage:
    return Passage(hit.text, hit.title, hit.headings, kind, hit.source, hit.start, hit.end, hit.language)


def _only_place(row: Row, passage: Passage) -> tuple[int, int] | None:
    """Return where an answer stands in a passage, if one stands there exactly once."""
    for answer in row.answers:
        at = passage.text.find(answer.text)
        if at >= 0 and passage.text.find(answer.text, at + 1) < 0:
            return at, at + len(answer.text)
    return None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
