"""Fakes and builders that several test modules share; `conftest.py` hands them out as fixtures."""

from __future__ import annotations

import hashlib
import re
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retriever.analyze import ANALYSER, analyze
from retriever.chunk import ChunkSize
from retriever.encode import Vectors
from retriever.encoders import Encoders
from retriever.errors import ModelError
from retriever.fill import Maker, size_of
from retriever.index.base import Generation, Generations, Stamp
from retriever.live import Live
from retriever.publish import publish
from retriever.rebuild import Rebuild, Report, rollback
from retriever.schema import Chunk, Document, document_id
from retriever.store import IndexedChunk, Store

STAMP = Stamp(encoder="fake-1", chunker="lines", analyser=ANALYSER)
SMALL = ChunkSize(8, 2)
_WORD = re.compile(r"\w+")


class FakeEncoder:
    """Hashes each word to one of the dimensions: texts that share words are near, without any model.

    Args:
        delay: seconds that each call to encode passages takes.
        alpha: what was tuned with it.

    Attributes:
        encoded: every passage it was ever given, in order.
    """

    dimensions = 32

    def __init__(
        self,
        *,
        fingerprint: str = "fake-1",
        tokenizer: str = "words",
        max_tokens: int = 1000,
        delay: float = 0.0,
        alpha: float | None = None,
    ) -> None:
        self.fingerprint = fingerprint
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.alpha = alpha
        self.encoded: list[str] = []
        self._delay = delay

    def token_starts(self, text: str) -> list[int]:
        return [match.start() for match in re.finditer(r"\S+", text)]

    def encode_passages(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Vectors:
        time.sleep(self._delay)
        self.encoded += texts
        if progress:
            progress(len(texts))
        return np.stack([self.encode_query(text) for text in texts]) if texts else np.empty((0, self.dimensions), np.float32)

    def encode_query(self, text: str) -> Vectors:
        vector = np.zeros(self.dimensions, np.float32)
        for word in _WORD.findall(text.casefold()):
            # Salted, so that two fakes with different fingerprints really disagree.
            digest = zlib.crc32(f"{self.fingerprint} {word}".encode())
            vector[digest % self.dimensions] += 1 if digest & 1024 else -1
        length = float(np.linalg.norm(vector))
        if length == 0:
            vector[0] = length = 1.0
        return (vector / length).astype(np.float32)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        return np.stack([self.encode_query(text) for text in texts]) if texts else np.empty((0, self.dimensions), np.float32)


class FakeReranker:
    """Judges each text as a test says.

    Args:
        judge: the probability of a query and a text; by default the share of the query's words that the text has.

    Attributes:
        asked: every query with the texts that were judged for it.
    """

    def __init__(
        self,
        judge: Callable[[str, str], float] | None = None,
        *,
        fingerprint: str = "fake-r",
        weight: float = 1.0,
        depth: int = 30,
    ) -> None:
        self.fingerprint = fingerprint
        self.weight = weight
        self.depth = depth
        self.asked: list[tuple[str, list[str]]] = []
        self._judge = judge or share

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        self.asked.append((query, list(texts)))
        return [self._judge(query, text) for text in texts]


def share(query: str, text: str) -> float:
    """Return the share of the query's words that the text has."""
    words = set(_WORD.findall(query.casefold()))
    return len(words.intersection(_WORD.findall(text.casefold()))) / max(len(words), 1)


def document(
    source: str, text: str = "", *, language: str = "de", metadata: Mapping[str, str] | None = None, title: str = ""
) -> Document:
    """Return a document as a loader would make it."""
    name = hashlib.sha256(text.encode()).hexdigest()
    return Document(document_id(source), source, title or source, text, language, name, metadata=metadata or {})


def put_lines(
    store: Store,
    encoder: FakeEncoder,
    document: Document,
    *,
    spans: Sequence[tuple[int, int]] | None = None,
    loader: str = "loader",
    chunking: str = STAMP.chunking,
) -> int:
    """Store a document with a chunk for each of its lines (or each of `spans`), encoded and analysed without context."""
    if spans is None:
        spans = [match.span() for match in re.finditer(r"[^\n]+", document.text)]
    chunks = []
    for start, end in spans:
        text = document.text[start:end]
        key = hashlib.sha256(text.encode()).hexdigest()
        chunks.append(IndexedChunk(Chunk(document.id, start, end, text), analyze(text, document.language), key))
    known = store.has_vectors(encoder.fingerprint, [item.key for item in chunks])
    inputs = {item.key: item.chunk.text for item in chunks if item.key not in known}
    vectors = dict(zip(inputs, encoder.encode_passages(list(inputs.values())), strict=True))
    return store.put(document, chunks, loader=loader, chunking=chunking, encoder=encoder.fingerprint, vectors=vectors)


def open_fake_generations(store: Store, data: Path, engine: Sequence[str] = ()) -> Generations:
    """Open the embedded engine's generations, or those at an Elasticsearch address, name, and number of replicas."""
    if engine:
        from retriever.index.elastic.client import connect
        from retriever.index.elastic.generations import ElasticGenerations

        address, name, *replicas = engine
        # What is live is remembered for a moment, and whoever deletes waits for that: a short one for many small tests.
        return ElasticGenerations(store, connect(address), name=name, vectors="flat", replicas=int(*replicas), remember_s=0.02)
    from retriever.index.embedded import EmbeddedGenerations

    return EmbeddedGenerations(store, data / "generations")


def encoders(*known: FakeEncoder, fallback: str = "fake-1") -> Encoders:
    """Return encoders that are opened by their fingerprint; any other reference is missing."""
    found = {encoder.fingerprint: encoder for encoder in known}

    def open_(reference: str) -> FakeEncoder:
        if reference not in found:
            raise ModelError(f"{reference} is not on this machine.")
        return found[reference]

    return Encoders(fallback, open_=open_)


class House:
    """A store with a live index, somebody who searches, and somebody who changes documents."""

    def __init__(self, data: Path, engine: Sequence[str] = ()) -> None:
        self.data, self.engine = data, list(engine)
        self.store = Store(data)
        self.generations: Generations = open_fake_generations(self.store, data, engine)
        self.made: dict[str, Any] = {}
        self.encoders = Encoders("fake-1", open_=self.encoder)
        self.live = Live(self.generations, self.encoders, alpha=0.5)

    def encoder(self, name: str) -> Any:
        return self.made.setdefault(name, FakeEncoder(fingerprint=name))

    def change(self, *put: tuple[str, str], remove: Sequence[str] = ()) -> None:
        """Do as `beleg index` does: with what made the live generation."""
        with self.store.writer(wait_s=30):
            live = self.generations.live()
            maker = Maker(self.encoder(live.encoder if live else "fake-1"), size_of(live) if live else SMALL)
            for source, text in put:
                made = document(source, text)
                chunks, inputs = maker.chunks(made)
                vectors = dict(zip(inputs, maker.encoder.encode_passages(list(inputs.values())), strict=True))
                self.store.put(
                    made,
                    chunks,
                    loader="1",
                    chunking=maker.stamp.chunking,
                    encoder=maker.encoder.fingerprint,
                    vectors=vectors,
                )
            for source in remove:
                assert self.store.remove(source)
            maker.fill(self.store)
            publish(self.store, self.generations, Generation("", maker.stamp, "fake-1"), dimensions=32, keep_s=3600)

    def rebuild(self, encoder: str = "fake-2", size: ChunkSize = SMALL, **more: Any) -> Report:
        return Rebuild(
            self.store, self.generations, Maker(self.encoder(encoder), size), encoder, self.encoders, 0.5, **more
        ).run()

    def rollback(self) -> Report:
        return rollback(self.store, self.generations, self.encoders, alpha=0.5)

    def shown(self) -> set[str]:
        """Return the sources of everything that a search finds now, by a searcher of its own."""
        fresh = Live(open_fake_generations(self.store, self.data, self.engine), self.encoders, alpha=0.5)
        found = fresh.searcher().search("Hotel", limit=1000, merge=False)
        return {hit.source for hit in found}

    def stamp(self) -> str:
        live = self.generations.live()
        assert live is not None
        return live.stamp.encoder
