"""A store and indexes of their own for training and measuring: what data's questions are asked of, and what else lies there.

The same chunks, words, vectors and search as the served ones, so that a figure means what people will see. Every distinct
context is a document; files can lie among them. Kept in a folder: a second run encodes nothing again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from finetune.data.schema import Context, Row
from retriever.chunk import ChunkSize, passage_text
from retriever.encode import Encoder, Vectors
from retriever.errors import LoadError, StoreError
from retriever.fill import Maker
from retriever.index.base import Generation, Index
from retriever.index.embedded import EmbeddedGenerations
from retriever.load import LOADER, discover, source_of
from retriever.load.isolated import Loader
from retriever.load.language import detect
from retriever.metrics import Label
from retriever.schema import Document, document_id
from retriever.store import Store

__all__ = ["Passages", "Workspace", "source_of_context"]

_MAX_BYTES = 1 << 30
_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Passages:
    """All chunks of a workspace, as columns.

    Attributes:
        rows: ids of the chunks, shape (chunks,), ascending.
        documents: id of each chunk's document.
        spans: start and end of each in its document, shape (chunks, 2).
        texts: of the chunks alone.
        inputs: what the encoder sees of each: its title and headings, then its text.
        vectors: shape (chunks, dimensions), each of length 1.
    """

    rows: npt.NDArray[np.int64]
    documents: Sequence[str]
    spans: npt.NDArray[np.int64]
    texts: Sequence[str]
    inputs: Sequence[str]
    vectors: Vectors

    def __len__(self) -> int:
        return len(self.rows)


class Workspace:
    """Documents, and an index for each encoder that they are searched with.

    Args:
        folder: made if it is not there.
        size: of the chunks.

    Raises:
        StoreError: the folder cannot be written, or another process has it.
    """

    def __init__(self, folder: Path, size: ChunkSize) -> None:
        self.folder = folder
        self.size = size
        self.store = Store(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def add_rows(self, rows: Iterable[Row]) -> int:
        """Put every context of the rows in, each as a document; return how many were not there yet."""
        return self.add_documents(
            _document(row, text) for row in rows for text in (*row.positives, *row.negatives, *row.hard_negatives)
        )

    def add_documents(self, documents: Iterable[Document]) -> int:
        """Put documents in; return how many were not there yet."""
        added = 0
        with self.store.writer(wait_s=_TIMEOUT_S):
            known = set(self.store.known())
            for document in documents:
                if document.source not in known:
                    known.add(document.source)
                    self.store.put(document, [], loader=LOADER, chunking="", encoder="", vectors={})
                    added += 1
        return added

    def add_files(self, paths: Sequence[Path]) -> list[LoadError]:
        """Read files and folders as `beleg index` does; return what could not be read."""
        found = discover(paths)
        problems = [item for item in found if isinstance(item, LoadError)]
        known = self.store.known()
        new = [(path, source_of(path)) for path in found if not isinstance(path, LoadError)]
        with Loader(max_bytes=_MAX_BYTES, timeout_s=_TIMEOUT_S) as loader:
            loaded = list(loader.load_many((path, source) for path, source in new if source not in known))
        self.add_documents(item for item in loaded if not isinstance(item, LoadError))
        return [*problems, *(item for item in loaded if isinstance(item, LoadError))]

    def fill(self, encoder: Encoder, *, progress: Callable[[int], None] = lambda _: None) -> Maker:
        """Cut and encode what lacks chunks or vectors of this encoder."""
        maker = Maker(encoder, self.size)
        maker.fill(self.store, progress=progress)
        return maker

    def index(self, encoder: Encoder, *, progress: Callable[[int], None] = lambda _: None) -> Index:
        """Return an index of everything by this encoder, made if it is not there yet."""
        stamp = self.fill(encoder, progress=progress).stamp
        generations = EmbeddedGenerations(self.store, self.folder / "generations")
        revision = self.store.revision()
        # A folder has its name, which tells revision and stamp, only once it is complete.
        for path in (self.folder / "generations").glob(f"{revision:09d}-{stamp.digest()}-*"):
            return generations.open(Generation(path.name, stamp, ""))
        return generations.open(generations.build(stamp, "", dimensions=encoder.dimensions, revision=revision))

    def passages(self, encoder: Encoder) -> Passages:
        """Return all chunks with their vectors by this encoder; they take 2 KB of memory each, and their text."""
        stamp = self.fill(encoder).stamp
        revision = self.store.revision()
        entries = list(self.store.entries(self.store.current(revision), chunking=stamp.chunking, encoder=stamp.encoder))
        if not entries:
            raise StoreError("There is no text to search among.", way_out="Give rows with contexts, or documents.")
        found = [entry.passage for entry in entries]
        return Passages(
            rows=np.array([entry.row for entry in entries], dtype=np.int64),
            documents=[passage.document for passage in found],
            spans=np.array([(passage.start, passage.end) for passage in found], dtype=np.int64),
            texts=[passage.text for passage in found],
            inputs=[passage_text(passage.title, passage.headings, passage.text, encoder) for passage in found],
            vectors=np.stack([entry.vector for entry in entries]),
        )

    def labels(self, rows: Sequence[Row]) -> dict[str, list[Label]]:
        """Return where each row's answer stands, by the row's position as text; rows without a positive have none.

        That is the span of its first answer that has one. Rows without a span have one label for each positive, the whole of
        it, and any part of it counts.
        """
        return {str(number): _labels(row) for number, row in enumerate(rows) if row.positives}


def source_of_context(text: Context) -> str:
    """Return the source under which a workspace has a context; equal texts of equal title are one document."""
    digest = hashlib.sha256(json.dumps([text.title, text.text]).encode()).hexdigest()[:16]
    name = re.sub(r"[^\w.-]+", "-", text.title)[:60]
    return f"{name or 'context'}#{digest}"


def _document(row: Row, text: Context) -> Document:
    source = source_of_context(text)
    language = row.language if text in row.positives and row.language != "und" else detect(text.text)
    digest = hashlib.sha256(text.text.encode()).hexdigest()
    return Document(document_id(source), source, text.title, text.text, language, digest)


def _labels(row: Row) -> list[Label]:
    spans = [answer for answer in row.answers if answer.start is not None]
    first = document_id(source_of_context(row.positives[0]))
    if spans:
        start = spans[0].start or 0
        return [Label(first, start, start + len(spans[0].text))]
    return [Label(document_id(source_of_context(text)), 0, len(text.text), share=0.0) for text in row.positives]
