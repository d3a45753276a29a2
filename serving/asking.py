"""One question on its way: the pipeline answers it in a thread, the event loop hears of what happens.

Knows nothing of HTTP. Whoever started a question must `stop` it when nobody wants the answer any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Protocol

from reader.answering import Event, HitsFound
from reader.schema import Answer, Turn
from reader.suggestions import Suggestion
from retriever.errors import BelegError
from retriever.index.base import Filters
from retriever.schema import Hit
from retriever.search import Mode
from serving.errors import ShuttingDown
from serving.gate import Gate
from serving.payloads import AskRequest

__all__ = ["Asking", "Served"]

_log = logging.getLogger(__name__)

_POLL_S = 0.1
"""How soon a waiting question notices that the server shuts down."""


class Served(Protocol):
    """What the service needs of `reader.pipeline.Pipeline`; see there."""

    def check(self) -> None:
        """Raise what would keep the next question from being answered."""

    def search(self, query: str, *, limit: int, mode: Mode, filters: Filters | None, rerank: bool | None) -> list[Hit]:
        """Return the best passages."""

    def suggestions(self, *, language: str | None, limit: int) -> list[Suggestion]:
        """Return questions to begin with."""

    def ask(
        self, question: str, *, filters: Filters | None, history: Sequence[Turn], cancelled: Callable[[], bool]
    ) -> Iterator[Event]:
        """Yield what happens on the way to an answer, which comes last."""


class Asking:
    """A question that is waiting or being answered. Make it, and use it, in the event loop.

    Its place at the gate is free again when the thread is done, not when `stop` is called: until then the model is busy.

    Raises:
        Overloaded: there is no place.
        ShuttingDown: the server takes no more questions.
    """

    def __init__(self, pipeline: Served, gate: Gate, request: AskRequest) -> None:
        self._pipeline = pipeline
        self._gate = gate
        self._request = request
        self._stopped = False
        self._hits = 0
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event | Exception] = asyncio.Queue()
        self._began = time.perf_counter()
        self._place = gate.enter()
        self._ahead = gate.taken - 1
        try:
            # A thread of its own: waiting questions must not use up the pool that searches run in. The gate bounds them.
            # A daemon, so that a model server that stays silent cannot hold up the end of the process.
            threading.Thread(target=self._run, name="asking", daemon=True).start()
        except BaseException:
            self._place.leave(answered=False)
            raise

    def stop(self) -> None:
        """Say that nobody wants the answer any more. After the answer has come, this does nothing."""
        self._stopped = True

    async def next(self, patience_s: float) -> Event | None:
        """Return what happens next, the `Answer` being the last; None if nothing happens in time.

        Raises:
            ShuttingDown: the server stops.
            Exception: whatever `ask` raised.
        """
        deadline = self._loop.time() + patience_s
        while True:
            left = deadline - self._loop.time()
            try:
                async with asyncio.timeout(max(0.0, min(left, _POLL_S))):
                    event = await self._events.get()
            except TimeoutError:
                if self._gate.closed:
                    raise ShuttingDown from None
                if left <= _POLL_S:
                    return None
                continue
            if isinstance(event, Exception):
                raise event
            return event

    def _unwanted(self) -> bool:
        return self._stopped or self._gate.closed

    def _run(self) -> None:
        last: Answer | Exception
        try:
            last = self._answer() or ShuttingDown()
        except Exception as error:  # noqa: BLE001 - it is raised again in the event loop, by `next`
            last = error
        # The place is free before the client hears that it is done, and may ask its next question.
        # A kept answer does not tell how long answers take.
        self._place.leave(answered=isinstance(last, Answer) and not last.cached)
        self._report(last)
        self._post(last)

    def _answer(self) -> Answer | None:
        """Return the answer, or None if nobody wants it any more."""
        events = self._pipeline.ask(
            self._request.question,
            filters=self._request.filters,
            history=self._request.turns(),
            cancelled=self._unwanted,
        )
        try:
            for event in events:
                # Of a text that was cut short, the pipeline makes an answer all the same.
                if self._unwanted():
                    return None
                if isinstance(event, Answer):
                    return event
                if isinstance(event, HitsFound):
                    self._hits = len(event.hits)
                self._post(event)
        finally:
            if isinstance(events, Generator):
                events.close()
        if self._unwanted():
            return None
        raise RuntimeError("The pipeline ended without an answer.")

    def _post(self, event: Event | Exception) -> None:
        # The loop is closed if the server is gone; then nobody is waiting either.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    def _report(self, last: Answer | Exception) -> None:
        """Log one line of JSON; neither the question nor the answer is in it."""
        line: dict[str, object] = {
            "event": "question",
            "outcome": "failed",
            "stream": self._request.stream,
            "ahead": self._ahead,
            "seconds": round(time.perf_counter() - self._began, 3),
            "hits": self._hits,
        }
        if isinstance(last, Answer):
            outcome = "abstained" if last.abstained else "answered"
            line |= {"outcome": outcome, "reason": last.reason, "quotes": len(last.quotes)}
            line |= {"cached": last.cached, "release": last.release}
        elif isinstance(last, ShuttingDown):
            line["outcome"] = "cancelled"
        else:
            line["error"] = type(last).__name__
            if isinstance(last, BelegError):
                line["detail"] = last.message
        _log.info("%s", json.dumps(line))
