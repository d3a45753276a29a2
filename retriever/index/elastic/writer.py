"""Brings one Elasticsearch index to what the store holds, in steps that can be repeated after a crash at any point.

Chunks and versions are written first, hidden as yet; then the state, which shows them and hides what they replace; then what is
hidden is deleted. Records never change once they are written, so writing one twice does nothing.
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
from retriever.index.elastic.records import STATE, chunk_record, version_records, write_alias
from retriever.index.elastic.state import Snapshot, State, States, hiding
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
        index: its name.
        progress: told how many more chunks are written.
    """

    def __init__(
        self,
        client: Elasticsearch,
        store: Store,
        states: States,
        index: str,
        stamp: Stamp,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._client = client
        self._store = store
        self._states = states
        self._index = index
        self._stamp = stamp
        self._progress = progress

    def update(self, target: int) -> None:
        """Show what the store holds at the revision `target`, or later if the index does so already."""
        snapshot = self._delete_retired(self._read())
        state = snapshot.state
        target = max(target, state.revision)
        if state.revision < target or state.refused:
            # In one step, however many changes: only what is current at the end of them all is sure to have its vectors.
            born, retired = self._store.changes(state.revision, target)
            again = {version.born for version in state.refused}
            refused = self._load(sorted({*born, *again}.difference(retired)))
            self._refresh()
            snapshot = self._delete_retired(self._show(snapshot, target, retired=retired, refused=refused))
        self._repair(snapshot)

    def fill(self, target: int) -> None:
        """Load what the store holds at the revision `target`, or later if an earlier call has; the index stays unfinished.

        What an earlier call has loaded stays, but for what has been retired since.
        """
        snapshot = self._states.read(self._index) or self._begin()
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
        self._repair(self._show(snapshot, snapshot.state.loading, refused=snapshot.state.refused))

    def count(self, state: State) -> tuple[int, int]:
        """Return how many versions and chunks the index shows."""
        counts = self._counted({"terms": {"field": "record"}}, state)
        by_kind = {bucket["key"]: bucket["doc_count"] for bucket in counts["buckets"]}
        return by_kind.get("version", 0), by_kind.get("chunk", 0)

    def expected(self, state: State) -> tuple[int, int]:
        """Return how many it must show: what the store holds, but for what Elasticsearch would not take."""
        documents, chunks = self._store.count(state.revision, self._stamp.chunking)
        borns = [version.born for version in state.refused]
        if borns:
            entries = self._store.entries(borns, chunking=self._stamp.chunking, encoder=self._stamp.encoder)
            return documents - len(borns), chunks - sum(1 for _ in entries)
        return documents, chunks

    def _begin(self) -> Snapshot:
        return self._states.write(self._index, State(0, finished=False), replaces=None)

    def _read(self) -> Snapshot:
        snapshot = self._states.read(self._index)
        if snapshot is None:
            raise IndexMissing(f"The index {self._index} is gone.", way_out="Run `beleg index`.")
        return snapshot

    def _show(
        self, snapshot: Snapshot, revision: int, *, retired: Sequence[int] = (), refused: Sequence[Refused] = ()
    ) -> Snapshot:
        languages, keys = self._store.vocabulary(revision)
        state = State(revision, finished=True, retired=tuple(retired), refused=tuple(refused), languages=languages, keys=keys)
        return self._states.write(self._index, state, replaces=snapshot)

    def _delete_retired(self, snapshot: Snapshot) -> Snapshot:
        if not snapshot.state.retired:
            return snapshot
        # Whoever searches may still have read the state before this one.
        time.sleep(self._states.grace_s)
        self._delete(snapshot.state.retired)
        return self._states.write(self._index, replace(snapshot.state, retired=()), replaces=snapshot)

    def _delete(self, borns: Collection[int]) -> None:
        # A run that was cut short may have left records that no search sees yet, and a deletion by query neither.
        self._refresh()
        ordered = sorted(borns)
        for at in range(0, len(ordered), _WINDOW):
            self._client.options(request_timeout=_LONG_S).delete_by_query(
                index=self._index,
                query={"terms": {"born": ordered[at : at + _WINDOW]}},
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
        if self.count(state) == self.expected(state):
            return
        versions, chunked = self._present(state)
        wanted = set(self._store.current(state.revision)).difference(state.hidden)
        self._delete((versions | chunked) - wanted)
        self._load(sorted(wanted - versions))
        self._refresh()

    def _present(self, state: State) -> tuple[set[int], set[int]]:
        """Return the versions that are in the index, and those that chunks in it are of."""
        sources = [{"record": {"terms": {"field": "record"}}}, {"born": {"terms": {"field": "born"}}}]
        found: dict[str, set[int]] = {}
        after: dict[str, Any] = {}
        while True:
            page = self._counted({"composite": {"size": 10_000, "sources": sources, **after}}, state)
            for bucket in page["buckets"]:
                found.setdefault(bucket["key"]["record"], set()).add(bucket["key"]["born"])
            if "after_key" not in page:
                return found.get("version", set()), found.get("chunk", set())
            after = {"after": page["after_key"]}

    def _counted(self, aggregation: dict[str, Any], state: State) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "filter": [{"range": {"born": {"lte": state.revision}}}],
            "must_not": [{"term": {"record": STATE}}, *hiding(state)],
        }
        answer = self._client.search(
            index=self._index, size=0, query={"bool": shown}, aggs={"all": aggregation}, allow_partial_search_results=False
        )
        counted: dict[str, Any] = answer["aggregations"]["all"]
        return counted
