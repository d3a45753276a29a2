"""The seam between search and the engines that hold chunks. Fusion is not done here: it is the same code for every engine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

from retriever.encode import Vectors
from retriever.store import Passage

__all__ = ["Candidate", "Filters", "Index", "Stamp"]

Filters = Mapping[str, Sequence[str]]
"""Key to accepted values: a document passes if, for every key, it has one of the values."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What an index was made by. Queries made by anything else are refused."""

    encoder: str
    chunker: str
    analyser: str

    def digest(self) -> str:
        """Return one short hash of the whole stamp."""
        return hashlib.sha256("\0".join(asdict(self).values()).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A chunk that one side of a search found, with the exact scores of both sides.

    Attributes:
        row: the chunk's id.
        dense: cosine with the query's vector; None if the query had none.
        keyword: BM25 score of the query's terms; 0 if none occurs, None if the query had none.
    """

    row: int
    dense: float | None
    keyword: float | None


class Index(Protocol):
    """Chunks that are found by vector and by terms.

    Attributes:
        stamp: what the index was made by.
        revision: the store's revision that it shows.
        languages: of the indexed documents; a query is analysed in each.
    """

    stamp: Stamp
    revision: int
    languages: tuple[str, ...]

    def candidates(self, *, vector: Vectors | None, terms: Sequence[str], depth: int, filters: Filters) -> list[Candidate]:
        """Return the union of the `depth` nearest chunks and the `depth` best by BM25, in no order.

        Args:
            vector: of the query, shape (dimensions,); None leaves the dense side out.
            terms: of the query, analysed; empty leaves the keyword side out.
            filters: applied before the search on both sides.

        Raises:
            QueryError: no document has one of the filters' keys.
        """

    def passages(self, rows: Sequence[int]) -> Mapping[int, Passage]:
        """Return the chunks with these ids, as they were at the index's revision."""

    def stitch(self, passage: Passage, start: int, end: int) -> str:
        """Return the text from start to end of the document that `passage` is from."""
