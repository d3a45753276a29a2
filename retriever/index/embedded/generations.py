"""Which generations there are: folders below one, and a row in the store that names the live one."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from retriever.errors import IndexDamaged, IndexMissing, StoreError, SwapLost
from retriever.index.base import Formula, Generation, Refused, Stamp
from retriever.index.embedded.folder import fsync, write
from retriever.index.embedded.search import EmbeddedIndex
from retriever.schema import Document
from retriever.store import Store

__all__ = ["EmbeddedGenerations"]

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

    def revision(self) -> int:
        """Return the store's own."""
        return self._store.revision()

    def document(self, document: str) -> Document | None:
        """Return what the store holds, published or not."""
        return self._store.document(document)

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
            write(self._store, partial, generation, revision, dimensions, progress)
            for file in (*partial.rglob("*"), partial):
                fsync(file)
            partial.rename(self._folder / generation.name)
            fsync(self._folder)
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


def _read(text: str | None) -> Generation | None:
    if text is None:
        return None
    facts = json.loads(text)
    return Generation(facts["name"], Stamp(**facts["stamp"]), facts["encoder"])
