"""Answers kept for those who ask the same again. Knows not what makes or outdates an answer: its key says all that."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence

from reader.schema import Answer, Turn
from retriever.index.base import Filters

__all__ = ["Answers", "asked"]


class Answers:
    """The answers that were asked for last. Safe to use from many threads.

    Args:
        size: how many are kept; 0 keeps none.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[Hashable, Answer] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Answer | None:
        """Return the answer that was kept under a key."""
        with self._lock:
            answer = self._kept.get(key)
            if answer:
                self._kept.move_to_end(key)
            return answer

    def keep(self, key: Hashable, answer: Answer) -> None:
        """Keep an answer, in place of the one that nobody has asked for the longest."""
        with self._lock:
            self._kept[key] = answer
            self._kept.move_to_end(key)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)


def asked(question: str, filters: Filters | None, history: Sequence[Turn]) -> Hashable:
    """Return what two questions share that must get the same answer, if they are asked of the same documents and models.

    >>> asked(" Who  pays?", {"kind": ["pdf", "html"]}, ()) == asked("Who pays?", {"kind": ["html", "pdf"]}, ())
    True
    """
    wanted = sorted((key, *sorted(set(values))) for key, values in (filters or {}).items())
    return " ".join(question.split()), tuple(wanted), tuple(history)
