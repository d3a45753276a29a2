"""Fakes and builders that several test modules share; `conftest.py` hands them out as fixtures."""

from __future__ import annotations

import hashlib
import re
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from retriever.analyze import ANALYSER, analyze
from retriever.encode import Vectors
from retriever.encoders import Encoders
from retriever.errors import ModelError
from retriever.index.base import Generations, Stamp
from retriever.schema import Chunk, Document, document_id
from retriever.store import IndexedChunk, Store

STAMP = Stamp(encoder="fake-1", chunker="lines", analyser=ANALYSER)
_WORD = re.compile(r"\w+")


class FakeEncoder:
    """Hashes each word to one of the dimensions: texts that share words are near, without any model.

    Args:
        delay: seconds that each call to encode passages takes.

    Attributes:
        encoded: every passage it was ever given, in order.
    """

    dimensions = 32

    def __init__(
        self, *, fingerprint: str = "fake-1", tokenizer: str = "words", max_tokens: int = 1000, delay: float = 0.0
    ) -> None:
        self.fingerprint = fingerprint
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
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
    """Open the generations of an engine: the embedded one, or an Elasticsearch index by address and name."""
    if engine:
        from retriever.index.elastic import ElasticGenerations
        from retriever.index.elastic_client import connect

        address, name = engine
        # What is live is remembered for a moment, and whoever deletes waits for that: a short one for many small tests.
        return ElasticGenerations(store, connect(address), name=name, vectors="flat", remember_s=0.02)
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
