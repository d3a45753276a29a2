"""Which generation is live: publish a new one, follow it while serving.

One row in the store names the live generation; whoever searches compares it with what is open, which costs microseconds, so a
server shows a new generation with the first query after it was published.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from retriever.encode import Encoder
from retriever.errors import IndexMissing, StoreLocked
from retriever.index.base import Stamp
from retriever.index.embedded import EmbeddedIndex, build, drop_others
from retriever.search import Searcher
from retriever.store import Store

__all__ = ["Live", "publish"]


def publish(
    store: Store, folder: Path, encoder: Encoder, stamp: Stamp, *, progress: Callable[[int], None] | None = None
) -> bool:
    """Build a generation of what the store holds and make it live, unless the live one shows all of it already.

    The caller holds `store.writer()`. Killed at any point, the earlier generation stays live. That one is kept once more after
    the swap, for those who are in the middle of a search, and all older ones are deleted.

    Returns:
        Whether a new generation was made.
    """
    live = _open(store, folder)
    if live and live.stamp == stamp and live.revision == store.revision():
        drop_others(folder, [live.name])
        # Nothing came between, so whoever was still searching the generation before has long finished.
        store.collect(live.revision)
        return False
    name = build(store, folder, stamp, dimensions=encoder.dimensions, progress=progress)
    store.publish(name, asdict(stamp))
    drop_others(folder, [name, live.name] if live else [name])
    store.collect(live.revision if live else store.revision())
    return True


class Live:
    """The live generation, opened, and opened anew whenever another one is published. Safe to use from many threads.

    Args:
        folder: of the generations.
        alpha: weight of the dense side when fusing.
    """

    def __init__(self, store: Store, folder: Path, encoder: Encoder, *, alpha: float) -> None:
        self._store = store
        self._folder = folder
        self._encoder = encoder
        self._alpha = alpha
        self._opening = threading.Lock()
        self._name: str | None = None
        self._searcher: Searcher | None = None

    def catch_up(self) -> None:
        """Build a lost or damaged generation again, and show what an interrupted run stored; nothing is encoded anew.

        Does nothing while another process is writing: that one will publish. Nor after a change of encoder that was cut short:
        chunks without a vector cannot be shown, and the live generation is good until the next run.
        """
        live, made_by = _open(self._store, self._folder), self._store.stamp()
        current = live is not None and live.revision == self._store.revision()
        if current or made_by is None or made_by["encoder"] != self._encoder.fingerprint:
            return
        if next(self._store.without_vector(made_by["encoder"]), None) is not None:
            return
        try:
            with self._store.writer():
                publish(self._store, self._folder, self._encoder, Stamp(**made_by))
        except StoreLocked:
            return

    def searcher(self) -> Searcher:
        """Return a searcher over the generation that is live now.

        Raises:
            IndexMissing: nothing has been indexed.
            IndexMismatch: another encoder or analyser made it.
        """
        if self._searcher is None or self._store.generation() != self._name:
            with self._opening:
                while self._searcher is None or self._store.generation() != self._name:
                    self._open_live(self._store.generation())
        return self._searcher

    def _open_live(self, name: str | None) -> None:
        if name is None:
            raise IndexMissing("Nothing has been indexed yet.", way_out="Run `beleg index FOLDER`.")
        try:
            index = EmbeddedIndex(self._store, self._folder, name)
        except IndexMissing:
            if self._store.generation() == name:
                raise
            return  # Two more were published meanwhile, and this one deleted: the next look finds the newest.
        self._searcher = Searcher(index, self._encoder, alpha=self._alpha)
        self._name = name


def _open(store: Store, folder: Path) -> EmbeddedIndex | None:
    """Return the live generation, or None if there is none that can be read."""
    name = store.generation()
    try:
        return EmbeddedIndex(store, folder, name) if name else None
    except IndexMissing:
        return None
