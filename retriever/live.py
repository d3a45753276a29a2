"""The live generation, as those see it who search: opened, and opened anew whenever another one is published.

Whoever searches asks which generation is live, which costs microseconds with the embedded engine, so a server needs no signal.
"""

from __future__ import annotations

import threading
import time

from retriever.encoders import Encoders
from retriever.errors import BelegError, IndexMismatch, IndexMissing
from retriever.index.base import Generation, Generations
from retriever.rerank import Reranker
from retriever.search import Searcher

__all__ = ["Live"]


class Live:
    """Hands out a searcher over what is live. Safe to use from many threads.

    Args:
        alpha: weight of the dense side when fusing; None takes the one of whichever encoder is live.
        reranker: judges the best hits again, whichever generation they are from.
        retry_s: after how many seconds a generation that could not be opened is tried again.
    """

    def __init__(
        self,
        generations: Generations,
        encoders: Encoders,
        *,
        alpha: float | None = None,
        reranker: Reranker | None = None,
        retry_s: float = 5.0,
    ) -> None:
        self._generations = generations
        self._encoders = encoders
        self._alpha = alpha
        self._reranker = reranker
        self._retry_s = retry_s
        self._opening = threading.Lock()
        self._open: tuple[Generation, Searcher] | None = None
        self._failed: tuple[Generation, BelegError, float] | None = None

    def searcher(self) -> Searcher:
        """Return a searcher over the generation that is live now.

        After a rebuild with another encoder, the generation before it answers for the second or two that the new encoder takes
        to load: a question never waits for that, and never meets another encoder than that of its index.

        Raises:
            IndexMissing: nothing has been indexed.
            IndexMismatch: the encoder that made it is not here, or another analyser made it.
            IndexUnavailable: the engine does not answer.
        """
        generation = self._live()
        opened = self._open
        if opened and opened[0] == generation:
            return opened[1]
        if self._failed and self._failed[0] == generation and time.monotonic() - self._failed[2] < self._retry_s:
            raise self._failed[1]
        if opened is None or self._encoders.loaded(generation.stamp.encoder):
            return self._opened()
        if self._opening.acquire(blocking=False):
            threading.Thread(target=self._open_behind, args=(generation,), daemon=True).start()
        return opened[1]

    def _live(self) -> Generation:
        generation = self._generations.live()
        if generation is None:
            raise IndexMissing("Nothing has been indexed yet.", way_out="Run `beleg index FOLDER`.")
        return generation

    def _opened(self) -> Searcher:
        with self._opening:
            while True:
                generation = self._live()
                if self._open and self._open[0] == generation:
                    return self._open[1]
                try:
                    searcher = self._searcher(generation)
                except IndexMismatch as error:
                    # Looking for the encoder loads models: not with every question.
                    self._failed = (generation, error, time.monotonic())
                    raise
                except IndexMissing:
                    if self._live() == generation:
                        raise
                    continue  # Others were published meanwhile, and this one deleted: the next look finds the newest.
                self._open = (generation, searcher)
                return searcher

    def _open_behind(self, generation: Generation) -> None:
        try:
            self._open = (generation, self._searcher(generation))
        except BelegError as error:
            self._failed = (generation, error, time.monotonic())
        finally:
            self._opening.release()

    def _searcher(self, generation: Generation) -> Searcher:
        # The encoder first: while it loads, another generation of the same stamp may take this one's place.
        encoder = self._encoders.of(generation)
        return Searcher(self._generations.open(generation), encoder, alpha=self._alpha, reranker=self._reranker)
