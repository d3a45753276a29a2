"""Searches one generation of the embedded engine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import tantivy

from retriever.encode import Vectors
from retriever.errors import IndexMissing, QueryError
from retriever.index.base import Candidate, Filters, Formula, Stamp
from retriever.index.dates import split_ranges
from retriever.index.embedded.folder import FORMAT, filter_term, keep_to_one_thread, sizes
from retriever.schema import Document
from retriever.store import Passage, Store

__all__ = ["EmbeddedIndex"]


class EmbeddedIndex:
    """An open generation. Safe to search from many threads.

    Args:
        folder: of all generations.
        name: of this one.

    Raises:
        IndexMissing: the generation is not there, or is damaged.
    """

    def __init__(self, store: Store, folder: Path, name: str, *, formula: Formula | None = None) -> None:
        self.name = name
        self._store = store
        self._formula = formula or Formula()
        path = folder / name
        try:
            manifest = json.loads((path / "manifest.json").read_text())
            if manifest["format"] != FORMAT:
                raise ValueError("made by another version of Beleg")
            # tantivy opens without some of its files and then fails in every search, or panics.
            if manifest["files"] != sizes(path):
                raise ValueError("a file is missing or cut off")
            self.stamp = Stamp(**manifest["stamp"])
            self.revision = int(manifest["revision"])
            self._documents: list[dict[str, str]] = manifest["documents"]
            self.documents = len(self._documents)
            self._ids: npt.NDArray[np.int64] = np.load(path / "ids.npy")
            self._document_of: npt.NDArray[np.int32] = np.load(path / "documents.npy")
            self._exact: Vectors = np.load(path / "vectors.npy", mmap_mode="r")
            keep_to_one_thread()
            self._near = faiss.read_index(str(path / "vectors.faiss"))
            self._words = tantivy.Index.open(str(path / "terms"))
            self._words.reload()
            self._searcher = self._words.searcher()
            if not len(self._ids) == self._near.ntotal == self._searcher.num_docs == len(self._exact):
                raise ValueError("its parts hold different numbers of chunks")
        except (OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise IndexMissing(f"The index {path} cannot be read: {error}.", way_out="Run `beleg index`.") from error
        self.languages = tuple(sorted({str(entry["language"]) for entry in self._documents}))

    def __len__(self) -> int:
        return len(self._ids)

    def candidates(self, *, vector: Vectors | None, terms: Sequence[str], depth: int, filters: Filters) -> list[Candidate]:
        """Return the union of both sides' best chunks with both exact scores; see `Index.candidates`."""
        self._check(filters)
        filters = {key: self._exactly(key, values) for key, values in filters.items()}
        if not len(self):
            return []
        found: dict[int, float] = {}
        if terms:
            found = self._by_terms(terms, filters, depth)
        near = self._by_vector(vector, filters, depth) if vector is not None else []
        rows = np.array(sorted({*found, *near}), dtype=np.int64)
        if terms:
            unseen = [row for row in near if row not in found]
            found |= self._by_terms(terms, {}, len(unseen), among=unseen) if unseen else {}
        cosines = self._exact[rows] @ vector if vector is not None else None
        return [
            Candidate(
                row=int(self._ids[row]),
                dense=None if cosines is None else float(cosines[at]),
                keyword=found.get(int(row), 0.0) if terms else None,
            )
            for at, row in enumerate(rows)
        ]

    def rows(self) -> set[int]:
        """Return the ids of all chunks."""
        return set(self._ids.tolist())

    def passages(self, rows: Sequence[int]) -> Mapping[int, Passage]:
        """Return chunks by id, as they were at this generation's revision."""
        return self._store.passages(rows)

    def document(self, document: str, revision: int) -> Document | None:
        """Return a version of a document, from the store."""
        del document  # the revision alone names the version
        return self._store.document_born(revision)

    def _exactly(self, key: str, values: Sequence[str]) -> list[str]:
        """Return the values that a document must have one of, each range as those within it that there are."""
        exact, ranges = split_ranges(key, values)
        there = {entry[key] for entry in self._documents if key in entry} if ranges else set()
        return exact + [value for value in sorted(there) if any(wanted.holds(value) for wanted in ranges)]

    def _by_vector(self, vector: Vectors, filters: Filters, depth: int) -> list[int]:
        parameters = None
        if filters:
            passing = np.array([_passes(entry, filters) for entry in self._documents], dtype=bool)[self._document_of]
            bits = np.packbits(passing, bitorder="little")
            # The selector only borrows the bits: both must live until the search is over.
            selector = faiss.IDSelectorBitmap(len(passing), faiss.swig_ptr(bits))
            parameters = faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]  # the stub leaves it out
        # Twice as deep as asked: the quantised order is nearly right, and the exact cosines decide afterwards.
        _, rows = self._near.search(vector[None, :], min(2 * depth, len(self)), params=parameters)
        rows = rows[0][rows[0] >= 0]
        exact = self._exact[rows] @ vector
        return [int(row) for row in rows[np.argsort(-exact, kind="stable")][:depth]]

    def _by_terms(
        self, terms: Sequence[str], filters: Filters, depth: int, *, among: Sequence[int] | None = None
    ) -> dict[int, float]:
        query, occur, schema = tantivy.Query, tantivy.Occur, self._words.schema
        weights = {"terms": 1.0, "title": self._formula.title, "headings": self._formula.headings}
        scored = [
            query.boost_query(query.term_query(schema, name, term, "freq"), weight)
            for name, weight in weights.items()
            if weight
            for term in terms
        ]
        words = query.boolean_query([(occur.Should, part) for part in scored])
        parts = [(occur.Must, words)]
        for key, values in filters.items():
            alike = query.term_set_query(schema, "filters", [filter_term(key, value) for value in values])
            parts.append((occur.Must, query.const_score_query(alike, 0.0)))
        if among is not None:
            chosen = query.term_set_query(schema, "row", list(among))
            parts.append((occur.Must, query.const_score_query(chosen, 0.0)))
        hits = self._searcher.search(query.boolean_query(parts), depth, count=False).hits
        rows = self._searcher.fast_field_values("row", [address for _, address in hits])
        return {int(row or 0): float(score) for row, (score, _) in zip(rows, hits, strict=True)}

    def _check(self, filters: Filters) -> None:
        known = {key for entry in self._documents for key in entry} if filters else set()
        for key in filters:
            if self._documents and key not in known:
                raise QueryError(f"No document has a “{key}” to filter by.", way_out=f"Known: {', '.join(sorted(known))}.")


def _passes(entry: Mapping[str, str], filters: Filters) -> bool:
    return all(entry.get(key) in values for key, values in filters.items())
