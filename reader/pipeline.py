"""Opens what answers questions and answers with it: the same object is served, asked on the command line and evaluated."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from reader.calibration import Calibration, read_calibration
from reader.engine.base import Engine, never
from reader.engine.llamacpp import LlamaCpp
from reader.engine.remote import Remote
from reader.evidence import Evidence, rank
from reader.prompt import Rendered, render
from reader.quotes import Freedom, Span, grammar, parse, prove
from reader.release import release_id
from reader.schema import Answer, Quote, Reason, Turn
from reader.support import in_words, missing_from_quotes, says_something, strength, unknown_identifiers
from retriever.encoders import Encoders
from retriever.errors import IndexUnavailable, QueryError
from retriever.index.base import Filters, Generations
from retriever.index.engines import open_generations
from retriever.live import Live
from retriever.models import file_hash, locate, weights_in
from retriever.publish import catch_up
from retriever.rerank import Reranker, open_reranker
from retriever.schema import Document, Hit
from retriever.search import Mode, Searcher
from retriever.settings import Settings
from retriever.store import Store

__all__ = ["Event", "HitsFound", "Pipeline", "QuoteProven", "Token", "open_engine"]

_log = logging.getLogger(__name__)


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


class Pipeline:
    """Answers questions from one index with the encoder that made it and one reader. Safe to use from many threads.

    Args:
        store: stays open until the pipeline is closed.
        engine: None where only searching is wanted.
        reranker: judges the best passages again.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        generations: Generations,
        encoders: Encoders,
        engine: Engine | None,
        calibration: Calibration,
        reranker: Reranker | None = None,
    ) -> None:
        self.settings = settings
        self.store = store
        self.calibration = calibration
        self._engine = engine
        self._live = Live(generations, encoders, alpha=settings.alpha, reranker=reranker)

    @classmethod
    def open(cls, settings: Settings, *, reader: bool = True) -> Pipeline:
        """Open store, index, reranker and reader as the settings say, and finish what an interrupted run stored.

        A search engine that does not answer does not keep the pipeline from being opened: it may come back.

        Args:
            reader: False leaves the language model out, for searching only.

        Raises:
            StoreError, ModelError, EngineUnavailable: one of them cannot be opened.
        """
        # Never without it if it does not load: answers would be worse, and nobody would know.
        reranker = open_reranker(settings.reranker) if settings.reranker else None
        store = Store(settings.data_dir)
        generations = open_generations(settings, store)
        try:
            catch_up(store, generations)
        except IndexUnavailable as error:
            _log.warning("%s", error)
        engine = open_engine(settings) if reader else None
        calibration = read_calibration(settings.data_dir, engine.fingerprint if engine else "")
        return cls(settings, store, generations, Encoders(settings.encoder), engine, calibration, reranker)

    def close(self) -> None:
        """Free the model and close the store."""
        if self._engine:
            self._engine.close()
        self.store.close()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check(self) -> None:
        """Raise what would keep the next question from being answered; quick enough for a readiness probe."""
        self._live.searcher()

    def search(
        self,
        query: str,
        *,
        limit: int = 10,
        mode: Mode = "fused",
        filters: Filters | None = None,
        rerank: bool | None = None,
    ) -> list[Hit]:
        """Return the best passages for a query; see `Searcher.search`."""
        return self._live.searcher().search(query, limit=limit, mode=mode, filters=filters, rerank=rerank)

    def answer(self, question: str, *, filters: Filters | None = None, history: Sequence[Turn] = ()) -> Answer:
        """Return the answer to a question; see `ask`."""
        *_, last = self.ask(question, filters=filters, history=history)
        assert isinstance(last, Answer)
        return last

    def ask(
        self,
        question: str,
        *,
        filters: Filters | None = None,
        history: Sequence[Turn] = (),
        cancelled: Callable[[], bool] = never,
    ) -> Iterator[Event]:
        """Yield what happens on the way to an answer; the `Answer` comes last.

        Args:
            history: earlier turns of the conversation, oldest first; the last question helps to find passages.
            cancelled: asked at every token; the answer stops as soon as it says True.

        Raises:
            QueryError: the question is empty or a filter is unknown.
            IndexMissing, IndexMismatch: there is no index for this encoder.
            EngineError, PromptTooLong: the model failed, or the question does not fit it.
        """
        if not question.strip():
            raise QueryError("The question is empty.", way_out="Write a question.")
        if self._engine is None:
            raise QueryError("This pipeline was opened without a reader.")
        # One searcher from the first passage to the last proof, whatever is published meanwhile.
        yield from _Asking(self, self._live.searcher(), self._engine, question, tuple(history), cancelled).run(filters)


@dataclass
class _Asking:
    """One question on its way to an answer."""

    pipeline: Pipeline
    searcher: Searcher
    engine: Engine
    question: str
    history: tuple[Turn, ...]
    cancelled: Callable[[], bool]

    def run(self, filters: Filters | None) -> Iterator[Event]:
        begin = time.perf_counter()
        query = _query(self.question, self.history)
        hits = self.searcher.search(query, limit=self.pipeline.settings.passages, filters=filters)
        evidence = rank(query, hits, self.searcher.encoder)
        self._hits = tuple(hits)
        self._timings = {"search": time.perf_counter() - begin}
        yield HitsFound(self._hits)
        calibration = self.pipeline.calibration
        if not hits:
            yield self._abstain("nothing_found")
            return
        if strength(query, hits) < calibration.least_strength:
            yield self._abstain("weak_retrieval")
            return
        unknown = unknown_identifiers(self.question, hits)
        if unknown:
            yield self._abstain("weak_retrieval", notes=(f"No passage that was found has {', '.join(unknown)}.",))
            return
        shown = render(
            self.engine,
            self.question,
            hits,
            history=self.history,
            answer_tokens=self.pipeline.settings.answer_tokens,
        )
        notes = (f"{shown.dropped} of {len(hits)} passages did not fit the model's context.",) if shown.dropped else ()
        text = ""
        begin = time.perf_counter()
        for piece in self._generate(shown, evidence):
            text += piece
            yield Token(piece)
        self._timings["read"] = time.perf_counter() - begin
        yield from self._checked(text, shown, notes)

    def _generate(self, shown: Rendered, evidence: Sequence[Evidence]) -> Iterator[str]:
        calibration = self.pipeline.calibration
        allowed: list[Span] | None = None
        if calibration.quotable and self.engine.constrained:
            spans = [item.span for item in evidence if item.span.passage <= len(shown.hits)]
            allowed = spans[: calibration.quotable] or None
        freedom = Freedom(calibration.may_abstain, calibration.reasoning, calibration.extractive)
        rules = grammar(shown.hits, freedom, evidence=allowed) if self.engine.constrained else None
        return self.engine.generate(
            shown.prompt,
            grammar=rules,
            max_tokens=self.pipeline.settings.answer_tokens,
            cancelled=self.cancelled,
        )

    def _checked(self, text: str, shown: Rendered, notes: tuple[str, ...]) -> Iterator[Event]:
        parsed = parse(text)
        if parsed.abstained:
            yield self._abstain("not_in_passages", text, notes)
            return
        quotes = prove(parsed.quotes, shown.hits, self._read)
        for quote in quotes:
            yield QuoteProven(quote)
        if not quotes or not parsed.answer:
            yield self._abstain("unproven", text, notes)
            return
        missing = missing_from_quotes(parsed.answer, self.question, [quote.text for quote in quotes])
        if missing:
            note = f"The model's answer names {', '.join(missing)}, which its quotes do not."
            yield self._abstain("unsupported", text, (*notes, note), tuple(quotes))
            return
        answer = parsed.answer
        if self.pipeline.calibration.extractive:
            # A small model may pick a word that tells nothing; the sentence it proves that with tells more.
            answer = answer.strip(" .,;:") if says_something(answer, self.question) else quotes[0].text
        yield self._made(answer, None, tuple(quotes), text, notes)

    def _read(self, hit: Hit, start: int, end: int) -> tuple[str, int | None] | None:
        document: Document | None = self.searcher.index.document(hit.document, hit.revision)
        return (document.text[start:end], document.page_at(start)) if document else None

    def _abstain(self, reason: Reason, text: str = "", notes: tuple[str, ...] = (), quotes: tuple[Quote, ...] = ()) -> Answer:
        return self._made(in_words(reason, self.question), reason, quotes, text, notes)

    def _made(self, answer: str, reason: Reason | None, quotes: tuple[Quote, ...], text: str, notes: tuple[str, ...]) -> Answer:
        used = self.searcher
        return Answer(
            answer=answer,
            abstained=reason is not None,
            reason=reason,
            quotes=quotes,
            hits=self._hits,
            reasoning=text,
            notes=notes,
            release=release_id(used.index.stamp, used.alpha, self.pipeline.calibration, self.engine, used.reranker),
            timings={name: round(seconds, 4) for name, seconds in self._timings.items()},
        )


def _query(question: str, history: Sequence[Turn]) -> str:
    """Return what to search for: a follow-up such as “and in Harrowick?” says too little by itself."""
    return f"{history[-1].question} {question}" if history else question


def open_engine(settings: Settings) -> Engine:
    """Open the reader that the settings name: a model server if there is a `reader_url`, else a GGUF in this process.

    Raises:
        ModelError: the model is missing or damaged.
        EngineUnavailable: the server does not answer.
    """
    if settings.reader_url:
        return Remote(
            settings.reader_url,
            model=settings.reader_model,
            api_key=settings.reader_api_key.get_secret_value(),
            timeout_s=settings.reader_timeout_s,
            context_size=settings.context_tokens,
        )
    path = weights_in(locate(settings.reader), "*.gguf")
    return LlamaCpp(
        path,
        model=settings.reader,
        fingerprint=file_hash(path),
        context_size=settings.context_tokens,
        threads=settings.threads or None,
    )
