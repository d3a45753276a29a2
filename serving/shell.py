"""What is true of every request, whatever its route: a bounded body, safe headers, and no error that escapes as a traceback."""

from __future__ import annotations

import asyncio
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

_LINGER_S = 5.0
"""How long the rest of an upload that was answered before its end may take to come."""


class Shell:
    """Middleware around a whole app.

    Args:
        uploads: what the paths of files begin with that are uploaded; their bodies are handed on as they come.
        largest_upload: in bytes.
    """

    def __init__(self, app: ASGIApp, *, uploads: str, largest_upload: int) -> None:
        self._app = app
        self._uploads = uploads
        self._largest_upload = largest_upload

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False
        headers = Headers(scope=scope)
        is_upload = scope["method"] == "PUT" and scope["path"].startswith(self._uploads)
        upload = _Upload(headers, receive, self._largest_upload) if is_upload else None

        async def dressed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                sent = MutableHeaders(scope=message)
                sent["X-Content-Type-Options"] = "nosniff"
                sent["Cross-Origin-Resource-Policy"] = "same-origin"
                if scope["path"].startswith("/v1/"):
                    sent["Cache-Control"] = "no-store"
                if upload and upload.more:
                    sent["Connection"] = "close"
            elif upload and upload.more and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await upload.drain()
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        try:
            if upload:
                upload.check()
                await self._app(scope, upload.receive, dressed)
                return
            body = await _read(headers, receive)
            await self._app(scope, _replay(body, receive), dressed)
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is becomes a problem, and is logged there
            response = respond(error)
            if not started:
                await response(scope, receive, dressed)


class _Upload:
    """A body that goes to the app as it comes, up to a limit.

    Attributes:
        more: whether there is some of it that nobody has read.
    """

    def __init__(self, headers: Headers, receive: Receive, limit: int) -> None:
        self.more = "content-length" in headers or "transfer-encoding" in headers
        self._receive = receive
        self._limit = limit
        self._declared = _declared(headers)
        self._waits = "expect" in headers
        self._size = 0

    def check(self) -> None:
        """Refuse it before any of it is read, if it says that it is too large.

        Raises:
            HTTPException: with status 413.
        """
        if self._declared > self._limit:
            raise _too_large(self._limit, ", the setting `max_file_mb`")

    async def receive(self) -> Message:
        """Return the next piece.

        Raises:
            HTTPException: with status 413, it is too large.
        """
        self._waits = False
        message = await self._take()
        if self._size > self._limit:
            raise _too_large(self._limit, ", the setting `max_file_mb`")
        return message

    async def drain(self) -> None:
        """Read and forget what is left of it, within reason. Whoever asked before sending will send nothing."""
        until = self._size + _DRAIN
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                while self.more and not self._waits and self._size < until:
                    await self._take()

    async def _take(self) -> Message:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        self.more = message.get("more_body", False)
        return message


async def _read(headers: Headers, receive: Receive) -> bytes:
    """Return the whole body.

    Raises:
        HTTPException: with status 413, it is too large.
        ClientDisconnect: the client went away in the middle of it.
    """
    if "content-length" not in headers and "transfer-encoding" not in headers:
        return b""
    declared = _declared(headers)
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
        raise _too_large(_LARGEST_BODY)
    return bytes(body)


def _declared(headers: Headers) -> int:
    try:
        return int(headers.get("content-length", "0"))
    except ValueError:
        return 0


def _too_large(limit: int, setting: str = "") -> HTTPException:
    return HTTPException(413, f"The body is larger than {limit >> 20} MiB{setting}.", headers={"Connection": "close"})


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
