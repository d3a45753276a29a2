"""Files into the store and the index: only what changed is read, only what is new is encoded.

Every document is one transaction. A run that is killed leaves the documents it finished; the next run finds them by their hash
and goes on with the others.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from retriever.analyze import ANALYSER, analyze
from retriever.chunk import CHUNKER, CONTEXT_TOKENS, ChunkSize, chunk, context
from retriever.encode import Encoder
from retriever.errors import LoadError, SettingsError
from retriever.index.base import Stamp
from retriever.live import publish
from retriever.load import LOADER, content_hash, discover, source_of
from retriever.load.isolated import Loader
from retriever.schema import Document
from retriever.store import IndexedChunk, Known, Store

__all__ = ["Ingest", "Outcome", "Status", "stamp_of"]

Status = Literal["added", "changed", "unchanged", "removed", "failed"]

_GROUP = 512
"""Chunks that are encoded together: enough to sort by length, few enough that a kill costs seconds of work."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file. `reason` says why one failed, and `way_out` what would help."""

    source: str
    status: Status
    chunks: int = 0
    reason: str = ""
    way_out: str = ""


@dataclass(slots=True)
class _Pending:
    document: Document
    chunks: list[IndexedChunk]
    inputs: dict[str, str]  # by key, of the chunks that have no vector yet
    status: Status
    recipe: str


@dataclass
class Ingest:
    """One run over files and folders.

    Args:
        store: written to; the run holds its writer lock.
        folder: of the index generations.
        prune: also remove documents that came from below the given folders and are gone.
        on_outcome: told of each file as soon as its outcome is certain.
        on_total: told how many files there are.
    """

    store: Store
    folder: Path
    encoder: Encoder
    size: ChunkSize
    max_bytes: int
    timeout_s: float
    prune: bool = False
    on_outcome: Callable[[Outcome], None] = field(default=lambda _: None)
    on_total: Callable[[int], None] = field(default=lambda _: None)

    def run(self, paths: Sequence[Path]) -> bool:
        """Bring store and index up to date with the files below `paths`.

        Returns:
            Whether a new index generation was published.

        Raises:
            StoreLocked: another run is writing.
            SettingsError: chunks of this size do not fit the encoder.
        """
        if self.size.tokens + CONTEXT_TOKENS > self.encoder.max_tokens:
            raise SettingsError(
                f"chunk_tokens is {self.size.tokens}, but the encoder sees {self.encoder.max_tokens} tokens, of which titles "
                f"and headings may take {CONTEXT_TOKENS}.",
                way_out=f"Set it to {self.encoder.max_tokens - CONTEXT_TOKENS} or less.",
            )
        with self.store.writer():
            known = self.store.known()
            present: set[str] = set()
            for group in self._grouped(self._documents(paths, known, present)):
                self._put(group)
            if self.prune:
                self._remove_gone(paths, known, present)
            self._encode_for_new_encoder()
            return publish(self.store, self.folder, self.encoder, stamp_of(self.encoder, self.size))

    def _documents(self, paths: Sequence[Path], known: dict[str, Known], present: set[str]) -> Iterator[_Pending]:
        """Yield what must be stored, and report what need not or cannot be."""
        recipe = f"{LOADER} {self._recipe}"
        todo: list[tuple[Path, str]] = []
        found = list(discover(paths))
        self.on_total(len(found))
        for path in found:
            if isinstance(path, LoadError):
                self._failed(path)
                continue
            source = source_of(path)
            present.add(source)
            try:
                entry = known.get(source)
                unchanged = entry and (entry.content_hash, entry.recipe) == (content_hash(path), recipe)
            except LoadError as error:
                self._failed(error)
                continue
            if unchanged:
                self.on_outcome(Outcome(source, "unchanged"))
            else:
                todo.append((path, source))
        with Loader(max_bytes=self.max_bytes, timeout_s=self.timeout_s) as loader:
            for document in loader.load_many(todo):
                if isinstance(document, LoadError):
                    # Its earlier version stays, and must keep up with the chunker like one that has no file here.
                    present.discard(document.source)
                    self._failed(document)
                else:
                    yield self._prepare(document, recipe, "changed" if document.source in known else "added")
        yield from self._made_otherwise(known, present)

    def _made_otherwise(self, known: dict[str, Known], present: set[str]) -> Iterator[_Pending]:
        """Yield stored documents that this run has no file for but that another chunker or analyser made."""
        for source, entry in known.items():
            loader, _, recipe = entry.recipe.partition(" ")
            document = None
            if source not in present and recipe != self._recipe:
                document = self.store.document(entry.document)
            if document:
                yield self._prepare(document, f"{loader} {self._recipe}", "changed")

    def _prepare(self, document: Document, recipe: str, status: Status) -> _Pending:
        chunks, inputs = [], {}
        for piece in chunk(document, self.size, self.encoder):
            above = context(document.title, piece.headings, self.encoder)
            text = f"{above}\n{piece.text}"
            key = hashlib.sha256(text.encode()).hexdigest()
            terms = analyze(above, document.language) + analyze(piece.text, document.language)
            chunks.append(IndexedChunk(piece, terms, key))
            inputs[key] = text
        for key in self.store.has_vectors(self.encoder.fingerprint, inputs):
            del inputs[key]
        return _Pending(document, chunks, inputs, status, recipe)

    def _grouped(self, pending: Iterable[_Pending]) -> Iterator[list[_Pending]]:
        group: list[_Pending] = []
        for item in pending:
            group.append(item)
            if sum(len(waiting.inputs) for waiting in group) >= _GROUP:
                yield group
                group = []
        if group:
            yield group

    def _put(self, group: Sequence[_Pending]) -> None:
        inputs = {key: text for item in group for key, text in item.inputs.items()}
        vectors = dict(zip(inputs, self.encoder.encode_passages(list(inputs.values())), strict=True))
        for item in group:
            own = {key: vectors[key] for key in item.inputs}
            self.store.put(item.document, item.chunks, recipe=item.recipe, encoder=self.encoder.fingerprint, vectors=own)
            self.on_outcome(Outcome(item.document.source, item.status, len(item.chunks)))

    def _encode_for_new_encoder(self) -> None:
        missing: dict[str, str] = {}
        for key, title, headings, text in list(self.store.without_vector(self.encoder.fingerprint)):
            missing[key] = f"{context(title, headings, self.encoder)}\n{text}"
            if len(missing) == _GROUP:
                self._add_vectors(missing)
        self._add_vectors(missing)

    def _add_vectors(self, inputs: dict[str, str]) -> None:
        vectors = self.encoder.encode_passages(list(inputs.values()))
        self.store.put_vectors(self.encoder.fingerprint, dict(zip(inputs, vectors, strict=True)))
        inputs.clear()

    def _remove_gone(self, paths: Sequence[Path], known: dict[str, Known], present: set[str]) -> None:
        # Not `resolve`, which raises where links run in a circle.
        roots = [Path(source_of(path)) for path in paths]
        for source in known.keys() - present:
            # A folder that is not there at all is more likely an unmounted share than a wish to forget everything.
            below = any(root == Path(source) or (root in Path(source).parents and root.is_dir()) for root in roots)
            if below and _is_gone(source):
                self.store.remove(source)
                self.on_outcome(Outcome(source, "removed"))

    def _failed(self, error: LoadError) -> None:
        self.on_outcome(Outcome(error.source, "failed", reason=error.reason, way_out=error.way_out))

    @property
    def _recipe(self) -> str:
        stamp = stamp_of(self.encoder, self.size)
        return f"{stamp.chunker} {stamp.analyser}"


def _is_gone(source: str) -> bool:
    """Say whether there is no such file, as opposed to one that is hidden or that cannot be reached just now."""
    try:
        return stat.S_ISDIR(os.stat(source).st_mode)  # noqa: PTH116 - Path.is_dir takes every error for an absence
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False


def stamp_of(encoder: Encoder, size: ChunkSize) -> Stamp:
    """Return the stamp of an index that is made with this encoder and chunk size."""
    chunker = f"{CHUNKER}:{size.tokens}:{size.overlap}:{encoder.tokenizer[:16]}"
    return Stamp(encoder=encoder.fingerprint, chunker=chunker, analyser=ANALYSER)
