"""The source of truth: document versions, their chunks and vectors, in one SQLite file. Indexes are derived from it."""

from retriever.store.catalogue import Listed
from retriever.store.reading import Entry, Known, Passage
from retriever.store.writing import IndexedChunk, Store

__all__ = ["Entry", "IndexedChunk", "Known", "Listed", "Passage", "Store"]
