"""Proof that an index shows what this very store has written, and not a copy of it that has gone another way.

A store that is restored from a backup, or a data folder that is copied, has the id of the original and counts revisions as it
does, but what they hold differs. So before a writer adds anything to an index it gives it a new token, which it has remembered
in its store. An index whose token a store remembers holds nothing but what that store has written, at a state that the store
has gone through; which is also so after the server was restored to an earlier one.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable

from retriever.errors import IndexUnavailable
from retriever.index.elastic.state import State
from retriever.store import Store

__all__ = ["Tokens"]

_KEPT = 100


class Tokens:
    """What a store remembers of the indices that it has written.

    Args:
        at: where they are, for messages.
    """

    def __init__(self, store: Store, at: str) -> None:
        self._store = store
        self._at = at

    def begin(self, index: str) -> None:
        """Remember that an index is made by this store, before it is."""
        self._store.remember({_fact(index): json.dumps([])})

    def renew(self, index: str) -> str:
        """Return a new token, remembered together with those that a writer which was killed may have left in the index."""
        token = secrets.token_hex(8)
        self._store.remember({_fact(index): json.dumps([*(self._known(index) or [])[-_KEPT:], token])})
        return token

    def forget(self, indices: Iterable[str]) -> None:
        """Forget indices that are gone."""
        self._store.remember({_fact(index): None for index in indices})

    def fit(self, index: str, state: State | None) -> bool:
        """Say whether an index shows what this store has written.

        Args:
            state: of the index; None if nothing has been loaded into it.
        """
        known = self._known(index)
        if known is None or state is None:
            return known is not None
        return state.token in known and max(state.revision, state.loading) <= self._store.revision()

    def check(self, index: str, state: State | None) -> None:
        """Raise `IndexUnavailable` unless an index shows what this store has written."""
        if not self.fit(index, state):
            raise IndexUnavailable(
                f"The index {index} at {self._at} shows what another copy of this store, or a later state of it, has written: "
                f"{self._store.path} was restored or copied.",
                way_out="Run `beleg rebuild`: it makes an index of what this store holds.",
            )

    def _known(self, index: str) -> list[str] | None:
        text = self._store.recall(_fact(index))
        return None if text is None else list(json.loads(text))


def _fact(index: str) -> str:
    return f"tokens {index}"
