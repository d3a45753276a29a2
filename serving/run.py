"""Runs the service on a socket until it is told to stop. The only place that knows which server carries it."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from types import FrameType
from typing import Protocol

import click
import uvicorn

from reader.pipeline import Pipeline
from retriever.errors import SettingsError
from retriever.settings import Settings
from serving.app import create_app
from serving.asking import Served
from serving.documents import Documents
from serving.gate import Gate
from serving.jobs.jobs import Jobs
from serving.jobs.worker import JobWorker

__all__ = ["Closable", "Server", "bind", "run"]

_log = logging.getLogger(__name__)

_GRACE_S = 10
"""How long the end waits for clients to take their last bytes, and then for the model to notice that it shall stop."""


class Closable(Served, Protocol):
    """A pipeline that whoever opened it closes."""

    def close(self) -> None:
        """Free the model and close the store."""


def run(
    settings: Settings,
    *,
    open_pipeline: Callable[[Settings], Closable] = Pipeline.open,
    make_worker: Callable[[Settings, Jobs], JobWorker] = JobWorker,
    announce: Callable[[str], None] = lambda url: click.echo(f"Beleg listens on {url}"),
) -> None:
    """Serve until SIGINT or SIGTERM, then end open streams and return.

    Args:
        make_worker: of what carries out jobs, where the settings ask for that.
        announce: told the URL once the service listens.

    Raises:
        SettingsError: nothing can listen on the host and port.
        StoreError, ModelError, EngineUnavailable: the pipeline cannot be opened.
        JobsUnavailable: the job database cannot be used.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("serving").setLevel(logging.INFO)
    # It warns of every attempt on a node that is away; what becomes of a question is told anyway.
    logging.getLogger("elastic_transport").setLevel(logging.ERROR)
    # Before the model is loaded, which takes far longer than finding out that the port is taken.
    listener = bind(settings.host, settings.port)
    with listener:
        pipeline = open_pipeline(settings)
        gate = Gate(settings.queue)
        try:
            with _working(settings, make_worker) as jobs, closing(Documents(settings)) as documents:
                if settings.jobs:
                    documents.uploads.clean()
                app = create_app(pipeline, settings, gate=gate, jobs=jobs, documents=documents)
                Server(app, gate, on_start=lambda socket_: announce(_url(socket_))).run(sockets=[listener])
        finally:
            gate.close()
            if gate.wait_empty(_GRACE_S):
                pipeline.close()
            else:
                _log.warning("A question is still being answered; the process ends without waiting for it.")


@contextmanager
def _working(settings: Settings, make_worker: Callable[[Settings, Jobs], JobWorker]) -> Iterator[Jobs]:
    """Carry out jobs, if the settings say so, until the block ends."""
    jobs = Jobs(settings)
    worker = make_worker(settings, jobs) if settings.jobs else None
    try:
        if worker:
            # Whoever relies on jobs must hear at the start that there will be none.
            jobs.check()
            worker.start()
        yield jobs
    finally:
        if worker:
            worker.stop()
        jobs.close()


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound but does not listen yet.

    Raises:
        SettingsError: the host is unknown, or the port is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            # A server that was stopped a moment ago must not keep its successor waiting.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise SettingsError(
            f"Cannot listen on {host} port {port}: {error.strerror or error}.",
            way_out="Set `host` to an address of this machine and `port` to a free one; 0 takes any.",
        ) from error
    return listener


class Server(uvicorn.Server):
    """Carries an app, and closes its gate when told to stop, so that streams end instead of being waited for."""

    def __init__(self, app: Callable[..., object], gate: Gate, *, on_start: Callable[[socket.socket], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                access_log=False,
                log_config=None,
                lifespan="off",
                ws="none",
                server_header=False,
                timeout_graceful_shutdown=_GRACE_S,
            )
        )
        self._gate = gate
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        for listener in sockets or []:
            self._on_start(listener)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what is open."""
        self._gate.close()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note that it is time to stop. The base class would raise the signal once more at the end: not an exit code of 0."""
        del frame
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if listener.family == socket.AF_INET6 else host
    return f"http://{shown}:{port}"
