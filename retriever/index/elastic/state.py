"""What of an index is shown: one small record in it, which whoever searches reads first.

A search finds only versions that were born by the state's revision and that it does not hide. So a whole batch of documents
appears at once, when the state is written, whatever Elasticsearch has refreshed before.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from elasticsearch import ConflictError, Elasticsearch, NotFoundError

from retriever.errors import IndexUnavailable
from retriever.index.base import Refused
from retriever.index.elastic.records import STATE, write_alias

__all__ = ["MOST_VALUES", "Snapshot", "State", "States", "born_in", "hiding"]

MOST_VALUES = 65_536
"""That one `terms` query may have: an index's `max_terms_count`."""


@dataclass(frozen=True, slots=True)
class State:
    """What is shown.

    Attributes:
        revision: of the store; versions born later are hidden. While an index is loaded: those born later are still to come.
        finished: whether it can be searched.
        loading: the store's revision whose current versions are being loaded.
        token: of the writer that began to write last; see `tokens.py`.
        retired: versions that are hidden, and whose chunks are about to be deleted.
        leaving: revisions, and when they were shown, in seconds since the epoch: the text of what was retired by then is still
            kept, for answers that were begun before.
        cleared: revision of the store; of what was retired by then nothing is left.
        refused: what Elasticsearch would not take.
        languages: of the documents that are shown.
        keys: that they can be filtered by.
    """

    revision: int
    finished: bool
    loading: int = 0
    token: str = ""
    retired: tuple[int, ...] = ()
    refused: tuple[Refused, ...] = ()
    languages: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    leaving: tuple[tuple[int, float], ...] = ()
    cleared: int = 0

    @property
    def hidden(self) -> list[int]:
        """Versions whose chunks are in the index and not shown, although they were born by the revision."""
        return sorted({*self.retired, *(version.born for version in self.refused)})

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> State:
        """Return what a record says."""
        facts = record["state"]
        return cls(
            facts["revision"],
            facts["finished"],
            facts["loading"],
            # An index from before there were tokens can be searched, until a rebuild has replaced it.
            facts.get("token", ""),
            tuple(facts["retired"]),
            tuple(Refused(**version) for version in facts["refused"]),
            tuple(facts["languages"]),
            tuple(facts["keys"]),
            tuple((revision, at) for revision, at in facts.get("leaving", [])),
            facts.get("cleared", 0),
        )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state as it was read, when, and what a writer needs to replace this very one."""

    index: str
    state: State
    sequence: tuple[int, int]
    read_at: float

    def is_before(self, other: Snapshot) -> bool:
        """Say whether this state of an index was written before another one of the same index."""
        (number, term), (later, later_term) = self.sequence, other.sequence
        return self.index == other.index and (term, number) < (later_term, later)


class States:
    """Reads and writes states, and remembers them for a moment. Safe to use from many threads.

    Args:
        remember_s: for how long a state that was read is taken for the current one.
    """

    def __init__(self, client: Elasticsearch, *, remember_s: float) -> None:
        self.remember_s = remember_s
        self._client = client
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, Snapshot | None]] = {}
        self._changes = 0

    @property
    def grace_s(self) -> float:
        """For how long after a change of state what it retires is still there, for those who read the one before."""
        return 2 * self.remember_s

    def recent(self, name: str) -> Snapshot | None:
        """Return the state of an index or of what an alias names, not older than `remember_s`; None if it is not there."""
        with self._lock:
            read_at, snapshot = self._known.get(name, (0.0, None))
        # A moment's surplus of requests, when many threads find it outdated at once, is cheaper than making them wait.
        return snapshot if time.monotonic() - read_at < self.remember_s and read_at else self.read(name)

    def read(self, name: str) -> Snapshot | None:
        """Return the state as it is now; None if there is no such index, or nothing has been loaded into it."""
        at, changes = time.monotonic(), self._changes
        snapshot = None
        try:
            # By id, which sees what was written a moment ago, and not by a search.
            found = self._client.get(index=name, id=STATE).body
        except NotFoundError:
            pass
        else:
            sequence = (found["_seq_no"], found["_primary_term"])
            snapshot = Snapshot(found["_index"], State.read(found["_source"]), sequence, at)
        self._keep(name, snapshot, at, changes)
        if snapshot:
            self._keep(snapshot.index, snapshot, at, changes)
        return snapshot

    def write(self, index: str, state: State, *, replaces: Snapshot | None) -> Snapshot:
        """Write the state of an index, once it is known that nobody else has meanwhile.

        Args:
            replaces: what was read before; None if there must not be any.

        Raises:
            IndexUnavailable: somebody has.
        """
        at = time.monotonic()
        if replaces:
            condition: dict[str, Any] = {"if_seq_no": replaces.sequence[0], "if_primary_term": replaces.sequence[1]}
        else:
            condition = {"op_type": "create"}
        try:
            done = self._client.index(
                index=write_alias(index),
                id=STATE,
                document={"record": STATE, "state": asdict(state)},
                require_alias=True,
                **condition,
            )
        except ConflictError as error:
            # An answer that was lost on its way has the client write a second time.
            found = self.read(index)
            if found is None or found.state != state:
                raise IndexUnavailable(
                    f"Another process has written to the index {index} meanwhile.", way_out="Run this again when it has ended."
                ) from error
            return found
        snapshot = Snapshot(index, state, (done["_seq_no"], done["_primary_term"]), at)
        self.forget()  # also what was read through an alias
        return snapshot

    def forget(self) -> None:
        """Read everything anew: this process has changed a state, or which index an alias names."""
        with self._lock:
            self._known.clear()
            self._changes += 1

    def _keep(self, name: str, snapshot: Snapshot | None, at: float, changes: int) -> None:
        with self._lock:
            # What another thread had asked for before this process changed it may be answered only now.
            if changes != self._changes:
                return
            known_at, known = self._known.get(name, (0.0, None))
            # Likewise an answer that took longer than that of another thread, or that of a copy which lags behind: what has
            # been seen to go must not come back.
            if at < known_at or (known and snapshot and snapshot.is_before(known)):
                return
            self._known[name] = (at, snapshot)


def born_in(versions: Sequence[int]) -> list[dict[str, Any]]:
    """Return queries that together find the records of versions, however many these are."""
    return [{"terms": {"born": versions[at : at + MOST_VALUES]}} for at in range(0, len(versions), MOST_VALUES)]


def hiding(state: State) -> list[dict[str, Any]]:
    """Return queries that find what a state hides although it was born by the state's revision."""
    return born_in(state.hidden)
