"""Searches one Elasticsearch index: both sides of a question and the exact scores of both, in a single round trip."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from elasticsearch import Elasticsearch, NotFoundError

from retriever.encode import Vectors
from retriever.errors import IndexMissing, QueryError
from retriever.index.base import Candidate, Filters, Formula
from retriever.index.dates import split_ranges
from retriever.index.elastic.client import PAUSES, is_busy, mapped_errors, refusal
from retriever.index.elastic.records import (
    Meta,
    document_of,
    filter_term,
    is_quantised,
    passage_of,
    version_id,
)
from retriever.index.elastic.state import MOST_VALUES, Snapshot, State, States, hiding
from retriever.schema import Document
from retriever.store import Passage

__all__ = ["DEEPEST", "ElasticIndex", "SearchOptions"]

DEEPEST = 10_000
"""Candidates of one side at most: an index's `max_result_window`, and the bound of `num_candidates`."""

_MOST_CLAUSES = 1000
"""Lucene refuses queries with more clauses than 1,024, or than a bound that grows with the node's heap."""

_TRIES = 3
"""Searches for one question, where the index changes during each."""

# Never below zero, which rounding could do to an opposite vector, and which Elasticsearch refuses as a score.
_COSINE = "Math.max(0.0, cosineSimilarity(params.vector, 'vector') + 1.0)"


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """How an index is searched.

    Attributes:
        exact: compare with every vector.
        candidates: near vectors that each shard looks at, and at least as many as are asked for.
        oversample: times as many quantised vectors are ranked again by exact ones; 0 does not.
        formula: what keyword scores are made of.
    """

    exact: bool = False
    candidates: int = 200
    oversample: float = 2.0
    formula: Formula = field(default_factory=Formula)


class ElasticIndex:
    """An open generation; see `Index`.

    Args:
        name: of the Elasticsearch index.
    """

    def __init__(self, client: Elasticsearch, states: States, name: str, meta: Meta, options: SearchOptions) -> None:
        self.name = name
        self.stamp = meta.stamp
        self._client = client
        self._states = states
        self._meta = meta
        self._options = options

    @property
    def revision(self) -> int:
        """The store's revision that it shows, as of a moment ago."""
        with mapped_errors(self._client):
            return self._snapshot().state.revision

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages of the documents that it shows."""
        with mapped_errors(self._client):
            return self._snapshot().state.languages

    def candidates(self, *, vector: Vectors | None, terms: Sequence[str], depth: int, filters: Filters) -> list[Candidate]:
        """Return the union of both sides' best chunks with both exact scores; see `Index.candidates`.

        The union is of what one state shows; `depth` counts up to `DEEPEST`.
        """
        with mapped_errors(self._client):
            snapshot = self._snapshot()
            for _ in range(_TRIES):
                found = self._candidates(snapshot.state, vector, terms, min(depth, DEEPEST), filters)
                if time.monotonic() - snapshot.read_at <= self._states.grace_s:
                    break
                # So slow that what this state shows may have been deleted meanwhile, and what replaces it was not looked for.
                before, snapshot = snapshot, self._snapshot(now=True)
                if snapshot.sequence == before.sequence:
                    break
            return found

    def passages(self, rows: Sequence[int]) -> Mapping[int, Passage]:
        """Return chunks by id, those that are being retired included."""
        if not rows:
            return {}
        with mapped_errors(self._client):
            found = self._client.mget(index=self.name, ids=[str(row) for row in rows], source_includes=["passage"])
        items = found["docs"]
        for item in items:
            if "error" in item:
                raise refusal(self._client, 404, item)
        return {int(item["_id"]): passage_of(item["_source"]) for item in items if item["found"]}

    def document(self, document: str, revision: int) -> Document | None:
        """Return a version of a document."""
        with mapped_errors(self._client):
            try:
                records = [self._client.get(index=self.name, id=version_id(revision))["_source"]]
                records += [
                    self._client.get(index=self.name, id=version_id(revision, part))["_source"]
                    for part in range(1, records[0]["version"]["parts"])
                ]
            except NotFoundError as error:
                if "found" in error.body:
                    return None
                raise
        made = document_of(records)
        return made if made.id == document else None

    def shown(self, document: str) -> Document | None:
        """Return a document in the version that this index shows now; None if it shows none."""
        with mapped_errors(self._client):
            passing = _passing(self._snapshot(now=True).state, {"document": [document]})
            # Versions cannot be found by their document, and those without chunks have no text to ask for.
            found = self._client.search(
                index=self.name, size=1, query={"bool": {"filter": passing}}, allow_partial_search_results=False
            )["hits"]["hits"]
        return self.document(document, passage_of(found[0]["_source"]).revision) if found else None

    def _snapshot(self, *, now: bool = False) -> Snapshot:
        snapshot = self._states.read(self.name) if now else self._states.recent(self.name)
        if snapshot is None:
            raise IndexMissing(f"The index {self.name} is gone.", way_out="Ask again, or run `beleg index`.")
        return snapshot

    def _candidates(
        self, state: State, vector: Vectors | None, terms: Sequence[str], depth: int, filters: Filters
    ) -> list[Candidate]:
        _check(filters, state)
        if vector is None and not terms:
            return []
        searches = self._searches(vector, list(dict.fromkeys(terms)), depth, _passing(state, filters))
        found: dict[int, Candidate] = {}
        for response in self._ask(searches):
            for hit in response["hits"]["hits"]:
                row, scores = int(hit["_id"]), hit.get("matched_queries", {})
                dense = None if vector is None else scores["dense"] - 1.0
                keyword = scores.get("keyword", 0.0) if terms else None
                found.setdefault(row, Candidate(row, dense, keyword, passage_of(hit["_source"])))
        return list(found.values())

    def _searches(
        self, vector: Vectors | None, terms: Sequence[str], depth: int, passing: Sequence[Mapping[str, Any]]
    ) -> list[Mapping[str, Any]]:
        """Return header and body of the searches for both sides.

        The scores of the other side cost nothing until the best are known: as named queries of a `post_filter` that lets
        everything pass, they are computed for the hits alone.
        """
        words = self._keyword(terms)
        scores: list[Mapping[str, Any]] = [{"match_all": {}}]
        if terms:
            scores.append({"bool": {**words["bool"], "_name": "keyword"}})
        if vector is not None:
            cosine = {"source": _COSINE, "params": {"vector": vector.tolist()}}
            scores.append({"script_score": {"query": {"exists": {"field": "vector"}}, "script": cosine, "_name": "dense"}})
        common = {"size": depth, "post_filter": {"bool": {"should": scores}}, "track_total_hits": False}
        # Statistics of all shards together, so that scores do not depend on which one holds a chunk.
        header = {"index": self.name, "search_type": "dfs_query_then_fetch", "allow_partial_search_results": False}
        searches: list[Mapping[str, Any]] = []
        if vector is not None:
            searches += [header, {**common, **self._near(vector, words if terms else None, depth, passing)}]
        if terms:
            searches += [header, {**common, "query": {"bool": {"must": [words], "filter": passing}}}]
        return searches

    def _near(
        self, vector: Vectors, words: Mapping[str, Any] | None, depth: int, passing: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        # Finds nothing, and has the statistics of the terms gathered for the named query. Not `match_none`: that would be
        # optimised away together with the terms.
        nothing = [{"bool": {"must": [words], "filter": [{"term": {"record": "none"}}]}}] if words else []
        if self._options.exact:
            script = {"source": _COSINE, "params": {"vector": vector.tolist()}}
            everything = {"bool": {"filter": [*passing, {"exists": {"field": "vector"}}]}}
            return {"query": {"bool": {"should": [{"script_score": {"query": everything, "script": script}}, *nothing]}}}
        near: dict[str, Any] = {
            "field": "vector",
            "query_vector": vector.tolist(),
            "k": depth,
            "num_candidates": min(DEEPEST, max(self._options.candidates, depth)),
            "filter": passing,
        }
        if self._options.oversample and is_quantised(self._meta.vectors):
            near["rescore_vector"] = {"oversample": self._options.oversample}
        return {"knn": near, **({"query": nothing[0]} if nothing else {})}

    def _keyword(self, terms: Sequence[str]) -> dict[str, Any]:
        formula = self._options.formula
        weights = {"terms": 1.0, "title_terms": formula.title, "heading_terms": formula.headings}
        fields = {name: weight for name, weight in weights.items() if weight}
        # Of a question of a thousand words, the first ones say what it is about.
        asked = terms[: _MOST_CLAUSES // len(fields)]
        return {
            "bool": {
                "should": [
                    {"term": {name: {"value": term, "boost": weight}}} for name, weight in fields.items() for term in asked
                ]
            }
        }

    def _ask(self, searches: Sequence[Mapping[str, Any]]) -> list[Any]:
        for pause in (*PAUSES, None):
            responses: list[Any] = self._client.msearch(searches=searches, include_named_queries_score=True)["responses"]
            failed = [response for response in responses if "error" in response]
            if not failed:
                break
            if pause is None or not is_busy(failed[0]["status"]):
                raise refusal(self._client, failed[0]["status"], failed[0])
            time.sleep(pause)
        return responses


def _passing(state: State, filters: Filters) -> list[Mapping[str, Any]]:
    """Return what a chunk must pass to be found, in Elasticsearch's words."""
    passing: list[Mapping[str, Any]] = [{"range": {"born": {"lte": state.revision}}}]
    if state.hidden:
        passing.append({"bool": {"must_not": hiding(state)}})
    for key, values in filters.items():
        if len(values) > MOST_VALUES:
            raise QueryError(f"{len(values)} values of “{key}” are too many to filter by.")
        passing.append(_having(key, values))
    return passing


def _having(key: str, values: Sequence[str]) -> Mapping[str, Any]:
    """Return what finds documents that have one of these values."""
    exact, ranges = split_ranges(key, values)
    alike: list[Mapping[str, Any]] = [{"terms": {"filters": [filter_term(key, value) for value in exact]}}]
    # The terms of one key stand together, in the order of its values.
    within = [
        {"range": {"filters": {"gte": filter_term(key, wanted.first), "lte": filter_term(key, wanted.last)}}}
        for wanted in ranges
    ]
    return {"bool": {"should": [*alike, *within]}} if within else alike[0]


def _check(filters: Filters, state: State) -> None:
    for key in filters:
        if state.keys and key not in state.keys:
            raise QueryError(f"No document has a “{key}” to filter by.", way_out=f"Known: {', '.join(state.keys)}.")
