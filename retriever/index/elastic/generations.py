"""The distributed engine: each generation is one Elasticsearch index, and aliases say which one is live and which was before.

The index `beleg-…` is written by the one machine that owns the store; others search it with nothing but this module and the
encoder. What an index holds is in `records.py`, what of it is shown in `state.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from elasticsearch import ApiError, AuthorizationException, Elasticsearch

from retriever.errors import IndexDamaged, IndexMissing, IndexUnavailable, SwapLost
from retriever.index.base import Formula, Generation, Refused, Stamp
from retriever.index.elastic.client import connect, mapped_errors, refusal, where
from retriever.index.elastic.names import Names
from retriever.index.elastic.records import Meta, mappings, settings, write_alias
from retriever.index.elastic.search import ElasticIndex, SearchOptions
from retriever.index.elastic.state import States
from retriever.index.elastic.writer import Writer
from retriever.settings import Settings
from retriever.store import Store

__all__ = ["ElasticGenerations", "open_elastic"]

_SAMPLE = 200
_HEALTH_S = 300


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
    ) -> None:
        self._store = store
        self._client = client
        self._names = Names(client, name)
        self._vectors = vectors
        self._shards = shards
        self._replicas = replicas
        self._options = options or SearchOptions()
        self._health_s = health_s
        self._states = States(client, remember_s=remember_s)

    def examine(self) -> str:
        """Return version and health of the cluster.

        Raises:
            IndexUnavailable: also where writing is blocked, as it is on a full disk.
        """
        with mapped_errors(self._client):
            number = self._client.info()["version"]["number"]
            indices = self._client.indices.get_settings(index=f"{self._names.live}-*", allow_no_indices=True).body
            for name, found in indices.items():
                blocks = {block for block, on in found["settings"]["index"].get("blocks", {}).items() if on == "true"}
                if blocks and self._names.fits(name):
                    error = {"error": {"type": "cluster_block_exception", "reason": f"{name}: {', '.join(sorted(blocks))}"}}
                    raise refusal(self._client, 403, error)
            try:
                health = self._client.cluster.health()
            except AuthorizationException:  # a replica may have no privilege for that
                return f"Elasticsearch {number} at {where(self._client)}"
            nodes = f"{health['number_of_nodes']} nodes" if health["number_of_nodes"] > 1 else "1 node"
            return f"Elasticsearch {number} at {where(self._client)}, {health['status']}, {nodes}"

    def live(self) -> Generation | None:
        """Return the live generation, as of a moment ago."""
        with mapped_errors(self._client):
            snapshot = self._states.recent(self._names.live)
            return self._generation(snapshot.index) if snapshot else None

    def previous(self) -> Generation | None:
        """Return what was live before the last rebuild or rollback."""
        with mapped_errors(self._client):
            index = self._names.index(self._names.previous)
            return self._generation(index) if index else None

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
        with mapped_errors(self._client):
            store = self._writable(self._names.index(self._names.live))
            meta = Meta(store.id, stamp, encoder, dimensions, self._vectors, self._shards)
            served = self._names.served()
            left = (name for name, found in self._names.made_by(store.id) if found == meta and name not in served)
            revision = store.revision() if revision is None else revision
            index = next(left, None) or self._create(meta, revision)
            writer = Writer(self._client, store, self._states, index, stamp, progress)
            snapshot = self._states.read(index)
            if snapshot and snapshot.state.finished:
                writer.update(revision)
            else:
                writer.fill(revision)
                self._prepare_to_serve(index)
                writer.finish()
            return Generation(index, stamp, encoder)

    def update(
        self, generation: Generation, *, revision: int | None = None, progress: Callable[[int], None] | None = None
    ) -> Generation:
        """Show in this generation what the store holds at `revision`."""
        with mapped_errors(self._client):
            writer = self._writer(generation, progress)
            writer.update(self._writable(None).revision() if revision is None else revision)
            return generation

    def shows_all(self, generation: Generation) -> bool:
        """Say whether a generation shows the store's revision, and nothing of it was refused.

        A query replica, which could do nothing about it, takes any generation for complete that can be read.
        """
        try:
            self.open(generation)
        except IndexMissing:
            return False
        if self._store is None:
            return True
        with mapped_errors(self._client):
            snapshot = self._states.read(generation.name)
            mine = self._names.meta(generation.name).store == self._store.id
            return bool(mine and snapshot and snapshot.state.revision == self._store.revision() and not snapshot.state.refused)

    def refused(self, generation: Generation) -> tuple[Refused, ...]:
        """Return the documents that Elasticsearch would not take, with its reasons."""
        with mapped_errors(self._client):
            snapshot = self._states.read(generation.name)
            return snapshot.state.refused if snapshot else ()

    def verify(self, generation: Generation) -> None:
        """Compare counts and the texts of a sample with the store."""
        with mapped_errors(self._client):
            store, writer = self._writable(generation.name), self._writer(generation, None)
            index, snapshot = self.open(generation), self._states.read(generation.name)
            if snapshot is None:
                raise IndexMissing(f"The index {generation.name} is gone.", way_out="Run `beleg index`.")
            state, chunking = snapshot.state, generation.stamp.chunking
            found, expected = writer.count(state), writer.expected(state)
            if found != expected:
                raise IndexDamaged(
                    f"The index {generation.name} holds {found[0]} documents in {found[1]} chunks; "
                    f"the store holds {expected[0]} in {expected[1]}."
                )
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
            self._writable(new.name)
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
                self._writable(index)
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
                self._client.options(ignore_status=404).indices.delete(index=others)

    def _generation(self, index: str) -> Generation:
        meta = self._names.meta(index)
        return Generation(index, meta.stamp, meta.encoder)

    def _writer(self, generation: Generation, progress: Callable[[int], None] | None) -> Writer:
        store = self._writable(generation.name)
        return Writer(self._client, store, self._states, generation.name, generation.stamp, progress)

    def _writable(self, index: str | None) -> Store:
        """Return the store, if the index is its own."""
        if self._store is None:
            raise IndexUnavailable("This is a query replica: it has no store to index from.")
        if index is not None and self._names.meta(index).store != self._store.id:
            raise IndexUnavailable(
                f"The index {index} at {where(self._client)} belongs to another store than {self._store.path}.",
                way_out="Index on the machine that made it, or set another elasticsearch_index here.",
            )
        return self._store

    def _create(self, meta: Meta, revision: int) -> str:
        index = self._names.new(revision)
        aliases = {write_alias(index): {"is_hidden": True}}
        self._client.indices.create(index=index, settings=settings(meta), mappings=mappings(meta), aliases=aliases)
        return index

    def _prepare_to_serve(self, index: str) -> None:
        changed = {"refresh_interval": None, "number_of_replicas": self._replicas}
        self._client.indices.put_settings(index=index, settings=changed)
        patient = self._client.options(request_timeout=self._health_s + 10, ignore_status=408)
        health = patient.cluster.health(index=index, wait_for_status="green", timeout=f"{self._health_s}s")
        if health["timed_out"]:
            raise IndexUnavailable(
                f"Not every copy of the index {index} has found a node within {self._health_s} s.",
                way_out=f"{self._replicas} replicas need {self._replicas + 1} nodes: see elasticsearch_replicas, and GET "
                "_cluster/allocation/explain.",
            )
