"""What an Elasticsearch index of Beleg holds: its settings, its mapping, and its three kinds of record.

A `chunk` is what searches find. A `version` is one version of a document, its text in parts where that is long, so that query
replicas need no store. One `state` says which of them are shown; see `state.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from retriever.index.base import Stamp
from retriever.schema import Document, Heading
from retriever.store import Entry, Passage

__all__ = [
    "CHUNK",
    "PART",
    "STATE",
    "VERSION",
    "Meta",
    "chunk_record",
    "document_of",
    "filter_term",
    "is_quantised",
    "mappings",
    "passage_of",
    "settings",
    "version_id",
    "version_records",
    "write_alias",
]

CHUNK, VERSION, PART = "chunk", "version", "part"
"""Kinds of record; a part is a further piece of a version's text."""

STATE = "state"
"""Kind and id of the record that says what is shown."""

_SCHEMA = 1
_LONGEST_VALUE = 1000
_LONGEST_PART = 4_000_000
"""Characters. Elasticsearch reads no string beyond 50 million, and no request beyond 100 MB."""


@dataclass(frozen=True, slots=True)
class Meta:
    """What an index was made as. Never changes.

    Attributes:
        store: id of the store whose index it is; its machine alone writes.
        encoder: see `Generation`.
        vectors: kind of the vector index.
    """

    store: str
    stamp: Stamp
    encoder: str
    dimensions: int
    vectors: str
    shards: int

    @classmethod
    def read(cls, mapping: Mapping[str, Any]) -> Meta | None:
        """Return what a mapping says, or None if it is not of this version of Beleg."""
        meta = mapping.get("_meta", {})
        if meta.get("schema") != _SCHEMA:
            return None
        facts = {name: meta[name] for name in ("store", "encoder", "dimensions", "vectors", "shards")}
        return cls(stamp=Stamp(**meta["stamp"]), **facts)


def settings(meta: Meta) -> dict[str, Any]:
    """Return the settings of a new index: for loading, without copies and without being searched meanwhile."""
    return {
        "number_of_shards": meta.shards,
        "number_of_replicas": 0,
        "refresh_interval": "-1",
        # For so long a deleted chunk cannot be brought back by a write that was sent before and comes late.
        "gc_deletes": "1h",
        # The defaults of today's versions, spelled out because the embedded engine has the same.
        "similarity": {"default": {"type": "BM25", "k1": 1.2, "b": 0.75}},
        "analysis": {
            "analyzer": {"terms": {"type": "custom", "tokenizer": "terms"}},
            # Lucene takes terms of up to 32,766 bytes, and a character has at most three for each unit that is counted here.
            "tokenizer": {"terms": {"type": "whitespace", "max_token_length": 10_000}},
        },
    }


def mappings(meta: Meta, index: str) -> dict[str, Any]:
    """Return the mapping of a new index of this name."""
    terms = {"type": "text", "analyzer": "terms", "index_options": "freqs"}
    stored = {"type": "object", "enabled": False}
    graph = {"m": 16, "ef_construction": 100}
    return {
        "dynamic": "strict",
        "_meta": {"schema": _SCHEMA, "build": index, **asdict(meta)},
        # What is only searched is not kept a second time as text: a fetched hit is its passage and nothing else.
        "_source": {"excludes": ["vector", "terms", "title_terms", "heading_terms", "filters"]},
        "properties": {
            "record": {"type": "keyword"},
            "born": {"type": "long"},
            "vector": {
                "type": "dense_vector",
                "dims": meta.dimensions,
                "index": True,
                "similarity": "cosine",
                # Spelled out: the default depends on version and licence.
                "index_options": {
                    "type": meta.vectors,
                    **(graph if meta.vectors.endswith("hnsw") else {}),
                },
            },
            "terms": terms,
            "title_terms": terms,
            "heading_terms": terms,
            "filters": {"type": "keyword", "doc_values": False},
            "passage": stored,
            "version": stored,
            "state": stored,
        },
    }


def is_quantised(vectors: str) -> bool:
    """Say whether a kind of vector index finds by shortened vectors, so that what it finds is best ranked again."""
    return vectors not in {"hnsw", "flat"}


def write_alias(index: str) -> str:
    """Return the alias that an index is written through.

    A write to an index that is gone would make a new one of that name; one to an alias that is gone fails.
    """
    return f"{index}-write"


def filter_term(key: str, value: str) -> str:
    """Return the one term that stands for a key with a value, unambiguous whatever they hold.

    >>> filter_term("kind", "pdf")
    '["kind", "pdf"]'
    >>> len(filter_term("kind", "x" * 100_000))
    64
    """
    term = json.dumps([key, value])
    # Lucene refuses a document with a term beyond 32,766 bytes.
    return term if len(term) <= _LONGEST_VALUE else hashlib.sha256(term.encode()).hexdigest()


def chunk_record(entry: Entry) -> dict[str, Any]:
    """Return a chunk as it is indexed."""
    passage = entry.passage
    matched = {
        **entry.metadata,
        "document": passage.document,
        "source": passage.source,
        "title": passage.title,
        "language": passage.language,
    }
    return {
        "record": CHUNK,
        "born": passage.revision,
        "vector": entry.vector.tolist(),
        "terms": entry.terms,
        "title_terms": entry.title_terms,
        "heading_terms": entry.heading_terms,
        "filters": [filter_term(key, value) for key, value in matched.items()],
        "passage": asdict(passage),
    }


def passage_of(record: Mapping[str, Any]) -> Passage:
    """Return the passage of a chunk."""
    facts = record["passage"]
    return Passage(**{**facts, "headings": tuple(facts["headings"])})


def version_id(born: int, part: int = 0) -> str:
    """Return the id of a version's record, or of a further part of its text.

    >>> version_id(7), version_id(7, 1)
    ('v7', 'v7.1')
    """
    return f"v{born}.{part}" if part else f"v{born}"


def version_records(born: int, document: Document, *, longest: int = _LONGEST_PART) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield id and record of a version, then those of the further parts of its text.

    Args:
        longest: a part, in characters.
    """
    facts = asdict(document)
    text = facts.pop("text")
    facts["parts"] = max(1, -(-len(text) // longest))
    yield version_id(born), {"record": VERSION, "born": born, "version": {**facts, "text": text[:longest]}}
    for part in range(1, facts["parts"]):
        piece = text[part * longest : (part + 1) * longest]
        yield version_id(born, part), {"record": PART, "born": born, "version": {"text": piece}}


def document_of(records: Sequence[Mapping[str, Any]]) -> Document:
    """Return a version from its record and the further parts of its text."""
    facts = dict(records[0]["version"])
    del facts["parts"]
    facts["text"] = "".join(record["version"]["text"] for record in records)
    facts["pages"] = tuple(facts["pages"])
    facts["headings"] = tuple(Heading(**heading) for heading in facts["headings"])
    return Document(**facts)
