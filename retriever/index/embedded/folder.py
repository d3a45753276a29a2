"""The folder of a generation: what is written into it, and how to tell that it is whole."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import faiss
import numpy as np
import tantivy

from retriever.index.base import Generation
from retriever.store import Store

__all__ = ["FORMAT", "filter_term", "fsync", "keep_to_one_thread", "sizes", "write"]

FORMAT = 2
_BLOCK = 10_000
_WINDOW = 500
"""Document versions that are read from the store at a time."""


def write(
    store: Store,
    folder: Path,
    generation: Generation,
    revision: int,
    dimensions: int,
    progress: Callable[[int], None] | None,
) -> None:
    """Write a generation of `revision` into an empty folder. Errors are those of the system and the libraries."""
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
    filter_terms = [[filter_term(key, str(value)) for key, value in entry.items()] for entry in documents]
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
    keep_to_one_thread()
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
        "format": FORMAT,
        "stamp": asdict(stamp),
        "revision": revision,
        "chunks": count,
        "dimensions": dimensions,
        "documents": documents,
        "files": sizes(folder),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, ensure_ascii=False))


def _windows(versions: Sequence[int]) -> list[Sequence[int]]:
    return [versions[start : start + _WINDOW] for start in range(0, len(versions), _WINDOW)]


def sizes(folder: Path) -> dict[str, int]:
    """Return the size of each of a generation's files but the manifest; hidden ones are tantivy's locks and notes."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files if path != folder / "manifest.json"}


def filter_term(key: str, value: str) -> str:
    """Return the term by which a key and value are found."""
    # Unambiguous, whatever a key holds: `a=b` with `c` is not `a` with `b=c`.
    return json.dumps([key, value])


def keep_to_one_thread() -> None:
    """Have FAISS answer each query with the thread that asks."""
    # A single query has nothing to share out, yet OpenMP would start a team for it and wait for all of its threads: on a
    # machine whose cores are busy that made milliseconds into half a second. Many queries run side by side instead.
    faiss.omp_set_num_threads(1)


def fsync(path: Path) -> None:
    """Have the system write a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
