"""What can be asked of the store. A version of a document is named by the revision at which it was born."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from retriever.analyze import analyze
from retriever.encode import Vectors
from retriever.errors import StoreError
from retriever.schema import Document, Heading
from retriever.store.catalogue import Catalogue

__all__ = ["Entry", "Known", "Passage", "Reading"]

_CURRENT = "d.revision <= :revision AND (d.retired IS NULL OR d.retired > :revision)"
_PASSAGE = "d.document, d.revision, d.source, d.title, d.language, c.headings, c.page, c.start, c.end, c.text, c.after"


@dataclass(frozen=True, slots=True)
class Known:
    """What the store knows of a current document, enough to tell whether its file has changed."""

    document: str
    content_hash: str
    loader: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk as a search reads it back, with what it needs of its document.

    Attributes:
        after: the few characters that follow `end`, so that neighbours can be joined.
    """

    document: str
    revision: int
    source: str
    title: str
    language: str
    headings: tuple[str, ...]
    page: int | None
    start: int
    end: int
    text: str
    after: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A chunk as an index builder reads it.

    Attributes:
        row: the chunk's id.
        terms: of title, headings and text together, joined by spaces.
        vector: shape (dimensions,).
        metadata: of the document.
    """

    row: int
    terms: str
    vector: Vectors
    metadata: Mapping[str, str]
    passage: Passage

    @property
    def title_terms(self) -> str:
        """Terms of the title alone."""
        return _terms(self.passage.title, self.passage.language)

    @property
    def heading_terms(self) -> str:
        """Terms of the headings above the chunk."""
        return _terms("\n".join(self.passage.headings), self.passage.language)


class Reading(Catalogue):
    """The store's questions; see `Store`."""

    def revision(self) -> int:
        """Return the revision of the last change; 0 for an empty store."""
        return int(self.recall("revision") or 0)

    def known(self) -> dict[str, Known]:
        """Return what is current, by source."""
        rows = self._read("SELECT source, document, content_hash, loader FROM documents WHERE retired IS NULL")
        return {source: Known(*rest) for source, *rest in rows}

    def current(self, revision: int) -> list[int]:
        """Return the versions that are current at `revision`, oldest first."""
        rows = self._read(f"SELECT d.revision FROM documents d WHERE {_CURRENT} ORDER BY d.revision", {"revision": revision})
        return [born for (born,) in rows]

    def changes(self, after: int, until: int) -> tuple[list[int], list[int]]:
        """Return what an index that shows revision `after` lacks to show `until`.

        Returns:
            The versions born since and current at `until`, and all versions retired since, whenever born; oldest first.
        """
        born = self._read(
            f"SELECT d.revision FROM documents d WHERE d.revision > :after AND {_CURRENT} ORDER BY d.revision",
            {"after": after, "revision": until},
        )
        retired = self._read(
            "SELECT revision FROM documents WHERE retired > ? AND retired <= ? ORDER BY revision", (after, until)
        )
        return [revision for (revision,) in born], [revision for (revision,) in retired]

    def entries(self, versions: Sequence[int], *, chunking: str, encoder: str) -> Iterator[Entry]:
        """Yield the chunks of these versions, by ascending id.

        Raises:
            StoreError: one has no vector of this encoder yet.
        """
        for row, terms, blob, metadata, *passage in self._read(
            f"SELECT c.id, c.terms, v.vector, d.metadata, {_PASSAGE} FROM chunks c JOIN documents d USING (revision) "
            "LEFT JOIN vectors v ON v.key = c.key AND v.encoder = :encoder "
            "WHERE c.revision IN (SELECT value FROM json_each(:versions)) AND c.chunking = :chunking ORDER BY c.id",
            {"versions": json.dumps(versions), "chunking": chunking, "encoder": encoder},
        ):
            if blob is None:
                raise StoreError("Some chunks have no vector of this encoder yet.", way_out="Run `beleg index`.")
            yield Entry(row, terms, np.frombuffer(blob, dtype="<f4"), json.loads(metadata), _passage(*passage))

    def passages(self, rows: Sequence[int]) -> dict[int, Passage]:
        """Return chunks by id, retired ones included; ids that were collected are missing from the answer."""
        found = self._read(
            f"SELECT c.id, {_PASSAGE} FROM chunks c JOIN documents d USING (revision) "
            "WHERE c.id IN (SELECT value FROM json_each(?))",
            (json.dumps([int(row) for row in rows]),),
        )
        return {row: _passage(*rest) for row, *rest in found}

    def versions(self, revision: int) -> dict[int, dict[str, str]]:
        """Return what filters match of each document version that is current at `revision`."""
        rows = self._read(
            f"SELECT d.revision, d.document, d.source, d.title, d.language, d.metadata FROM documents d WHERE {_CURRENT}",
            {"revision": revision},
        )
        return {
            born: {**json.loads(metadata), "document": name, "source": source, "title": title, "language": language}
            for born, name, source, title, language, metadata in rows
        }

    def vocabulary(self, revision: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the languages and the filter keys of what is current at `revision`, both sorted."""
        given = {"revision": revision}
        languages = self._read(f"SELECT DISTINCT d.language FROM documents d WHERE {_CURRENT}", given)
        found = tuple(sorted(language for (language,) in languages))
        keys = self._read(f"SELECT DISTINCT m.key FROM documents d, json_each(d.metadata) m WHERE {_CURRENT}", given)
        own = {"document", "source", "title", "language"} if found else set()
        return found, tuple(sorted({key for (key,) in keys} | own))

    def count(self, revision: int, chunking: str) -> tuple[int, int]:
        """Return how many documents and chunks are current at `revision`."""
        given = {"revision": revision, "chunking": chunking}
        (documents,) = next(self._read(f"SELECT count(*) FROM documents d WHERE {_CURRENT}", given))
        (chunks,) = next(
            self._read(
                f"SELECT count(*) FROM chunks c JOIN documents d USING (revision) WHERE c.chunking = :chunking AND {_CURRENT}",
                given,
            )
        )
        return documents, chunks

    def chunk_counts(self, revision: int, chunking: str) -> dict[int, int]:
        """Return how many chunks each version that is current at `revision` has."""
        rows = self._read(
            "SELECT c.revision, count(*) FROM chunks c JOIN documents d USING (revision) "
            f"WHERE c.chunking = :chunking AND {_CURRENT} GROUP BY c.revision",
            {"revision": revision, "chunking": chunking},
        )
        return {born: chunks for born, chunks in rows}  # noqa: C416 - rows are tuples of anything

    def sample(self, revision: int, chunking: str, size: int) -> list[int]:
        """Return the ids of up to `size` chunks that are current at `revision`, at random."""
        rows = self._read(
            "SELECT c.id FROM chunks c JOIN documents d USING (revision) "
            f"WHERE c.chunking = :chunking AND {_CURRENT} ORDER BY random() LIMIT :size",
            {"revision": revision, "chunking": chunking, "size": size},
        )
        return [row for (row,) in rows]

    def without_chunks(self, chunking: str) -> Iterator[int]:
        """Yield the current versions that have no chunks of this chunking."""
        for (revision,) in self._read(
            "SELECT d.revision FROM documents d WHERE d.retired IS NULL AND d.text <> '' "
            "AND NOT EXISTS (SELECT 1 FROM chunks c WHERE c.revision = d.revision AND c.chunking = ?)",
            (chunking,),
        ):
            yield revision

    def without_vector(self, encoder: str, chunking: str) -> Iterator[tuple[str, str, tuple[str, ...], str]]:
        """Yield (key, title, headings, text) of each distinct current chunk that `encoder` has not encoded."""
        for key, title, headings, text in self._read(
            "SELECT c.key, d.title, c.headings, c.text FROM chunks c JOIN documents d USING (revision) "
            "WHERE d.retired IS NULL AND c.chunking = ? "
            "AND NOT EXISTS (SELECT 1 FROM vectors v WHERE v.key = c.key AND v.encoder = ?) GROUP BY c.key",
            (chunking, encoder),
        ):
            yield key, title, tuple(json.loads(headings)), text

    def has_vectors(self, encoder: str, keys: Iterable[str]) -> set[str]:
        """Return those of `keys` whose vector is stored."""
        rows = self._read(
            "SELECT key FROM vectors WHERE encoder = ? AND key IN (SELECT value FROM json_each(?))",
            (encoder, json.dumps(list(keys))),
        )
        return {key for (key,) in rows}

    def dimensions(self, encoder: str) -> int | None:
        """Return the length of an encoder's vectors, or None if there are none."""
        for (size,) in self._read("SELECT length(vector) / 4 FROM vectors WHERE encoder = ? LIMIT 1", (encoder,)):
            return int(size)
        return None

    def document(self, document: str) -> Document | None:
        """Return the current version of a document; None if there is none."""
        return self._document("document = ? AND retired IS NULL", document)

    def document_born(self, revision: int) -> Document | None:
        """Return the version that was born at `revision`; None if there is none, or it was collected."""
        return self._document("revision = ? AND NOT (text = '' AND retired IS NOT NULL)", revision)

    def _document(self, which: str, value: object) -> Document | None:
        rows = self._read(
            "SELECT document, source, title, text, language, content_hash, pages, headings, metadata FROM documents "
            f"WHERE {which}",
            (value,),
        )
        for name, source, title, text, language, content_hash, pages, headings, metadata in rows:
            heads = tuple(Heading(*head) for head in json.loads(headings))
            pages = tuple(json.loads(pages))
            return Document(name, source, title, text, language, content_hash, pages, heads, json.loads(metadata))
        return None


@lru_cache(maxsize=10_000)
def _terms(text: str, language: str) -> str:
    return " ".join(analyze(text, language))


def _passage(document: str, revision: int, source: str, title: str, language: str, headings: str, *rest: object) -> Passage:
    return Passage(document, revision, source, title, language, tuple(json.loads(headings)), *rest)  # type: ignore[arg-type]
