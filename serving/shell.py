"""What is true of every request, whatever its route: a bounded body, safe headers, and no error that escapes as a traceback."""

from __future__ import annotations

import contextlib

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.problems import respond

__all__ = ["Shell"]

_LARGEST_BODY = 1024 * 1024
_DRAIN = 16 * 1024 * 1024
"""How much of a body that is too large is read and forgotten. A connection closed on a client that is still sending is
reset, and the client never sees why."""


class Shell:
    """Middleware around a whole app."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def dressed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                if scope["path"].startswith("/v1/"):
                    headers["Cache-Control"] = "no-store"
            await send(message)

        try:
            body = await _read(Headers(scope=scope), receive)
            await self._app(scope, _replay(body, receive), dressed)
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is becomes a problem, and is logged there
            response = respond(error)
            if not started:
                await response(scope, receive, dressed)


async def _read(headers: Headers, receive: Receive) -> bytes:
    """Return the whole body.

    Raises:
        HTTPException: with status 413, it is too large.
        ClientDisconnect: the client went away in the middle of it.
    """
    if "content-length" not in headers and "transfer-encoding" not in headers:
        return b""
    declared = 0
    with contextlib.suppress(ValueError):
        declared = int(headers.get("content-length", "0"))
    # Whoever asks before sending is told no at once, and sends nothing.
    patience = 0 if declared > _LARGEST_BODY and "expect" in headers else _DRAIN
    body = bytearray()
    size = 0
    more = size < patience
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece = message.get("body", b"")
        size += len(piece)
        if size <= _LARGEST_BODY:
            body += piece
        more = message.get("more_body", False) and size < patience
    if max(size, declared) > _LARGEST_BODY:
        raise HTTPException(413, f"The body is larger than {_LARGEST_BODY} bytes.", headers={"Connection": "close"})
    return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that begins with a body that has been read already."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
