"""The store that Elasticsearch indices are made of: which are its own, and what keeps it from writing them."""

from __future__ import annotations

from collections.abc import Collection

from elasticsearch import Elasticsearch

from retriever.errors import IndexUnavailable
from retriever.index.elastic.client import where
from retriever.index.elastic.condition import check_version
from retriever.index.elastic.names import Names
from retriever.index.elastic.records import Meta, mappings, settings, write_alias
from retriever.index.elastic.state import Snapshot, State, States
from retriever.index.elastic.tokens import Tokens
from retriever.store import Store

__all__ = ["Owner"]


class Owner:
    """What makes indices, if it is there.

    Args:
        store: None on a query replica.
    """

    def __init__(self, client: Elasticsearch, store: Store | None, names: Names, states: States) -> None:
        self._client = client
        self._store = store
        self._names = names
        self._states = states

    def writable(self, index: str | None) -> Store:
        """Return the store, if the index is its own; None stands for one that will be."""
        if self._store is None:
            raise IndexUnavailable("This is a query replica: it has no store to index from.")
        if index is not None and self._names.meta(index).store != self._store.id:
            raise IndexUnavailable(
                f"The index {index} at {where(self._client)} belongs to another store than {self._store.path}.",
                way_out="Index on the machine that made it, or set another elasticsearch_index here.",
            )
        return self._store

    def tokens(self, store: Store) -> Tokens:
        """Return what the store remembers of the indices that it has written."""
        return Tokens(store, where(self._client))

    def check(self, *, anew: bool) -> None:
        """Raise what would keep the store from publishing; see `ElasticGenerations.check`."""
        check_version(self._client)
        self._names.check()
        live = self._states.read(self._names.live)
        store = self.writable(live.index if live else None)
        if live and not anew:
            self.tokens(store).check(live.index, live.state)

    def shows_all(self, index: str, state: State) -> bool:
        """Say whether an index shows all that the store holds, and nothing else."""
        store = self._store
        if store is None:
            return True
        whole = self._names.meta(index).store == store.id and state.revision == store.revision() and not state.refused
        return whole and self.tokens(store).fit(index, state)

    def begin(self, meta: Meta, revision: int) -> tuple[str, Snapshot | None]:
        """Return an index of this nature that a build of this very store has left, and its state; or else a new one."""
        store, served = self.writable(None), self._names.served()
        for index, found in self._names.made_by(store.id):
            if found == meta and index not in served:
                snapshot = self._states.read(index)
                if self.tokens(store).fit(index, snapshot.state if snapshot else None):
                    return index, snapshot
        index = self._names.new(revision)
        self.tokens(store).begin(index)
        aliases = {write_alias(index): {"is_hidden": True}}
        self._client.indices.create(index=index, settings=settings(meta), mappings=mappings(meta, index), aliases=aliases)
        return index, None

    def delete(self, indices: Collection[str]) -> None:
        """Delete indices, and what the store remembers of them."""
        self._client.options(ignore_status=404).indices.delete(index=list(indices))
        self.tokens(self.writable(None)).forget(indices)
