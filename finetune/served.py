"""What is served now, for those who measure or train beside it. Changes nothing, and makes no store where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from retriever.chunk import ChunkSize
from retriever.encode import Encoder, open_encoder
from retriever.encoders import Encoders
from retriever.errors import IndexMissing
from retriever.fill import size_of
from retriever.index.base import Generation
from retriever.index.engines import open_generations
from retriever.schema import Document
from retriever.settings import Settings
from retriever.store import Store

__all__ = ["OpenEncoder", "Served", "nothing_indexed", "open_served"]


class OpenEncoder(Protocol):
    """Opens a model reference, as `retriever.encode.open_encoder`."""

    def __call__(self, reference: str, *, threads: int | None = None) -> Encoder:
        """Return the encoder."""


@dataclass(frozen=True)
class Served:
    """What is live, if anything is."""

    settings: Settings
    store: Store | None
    generation: Generation | None
    open_: OpenEncoder

    def reference(self) -> str:
        """Return the model reference of the encoder that is served, or that the settings name if nothing is."""
        return (self.generation.encoder if self.generation else "") or self.settings.encoder

    def encoder(self, threads: int | None) -> Encoder:
        """Open that encoder; `threads` as for `retriever.encode.MiniLM`."""
        if self.generation is None:
            return self.open_(self.settings.encoder, threads=threads)
        return Encoders(self.settings.encoder, open_=lambda name: self.open_(name, threads=threads)).of(self.generation)

    def size(self) -> ChunkSize:
        """Return the size of the chunks that are served, or that the settings say."""
        if self.generation is None:
            return ChunkSize(self.settings.chunk_tokens, self.settings.chunk_overlap)
        return size_of(self.generation)

    def documents(self) -> Iterator[Document]:
        """Yield the documents that are served.

        Raises:
            IndexMissing: nothing is.
        """
        if self.store is None or self.generation is None:
            raise nothing_indexed(self.settings)
        for known in self.store.known().values():
            document = self.store.document(known.document)
            if document:
                yield document


@contextmanager
def open_served(settings: Settings, open_: OpenEncoder = open_encoder) -> Iterator[Served]:
    """Open what is live by these settings."""
    # Opening a store makes one: not for somebody who only measures.
    if not any(settings.data_dir.glob("store.sqlite")):
        yield Served(settings, None, None, open_)
        return
    with Store(settings.data_dir) as store:
        yield Served(settings, store, open_generations(settings, store).live(), open_)


def nothing_indexed(settings: Settings) -> IndexMissing:
    """Return the error to raise where an index is needed."""
    return IndexMissing(
        f"Nothing has been indexed in {settings.data_dir}.",
        way_out="Run `beleg index FOLDER`, or name the documents with `--documents`.",
    )
