"""What flows through the retriever: documents, chunks, hits. Plain frozen values that know no engine and no file format.

Offsets count Unicode code points in a document's text; `end` is exclusive.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["GAP", "Chunk", "Document", "Heading", "Hit", "document_id", "hit_json"]

GAP = 2
"""Characters that may stand between neighbouring chunks: those of running text overlap or stand a line break apart."""


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading in a document: `level` 1 is the highest; start and end place its text."""

    level: int
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Document:
    """One document as text, with what is needed to say where in it something stands.

    Attributes:
        id: stable over re-indexing, derived from `source`.
        source: the path or name that the document came by.
        title: for people; the first heading, the file's own title, or its name.
        text: what offsets point into. Holds neither NUL nor lone surrogates.
        language: ISO 639-1 code, `und` where it could not be told.
        content_hash: SHA-256 of the file's bytes, hexadecimal.
        pages: the offset at which each page begins; empty for kinds without pages.
        headings: in text order.
        metadata: flat key/value pairs that searches can filter by.
    """

    id: str
    source: str
    title: str
    text: str
    language: str
    content_hash: str
    pages: tuple[int, ...] = ()
    headings: tuple[Heading, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    def page_at(self, offset: int) -> int | None:
        """Return the 1-based page that `offset` lies on, or None for kinds without pages.

        >>> Document("d", "s", "t", "ab", "en", "", pages=(0, 1)).page_at(1)
        2
        """
        return bisect_right(self.pages, offset) or 1 if self.pages else None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A contiguous piece of a document: `text == document.text[start:end]`.

    Attributes:
        document: the document's id.
        headings: the path of headings above `start`, outermost first: context, not part of `text`.
        page: of `start`; None for kinds without pages.
    """

    document: str
    start: int
    end: int
    text: str
    headings: tuple[str, ...] = ()
    page: int | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage found for a query.

    Attributes:
        score: what the list is ordered by; comparable within one result list only.
        dense: raw cosine of query and chunk, -1 to 1; None where no query vector was used.
        keyword: raw BM25 score, 0 or more; None where no keywords were used.
        revision: of the document's version that this text is from.
        reranked: probability that it answers the query, 0 to 1, as the reranker gave it; None where it was not asked.
    """

    document: str
    source: str
    title: str
    language: str
    headings: tuple[str, ...]
    page: int | None
    start: int
    end: int
    text: str
    score: float
    dense: float | None
    keyword: float | None
    revision: int
    reranked: float | None = None


def document_id(source: str) -> str:
    """Return the stable id of the document that came by `source`: 16 hexadecimal digits."""
    return hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def hit_json(hit: Hit) -> dict[str, object]:
    """Return a hit as other programs see it, over HTTP and on the command line."""
    return {
        "document": hit.document,
        "source": hit.source,
        "title": hit.title,
        "page": hit.page,
        "start": hit.start,
        "end": hit.end,
        "text": hit.text,
        "score": hit.score,
        "dense": hit.dense,
        "keyword": hit.keyword,
        "reranked": hit.reranked,
    }
