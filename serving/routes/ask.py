"""`POST /v1/ask`: an answer as one JSON object, or as server-sent events while it is made."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from reader.answering import Event, HitsFound, QuoteProven, Token
from reader.schema import Answer
from serving import examples
from serving.asking import Asking, Served
from serving.gate import Gate
from serving.payloads import AnswerPayload, AskRequest, TokenPayload, answer_payload, quote_payload, search_payload
from serving.problems import problem_of, problem_responses

__all__ = ["ask_router"]

_POLL_S = 0.25
"""How often a waiting request asks whether its client is still there."""


def ask_router(pipeline: Served, gate: Gate, *, heartbeat_s: float) -> APIRouter:
    """Return the route that answers questions.

    Args:
        heartbeat_s: a stream in which nothing happens for so long sends a comment, for proxies that end silent connections.
    """
    router = APIRouter(prefix="/v1", tags=["ask"])

    @router.post(
        "/ask",
        response_model=AnswerPayload,
        summary="Answer a question with verbatim quotes",
        responses={200: _DESCRIBED, **problem_responses(400, 403, 413, 422, 500, 502, 503)},
    )
    async def ask(question: AskRequest, request: Request) -> AnswerPayload | EventSourceResponse:
        asking = Asking(pipeline, gate, question)
        handed_over = False
        try:
            if question.stream:
                # A question that cannot be asked gets the status of its error: the stream begins with the first event,
                # which comes before the model starts to read.
                first = await _attended(asking, request, heartbeat_s)
                handed_over = True
                return _Stream(asking, first, heartbeat_s)
            while True:
                event = await _attended(asking, request, heartbeat_s)
                if isinstance(event, Answer):
                    return answer_payload(event)
        finally:
            if not handed_over:
                asking.stop()

    return router


async def _attended(asking: Asking, request: Request, patience_s: float) -> Event | None:
    """Return the next event, or None if there is none in time, as long as the client is there.

    Raises:
        ClientDisconnect: it is gone.
    """
    while True:
        event = await asking.next(min(patience_s, _POLL_S))
        if event is not None:
            return event
        if await request.is_disconnected():
            raise ClientDisconnect
        patience_s -= _POLL_S
        if patience_s <= 0:
            return None


class _Stream(EventSourceResponse):
    """Sends a question's events, and stops it whatever way the stream ends."""

    def __init__(self, asking: Asking, first: Event | None, heartbeat_s: float) -> None:
        # Some proxies hold a response back until it is complete, unless told not to.
        super().__init__(_lines(asking, first, heartbeat_s), headers={"X-Accel-Buffering": "no"})
        self._asking = asking

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._asking.stop()


async def _lines(asking: Asking, event: Event | None, heartbeat_s: float) -> AsyncIterator[bytes]:
    try:
        while not isinstance(event, Answer):
            yield KEEPALIVE_COMMENT if event is None else _line(event)
            event = await asking.next(heartbeat_s)
        yield _line(event)
        yield format_sse_event(event="done", data_str="{}")
    except Exception as error:  # noqa: BLE001 - the status is sent already: whatever fails now is told in the stream
        yield format_sse_event(event="error", data_str=problem_of(error).json_bytes().decode())


def _line(event: Event) -> bytes:
    if isinstance(event, HitsFound):
        return format_sse_event(event="hits", data_str=search_payload(event.hits).model_dump_json())
    if isinstance(event, Token):
        return format_sse_event(event="token", data_str=TokenPayload(text=event.text).model_dump_json())
    if isinstance(event, QuoteProven):
        return format_sse_event(event="quote", data_str=quote_payload(event.quote).model_dump_json())
    return format_sse_event(event="answer", data_str=answer_payload(event).model_dump_json())


_DESCRIBED: dict[str, Any] = {
    "description": (
        "The answer. With `stream`, server-sent events, the data of each being JSON: `hits` (as a search answers), `token` "
        "(`text`, not yet checked), `quote` (proven), `answer` (the whole of it), `done` (empty). An `error` event holds a "
        "problem and is the last one. Lines that begin with a colon keep the connection alive."
    ),
    "content": {"text/event-stream": {"schema": {"type": "string"}, "example": examples.STREAM}},
}
