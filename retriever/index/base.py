"""The seam between search and the engines that hold chunks. Fusion is not done here: it is the same code for every engine.

An engine keeps generations: indexes of the store's chunks that were made by one encoder, chunker and analyser. One of them is
live. Whatever makes or changes generations holds `Store.writer()` or, while it builds beside the live one, the rebuild's lock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

from retriever.encode import Vectors
from retriever.schema import Document
from retriever.store import Passage

__all__ = ["Candidate", "Filters", "Formula", "Generation", "Generations", "Index", "Refused", "Stamp"]

Filters = Mapping[str, Sequence[str]]
"""Key to accepted values: a document passes if, for every key, it has one of the values.

A value of `date` may be a range; see `retriever.index.dates`.
"""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What an index was made by. Queries made by anything else are refused.

    Attributes:
        encoder: the encoder's fingerprint.
        chunker: version, size and tokenizer of the chunker.
        analyser: version of the analyser.
    """

    encoder: str
    chunker: str
    analyser: str

    @property
    def chunking(self) -> str:
        """Name of the set of chunks that the store keeps for this stamp."""
        return f"{self.chunker} {self.analyser}"

    def digest(self) -> str:
        """Return one short hash of the whole stamp."""
        return hashlib.sha256("\0".join(asdict(self).values()).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Generation:
    """A finished index.

    Attributes:
        name: unique; a folder or an Elasticsearch index.
        encoder: the model reference by which the stamp's encoder was opened when this was built.
    """

    name: str
    stamp: Stamp
    encoder: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A document version that an engine would not take. It is hidden, and tried again with the next update."""

    born: int
    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class Formula:
    """What a query's raw scores are made of. The terms of a chunk include those of its title and headings once already.

    Attributes:
        title: weight of the title's BM25 score, added to that of all terms.
        headings: weight of the headings' BM25 score.
    """

    title: float = 0.0
    headings: float = 0.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A chunk that one side of a search found, with the exact scores of both sides.

    Attributes:
        row: the chunk's id.
        dense: cosine with the query's vector; None if the query had none.
        keyword: BM25 score of the query's terms; 0 if none occurs, None if the query had none.
        passage: the chunk itself, if finding it brought it along.
    """

    row: int
    dense: float | None
    keyword: float | None
    passage: Passage | None = None


class Index(Protocol):
    """An open generation. Safe to search from many threads.

    Attributes:
        name: of the generation.
        stamp: what the index was made by.
    """

    name: str
    stamp: Stamp

    @property
    def revision(self) -> int:
        """The store's revision that it shows."""

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages of the indexed documents; a query is analysed in each."""

    def candidates(self, *, vector: Vectors | None, terms: Sequence[str], depth: int, filters: Filters) -> list[Candidate]:
        """Return the union of the `depth` nearest chunks and the `depth` best by BM25, in no order.

        Args:
            vector: of the query, shape (dimensions,); None leaves the dense side out.
            terms: of the query, analysed; empty leaves the keyword side out.
            filters: applied before the search on both sides.

        Raises:
            QueryError: no document has one of the filters' keys, or a range is malformed.
            IndexUnavailable: the engine does not answer.
        """

    def passages(self, rows: Sequence[int]) -> Mapping[int, Passage]:
        """Return the chunks with these ids; ids of chunks that are gone are missing from the answer."""

    def document(self, document: str, revision: int) -> Document | None:
        """Return the document's version that was born at `revision`, as chunks are from; None if it is gone."""


class Generations(Protocol):
    """Where an engine keeps its generations of one store.

    All methods raise `IndexUnavailable` if the engine cannot be reached or refuses, `StoreError` if the store does.

    Attributes:
        place: the engine, and where in it: what else the store keeps is kept for other places.
    """

    place: str

    def examine(self) -> str:
        """Return what the engine says of itself, once it is sure that it could be written to."""

    def check(self, *, anew: bool = False) -> None:
        """Raise what would keep this store from publishing here, before hours of work are spent on it.

        Args:
            anew: a generation is going to be built, so the live one need not be one that this store can go on with.
        """

    def live(self, *, fresh: bool = False) -> Generation | None:
        """Return the live generation, or None before the first one. Cheap: asked at every query.

        Args:
            fresh: ask the engine, even if it was asked a moment ago.
        """

    def previous(self) -> Generation | None:
        """Return the generation that was live before the last rebuild or rollback, while it is kept."""

    def revision(self) -> int:
        """Return the store's revision that `document` goes by: it grows whenever a document comes, changes or goes."""

    def document(self, document: str) -> Document | None:
        """Return a document as it is now, whatever open generations show; None if it is gone.

        What is asked last before a quote is shown, so never from memory.
        """

    def open(self, generation: Generation) -> Index:
        """Open a generation for searching.

        Raises:
            IndexMissing: it is not there, or is damaged.
        """

    def build(
        self,
        stamp: Stamp,
        encoder: str,
        *,
        dimensions: int,
        revision: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Generation:
        """Make a generation of what the store holds, beside the live one. It is not live yet.

        Killed, it leaves nothing that is served; built again with the same arguments, it may go on where it was.

        Args:
            encoder: see `Generation`.
            revision: to show; defaults to the store's current one. Whatever is current at it has chunks and vectors.
            progress: told how many more chunks are written.
        """

    def update(
        self, generation: Generation, *, revision: int | None = None, progress: Callable[[int], None] | None = None
    ) -> Generation:
        """Return a generation of the same stamp that shows what the store holds at `revision`, as for `build`.

        An engine that changes its generations in place returns the same name, and what it wrote is shown at once if that is the
        live one; one that writes a new generation needs a `swap` to show it.
        """

    def shows_all(self, generation: Generation) -> bool:
        """Say whether a generation can be read and shows the store's current revision."""

    def refused(self, generation: Generation) -> Sequence[Refused]:
        """Return the documents that the engine would not take. They are hidden, and tried again with every update."""

    def verify(self, generation: Generation) -> None:
        """Count documents and chunks, and look for a sample of ids, in a generation that shows the store's revision.

        Raises:
            IndexDamaged: it does not hold what the store does; the message says what is missing.
        """

    def swap(self, new: Generation, *, expected: Generation | None, keep: bool) -> None:
        """Make `new` the live generation, atomically for everyone who searches.

        Args:
            expected: the one that must be live at that moment.
            keep: whether `expected` becomes the previous generation; otherwise that one stays what it is.

        Raises:
            SwapLost: another one is live; nothing has changed.
        """

    def forget_previous(self) -> None:
        """Give up the way back: nothing is `previous` any more."""

    def collect(self, *, building: Stamp | None) -> None:
        """Delete every generation that is neither live nor previous; those that are being searched keep working.

        Args:
            building: generations of this stamp are left alone, finished or not: a rebuild is making one, or will go on with it.
        """
