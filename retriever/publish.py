"""From the store to what is searched: bring the live generation up to date, and free what nobody can ask for any more."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from retriever.errors import IndexMissing, StoreLocked
from retriever.index.base import Generation, Generations, Stamp
from retriever.store import Store

__all__ = ["Building", "catch_up", "publish", "tidy"]

_ABANDONED_S = 2 * 86400.0
"""For how long what a killed rebuild has made is kept for the run that goes on with it."""


@dataclass(frozen=True, slots=True)
class Building:
    """What a rebuild is making, or was making when it was killed: kept from being freed.

    Attributes:
        revision: rows that were current at it, or later, are needed.
        at: when that was written, in seconds since the epoch.
        replaces: the generation that is about to be replaced, once all is ready.
    """

    stamp: Stamp
    revision: int
    at: float = field(default_factory=time.time)
    replaces: str = ""

    @classmethod
    def read(cls, store: Store) -> Building | None:
        """Return what is being built, or None."""
        text = store.recall("building")
        if text is None:
            return None
        facts = json.loads(text)
        return cls(Stamp(**facts["stamp"]), facts["revision"], facts["at"], facts["replaces"])

    def write(self, store: Store) -> None:
        """Keep it, in place of what was being built before."""
        store.remember({"building": json.dumps(asdict(self))})


def publish(
    store: Store,
    generations: Generations,
    target: Generation,
    *,
    dimensions: int,
    keep_s: float,
    progress: Callable[[int], None] | None = None,
) -> bool:
    """Make what is searched show what the store holds. The caller holds `store.writer()`.

    Killed at any point, what was live before stays live. Every chunk needs its vector by now.

    Args:
        target: what to make if nothing is live yet; its name does not matter.
        keep_s: how long the generation before the last rebuild is kept.

    Returns:
        Whether anything changed for those who search.
    """
    live = generations.live()
    if live is None:
        built = generations.build(target.stamp, target.encoder, dimensions=dimensions, progress=progress)
        generations.swap(built, expected=None, keep=False)
        tidy(store, generations, store.revision(), keep_s=keep_s)
        return True
    if generations.shows_all(live):
        # Nothing came between, so whoever was still searching the generation before has long finished.
        tidy(store, generations, store.revision(), keep_s=keep_s)
        return False
    shown = _shown(generations, live)
    updated = generations.update(live, progress=progress)
    if updated != live:
        generations.swap(updated, expected=live, keep=False)
    tidy(store, generations, store.revision() if shown is None else shown, keep_s=keep_s)
    return True


def catch_up(store: Store, generations: Generations) -> None:
    """Build a lost or damaged generation again, and show what an interrupted run stored; nothing is encoded anew.

    Does nothing while another process is writing: that one will publish. Nor where chunks lack a vector: they cannot be shown,
    and the live generation is good until the next run. Nor on a machine whose store is empty: it only asks.
    """
    live = generations.live() if store.revision() else None
    if live is None or generations.shows_all(live):
        return
    for lacking in (store.without_chunks(live.stamp.chunking), store.without_vector(live.stamp.encoder, live.stamp.chunking)):
        if next(lacking, None) is not None:
            return
    try:
        with store.writer():
            publish(store, generations, live, dimensions=1, keep_s=float("inf"))
    except StoreLocked:
        return


def tidy(store: Store, generations: Generations, revision: int, *, keep_s: float) -> None:
    """Free what no search at `revision` or later, no rollback within `keep_s`, and no rebuild can ask for."""
    swapped = float(store.recall("swapped") or 0)
    if generations.previous() is not None and time.time() - swapped > keep_s:
        generations.forget_previous()
    building = Building.read(store)
    if building and time.time() - building.at > _ABANDONED_S and not store.is_rebuilding():
        store.remember({"building": None})
        building = None
    generations.collect(building=building.stamp if building else None)
    stamps = [generation.stamp for generation in (generations.live(), generations.previous()) if generation]
    if building:
        stamps.append(building.stamp)
        revision = min(revision, building.revision)
    if not stamps:
        return  # What was made for a first index that failed is wanted for the next attempt.
    store.collect(revision, chunkings={stamp.chunking for stamp in stamps}, encoders={stamp.encoder for stamp in stamps})


def _shown(generations: Generations, live: Generation) -> int | None:
    try:
        return generations.open(live).revision
    except IndexMissing:
        return None
