"""HTTP to a model server: JSON in, JSON or a stream of events out, every failure as one of our errors.

It knows nothing about models or grammars. Third-party errors end here (`explain`), and a URL's credentials are never
shown.
"""

from __future__ import annotations

import asyncio
import json
import queue
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Mapping
from typing import Any

import httpx

from reader.errors import EngineError, EngineUnavailable, PromptTooLong

__all__ = ["Wire", "explain", "refusal"]

Json = dict[str, Any]

# How often a caller who waits for the next piece is asked whether it still wants it, in seconds.
_PATIENCE_S = 0.05
_CONNECT_S = 10.0
# Longer than any event of a sane server; without a bound a stray download would fill the memory.
_LONGEST_LINE = 4 << 20

_START = "Check that the model server runs and that the address is right."
_SLOW = "Raise the timeout, shorten the prompt, or give the server more capacity."
_ADDRESS = "Correct the address of the model server; it looks like http://host:8080."
_BUG = "Please report this as a bug of Beleg."

# From the particular to the general: the first class that fits explains the error.
_EXPLANATIONS: tuple[tuple[type[Exception], type[EngineError], str, str], ...] = (
    (httpx.ConnectTimeout, EngineUnavailable, "did not accept a connection in time", _START),
    (httpx.ReadTimeout, EngineUnavailable, "was silent for too long", _SLOW),
    (httpx.WriteTimeout, EngineUnavailable, "did not take the request in time", _SLOW),
    (httpx.PoolTimeout, EngineUnavailable, "has no free connection", _SLOW),
    (httpx.TimeoutException, EngineUnavailable, "did not answer in time", _SLOW),
    (httpx.ConnectError, EngineUnavailable, "cannot be reached", _START),
    (httpx.ReadError, EngineUnavailable, "broke the connection off", "Look into the server's log, and ask again."),
    (httpx.WriteError, EngineUnavailable, "broke the connection off", "Look into the server's log, and ask again."),
    (httpx.CloseError, EngineUnavailable, "could not end the connection", "Ask again."),
    (httpx.NetworkError, EngineUnavailable, "cannot be reached", _START),
    (httpx.ProxyError, EngineUnavailable, "cannot be reached through the proxy", "Check the proxy settings (NO_PROXY)."),
    (httpx.UnsupportedProtocol, EngineError, "has an address that is not http or https", _ADDRESS),
    (httpx.RemoteProtocolError, EngineUnavailable, "broke off in the middle of its answer", "Look into its log."),
    (httpx.LocalProtocolError, EngineError, "cannot be sent such a request", _ADDRESS),
    (httpx.ProtocolError, EngineError, "does not speak HTTP as it should", _ADDRESS),
    (httpx.TransportError, EngineUnavailable, "cannot be reached", _START),
    (httpx.DecodingError, EngineError, "sent an answer that cannot be decoded", "Check what stands between it and Beleg."),
    (httpx.TooManyRedirects, EngineError, "redirects in circles", _ADDRESS),
    (httpx.RequestError, EngineUnavailable, "cannot be asked", _START),
    (httpx.HTTPStatusError, EngineError, "refused", "Look into the server's log."),
    (httpx.HTTPError, EngineUnavailable, "failed", _START),
    (httpx.InvalidURL, EngineError, "has an address that is not a URL", _ADDRESS),
    (httpx.CookieConflict, EngineError, "sent cookies that contradict each other", _ADDRESS),
    (httpx.StreamError, EngineError, "was read out of turn", _BUG),
)
_CAUGHT = (httpx.HTTPError, httpx.InvalidURL, httpx.CookieConflict, httpx.StreamError)


def explain(error: Exception, shown: str) -> EngineError:
    """Turn an error of httpx into one of ours.

    Args:
        shown: the server's address, without credentials.
    """
    for kind, ours, what, way_out in _EXPLANATIONS:
        if isinstance(error, kind):
            detail = f" ({type(error).__name__}: {error})" if str(error) else f" ({type(error).__name__})"
            return ours(f"The model server at {shown} {what}{detail}.", way_out=way_out)
    raise error


def refusal(status: int, content: bytes, shown: str) -> EngineError | PromptTooLong:
    """Turn a refusing HTTP answer into an error, with the server's own words."""
    words, kind = _words(content)
    said = f" and says: {words.rstrip('.')}" if words else ""
    where = f"The model server at {shown} answers {status}{said}."
    if "exceed_context_size" in kind or "context_length_exceeded" in kind or "maximum context length" in words:
        return PromptTooLong(where, way_out="Show fewer or shorter passages, or raise the server's context size.")
    if status in {401, 403}:
        return EngineUnavailable(where, way_out="Check the API key of the reader's server.")
    if status == 404:
        return EngineUnavailable(where, way_out="Check the address and the model's name.")
    if status == 429:
        return EngineUnavailable(where, way_out="It is busy or a quota is used up: ask again later.")
    if status in {408, 502, 503, 504}:
        return EngineUnavailable(where, way_out="It may still be loading its model: ask again in a minute.")
    if 300 <= status < 400:
        return EngineError(where, way_out="It redirects elsewhere: configure the address that it redirects to.")
    if status >= 500:
        return EngineError(where, way_out="Look into the server's log.")
    return EngineError(where, way_out="The server does not take this kind of request.")


def _words(content: bytes) -> tuple[str, str]:
    try:
        data = json.loads(content)
    except ValueError:
        return " ".join(content[:300].decode("utf-8", "replace").split()), ""
    error = data.get("error", data) if isinstance(data, dict) else data
    if isinstance(error, dict):
        words = str(error.get("message") or error.get("detail") or error)
        kind = f"{error.get('type', '')} {error.get('code', '')}"
    else:
        words, kind = str(error), ""
    return " ".join(words.split())[:300], kind


class Wire:
    """A server's address, and how to talk to it.

    Args:
        url: the server's root; a trailing `/v1` is taken off.
        api_key: sent as a bearer token, if any.
        timeout_s: longest silence of the server, in seconds.
    """

    def __init__(self, url: str, *, api_key: str, timeout_s: float) -> None:
        root = url.strip().rstrip("/").removesuffix("/v1")
        try:
            address = httpx.URL(root)
        except httpx.InvalidURL as error:
            raise explain(error, "the configured address") from error
        if address.scheme not in {"http", "https"} or not address.host:
            raise EngineError("The model server's address is not an http or https URL.", way_out=_ADDRESS)
        if not api_key.isascii() or not api_key.isprintable():
            raise EngineError("The API key has characters that cannot be sent.", way_out="Copy the key again.")
        self.shown = str(address.copy_with(username=None, password=None, query=None, fragment=None)).rstrip("/")
        # httpx would let a user in the URL displace the key.
        self._root = str(address.copy_with(username=None, password=None)).rstrip("/") if api_key else root
        self._options: Mapping[str, Any] = {
            "headers": {"Authorization": f"Bearer {api_key}"} if api_key else {},
            "timeout": httpx.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_S)),
            # A proxy for the outer world must not be asked for a server on this machine.
            "trust_env": address.host not in {"localhost", "127.0.0.1", "::1"},
            "verify": httpx.create_ssl_context() if address.scheme == "https" else True,
        }

    def ask(self, method: str, path: str, body: Json | None = None) -> tuple[int, bytes]:
        """Return status and content of one request."""
        try:
            with httpx.Client(**self._options) as client:
                answer = client.request(method, self._root + path, json=body)
        except _CAUGHT as error:
            raise explain(error, self.shown) from error
        return answer.status_code, answer.content

    def get(self, path: str) -> Json | None:
        """Return the JSON object at `path`, or None where the server has no such thing.

        Raises:
            EngineUnavailable: the server is not ready.
        """
        status, content = self.ask("GET", path)
        if status in {408, 429, 502, 503, 504}:
            raise refusal(status, content, self.shown)
        try:
            data = json.loads(content) if status == 200 else None
        except ValueError:
            return None
        return data if isinstance(data, dict) else None

    def post(self, path: str, body: Json) -> Json:
        """Return the JSON object that answers `body`."""
        status, content = self.ask("POST", path, body)
        if status != 200:
            raise refusal(status, content, self.shown)
        return self._parse(content)

    def events(self, path: str, body: Json, cancelled: Callable[[], bool]) -> Generator[Json, None, None]:
        """Yield the JSON objects of a server-sent event stream until it ends or `cancelled()`.

        The connection is closed as soon as the caller cancels or closes this generator, also while the server is still
        silent: a good server then stops working. That takes a thread with an event loop of its own, since a blocking
        read cannot be interrupted from outside.
        """
        items: queue.SimpleQueue[Json | Exception | None] = queue.SimpleQueue()
        stop = _Stop()

        def work() -> None:
            try:
                asyncio.run(stop.guard(self._pump(path, body, items)))
            except asyncio.CancelledError:
                pass
            except Exception as error:  # noqa: BLE001 - it crosses to the caller's thread, and is raised there
                items.put(error)
            items.put(None)

        thread = threading.Thread(target=work, name="beleg-remote", daemon=True)
        thread.start()
        try:
            while not cancelled():
                try:
                    item = items.get(timeout=_PATIENCE_S)
                except queue.Empty:
                    continue
                if item is None:
                    return
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            stop.now()
            # A name that is still being looked up cannot be interrupted; it must not hold the caller.
            thread.join(timeout=5)

    async def _pump(self, path: str, body: Json, items: queue.SimpleQueue[Json | Exception | None]) -> None:
        try:
            async with (
                httpx.AsyncClient(**self._options) as client,
                client.stream("POST", self._root + path, json=body) as answer,
            ):
                if answer.status_code != 200:
                    raise refusal(answer.status_code, await answer.aread(), self.shown)
                async for data in _data(answer.aiter_bytes()):
                    if data == b"[DONE]":
                        return
                    items.put(self._checked(data))
        except _CAUGHT as error:
            raise explain(error, self.shown) from error

    def _checked(self, data: bytes) -> Json:
        event = self._parse(data)
        if event.get("error"):
            status = event["error"].get("code") if isinstance(event["error"], dict) else None
            raise refusal(status if isinstance(status, int) else 500, data, self.shown)
        return event

    def _parse(self, data: bytes) -> Json:
        try:
            value = json.loads(data)
        except ValueError as error:
            raise EngineError(
                f"The model server at {self.shown} sent what is not JSON: {data[:80]!r}.",
                way_out="Check the address: another kind of server may answer there.",
            ) from error
        if not isinstance(value, dict):
            raise EngineError(f"The model server at {self.shown} sent JSON that is not an object.", way_out=_ADDRESS)
        return value


class _Stop:
    """Cancels a coroutine that runs in another thread, before, while or after it runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted = False
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None

    async def guard(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        with self._lock:
            self._running = (asyncio.get_running_loop(), task)
            if self._wanted:
                task.cancel()
        try:
            await task
        finally:
            with self._lock:
                self._running = None

    def now(self) -> None:
        with self._lock:
            self._wanted = True
            if self._running is not None:
                loop, task = self._running
                loop.call_soon_threadsafe(task.cancel)


async def _data(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the data of each event.

    Lines are cut at newlines only: httpx's own line reader cuts at U+2028 and its like as well, which may stand
    unescaped inside JSON. Old llama.cpp servers send errors in a field `error` of the event.
    """
    rest = b""
    lines: list[bytes] = []
    async for chunk in chunks:
        *complete, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            raise EngineError("The model server sent an endless line.", way_out="Check the address of the server.")
        for line in complete:
            line = line.removesuffix(b"\r")
            field, _, value = line.partition(b":")
            if not line and lines:
                yield b"\n".join(lines)
                lines = []
            elif field == b"data":
                lines.append(value.removeprefix(b" "))
            elif field == b"error":
                yield b'{"error":' + value + b"}"
    if lines:
        yield b"\n".join(lines)
