"""Compares what an Elasticsearch index shows with what the store holds."""

from __future__ import annotations

from typing import Any

from elasticsearch import Elasticsearch

from retriever.errors import IndexDamaged
from retriever.index.base import Stamp
from retriever.index.elastic.records import CHUNK, PART, STATE, VERSION
from retriever.index.elastic.state import State, born_in, hiding
from retriever.store import Store

__all__ = ["Inventory"]

_PAGE = 10_000


class Inventory:
    """Counts one index of a store."""

    def __init__(self, client: Elasticsearch, store: Store, index: str, stamp: Stamp) -> None:
        self._client = client
        self._store = store
        self._index = index
        self._stamp = stamp

    def is_whole(self, state: State) -> bool:
        """Say whether the index shows as many documents and chunks as it must. Costs one search."""
        return self._count(state) == self._expected(state)

    def check(self, state: State) -> None:
        """Raise `IndexDamaged` if the index shows more or fewer documents or chunks than it must."""
        found, expected = self._count(state), self._expected(state)
        if found != expected:
            raise IndexDamaged(
                f"The index {self._index} holds {found[0]} documents in {found[1]} chunks; "
                f"the store holds {expected[0]} in {expected[1]}.",
                way_out="Run `beleg rebuild`: it makes another one.",
            )

    def wanted(self, state: State) -> dict[int, int]:
        """Return the versions that the index must show, and how many chunks each of them has."""
        hidden, chunks = set(state.hidden), self._store.chunk_counts(state.revision, self._stamp.chunking)
        return {born: chunks.get(born, 0) for born in self._store.current(state.revision) if born not in hidden}

    def present(self, state: State) -> tuple[set[int], dict[int, int]]:
        """Return the versions that the index has, those that are leaving aside, and how many chunks of which version."""
        sources = [{"record": {"terms": {"field": "record"}}}, {"born": {"terms": {"field": "born"}}}]
        found: dict[str, dict[int, int]] = {}
        after: dict[str, Any] = {}
        while True:
            page = self._counted({"composite": {"size": _PAGE, "sources": sources, **after}}, state)
            for bucket in page["buckets"]:
                found.setdefault(bucket["key"]["record"], {})[bucket["key"]["born"]] = bucket["doc_count"]
            if "after_key" not in page:
                return set(found.get(VERSION, ())), found.get(CHUNK, {})
            after = {"after": page["after_key"]}

    def _count(self, state: State) -> tuple[int, int]:
        counts = self._counted({"terms": {"field": "record"}}, state)
        by_kind = {bucket["key"]: bucket["doc_count"] for bucket in counts["buckets"]}
        return by_kind.get(VERSION, 0), by_kind.get(CHUNK, 0)

    def _expected(self, state: State) -> tuple[int, int]:
        """Return what the store holds, but for what Elasticsearch would not take."""
        documents, chunks = self._store.count(state.revision, self._stamp.chunking)
        borns = [version.born for version in state.refused]
        if borns:
            entries = self._store.entries(borns, chunking=self._stamp.chunking, encoder=self._stamp.encoder)
            return documents - len(borns), chunks - sum(1 for _ in entries)
        return documents, chunks

    def _counted(self, aggregation: dict[str, Any], state: State) -> dict[str, Any]:
        _, leaving = self._store.changes(state.cleared, state.revision)
        # Their chunks are gone, and are to be found if they have come back.
        texts = [{"bool": {"filter": [{"terms": {"record": [VERSION, PART]}}, query]}} for query in born_in(leaving)]
        shown: dict[str, Any] = {
            "filter": [{"range": {"born": {"lte": state.revision}}}],
            "must_not": [{"term": {"record": STATE}}, *hiding(state), *texts],
        }
        answer = self._client.search(
            index=self._index, size=0, query={"bool": shown}, aggs={"all": aggregation}, allow_partial_search_results=False
        )
        counted: dict[str, Any] = answer["aggregations"]["all"]
        return counted
