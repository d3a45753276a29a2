"""Opens what answers questions and answers with it: the same object is served, asked on the command line and evaluated."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

from reader.answering import Asking, Event, Reader, Searched
from reader.calibration import Calibration, read_calibration
from reader.engine.base import Engine, never
from reader.opening import open_engine
from reader.schema import Answer, Turn
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
        reader = Reader(self._engine, self.calibration, self.settings.answer_tokens)
        passages = Searched(self._live.searcher(), self.settings.passages, filters)
        yield from Asking(reader, passages, question, tuple(history), cancelled).run()
