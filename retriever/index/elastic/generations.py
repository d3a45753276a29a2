"""The distributed engine: each generation is one Elasticsearch index, and aliases say which one is live and which was before.

The index `beleg-…` is written by the one machine that owns the store; others search it with nothing but this module and the
encoder. What an index holds is in `records.py`, what of it is shown in `state.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from elasticsearch import ApiError, Elasticsearch

from retriever.errors import IndexDamaged, IndexMissing, SwapLost
from retriever.index.base import Formula, Generation, Refused, Stamp
from retriever.index.elastic.client import connect, mapped_errors, where
from retriever.index.elastic.condition import check_blocks, describe, wait_for_copies
from retriever.index.elastic.inventory import Inventory
from retriever.index.elastic.names import Names
from retriever.index.elastic.owner import Owner
from retriever.index.elastic.records import Meta
from retriever.index.elastic.search import ElasticIndex, SearchOptions
from retriever.index.elastic.state import States
from retriever.index.elastic.writer import Writer
from retriever.schema import Document
from retriever.settings import Settings
from retriever.store import Store

__all__ = ["ElasticGenerations", "open_elastic"]

_SAMPLE = 200
_HEALTH_S = 300
_LINGER_S = 600.0


def open_elastic(given: Settings, store: Store | None, formula: Formula) -> ElasticGenerations:
    """Return the generations that the settings name; nothing is sent yet.

    Raises:
        SettingsError: settings that contradict each other.
    """
    client = connect(
        given.elasticsearch_url,
        user=given.elasticsearch_username,
        password=given.elasticsearch_password.get_secret_value(),
        api_key=given.elasticsearch_api_key.get_secret_value(),
        ca=Path(given.elasticsearch_ca) if given.elasticsearch_ca else None,
        timeout_s=given.elasticsearch_timeout_s,
    )
    options = SearchOptions(given.elasticsearch_exact, given.elasticsearch_candidates, given.elasticsearch_oversample, formula)
    return ElasticGenerations(
        store,
        client,
        name=given.elasticsearch_index,
        vectors=given.elasticsearch_vectors,
        shards=given.elasticsearch_shards,
        replicas=given.elasticsearch_replicas,
        options=options,
    )


class ElasticGenerations:
    """Generations as Elasticsearch indices; see `Generations`.

    Args:
        store: None on a query replica, which opens and searches but writes nothing.
        name: alias of what is live; other names begin with it.
        vectors: kind of the vector index that the next build makes.
        shards: of the next build.
        replicas: copies of each shard beside the first, of the next build.
        remember_s: for how long what is live is remembered; a change shows no later than that.
        health_s: for how long a build waits for the copies of its index.
        linger_s: for how long the text of a version that was replaced is kept for answers that were begun before.

    Attributes:
        place: see `Generations`.
    """

    def __init__(
        self,
        store: Store | None,
        client: Elasticsearch,
        *,
        name: str,
        vectors: str = "int8_hnsw",
        shards: int = 1,
        replicas: int = 0,
        options: SearchOptions | None = None,
        remember_s: float = 0.25,
        health_s: int = _HEALTH_S,
        linger_s: float = _LINGER_S,
    ) -> None:
        self.place = f"elasticsearch {where(client)} {name}"
        self._store = store
        self._client = client
        self._names = Names(client, name)
        self._vectors = vectors
        self._shards = shards
        self._replicas = replicas
        self._options = options or SearchOptions()
        self._health_s = health_s
        self._linger_s = linger_s
        self._states = States(client, remember_s=remember_s)
        self._owner = Owner(client, store, self._names, self._states)

    def examine(self) -> str:
        """Return version and health of the cluster, and what it has refused.

        Raises:
            IndexUnavailable: also for what would keep this machine from indexing, if it does: the server's version, a name that
                is taken, an index that is another store's, a full disk.
        """
        if self._store is not None and self._store.revision():
            self.check()
        with mapped_errors(self._client):
            said = describe(self._client)
            self._names.check()
            check_blocks(self._client, self._names)
            live = self._states.read(self._names.live)
            refused = live.state.refused if live else ()
            if not refused:
                return said
            return f"{said}, refuses {len(refused)} documents, such as {refused[0].source}: {refused[0].reason}"

    def check(self, *, anew: bool = False) -> None:
        """Raise what would keep this store from publishing here.

        Args:
            anew: by another index, as a rebuild does: then the live one need not be what this store has written last.
        """
        with mapped_errors(self._client):
            self._owner.check(anew=anew)

    def live(self, *, fresh: bool = False) -> Generation | None:
        """Return the live generation, as of a moment ago, or of now."""
        with mapped_errors(self._client):
            snapshot = (self._states.read if fresh else self._states.recent)(self._names.live)
            return self._generation(snapshot.index) if snapshot else None

    def previous(self) -> Generation | None:
        """Return what was live before the last rebuild or rollback."""
        with mapped_errors(self._client):
            index = self._names.index(self._names.previous)
            return self._generation(index) if index else None

    def revision(self) -> int:
        """Return the revision that the live generation shows, as of a moment ago."""
        with mapped_errors(self._client):
            snapshot = self._states.recent(self._names.live)
            return snapshot.state.revision if snapshot else 0

    def document(self, document: str) -> Document | None:
        """Return what the live generation shows now."""
        live = self.live(fresh=True)
        return self.open(live).shown(document) if live else None

    def open(self, generation: Generation) -> ElasticIndex:
        """Open a generation."""
        with mapped_errors(self._client):
            snapshot = self._states.recent(generation.name)
            if snapshot is None or not snapshot.state.finished:
                raise IndexMissing(f"The index {generation.name} is not there.", way_out="Run `beleg index`.")
            return ElasticIndex(self._client, self._states, generation.name, self._names.meta(generation.name), self._options)

    def build(
        self,
        stamp: Stamp,
        encoder: str,
        *,
        dimensions: int,
        revision: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Generation:
        """Make an index and load it, or go on with one that an earlier call with the same arguments has left."""
        self.check(anew=True)
        with mapped_errors(self._client):
            store = self._owner.writable(None)
            meta = Meta(store.id, stamp, encoder, dimensions, self._vectors, self._shards)
            revision = store.revision() if revision is None else revision
            index, snapshot = self._owner.begin(meta, revision)
            writer = self._writer(Generation(index, stamp, encoder), progress)
            if snapshot and snapshot.state.finished:
                writer.update(revision)
            else:
                writer.fill(revision)
                wait_for_copies(self._client, index, self._replicas, self._health_s)
                writer.finish()
            return Generation(index, stamp, encoder)

    def update(
        self, generation: Generation, *, revision: int | None = None, progress: Callable[[int], None] | None = None
    ) -> Generation:
        """Show in this generation what the store holds at `revision`."""
        with mapped_errors(self._client):
            writer = self._writer(generation, progress)
            writer.update(self._owner.writable(None).revision() if revision is None else revision)
            return generation

    def shows_all(self, generation: Generation) -> bool:
        """Say whether a generation shows the store's revision, and nothing of it was refused.

        A query replica, which could do nothing about it, takes any generation for complete that can be read.
        """
        try:
            self.open(generation)
        except IndexMissing:
            return False
        with mapped_errors(self._client):
            snapshot = self._states.read(generation.name)
            return snapshot is not None and self._owner.shows_all(snapshot.index, snapshot.state)

    def refused(self, generation: Generation) -> tuple[Refused, ...]:
        """Return the documents that Elasticsearch would not take, with its reasons."""
        with mapped_errors(self._client):
            snapshot = self._states.read(generation.name)
            return snapshot.state.refused if snapshot else ()

    def verify(self, generation: Generation) -> None:
        """Compare counts and the texts of a sample with the store."""
        with mapped_errors(self._client):
            store = self._owner.writable(generation.name)
            index, snapshot = self.open(generation), self._states.read(generation.name)
            if snapshot is None:
                raise IndexMissing(f"The index {generation.name} is gone.", way_out="Run `beleg index`.")
            state, chunking = snapshot.state, generation.stamp.chunking
            Inventory(self._client, store, generation.name, generation.stamp).check(state)
            wanted = store.passages(store.sample(state.revision, chunking, _SAMPLE))
            held = index.passages(list(wanted))
            hidden = set(state.hidden)
            lacking = [row for row, text in wanted.items() if text.revision not in hidden and held.get(row) != text]
            if lacking:
                raise IndexDamaged(
                    f"The index {generation.name} lacks {len(lacking)} of {len(wanted)} chunks that were looked for, or holds "
                    "other text in their place."
                )

    def swap(self, new: Generation, *, expected: Generation | None, keep: bool) -> None:
        """Move the alias of what is live, in one change of the cluster's state."""
        with mapped_errors(self._client):
            self._owner.writable(new.name)
            before = expected.name if expected else None
            try:
                if before != new.name:
                    self._names.swap(new.name, before, keep=keep)
            except ApiError:
                # Also after an answer that was lost on its way: what the aliases say now is what happened.
                if self._names.index(self._names.live) == before:
                    raise
            finally:
                self._states.forget()
            if self._names.index(self._names.live) != new.name:
                raise SwapLost("Another index has become live meanwhile.", way_out="Nothing has changed; run this again.")

    def forget_previous(self) -> None:
        """Give up the way back."""
        with mapped_errors(self._client):
            index = self._names.index(self._names.previous)
            if index:
                self._owner.writable(index)
                self._names.forget_previous(index)

    def collect(self, *, building: Stamp | None) -> None:
        """Delete this store's other indices. Whoever has one open finds it missing, and opens what is live."""
        if self._store is None:
            return
        with mapped_errors(self._client):
            served, made = self._names.served(), self._names.made_by(self._store.id)
            others = [name for name, meta in made if name not in served and meta.stamp != building]
            if others:
                # Those who search may still take one of them for the live one.
                time.sleep(self._states.grace_s)
                self._owner.delete(others)

    def _generation(self, index: str) -> Generation:
        meta = self._names.meta(index)
        return Generation(index, meta.stamp, meta.encoder)

    def _writer(self, generation: Generation, progress: Callable[[int], None] | None) -> Writer:
        store, name, stamp = self._owner.writable(generation.name), generation.name, generation.stamp
        tokens, linger_s = self._owner.tokens(store), self._linger_s
        return Writer(self._client, store, self._states, tokens, name, stamp, linger_s=linger_s, progress=progress)
