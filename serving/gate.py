"""How many questions may wait or be answered at once, and when one that is turned away should come back.

A gate knows nothing of questions or HTTP. Its places are taken in the event loop and given back by the threads that answer.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from reader.errors import Overloaded
from serving.errors import ShuttingDown

__all__ = ["Gate", "Place"]

_FIRST_GUESS_S = 5.0
"""What an answer is taken to cost before the first one has been measured."""

_NEWEST_COUNTS = 0.2
_LONGEST_RETRY_S = 300


class Place:
    """The right to one answer, until `leave` is called."""

    def __init__(self, gate: Gate, entered: float) -> None:
        self._gate = gate
        self.entered = entered

    def leave(self, *, answered: bool) -> None:
        """Give the place back; a second call does nothing.

        Args:
            answered: whether the time it took tells how long answers take.
        """
        self._gate._leave(self, answered=answered)


class Gate:
    """A bounded queue in front of a reader that answers one question after the other. Safe to use from many threads.

    Args:
        places: questions that may wait or be answered at once.
        clock: seconds that only grow; another one in tests.

    Attributes:
        closed: no question gets in any more, and those inside should stop.
    """

    def __init__(self, places: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.closed = False
        self._places = places
        self._clock = clock
        self._inside: set[Place] = set()
        self._changed = threading.Condition()
        self._answer_s = _FIRST_GUESS_S
        self._measured = False
        self._last_left = -math.inf

    @property
    def taken(self) -> int:
        """How many questions wait or are being answered now."""
        return len(self._inside)

    def enter(self) -> Place:
        """Take a place.

        Raises:
            Overloaded: all of them are taken.
            ShuttingDown: the gate is closed.
        """
        with self._changed:
            if self.closed:
                raise ShuttingDown
            if len(self._inside) >= self._places:
                raise Overloaded(
                    f"{len(self._inside)} questions wait or are being answered, which is as many as may.",
                    retry_after_s=self._retry_after_s(),
                    way_out="Ask again later, or raise the setting `queue`.",
                )
            place = Place(self, self._clock())
            self._inside.add(place)
            return place

    def close(self) -> None:
        """Let nobody in any more."""
        with self._changed:
            self.closed = True

    def wait_empty(self, timeout_s: float) -> bool:
        """Block until every place has been given back; say whether that happened in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._inside, timeout_s)

    def _leave(self, place: Place, *, answered: bool) -> None:
        with self._changed:
            if place not in self._inside:
                return
            self._inside.discard(place)
            now = self._clock()
            if answered:
                # A question that waited for others was being answered only since the last of them left.
                seconds = now - max(place.entered, self._last_left)
                weight = _NEWEST_COUNTS if self._measured else 1.0
                self._answer_s += weight * (seconds - self._answer_s)
                self._measured = True
            self._last_left = now
            self._changed.notify_all()

    def _retry_after_s(self) -> int:
        # By then half of those inside have been answered. Whoever came back when the first place is free would most
        # likely meet a queue that others have filled again.
        return max(1, min(_LONGEST_RETRY_S, math.ceil(self._answer_s * len(self._inside) / 2)))
