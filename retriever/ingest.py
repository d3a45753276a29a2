"""Files into the store and the index: only what changed is read, only what is new is encoded.

Every document is one transaction. A run that is killed leaves the documents it finished; the next run finds them by their hash
and goes on with the others.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from retriever.errors import IndexMismatch, LoadError
from retriever.fill import GROUP, Maker
from retriever.index.base import Generation, Generations
from retriever.load import LOADER, content_hash, discover, load, source_of
from retriever.load.isolated import Loader
from retriever.load.ocr import LANGUAGES, available
from retriever.publish import publish
from retriever.schema import Document
from retriever.store import IndexedChunk, Known, Store

__all__ = ["Ingest", "Outcome", "Status"]

Status = Literal["added", "changed", "unchanged", "removed", "failed"]


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


@dataclass
class Ingest:
    """One run over files and folders.

    Args:
        store: written to; the run holds its writer lock.
        maker: of the live generation, if there is one.
        reference: the model reference by which the maker's encoder was opened.
        ocr: languages in which scanned pages are recognised; empty does not.
        prune: also remove documents that came from below the given folders and are gone.
        keep_s: see `publish`.
        wait_s: how long to wait for another run to finish.
        on_outcome: told of each file as soon as its outcome is certain.
        on_found: told of all files, by source, before any is read.
        on_written: told how many more chunks the index holds, once all files are read.
    """

    store: Store
    generations: Generations
    maker: Maker
    reference: str
    max_bytes: int
    timeout_s: float
    ocr: str = LANGUAGES
    prune: bool = False
    keep_s: float = float("inf")
    wait_s: float = 0.0
    on_outcome: Callable[[Outcome], None] = field(default=lambda _: None)
    on_found: Callable[[Sequence[str]], None] = field(default=lambda _: None)
    on_written: Callable[[int], None] = field(default=lambda _: None)

    def run(self, paths: Sequence[Path]) -> bool:
        """Bring store and index up to date with the files below `paths`.

        Returns:
            Whether those who search see something new.

        Raises:
            StoreLocked: another run is writing.
            IndexMismatch: another maker made the live generation.
        """
        with self.store.writer(wait_s=self.wait_s):
            self._check_live()
            known = self.store.known()
            present: set[str] = set()
            for group in self._grouped(self._documents(paths, known, present)):
                self._put(group)
            if self.prune:
                self._remove_gone(paths, known, present)
            self.maker.fill(self.store)
            target = Generation("", self.maker.stamp, self.reference)
            dimensions = self.maker.encoder.dimensions
            published = publish(
                self.store, self.generations, target, dimensions=dimensions, keep_s=self.keep_s, progress=self.on_written
            )
            self._tell_refused()
            return published

    def _tell_refused(self) -> None:
        live = self.generations.live()
        for refused in self.generations.refused(live) if live else ():
            way_out = "It is stored, and tried again with the next run."
            self.on_outcome(
                Outcome(refused.source, "failed", reason=f"The index does not take it: {refused.reason}", way_out=way_out)
            )

    def _check_live(self) -> None:
        # Looked at under the lock: a rebuild may have ended while this run waited for it.
        self.generations.check()
        live = self.generations.live(fresh=True)
        if live and live.stamp != self.maker.stamp:
            raise IndexMismatch(
                "The live index was made by another encoder or chunker than this run has.", way_out="Run this again."
            )

    def _documents(self, paths: Sequence[Path], known: dict[str, Known], present: set[str]) -> Iterator[_Pending]:
        """Yield what must be stored, and report what need not or cannot be."""
        todo: list[tuple[Path, str]] = []
        found = list(discover(paths))
        self.on_found([path.source if isinstance(path, LoadError) else source_of(path) for path in found])
        for path in found:
            if isinstance(path, LoadError):
                self._failed(path)
                continue
            source = source_of(path)
            present.add(source)
            try:
                entry = known.get(source)
                unchanged = entry and entry.content_hash == content_hash(path) and self._reads_like(entry.loader)
            except LoadError as error:
                self._failed(error)
                continue
            if unchanged:
                self.on_outcome(Outcome(source, "unchanged"))
            else:
                todo.append((path, source))
        read = partial(load, ocr=self.ocr)
        with Loader(max_bytes=self.max_bytes, timeout_s=self.timeout_s, loader=read) as loader:
            for document in loader.load_many(todo):
                if isinstance(document, LoadError):
                    self._failed(document)
                else:
                    yield self._prepare(document, "changed" if document.source in known else "added")

    def _loader(self, document: Document) -> str:
        """Return the version of what read a document: of one with scanned pages, the languages at hand belong to it."""
        return f"{LOADER}+{available(self.ocr)}" if "ocr" in document.metadata else LOADER

    def _reads_like(self, loader: str) -> bool:
        """Say whether this run would get out of a file what `loader` did."""
        version, scanned, languages = loader.partition("+")
        # Where nothing is recognised any more, what once was is better than nothing.
        return version == LOADER and (not scanned or available(self.ocr) in ("", languages))

    def _prepare(self, document: Document, status: Status) -> _Pending:
        chunks, inputs = self.maker.chunks(document)
        for key in self.store.has_vectors(self.maker.encoder.fingerprint, inputs):
            del inputs[key]
        return _Pending(document, chunks, inputs, status)

    def _grouped(self, pending: Iterable[_Pending]) -> Iterator[list[_Pending]]:
        group: list[_Pending] = []
        for item in pending:
            group.append(item)
            if sum(len(waiting.inputs) for waiting in group) >= GROUP:
                yield group
                group = []
        if group:
            yield group

    def _put(self, group: Sequence[_Pending]) -> None:
        encoder, chunking = self.maker.encoder, self.maker.stamp.chunking
        inputs = {key: text for item in group for key, text in item.inputs.items()}
        vectors = dict(zip(inputs, encoder.encode_passages(list(inputs.values())), strict=True))
        for item in group:
            own = {key: vectors[key] for key in item.inputs}
            loader = self._loader(item.document)
            self.store.put(
                item.document, item.chunks, loader=loader, chunking=chunking, encoder=encoder.fingerprint, vectors=own
            )
            self.on_outcome(Outcome(item.document.source, item.status, len(item.chunks)))

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


def _is_gone(source: str) -> bool:
    """Say whether there is no such file, as opposed to one that is hidden or that cannot be reached just now."""
    try:
        return stat.S_ISDIR(os.stat(source).st_mode)  # noqa: PTH116 - Path.is_dir takes every error for an absence
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
