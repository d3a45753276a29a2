"""The embedded engine: FAISS for vectors, tantivy for terms, in one folder that is written once and never changed.

Such a folder is a generation. Everything in it is derived from the store at one revision, so a lost or damaged one is simply
built again. Texts stay in the store, and which generation is live is a row in it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import tantivy

from retriever.encode import Vectors
from retriever.errors import IndexDamaged, IndexMissing, QueryError, StoreError, SwapLost
from retriever.index.base import Candidate, Filters, Formula, Generation, Refused, Stamp
from retriever.schema import Document
from retriever.store import Passage, Store

__all__ = ["EmbeddedGenerations", "EmbeddedIndex"]

_FORMAT = 2
_BLOCK = 10_000
_WINDOW = 500
"""Document versions that are read from the store at a time."""

_SAMPLE = 200


class EmbeddedGenerations:
    """Generations as folders below `folder`; see `Generations`.

    Args:
        formula: what keyword scores are made of.
    """

    place = "embedded"

    def __init__(self, store: Store, folder: Path, *, formula: Formula | None = None) -> None:
        self._store = store
        self._folder = folder
        self._formula = formula or Formula()

    def check(self, *, anew: bool = False) -> None:
        """Raise if generations could not be written."""
        del anew  # a generation is never gone on with
        if not os.access(self._nearest(), os.W_OK):
            raise StoreError(f"The index could not be written to {self._folder}.", way_out="Check who may write there.")

    def examine(self) -> str:
        """Return how much room there is for generations."""
        self.check()
        folder = self._nearest()
        return f"embedded, {shutil.disk_usage(folder).free / 2**30:.1f} GiB free in {folder}"

    def _nearest(self) -> Path:
        return next(path for path in (self._folder, *self._folder.parents) if path.exists())

    def live(self, *, fresh: bool = False) -> Generation | None:
        """Return the live generation."""
        del fresh  # always is
        return _read(self._store.recall("live"))

    def previous(self) -> Generation | None:
        """Return what was live before the last rebuild or rollback."""
        return _read(self._store.recall("previous"))

    def open(self, generation: Generation) -> EmbeddedIndex:
        """Open a generation, whatever revision it shows."""
        return EmbeddedIndex(self._store, self._folder, generation.name, formula=self._formula)

    def build(
        self,
        stamp: Stamp,
        encoder: str,
        *,
        dimensions: int,
        revision: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Generation:
        """Write a generation; it appears under its name only when it is complete and on disk.

        Raises:
            StoreError: chunks without a vector of this encoder, or the disk refuses.
        """
        revision = self._store.revision() if revision is None else revision
        generation = Generation(f"{revision:09d}-{stamp.digest()}-{secrets.token_hex(4)}", stamp, encoder)
        partial = self._folder / f".{generation.name}.partial"
        try:
            partial.mkdir(parents=True)
            _write(self._store, partial, generation, revision, dimensions, progress)
            for file in (*partial.rglob("*"), partial):
                _fsync(file)
            partial.rename(self._folder / generation.name)
            _fsync(self._folder)
        except (OSError, ValueError, RuntimeError) as error:  # tantivy and FAISS say of a full disk the latter two
            raise StoreError(
                f"The index could not be written to {self._folder}: {error}.", way_out="The one before it is still in use."
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return generation

    def update(
        self, generation: Generation, *, revision: int | None = None, progress: Callable[[int], None] | None = None
    ) -> Generation:
        """Write another generation of the same stamp, unless this one shows that revision already."""
        revision = self._store.revision() if revision is None else revision
        if self._shows(generation, revision):
            return generation
        stamp = generation.stamp
        dimensions = self._store.dimensions(stamp.encoder) or 1  # any will do for no vectors
        return self.build(stamp, generation.encoder, dimensions=dimensions, revision=revision, progress=progress)

    def shows_all(self, generation: Generation) -> bool:
        """Say whether a generation can be read and shows the store's current revision."""
        return self._shows(generation, self._store.revision())

    def _shows(self, generation: Generation, revision: int) -> bool:
        try:
            return self.open(generation).revision == revision
        except IndexMissing:
            return False

    def refused(self, generation: Generation) -> Sequence[Refused]:
        """Return nothing: this engine takes everything."""
        del generation
        return ()

    def verify(self, generation: Generation) -> None:
        """Compare counts and a sample of ids with the store."""
        index = self.open(generation)
        documents, chunks = self._store.count(index.revision, generation.stamp.chunking)
        if (documents, chunks) != (index.documents, len(index)):
            raise IndexDamaged(
                f"The new index holds {index.documents} documents in {len(index)} chunks; "
                f"the store holds {documents} in {chunks}."
            )
        missing = set(self._store.sample(index.revision, generation.stamp.chunking, _SAMPLE)) - index.rows()
        if missing:
            raise IndexDamaged(f"The new index lacks {len(missing)} of {min(chunks, _SAMPLE)} chunks that were looked for.")

    def swap(self, new: Generation, *, expected: Generation | None, keep: bool) -> None:
        """Make `new` live, in one transaction of the store."""
        raw = self._store.recall("live")
        facts: dict[str, str | None] = {"live": json.dumps(asdict(new))}
        if keep:
            facts["previous"] = raw
        if _read(raw) != expected or not self._store.remember(facts, expected=("live", raw)):
            raise SwapLost("Another index has become live meanwhile.", way_out="Nothing has changed; run this again.")

    def forget_previous(self) -> None:
        """Give up the way back."""
        self._store.remember({"previous": None})

    def collect(self, *, building: Stamp | None) -> None:
        """Delete the folders of other generations, and what killed builds left. Whoever has one open keeps reading it."""
        keep = {generation.name for generation in (self.live(), self.previous()) if generation}
        for entry in self._folder.iterdir() if self._folder.exists() else ():
            being_built = building is not None and f"-{building.digest()}-" in entry.name
            if entry.is_dir() and entry.name not in keep and not being_built:
                shutil.rmtree(entry, ignore_errors=True)


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
            if manifest["format"] != _FORMAT:
                raise ValueError("made by another version of Beleg")
            # tantivy opens without some of its files and then fails in every search, or panics.
            if manifest["files"] != _sizes(path):
                raise ValueError("a file is missing or cut off")
            self.stamp = Stamp(**manifest["stamp"])
            self.revision = int(manifest["revision"])
            self._documents: list[dict[str, str]] = manifest["documents"]
            self.documents = len(self._documents)
            self._ids: npt.NDArray[np.int64] = np.load(path / "ids.npy")
            self._document_of: npt.NDArray[np.int32] = np.load(path / "documents.npy")
            self._exact: Vectors = np.load(path / "vectors.npy", mmap_mode="r")
            _keep_to_one_thread()
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
            alike = query.term_set_query(schema, "filters", [_filter_term(key, value) for value in values])
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


def _filter_term(key: str, value: str) -> str:
    # Unambiguous, whatever a key holds: `a=b` with `c` is not `a` with `b=c`.
    return json.dumps([key, value])


def _read(text: str | None) -> Generation | None:
    if text is None:
        return None
    facts = json.loads(text)
    return Generation(facts["name"], Stamp(**facts["stamp"]), facts["encoder"])


def _write(
    store: Store,
    folder: Path,
    generation: Generation,
    revision: int,
    dimensions: int,
    progress: Callable[[int], None] | None,
) -> None:
    versions = store.versions(revision)
    position = {born: at for at, born in enumerate(versions)}
    documents = list(versions.values())
    terms_folder = folder / "terms"
    terms_folder.mkdir()
    builder = tantivy.SchemaBuilder()
    for name in ("terms", "title", "headings"):
        builder.add_text_field(name, stored=False, tokenizer_name="whitespace", index_option="freq")
    builder.add_text_field("filters", stored=False, tokenizer_name="raw", index_option="basic")
    builder.add_unsigned_field("row", stored=False, indexed=True, fast=True)
    words = tantivy.Index(builder.build(), path=str(terms_folder))
    # One thread: segments, and with them tied scores, come out the same every time.
    writer = words.writer(heap_size=256_000_000, num_threads=1)
    filter_terms = [[_filter_term(key, str(value)) for key, value in entry.items()] for entry in documents]
    stamp = generation.stamp
    _, count = store.count(revision, stamp.chunking)
    vectors = np.empty((count, dimensions), dtype=np.float32)
    ids = np.empty(count, dtype=np.int64)
    document_of = np.empty(count, dtype=np.int32)
    row = 0
    for window in _windows(store.current(revision)):
        for entry in store.entries(window, chunking=stamp.chunking, encoder=stamp.encoder):
            ids[row], vectors[row], document_of[row] = entry.row, entry.vector, position[entry.passage.revision]
            document = tantivy.Document(
                terms=entry.terms,
                title=entry.title_terms,
                headings=entry.heading_terms,
                filters=filter_terms[document_of[row]],
            )
            document.add_unsigned("row", row)
            writer.add_document(document)
            row += 1
            if progress and row % _BLOCK == 0:
                progress(_BLOCK)
    if row != count:
        raise ValueError("the store changed its past while it was read")
    writer.commit()
    writer.wait_merging_threads()
    _keep_to_one_thread()
    # Eight bits a dimension, one range for all: a fifth of the time of float32 and a quarter of the memory. The exact vectors
    # lie beside it.
    near = faiss.IndexScalarQuantizer(dimensions, faiss.ScalarQuantizer.QT_8bit_uniform, faiss.METRIC_INNER_PRODUCT)
    if len(vectors):
        near.train(vectors[:: max(1, len(vectors) // 50_000)])
        near.add(vectors)
    faiss.write_index(near, str(folder / "vectors.faiss"))
    np.save(folder / "vectors.npy", vectors)
    np.save(folder / "ids.npy", ids)
    np.save(folder / "documents.npy", document_of)
    manifest = {
        "format": _FORMAT,
        "stamp": asdict(stamp),
        "revision": revision,
        "chunks": count,
        "dimensions": dimensions,
        "documents": documents,
        "files": _sizes(folder),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, ensure_ascii=False))


def _windows(versions: Sequence[int]) -> list[Sequence[int]]:
    return [versions[start : start + _WINDOW] for start in range(0, len(versions), _WINDOW)]


def _sizes(folder: Path) -> dict[str, int]:
    """Return the size of each of a generation's files but the manifest; hidden ones are tantivy's locks and notes."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files if path != folder / "manifest.json"}


def _keep_to_one_thread() -> None:
    # A single query has nothing to share out, yet OpenMP would start a team for it and wait for all of its threads: on a
    # machine whose cores are busy that made milliseconds into half a second. Many queries run side by side instead.
    faiss.omp_set_num_threads(1)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
