"""The live reader, as those see it who ask: leased for a question, and another one opened beside it when one is promoted.

Whoever asks looks at one file, which takes microseconds, so that a server needs no signal. The reader before answers until the
new one is open, and is closed when the last question that it answers has ended. If the new one does not open, it just goes on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from reader.answering import Reader
from reader.errors import EngineError
from reader.served import SERVED, Promoted, open_reader, promoted
from retriever.errors import BelegError, ModelError
from retriever.settings import Settings

__all__ = ["LiveReader", "OpenReader", "ReaderState"]

_log = logging.getLogger(__name__)

OpenReader = Callable[[Settings, Promoted | None], Reader]
"""As `reader.served.open_reader`."""

_Seen = tuple[int, int, int] | str | None


@dataclass(frozen=True, slots=True)
class ReaderState:
    """What answers now.

    Attributes:
        model: its reference or name.
        candidate: from which it was promoted; None for the reader of the settings.
        release: id that answers carry; see `reader.release`.
        problem: why it is not the one that was promoted last; None if all is well.
    """

    model: str
    candidate: str | None
    release: str
    problem: str | None


@dataclass(eq=False, slots=True)
class _Held:
    """An open reader, how many questions it is answering, and whether it is to be closed after the last of them."""

    reader: Reader
    promoted: Promoted | None
    users: int = 0
    retired: bool = False


class LiveReader:
    """Leases the live reader. Safe to use from many threads.

    Args:
        reader: that is live now; closed by this.
        promoted: what it was opened by; None for the settings' own.
        follow: settings by which to look for another one; None keeps this one.
        open_: opens the others.
        retry_s: after how many seconds one that could not be opened is tried again.
    """

    def __init__(
        self,
        reader: Reader,
        promoted: Promoted | None = None,
        *,
        follow: Settings | None = None,
        open_: OpenReader = open_reader,
        retry_s: float = 300.0,
    ) -> None:
        self._held = _Held(reader, promoted)
        self._wanted = promoted
        self._settings = follow
        self._open = open_
        self._retry_s = retry_s
        self._lock = threading.Lock()
        # Not yet looked at: the file may have changed while the first one was opened.
        self._seen: _Seen = ""
        self._opening = False
        self._closed = False
        self._unread: str | None = None
        self._unopened: str | None = None
        self._failed_at = 0.0

    @classmethod
    def open(cls, settings: Settings, open_: OpenReader = open_reader) -> LiveReader:
        """Open the reader that is live now, and follow whatever is promoted from now on.

        Raises:
            ModelError, SettingsError, EngineUnavailable: it cannot be opened. Never the settings' own in place of a promoted
                one: answers would be worse, and nobody would know.
        """
        one = promoted(settings)
        try:
            return cls(open_(settings, one), one, follow=settings, open_=open_)
        except ModelError as error:
            if one is None:
                raise
            way_out = "Bring it back, or go back to the reader before it: `beleg rollback --reader`."
            raise ModelError(f"The promoted reader does not open. {error.message}", way_out=way_out) from error

    @contextmanager
    def lease(self) -> Iterator[Reader]:
        """Yield the live reader, which stays open until the block ends, whatever is promoted meanwhile.

        Raises:
            EngineError: this has been closed.
        """
        with self._leased() as held:
            yield held.reader

    def state(self, release: Callable[[Reader], str]) -> ReaderState:
        """Return what answers now, after a look whether something else should.

        Args:
            release: returns the id of answers that a reader gives.
        """
        with self._leased() as held:
            candidate = held.promoted.candidate if held.promoted else None
            return ReaderState(held.reader.engine.model, candidate, release(held.reader), self._unread or self._unopened)

    def close(self) -> None:
        """Close the reader: now, or when the last question that it answers has ended."""
        with self._lock:
            self._closed = True
            unused = self._retire(self._held)
        self._end(unused)

    @contextmanager
    def _leased(self) -> Iterator[_Held]:
        with self._lock:
            if self._closed:
                raise EngineError("The reader has been closed.")
            self._look()
            held = self._held
            held.users += 1
        try:
            yield held
        finally:
            with self._lock:
                held.users -= 1
                unused = held if held.retired and not held.users else None
            self._end(unused)

    def _look(self) -> None:
        """Find out what is wanted, and have it opened if it is not what is held. The caller holds the lock."""
        if self._settings is None:
            return
        # Before reading: a change that comes in between is seen by the next look.
        seen = _signature(self._settings)
        if seen != self._seen:
            self._seen = seen
            try:
                self._wanted = promoted(self._settings)
            except BelegError as error:
                self._unread = str(error)
                _log.error("%s goes on. %s", self._held.reader.engine.model, error)
                return
            self._unread = self._unopened = None
        if _same(self._wanted, self._held.promoted):
            # The same model, but perhaps of another attempt: promoted, taken back, and promoted again.
            self._held.promoted = self._wanted
            return
        waits = self._unopened is not None and time.monotonic() - self._failed_at < self._retry_s
        if not self._opening and not waits:
            self._opening = True
            threading.Thread(target=self._open_wanted, name="open-reader", daemon=True).start()

    def _open_wanted(self) -> None:
        assert self._settings is not None
        while True:
            with self._lock:
                wanted = self._wanted
                if self._closed or _same(wanted, self._held.promoted):
                    self._opening = False
                    return
            try:
                reader = self._open(self._settings, wanted)
            except Exception as error:  # noqa: BLE001 - whatever it is, the reader before goes on, and somebody must hear of it
                if self._gave_up(wanted, error):
                    return
                continue
            unused = self._take(reader, wanted)
            self._end(unused)

    def _gave_up(self, wanted: Promoted | None, error: Exception) -> bool:
        """Note why a reader does not open; say whether it is still the one that is wanted."""
        with self._lock:
            if not _same(wanted, self._wanted):
                return False
            said = str(error) if isinstance(error, BelegError) else f"{type(error).__name__}: {error}"
            name = (wanted.candidate or wanted.reader) if wanted else "The reader of the settings"
            problem = f"{name} cannot take over, so {self._held.reader.engine.model} goes on. {said}"
            if problem != self._unopened:  # else it was told when it was tried before
                _log.error("%s", problem)
            self._unopened, self._failed_at, self._opening = problem, time.monotonic(), False
            return True

    def _take(self, reader: Reader, opened: Promoted | None) -> _Held | None:
        """Put a new reader in the place of the old one, if it is still wanted; return what is to be closed."""
        with self._lock:
            new = _Held(reader, opened)
            if self._closed or not _same(opened, self._wanted):
                return new
            old, self._held = self._held, new
            self._unopened = None
            _log.info("%s answers from now on.", reader.engine.model)
            return self._retire(old)

    def _retire(self, held: _Held) -> _Held | None:
        """Have a reader closed after its last question; return it if there is none. The caller holds the lock."""
        if held.retired:
            return None
        held.retired = True
        return held if not held.users else None

    def _end(self, unused: _Held | None) -> None:
        # Without the lock: freeing a model takes a moment, in which others may ask.
        if unused:
            unused.reader.engine.close()


def _same(one: Promoted | None, other: Promoted | None) -> bool:
    return one.same(other) if one else other is None


def _signature(settings: Settings) -> _Seen:
    """Return what changes whenever the file does that says which reader was promoted."""
    try:
        found = (settings.data_dir / SERVED).stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        return str(error)
    return found.st_mtime_ns, found.st_ino, found.st_size
