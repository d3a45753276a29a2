"""One question on its way to an answer: passages, prompt, model, proof. Knows neither store nor settings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from reader.calibration import Calibration
from reader.engine.base import Engine, never
from reader.evidence import Evidence, holding, rank
from reader.prompt import Rendered, render
from reader.quotes import Freedom, grammar, parse, prove
from reader.release import release_id
from reader.schema import Answer, Quote, Reason, Turn
from reader.support import in_words, missing_from_quotes, says_something, strength, unknown_identifiers
from retriever.encode import Encoder
from retriever.index.base import Filters, Stamp
from retriever.schema import Document, Hit
from retriever.search import Searcher

__all__ = ["Asking", "Event", "Given", "HitsFound", "Passages", "QuoteProven", "Reader", "Searched", "Token"]


@dataclass(frozen=True, slots=True)
class HitsFound:
    """The passages that the answer will be made from, best first."""

    hits: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class Token:
    """The next piece of what the model writes, not yet checked."""

    text: str


@dataclass(frozen=True, slots=True)
class QuoteProven:
    """A quote that has been found again in the stored document."""

    quote: Quote


Event = HitsFound | Token | QuoteProven | Answer
"""What `Pipeline.ask` yields: hits, then tokens, then proven quotes, and at last the answer."""


@dataclass(frozen=True, slots=True)
class Reader:
    """A language model, and how it is used.

    Attributes:
        answer_tokens: room for an answer.
    """

    engine: Engine
    calibration: Calibration
    answer_tokens: int


class Passages(Protocol):
    """Where the passages of an answer come from, and where its quotes are proven."""

    @property
    def encoder(self) -> Encoder:
        """What compares questions with sentences."""

    def find(self, query: str) -> Sequence[Hit]:
        """Return the passages for a query, best first."""

    def read(self, hit: Hit, start: int, end: int) -> tuple[str, int | None] | None:
        """Return a part of a passage's document as it is stored, and its page; None if the document is gone."""

    def stands(self, quote: Quote) -> Quote | None:
        """Return a quote at its place in the document as it is now; None if its text is no longer there."""

    def release(self, reader: Reader) -> str:
        """Return an id of everything that could change an answer."""


@dataclass(frozen=True)
class Searched:
    """Passages of an index: one searcher from the first passage to the last proof, whatever is published meanwhile.

    Attributes:
        now: returns a document as it is by now.
    """

    searcher: Searcher
    now: Callable[[str], Document | None]
    limit: int
    filters: Filters | None = None

    @property
    def encoder(self) -> Encoder:
        """The index's own."""
        return self.searcher.encoder

    def find(self, query: str) -> Sequence[Hit]:
        """Search."""
        return self.searcher.search(query, limit=self.limit, filters=self.filters)

    def read(self, hit: Hit, start: int, end: int) -> tuple[str, int | None] | None:
        """Read the document in the revision that was searched."""
        document = self.searcher.index.document(hit.document, hit.revision)
        return (document.text[start:end], document.page_at(start)) if document else None

    def stands(self, quote: Quote) -> Quote | None:
        """Look at the current version; a text that stands there more than once is taken where it has moved least."""
        document = self.now(quote.document)
        at = _nearest(document.text, quote.text, quote.start) if document else -1
        if document is None or at < 0:
            return None
        return replace(quote, title=document.title, page=document.page_at(at), start=at, end=at + len(quote.text))

    def release(self, reader: Reader) -> str:
        """Return the id of index, fusion, reranker and reader."""
        used = self.searcher
        return release_id(used.index.stamp, used.alpha, reader.calibration, reader.engine, used.reranker)


@dataclass(frozen=True)
class Given:
    """Passages that were fixed beforehand, so that several readers are asked with the same ones. Quotes are proven in them."""

    hits: tuple[Hit, ...]
    encoder: Encoder

    def find(self, query: str) -> Sequence[Hit]:  # noqa: ARG002 - whatever is asked
        """Return them all."""
        return self.hits

    def read(self, hit: Hit, start: int, end: int) -> tuple[str, int | None] | None:
        """Cut a part out of the passage itself; its page is that of the passage's beginning."""
        return (hit.text[start - hit.start : end - hit.start], hit.page) if start >= hit.start else None

    def stands(self, quote: Quote) -> Quote | None:
        """Return it as it is: passages that were fixed do not change."""
        return quote

    def release(self, reader: Reader) -> str:
        """Return the id of the reader alone: where the passages came from is not known."""
        return release_id(Stamp("", "", ""), 0.0, reader.calibration, reader.engine)


@dataclass
class Asking:
    """One question on its way to an answer.

    Attributes:
        question: in the asker's own words.
        query: what it means (`reader.followup`): searched for, and shown to the reader. The question itself by default.
    """

    reader: Reader
    passages: Passages
    question: str
    history: tuple[Turn, ...] = ()
    cancelled: Callable[[], bool] = never
    query: str = ""

    def __post_init__(self) -> None:
        self.query = self.query or self.question

    def run(self) -> Iterator[Event]:
        """Yield what happens; the `Answer` comes last."""
        begin = time.perf_counter()
        hits = self.passages.find(self.query)
        self._hits = tuple(hits)
        self._timings = {"search": time.perf_counter() - begin}
        yield HitsFound(self._hits)
        calibration = self.reader.calibration
        if not hits:
            yield self._abstain("nothing_found")
            return
        if strength(self.query, hits) < calibration.least_strength:
            yield self._abstain("weak_retrieval")
            return
        unknown = unknown_identifiers(self.query, hits)
        if unknown:
            yield self._abstain("weak_retrieval", notes=(f"No passage that was found has {', '.join(unknown)}.",))
            return
        shown = render(
            self.reader.engine,
            self.query,
            hits,
            history=self.history,
            answer_tokens=self.reader.answer_tokens,
            shots=calibration.shots,
        )
        notes = (f"{shown.dropped} of {len(hits)} passages did not fit the model's context.",) if shown.dropped else ()
        text = ""
        begin = time.perf_counter()
        evidence = self._evidence(shown)
        for piece in self._generate(shown, evidence):
            text += piece
            yield Token(piece)
        self._timings["read"] = time.perf_counter() - begin
        yield from self._checked(text, shown, evidence, notes)

    def _evidence(self, shown: Rendered) -> list[Evidence]:
        """Return the only sentences that may prove the answer, likeliest first; none if the reader may choose among all."""
        calibration = self.reader.calibration
        if calibration.quoting and not (calibration.quotable and self.reader.engine.constrained):
            return []
        ranked = [item for item in rank(self.query, self._hits, self.passages.encoder) if item.span.passage <= len(shown.hits)]
        return ranked[: calibration.quotable or None]

    def _generate(self, shown: Rendered, evidence: Sequence[Evidence]) -> Iterator[str]:
        engine, calibration = self.reader.engine, self.reader.calibration
        freedom = Freedom(calibration.may_abstain, calibration.reasoning, calibration.extractive, calibration.quoting)
        allowed = [item.span for item in evidence] or None
        rules = grammar(shown.hits, freedom, evidence=allowed) if engine.constrained else None
        return engine.generate(
            shown.prompt,
            grammar=rules,
            max_tokens=self.reader.answer_tokens,
            cancelled=self.cancelled,
        )

    def _checked(self, text: str, shown: Rendered, evidence: Sequence[Evidence], notes: tuple[str, ...]) -> Iterator[Event]:
        parsed = parse(text)
        if parsed.abstained:
            yield self._abstain("not_in_passages", text, notes)
            return
        quoted = parsed.quotes
        if not self.reader.calibration.quoting and (held := holding(parsed.answer or "", evidence, shown.hits)):
            quoted = ((held.passage, shown.hits[held.passage - 1].text[held.start : held.end]),)
        proven = prove(quoted, shown.hits, self.passages.read)
        quotes = [found for quote in proven if (found := self.passages.stands(quote))]
        if len(quotes) < len(proven):
            yield self._abstain("changed", text, notes)
            return
        for quote in quotes:
            yield QuoteProven(quote)
        if not quotes or not parsed.answer:
            yield self._abstain("unproven", text, notes)
            return
        # By the asker's own words: those of an earlier answer, which the query may have, prove nothing here.
        missing = missing_from_quotes(parsed.answer, self.question, [quote.text for quote in quotes])
        if missing:
            note = f"The model's answer names {', '.join(missing)}, which its quotes do not."
            yield self._abstain("unsupported", text, (*notes, note), tuple(quotes))
            return
        answer = parsed.answer
        if self.reader.calibration.extractive:
            # A small model may pick a word that tells nothing; the sentence it proves that with tells more.
            answer = answer.strip(" .,;:") if says_something(answer, self.query) else quotes[0].text
        yield self._made(answer, None, tuple(quotes), text, notes)

    def _abstain(self, reason: Reason, text: str = "", notes: tuple[str, ...] = (), quotes: tuple[Quote, ...] = ()) -> Answer:
        return self._made(in_words(reason, self.query), reason, quotes, text, notes)

    def _made(self, answer: str, reason: Reason | None, quotes: tuple[Quote, ...], text: str, notes: tuple[str, ...]) -> Answer:
        return Answer(
            answer=answer,
            abstained=reason is not None,
            reason=reason,
            quotes=quotes,
            hits=self._hits,
            reasoning=text,
            notes=notes,
            release=self.passages.release(self.reader),
            timings={name: round(seconds, 4) for name, seconds in self._timings.items()},
            query=self.query,
        )


def _nearest(text: str, part: str, place: int) -> int:
    """Return where a part of a text begins, as near to a place as it does; -1 if nowhere.

    >>> [_nearest("ab cd ab", "ab", place) for place in (0, 2, 5)], _nearest("ab", "x", 0)
    ([0, 0, 6], -1)
    """
    before, after = text.rfind(part, 0, place + len(part)), text.find(part, place)
    found = [at for at in (before, after) if at >= 0]
    return min(found, key=lambda at: abs(at - place), default=-1)
