"""From the store to what is searched: bring the live generation up to date, and free what nobody can ask for any more."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

from retriever.errors import IndexDamaged, IndexMissing, IndexUnavailable, StoreError, StoreLocked, SwapLost
from retriever.index.base import Generation, Generations, Stamp
from retriever.store import Store

__all__ = ["Building", "catch_up", "publish", "tidy"]

_log = logging.getLogger(__name__)

_FORGOTTEN_S = 30 * 86400.0
"""For how long what another engine's index needs is kept after that engine was used last."""

_ABANDONED_S = 2 * 86400.0
"""For how long what a killed rebuild has made is kept for the run that goes on with it."""


@dataclass(frozen=True, slots=True)
class Building:
    """What a rebuild is making, or was making when it was killed: kept from being freed.

    Attributes:
        revision: rows that were current at it, or later, are needed.
        at: when that was written, in seconds since the epoch.
        replaces: the generation that is about to be replaced, once all is ready.
        back: whether it is a rollback.
    """

    stamp: Stamp
    revision: int
    at: float = field(default_factory=time.time)
    replaces: str = ""
    back: bool = False

    @classmethod
    def read(cls, store: Store) -> Building | None:
        """Return what is being built, or None."""
        text = store.recall("building")
        if text is None:
            return None
        facts = json.loads(text)
        return cls(**{**facts, "stamp": Stamp(**facts["stamp"])})

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
    live = generations.live(fresh=True)
    if live is None:
        built = generations.build(target.stamp, target.encoder, dimensions=dimensions, progress=progress)
        generations.swap(built, expected=None, keep=False)
        tidy(store, generations, store.revision(), keep_s=keep_s)
        return True
    shown, current = _shown(generations, live), generations.shows_all(live)
    # Also if there is nothing new: an engine on a server mends what came late or was lost.
    updated = generations.update(live, progress=progress)
    if updated != live:
        generations.swap(updated, expected=live, keep=False)
    # If nothing came between, whoever was still searching what was there before has long finished.
    tidy(store, generations, store.revision() if current or shown is None else shown, keep_s=keep_s)
    return not current


def catch_up(store: Store, generations: Generations) -> None:
    """Build a lost or damaged generation again, and show what an interrupted run stored; nothing is encoded anew.

    Does nothing while another process is writing: that one will publish. Nor where chunks lack a vector: they cannot be shown,
    and the live generation is good until the next run. Nor on a machine whose store is empty: it only asks. What else keeps it
    from catching up is logged.
    """
    if not store.revision():
        return
    try:
        live = generations.live()
        if live is None or generations.shows_all(live) or _lacks(store, live.stamp):
            return
        with store.writer():
            publish(store, generations, live, dimensions=1, keep_s=float("inf"))
    except StoreLocked:
        return
    except (IndexDamaged, IndexUnavailable, StoreError, SwapLost) as error:
        # What can be searched may be behind, which is no reason not to search it.
        _log.warning("%s", error)


def _lacks(store: Store, stamp: Stamp) -> bool:
    lacking = (store.without_chunks(stamp.chunking), store.without_vector(stamp.encoder, stamp.chunking))
    return any(next(some, None) is not None for some in lacking)


def tidy(store: Store, generations: Generations, revision: int, *, keep_s: float) -> None:
    """Free what no search at `revision` or later, no rollback within `keep_s`, and no rebuild can ask for.

    Another engine, or another index of the same engine, may show the same store: what it needs is kept as well.
    """
    swapped = float(store.recall("swapped") or 0)
    if generations.previous() is not None and time.time() - swapped > keep_s:
        generations.forget_previous()
    building = Building.read(store)
    if building and time.time() - building.at > _ABANDONED_S and not store.is_rebuilding():
        store.remember({"building": None})
        building = None
    try:
        generations.collect(building=building.stamp if building else None)
    except IndexUnavailable as error:
        _log.warning("An index that is not needed any more stays for now: %s", error)
    served = [generation.stamp for generation in (generations.live(fresh=True), generations.previous()) if generation]
    needs = [*_needs_elsewhere(store, generations.place, served, revision), (served, revision)]
    if building:
        needs.append(([building.stamp], building.revision))
    stamps = [stamp for some, _ in needs for stamp in some]
    if not stamps:
        return  # What was made for a first index that failed is wanted for the next attempt.
    store.collect(
        min(revision for _, revision in needs),
        chunkings={stamp.chunking for stamp in stamps},
        encoders={stamp.encoder for stamp in stamps},
    )


def _needs_elsewhere(store: Store, place: str, served: Sequence[Stamp], revision: int) -> list[tuple[list[Stamp], int]]:
    """Remember what is needed here, and return what other places need, with the revision that they show."""
    here = {"at": time.time(), "revision": revision, "stamps": [asdict(stamp) for stamp in served]}
    store.remember({f"place {place}": json.dumps(here)})
    found = []
    for other, text in store.recall_all("place ").items():
        facts = json.loads(text)
        if time.time() - facts["at"] > _FORGOTTEN_S:
            store.remember({f"place {other}": None})
        elif other != place:
            found.append(([Stamp(**stamp) for stamp in facts["stamps"]], int(facts["revision"])))
    return found


def _shown(generations: Generations, live: Generation) -> int | None:
    try:
        return generations.open(live).revision
    except IndexMissing:
        return None
