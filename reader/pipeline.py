"""Opens what answers questions and answers with it: the same object is served, asked on the command line and evaluated."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date

from reader.answering import Asking, Event, HitsFound, QuoteProven, Reader, Searched
from reader.cache import Answers, asked
from reader.calibration import Calibration
from reader.engine.base import Engine, never
from reader.followup import standalone
from reader.schema import Answer, Turn
from reader.served import open_reader
from reader.suggestions import Suggestion, suggest
from reader.swap import LiveReader, OpenReader, ReaderState
from retriever.encoders import Encoders
from retriever.errors import BelegError, IndexUnavailable, QueryError
from retriever.index.base import Filters, Generations
from retriever.index.engines import open_generations
from retriever.live import Live
from retriever.publish import catch_up
from retriever.rerank import Reranker, open_reranker
from retriever.schema import Hit
from retriever.search import Mode
from retriever.settings import Settings
from retriever.store import Store

__all__ = ["MOST_SUGGESTIONS", "Pipeline"]

MOST_SUGGESTIONS = 12

_ASKED_DOCUMENTS = 100
"""From which suggestions are taken: they are read whole."""

_log = logging.getLogger(__name__)


class Pipeline:
    """Answers questions from one index with the encoder that made it and one reader. Safe to use from many threads.

    Args:
        store: stays open until the pipeline is closed.
        engine: answers as `calibration` says, and is closed with the pipeline; None where only searching is wanted, or `live`
            is given.
        reranker: judges the best passages again.
        live: the reader that is promoted, whichever it is by then; closed with the pipeline.
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
        *,
        live: LiveReader | None = None,
    ) -> None:
        self.settings = settings
        self.store = store
        self._reader = live or (LiveReader(Reader(engine, calibration, settings.answer_tokens)) if engine else None)
        self._calibration = calibration
        self._generations = generations
        self._answers = Answers(settings.cache_answers)
        self._suggestions: dict[str | None, tuple[str, list[Suggestion]]] = {}
        self._suggesting = threading.Lock()
        self._live = Live(generations, encoders, alpha=settings.alpha, reranker=reranker)

    @classmethod
    def open(cls, settings: Settings, *, reader: bool = True, open_: OpenReader = open_reader) -> Pipeline:
        """Open store, index, reranker and reader as the settings say, and finish what an interrupted run stored.

        The reader is the promoted one if there is one, and whichever is promoted from now on takes its place. A search engine
        that does not answer does not keep the pipeline from being opened: it may come back.

        Args:
            reader: False leaves the language model out, for searching only.
            open_: opens readers.

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
        live = LiveReader.open(settings, open_) if reader else None
        return cls(settings, store, generations, Encoders(settings.encoder), None, Calibration(), reranker, live=live)

    def close(self) -> None:
        """Free the model and close the store."""
        if self._reader:
            self._reader.close()
        self.store.close()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check(self) -> None:
        """Raise what would keep the next question from being answered; quick enough for a readiness probe."""
        self._live.searcher()

    @property
    def calibration(self) -> Calibration:
        """How the live reader is used."""
        if self._reader is None:
            return self._calibration
        with self._reader.lease() as reader:
            return reader.calibration

    def reader_state(self) -> ReaderState | None:
        """Return which reader answers now, and what keeps another one from it; None if there is no reader.

        Raises:
            IndexMissing, IndexMismatch, IndexUnavailable: as for `check`.
        """
        return self._reader.state(self._passages(None).release) if self._reader else None

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

    def suggestions(self, *, language: str | None = None, limit: int = 6) -> list[Suggestion]:
        """Return questions to begin with, which the documents answer: others every day, and after every change of them.

        Args:
            language: of the documents that they are taken from; None for any.
            limit: at most so many, and never more than `MOST_SUGGESTIONS`.

        Raises:
            IndexMissing, IndexMismatch, IndexUnavailable: as for `check`.
        """
        searcher = self._live.searcher()
        # Whatever else is asked for would be kept for good.
        if language not in (None, *searcher.index.languages):
            return []
        state = f"{date.today()} {searcher.index.name} {searcher.index.revision}"
        # They take many searches: whoever comes meanwhile waits for the same ones.
        with self._suggesting:
            kept = self._suggestions.get(language)
            if kept is None or kept[0] != state:
                revision = self.store.revision()
                versions = self.store.versions(revision).items()
                borns = [born for born, facts in versions if language in (None, facts["language"])]
                random.Random(state).shuffle(borns)
                documents = [document for born in borns[:_ASKED_DOCUMENTS] if (document := self.store.document_born(born))]
                kept = state, suggest(documents, lambda query: searcher.search(query, limit=1), MOST_SUGGESTIONS)
                self._suggestions[language] = kept
        return kept[1][:limit]

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

        If what the answer quotes is taken out of its document while the model writes, all of it happens once more, from the
        search on. An answer that is kept from before comes at once: hits, quotes, answer.

        Args:
            history: earlier turns of the conversation, oldest first; a question that follows up on them is searched as what
                it means (`reader.followup`).
            cancelled: asked at every token; the answer stops as soon as it says True.

        Raises:
            QueryError: the question is empty or a filter is unknown.
            IndexMissing, IndexMismatch: there is no index for this encoder.
            EngineError, PromptTooLong: the model failed, or the question does not fit it.
        """
        if not question.strip():
            raise QueryError("The question is empty.", way_out="Write a question.")
        if self._reader is None:
            raise QueryError("This pipeline was opened without a reader.")
        begin = time.perf_counter()
        # One reader from the prompt to the last proof; it stays open until then.
        with self._reader.lease() as reader:
            key = (self._state(reader), asked(question, filters, history))
            kept = self._answers.get(key)
            if kept:
                yield HitsFound(kept.hits)
                yield from map(QuoteProven, kept.quotes)
                yield replace(kept, cached=True, timings={"cache": round(time.perf_counter() - begin, 4)})
                return
            query = standalone(
                question,
                history,
                self.settings.followups,
                encoder=self._live.searcher().encoder,
                engine=reader.engine,
                cancelled=cancelled,
            )
            for event in _until_it_stands(
                lambda: Asking(reader, self._passages(filters), question, tuple(history), cancelled, query)
            ):
                if isinstance(event, Answer) and not cancelled():
                    # What cannot be kept can be given all the same.
                    with suppress(BelegError):
                        # Else nobody knows of which state of the documents this is the answer.
                        if self._state(reader) == key[0]:
                            self._answers.keep(key, event)
                yield event

    def _state(self, reader: Reader) -> tuple[str, int, int]:
        """Return what changes with everything that could change an answer, documents included."""
        passages = self._passages(None)
        return passages.release(reader), passages.searcher.index.revision, self._generations.revision()

    def _passages(self, filters: Filters | None) -> Searched:
        return Searched(self._live.searcher(), self._generations.document, self.settings.passages, filters)


def _until_it_stands(asking: Callable[[], Asking]) -> Iterator[Event]:
    """Yield the events of a question; if what it quotes was changed meanwhile, then those of asking it once more."""
    first = asking()
    for event in first.run():
        if isinstance(event, Answer) and event.reason == "changed" and not first.cancelled():
            yield from asking().run()
        else:
            yield event
