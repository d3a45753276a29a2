"""Opens what answers questions and answers with it: the same object is served, asked on the command line and evaluated."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

from reader.answering import Asking, Event, Reader, Searched
from reader.calibration import Calibration
from reader.engine.base import Engine, never
from reader.schema import Answer, Turn
from reader.served import open_reader
from reader.swap import LiveReader, OpenReader, ReaderState
from retriever.encoders import Encoders
from retriever.errors import IndexUnavailable, QueryError
from retriever.index.base import Filters, Generations
from retriever.index.engines import open_generations
from retriever.live import Live
from retriever.publish import catch_up
from retriever.rerank import Reranker, open_reranker
from retriever.schema import Hit
from retriever.search import Mode
from retriever.settings import Settings
from retriever.store import Store

__all__ = ["Pipeline"]

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
        if self._reader is None:
            raise QueryError("This pipeline was opened without a reader.")
        # One reader from the prompt to the last proof; it stays open until then.
        with self._reader.lease() as reader:
            yield from Asking(reader, self._passages(filters), question, tuple(history), cancelled).run()

    def _passages(self, filters: Filters | None) -> Searched:
        return Searched(self._live.searcher(), self.settings.passages, filters)
