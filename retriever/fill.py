"""What an index needs of each document: chunks, terms, vectors. Makes what the store lacks of a stamp, and nothing twice.

Needs no writer's lock: documents do not change here, and what is added belongs to a version or to a text, whoever else writes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from retriever.analyze import ANALYSER, analyze
from retriever.chunk import CHUNKER, CONTEXT_TOKENS, ChunkSize, chunk, context, passage_text
from retriever.encode import Encoder
from retriever.errors import IndexMismatch, SettingsError
from retriever.index.base import Generation, Stamp
from retriever.schema import Document
from retriever.store import IndexedChunk, Store

__all__ = ["GROUP", "Maker", "size_of", "stamp_of"]

GROUP = 512
"""Chunks that are encoded together: enough to sort by length, few enough that a kill costs seconds of work."""


@dataclass(frozen=True)
class Maker:
    """Makes chunks, terms and vectors with one encoder and one size of chunk.

    Raises:
        SettingsError: chunks of this size do not fit the encoder.
    """

    encoder: Encoder
    size: ChunkSize

    def __post_init__(self) -> None:
        if self.size.overlap >= self.size.tokens:
            raise SettingsError(
                f"chunk_overlap is {self.size.overlap}, which is no less than chunk_tokens, {self.size.tokens}.",
                way_out="Set chunk_overlap to less, such as a sixth of chunk_tokens.",
            )
        if self.size.tokens + CONTEXT_TOKENS > self.encoder.max_tokens:
            raise SettingsError(
                f"chunk_tokens is {self.size.tokens}, but the encoder sees {self.encoder.max_tokens} tokens, of which titles "
                f"and headings may take {CONTEXT_TOKENS}.",
                way_out=f"Set it to {self.encoder.max_tokens - CONTEXT_TOKENS} or less.",
            )

    @property
    def stamp(self) -> Stamp:
        """Stamp of an index that is made of this."""
        return stamp_of(self.encoder, self.size)

    def chunks(self, document: Document) -> tuple[list[IndexedChunk], dict[str, str]]:
        """Return a document's chunks, and what the encoder shall see of them by key."""
        chunks, inputs = [], {}
        for piece in chunk(document, self.size, self.encoder):
            above = context(document.title, piece.headings, self.encoder)
            text = passage_text(document.title, piece.headings, piece.text, self.encoder)
            key = hashlib.sha256(text.encode()).hexdigest()
            terms = analyze(above, document.language) + analyze(piece.text, document.language)
            chunks.append(IndexedChunk(piece, terms, key))
            inputs[key] = text
        return chunks, inputs

    def fill(self, store: Store, *, progress: Callable[[int], None] = lambda _: None) -> int:
        """Give every current document chunks, and every chunk a vector. Killed, it keeps what it finished.

        Args:
            progress: told how many more vectors there are.

        Returns:
            How much was made: 0 if nothing lacked.
        """
        done = 0
        for revision in list(store.without_chunks(self.stamp.chunking)):
            document = store.document_born(revision)
            chunks = self.chunks(document)[0] if document else []
            if document and chunks:  # white space has none
                store.put_chunks(revision, document.text, chunks, chunking=self.stamp.chunking)
                done += 1
        inputs: dict[str, str] = {}
        for key, title, headings, text in list(store.without_vector(self.encoder.fingerprint, self.stamp.chunking)):
            inputs[key] = passage_text(title, headings, text, self.encoder)
            if len(inputs) == GROUP:
                done += self._encode(store, inputs)
                progress(GROUP)
                inputs = {}
        done += self._encode(store, inputs)
        if inputs:
            progress(len(inputs))
        return done

    def _encode(self, store: Store, inputs: dict[str, str]) -> int:
        if inputs:
            vectors = self.encoder.encode_passages(list(inputs.values()))
            store.put_vectors(self.encoder.fingerprint, dict(zip(inputs, vectors, strict=True)))
        return len(inputs)


def stamp_of(encoder: Encoder, size: ChunkSize) -> Stamp:
    """Return the stamp of an index that is made with this encoder and chunk size."""
    chunker = f"{CHUNKER}:{size.tokens}:{size.overlap}:{encoder.tokenizer[:16]}"
    return Stamp(encoder=encoder.fingerprint, chunker=chunker, analyser=ANALYSER)


def size_of(generation: Generation) -> ChunkSize:
    """Return the size of a generation's chunks.

    Raises:
        IndexMismatch: an earlier version of Beleg cut or analysed them, and this one cannot do it in the same way.
    """
    version, tokens, overlap, _ = generation.stamp.chunker.split(":")
    if (version, generation.stamp.analyser) != (CHUNKER, ANALYSER):
        raise IndexMismatch(
            "The index was made by another version of Beleg, which cut or analysed text in another way.",
            way_out="Run `beleg rebuild`.",
        )
    return ChunkSize(int(tokens), int(overlap))
