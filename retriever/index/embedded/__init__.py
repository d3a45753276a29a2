"""The embedded engine: FAISS for vectors, tantivy for terms, in one folder that is written once and never changed.

Such a folder is a generation. Everything in it is derived from the store at one revision, so a lost or damaged one is simply
built again. Texts stay in the store, and which generation is live is a row in it.
"""

from retriever.index.embedded.generations import EmbeddedGenerations
from retriever.index.embedded.search import EmbeddedIndex

__all__ = ["EmbeddedGenerations", "EmbeddedIndex"]
