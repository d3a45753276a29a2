"""Brings one Elasticsearch index to what the store holds, in steps that can be repeated after a crash at any point.

The index gets a new token first; then chunks and versions are written, hidden as yet; then the state, which shows them and
hides what they replace; then the chunks that are hidden are deleted, and much later the texts that they were of. Records never
change once they are written, so writing one twice does nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

from elasticsearch import Elasticsearch
from elasticsearch.helpers import streaming_bulk

from retriever.errors import IndexMissing
from retriever.index.base import Refused, Stamp
from retriever.index.elastic.client import refusal
from retriever.index.elastic.inventory import Inventory
from retriever.index.elastic.records import CHUNK, chunk_record, version_records, write_alias
from retriever.index.elastic.state import Snapshot, State, States
from retriever.index.elastic.tokens import Tokens
from retriever.store import Store

__all__ = ["Writer"]

_WINDOW = 1000
"""Document versions that are read from the store, or deleted, at a time; a killed build goes on after the last of them."""

_REQUEST = 500
_REQUEST_BYTES = 10_000_000
_LONG_S = 600.0
"""What deletions may take."""


class Writer:
    """Writes one index of a store.

    Args:
        tokens: of the store.
        index: its name.
        linger_s: for how long the text of what is retired stays.
        progress: told how many more chunks are written.
    """

    def __init__(
        self,
        client: Elasticsearch,
        store: Store,
        states: States,
        tokens: Tokens,
        index: str,
        stamp: Stamp,
        *,
        linger_s: float,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._client = client
        self._store = store
        self._states = states
        self._tokens = tokens
        self._index = index
        self._stamp = stamp
        self._linger_s = linger_s
        self._progress = progress
        self._inventory = Inventory(client, store, index, stamp)

    def update(self, target: int) -> None:
        """Show what the store holds at the revision `target`, or later if the index does so already.

        Raises:
            IndexUnavailable: another copy of the store has written it.
            IndexDamaged: what is lost or too many cannot be mended.
        """
        snapshot = self._read()
        self._tokens.check(self._index, snapshot.state)
        snapshot = self._delete_retired(snapshot)
        state = snapshot.state
        target = max(target, state.revision)
        if state.revision < target or state.refused:
            snapshot = self._claim(snapshot)
            # In one step, however many changes: only what is current at the end of them all is sure to have its vectors.
            born, retired = self._store.changes(state.revision, target)
            again = {version.born for version in state.refused}
            refused = self._load(sorted({*born, *again}.difference(retired)))
            self._refresh()
            leaving = (*state.leaving, (target, time.time())) if retired else state.leaving
            shown = replace(snapshot.state, retired=tuple(retired), refused=tuple(refused), leaving=leaving)
            snapshot = self._delete_retired(self._show(snapshot, shown, target))
        self._repair(self._clear(snapshot))

    def fill(self, target: int) -> None:
        """Load what the store holds at the revision `target`, or later if an earlier call has; the index stays unfinished.

        What an earlier call has loaded stays, but for what has been retired since. That it was of this store is known.
        """
        snapshot = self._claim(self._states.read(self._index))
        state = snapshot.state
        target = max(target, state.loading)
        refused = {version.born: version for version in state.refused}
        if state.loading:
            _, retired = self._store.changes(state.loading, target)
            self._delete(retired)
            refused = {born: version for born, version in refused.items() if born not in retired}
        # Before anything of it is loaded, so that the next run knows since when what is there may have been retired.
        state = replace(state, loading=target, refused=tuple(refused.values()))
        snapshot = self._states.write(self._index, state, replaces=snapshot)
        todo = [born for born in self._store.current(target) if born > state.revision or born in refused]
        for at in range(0, len(todo), _WINDOW):
            window = todo[at : at + _WINDOW]
            refused = {born: version for born, version in refused.items() if born not in window}
            refused |= {version.born: version for version in self._load(window)}
            state = replace(state, revision=max(state.revision, window[-1]), refused=tuple(refused.values()))
            snapshot = self._states.write(self._index, state, replaces=snapshot)
        self._refresh()

    def finish(self) -> None:
        """Let an index be searched; it shows what `fill` loaded last."""
        snapshot = self._read()
        state = snapshot.state
        self._repair(self._show(snapshot, replace(state, cleared=state.loading), state.loading))

    def _read(self) -> Snapshot:
        snapshot = self._states.read(self._index)
        if snapshot is None:
            raise IndexMissing(f"The index {self._index} is gone.", way_out="Run `beleg index`.")
        return snapshot

    def _claim(self, snapshot: Snapshot | None) -> Snapshot:
        """Mark an index, before anything is added to it, as one that no other copy of the store knows."""
        state = snapshot.state if snapshot else State(0, finished=False)
        token = self._tokens.renew(self._index)
        return self._states.write(self._index, replace(state, token=token), replaces=snapshot)

    def _show(self, snapshot: Snapshot, state: State, revision: int) -> Snapshot:
        languages, keys = self._store.vocabulary(revision)
        state = replace(state, revision=revision, finished=True, loading=0, languages=languages, keys=keys)
        return self._states.write(self._index, state, replaces=snapshot)

    def _delete_retired(self, snapshot: Snapshot) -> Snapshot:
        if not snapshot.state.retired:
            return snapshot
        # Whoever searches may still have read the state before this one.
        time.sleep(self._states.grace_s)
        self._delete(snapshot.state.retired, {"term": {"record": CHUNK}})
        return self._states.write(self._index, replace(snapshot.state, retired=()), replaces=snapshot)

    def _clear(self, snapshot: Snapshot) -> Snapshot:
        """Delete the text of what was retired so long ago that no answer can still be proven by it."""
        state, now = snapshot.state, time.time()
        due = [revision for revision, at in state.leaving if now - at >= self._linger_s]
        if not due:
            return snapshot
        # The state names revisions and not versions, of which there may be a hundred thousand: it is read at every question.
        self._delete(self._store.changes(state.cleared, due[-1])[1])
        left = tuple((revision, at) for revision, at in state.leaving if revision > due[-1])
        return self._states.write(self._index, replace(state, leaving=left, cleared=due[-1]), replaces=snapshot)

    def _delete(self, borns: Collection[int], *only: dict[str, Any]) -> None:
        """Delete the records of versions, or those that some queries find as well."""
        if not borns:
            return
        # A run that was cut short may have left records that no search sees yet, and a deletion by query neither.
        self._refresh()
        ordered = sorted(borns)
        for at in range(0, len(ordered), _WINDOW):
            self._client.options(request_timeout=_LONG_S).delete_by_query(
                index=self._index,
                query={"bool": {"filter": [{"terms": {"born": ordered[at : at + _WINDOW]}}, *only]}},
                conflicts="proceed",
                refresh=True,
            )

    def _refresh(self) -> None:
        self._client.options(request_timeout=_LONG_S).indices.refresh(index=self._index)

    def _load(self, borns: Sequence[int]) -> list[Refused]:
        """Write versions with their chunks. Returns those of which Elasticsearch refused anything."""
        sources: dict[int, str] = {}
        owners: dict[str, int] = {}
        refused: dict[int, Refused] = {}
        written: Counter[str] = Counter()
        for done, item in streaming_bulk(
            self._client,
            self._records(borns, sources, owners),
            chunk_size=_REQUEST,
            max_chunk_bytes=_REQUEST_BYTES,
            raise_on_error=False,
            # Half a minute altogether for a server that has too much to do.
            max_retries=6,
            initial_backoff=0.5,
            max_backoff=20,
            require_alias=True,
        ):
            facts = item["index"]
            born = owners.pop(facts["_id"])
            # 409: it is there already.
            if not done and facts["status"] != 409:
                if facts["status"] != 400:
                    raise refusal(self._client, facts["status"], facts)
                refused.setdefault(born, Refused(born, sources[born], str(facts["error"].get("reason", facts["error"]))))
            written["chunks"] += not str(facts["_id"]).startswith("v")
            if written["chunks"] >= _REQUEST:
                self._tell(written)
        self._tell(written)
        return list(refused.values())

    def _tell(self, written: Counter[str]) -> None:
        if self._progress and written["chunks"]:
            self._progress(written["chunks"])
        written.clear()

    def _records(self, borns: Sequence[int], sources: dict[int, str], owners: dict[str, int]) -> Iterator[dict[str, Any]]:
        """Yield what to write for these versions, noting what each of them is."""
        for window in (borns[at : at + _WINDOW] for at in range(0, len(borns), _WINDOW)):
            for entry in self._store.entries(window, chunking=self._stamp.chunking, encoder=self._stamp.encoder):
                born = entry.passage.revision
                sources[born] = entry.passage.source
                yield self._action(str(entry.row), born, chunk_record(entry), owners)
            for born in window:
                document = self._store.document_born(born)
                if document:
                    sources[born] = document.source
                    for name, record in version_records(born, document):
                        yield self._action(name, born, record, owners)

    def _action(self, name: str, born: int, record: dict[str, Any], owners: dict[str, int]) -> dict[str, Any]:
        owners[name] = born
        return {
            "_op_type": "index",
            "_index": write_alias(self._index),
            "_id": name,
            "version": born,
            "version_type": "external",
            "_source": record,
        }

    def _repair(self, snapshot: Snapshot) -> None:
        """Delete what came late from a process that was killed long ago, and write again what has been lost.

        Only counts are compared, so this costs nothing where all is well.
        """
        state = snapshot.state
        if self._inventory.is_whole(state):
            return
        wanted = self._inventory.wanted(state)
        versions, chunks = self._inventory.present(state)
        self._delete(versions - wanted.keys())
        self._delete(chunks.keys() - wanted.keys(), {"term": {"record": CHUNK}})
        self._load([born for born, number in wanted.items() if born not in versions or chunks.get(born, 0) != number])
        self._refresh()
        self._inventory.check(state)
