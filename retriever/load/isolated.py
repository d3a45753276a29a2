"""Load files in a process of their own, so that a parser that crashes, hangs or takes all memory costs one file.

Knows nothing of formats: it runs whatever loader it is given.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from retriever.errors import LoadError
from retriever.load import clock
from retriever.load.files import load
from retriever.schema import Document

if TYPE_CHECKING:
    from pebble import ProcessFuture, ProcessPool

__all__ = ["LoadFunction", "Loader", "worker_pool"]

_LOOK_AHEAD = 4
_SAVE_ANEW = "Open the file in the program that made it and save it anew, or as PDF."


class LoadFunction(Protocol):
    """Loads one file; must be importable by name, since another process calls it."""

    def __call__(self, path: Path, *, source: str | None = None, max_bytes: int) -> Document:
        """Return the document at `path`, or raise `LoadError`."""


class Loader:
    """Loads files one after the other in a worker process, a few ahead of the caller.

    Use it as a context manager. The worker starts with the first file, is replaced when a file brings it down, and ends
    with the context or with this process, however that ends.

    Args:
        max_bytes: a larger file is refused.
        timeout_s: a file that takes longer is given up; each page that is recognised has this time for itself.
        memory_mb: address space that the worker may take; kept on Linux only. None for no limit.
        loader: what loads a file.
    """

    def __init__(
        self,
        *,
        max_bytes: int,
        timeout_s: float = 120.0,
        memory_mb: int | None = 4096,
        loader: LoadFunction = load,
    ) -> None:
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._memory_mb = memory_mb
        self._loader = loader
        self._pool: ProcessPool | None = None

    def __enter__(self) -> Self:
        self._pool = worker_pool(self._memory_mb)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._pool is not None:
            # What was loaded ahead is wanted by nobody any more, whether the caller is done or was interrupted.
            self._pool.stop()  # type: ignore[no-untyped-call]
            self._pool.join()
            self._pool = None

    def load_many(self, files: Iterable[tuple[Path, str]]) -> Iterator[Document | LoadError]:
        """Yield a document or an error for each (path, source) of `files`, in their order.

        At most a few files are loaded ahead, so that memory stays bounded however many there are.
        """
        if self._pool is None:
            raise RuntimeError("Loader is used outside of its `with` block")
        ahead: deque[tuple[str, ProcessFuture[Document | LoadError]]] = deque()
        for path, source in files:
            future = self._pool.schedule(_load_here, args=(self._loader, path, source, self._max_bytes, self._timeout_s))
            ahead.append((source, future))
            if len(ahead) >= _LOOK_AHEAD:
                yield self._outcome(*ahead.popleft())
        while ahead:
            yield self._outcome(*ahead.popleft())

    def _outcome(self, source: str, future: ProcessFuture[Document | LoadError]) -> Document | LoadError:
        from pebble import ProcessExpired

        try:
            return future.result()
        except ProcessExpired as error:
            if error.exitcode == -signal.SIGALRM:
                return LoadError(
                    source, f"the parser took longer than {self._timeout_s:g} s", way_out="Split the file, or raise the limit."
                )
            return LoadError(source, "the parser crashed", way_out=_SAVE_ANEW)


def _load_here(loader: LoadFunction, path: Path, source: str, max_bytes: int, timeout_s: float) -> Document | LoadError:
    clock.start(timeout_s)
    try:
        return loader(path, source=source, max_bytes=max_bytes)
    except LoadError as error:
        return error
    except MemoryError:
        return LoadError(source, "the parser ran out of memory", way_out="Split the file, or raise the limit.")
    except Exception as error:  # noqa: BLE001 - a fault in a parser costs its file, not the run
        return LoadError(source, f"the parser failed ({type(error).__name__}: {error})", way_out=_SAVE_ANEW)
    finally:
        clock.stop()


def worker_pool(memory_mb: int | None) -> ProcessPool:
    """Return a pool of one process, which starts with its first task and ends with this process, however that ends.

    Args:
        memory_mb: address space that it may take; kept on Linux only. None for no limit.
    """
    import multiprocessing

    from pebble import ProcessPool

    # Spawned, not forked: this process may hold threads and a model, and the worker must be small.
    return ProcessPool(
        max_workers=1,
        initializer=_prepare_worker,
        initargs=(memory_mb,),
        context=multiprocessing.get_context("spawn"),
    )


def _prepare_worker(memory_mb: int | None) -> None:
    """Bound this worker's memory, and end it with its parent."""
    import multiprocessing

    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.join,), daemon=True).start()
    if memory_mb is not None and sys.platform == "linux":
        import resource

        limit = memory_mb << 20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _end_with(wait_for_parent: Callable[[], None]) -> None:
    # A killed parent closes nothing in order; without this the worker would hang in its file as an orphan.
    wait_for_parent()
    os._exit(1)
