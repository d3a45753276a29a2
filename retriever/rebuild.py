"""Another generation beside the live one, and a swap that nobody notices; and the way back.

While the new generation is made, questions are answered and documents change as before: the store keeps the chunks and vectors
of both. What changed meanwhile is carried over under the writer's lock, which takes as long as those changes do. Killed at
any point, what is live stays live, and the next run goes on with what is made already.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from retriever.encoders import Encoders
from retriever.errors import GateFailed, IndexDamaged, IndexMissing, SwapLost
from retriever.fill import Maker, size_of
from retriever.gate import Gate, Verdict
from retriever.index.base import Generation, Generations, Stamp
from retriever.live import Live
from retriever.publish import Building, tidy
from retriever.search import Searcher
from retriever.store import Store

__all__ = ["Phase", "Rebuild", "Report", "rollback", "swapped_already"]

Phase = Literal["encode", "build", "verify", "gate", "swap"]

_PATIENCE_S = 3600.0
"""How long the swap waits for a run of `beleg index` to finish."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a rebuild or rollback did; `verdict` is the gate's, if there was one."""

    generation: Generation
    replaced: Generation | None
    documents: int
    chunks: int
    verdict: Verdict | None


@dataclass
class Rebuild:
    """One rebuild.

    Args:
        maker: of the new generation.
        reference: the model reference by which the maker's encoder was opened.
        encoders: for the live generation's, which the gate compares with.
        alpha: weight of the dense side, for the gate; None compares each index with its own encoder's. No reranker
            takes part: it would hide what an index finds too late.
        gate: what the new generation must pass; None asks nothing.
        start: a generation of the maker's stamp to bring up to date, instead of building one.
        on_phase: told of each phase as it begins, with the number of things to do if that is known.
        on_progress: told how many more things of the phase are done.
    """

    store: Store
    generations: Generations
    maker: Maker
    reference: str
    encoders: Encoders
    alpha: float | None
    gate: Gate | None = None
    start: Generation | None = None
    on_phase: Callable[[Phase, int | None], None] = field(default=lambda *_: None)
    on_progress: Callable[[int], None] = field(default=lambda _: None)

    def run(self) -> Report:
        """Build, verify, and swap.

        Raises:
            StoreLocked: another rebuild is running, or a run of `beleg index` does not end.
            IndexDamaged: the new generation does not hold what the store does.
            GateFailed: it finds less than the live one.
            SwapLost: another generation became live.
        """
        with self.store.rebuilding():
            if swapped_already(self.store, self.generations, self.maker.stamp, back=self._back):
                with self.store.writer(wait_s=_PATIENCE_S):
                    return self._conclude(self.generations.previous(), None)
            try:
                return self._run()
            except (GateFailed, IndexDamaged, SwapLost):
                # It will not be gone on with. The lock: a run of `beleg index` may be about to publish what would be deleted.
                with self.store.writer(wait_s=_PATIENCE_S):
                    self.store.remember({"building": None})
                    tidy(self.store, self.generations, 0, keep_s=float("inf"))
                raise

    def _run(self) -> Report:
        # Hours would be lost if one of these failed at the end.
        self.generations.check(anew=True)
        replaced = self.generations.live(fresh=True)
        if self.gate and replaced:
            self.gate.place(self.store)
        Building(self.maker.stamp, self.store.revision()).write(self.store)
        built = self._build(self._fill())
        self.on_phase("verify", None)
        self.generations.verify(built)
        verdict = self._judge(built)
        self.on_phase("swap", None)
        with self.store.writer(wait_s=_PATIENCE_S):
            return self._swap(built, verdict, replaced)

    def _fill(self) -> int:
        """Make all chunks and vectors, and return a revision at which none are lacking."""
        chunking = self.maker.stamp.chunking
        # Documents without chunks are cut first; how many chunks that gives is not known before.
        known = next(self.store.without_chunks(chunking), None) is None
        missing = sum(1 for _ in self.store.without_vector(self.maker.encoder.fingerprint, chunking)) if known else None
        self.on_phase("encode", missing)
        self.maker.fill(self.store, progress=self.on_progress)
        # What changed in the meantime is little by now; the lock keeps more from coming.
        with self.store.writer(wait_s=_PATIENCE_S):
            self.maker.fill(self.store, progress=self.on_progress)
            revision = self.store.revision()
            Building(self.maker.stamp, revision).write(self.store)
        return revision

    def _build(self, revision: int) -> Generation:
        stamp = self.maker.stamp
        self.on_phase("build", self.store.count(revision, stamp.chunking)[1])
        if self.start:
            return self.generations.update(self.start, revision=revision, progress=self.on_progress)
        dimensions = self.maker.encoder.dimensions
        return self.generations.build(
            stamp, self.reference, dimensions=dimensions, revision=revision, progress=self.on_progress
        )

    def _judge(self, built: Generation) -> Verdict | None:
        if not self.gate or not self.generations.live(fresh=True):
            return None
        self.on_phase("gate", 2 * len(self.gate.questions))
        # What is live by now: runs of `beleg index` have gone on.
        before = Live(self.generations, self.encoders, alpha=self.alpha).searcher()
        after = Searcher(self.generations.open(built), self.maker.encoder, alpha=self.alpha)
        return self.gate.check(before, after, self.store)

    def _swap(self, built: Generation, verdict: Verdict | None, replaced: Generation | None) -> Report:
        """Carry over what changed since, and make the new generation live. The caller holds the writer's lock."""
        self.maker.fill(self.store)
        current = self.generations.update(built)
        self.generations.verify(current)
        live = self.generations.live(fresh=True)
        self._check_refused(current, live)
        if (live and live.stamp) != (replaced and replaced.stamp):
            raise SwapLost("Another index has become live meanwhile.", way_out="Nothing has changed; run this again.")
        replaces = live.name if live else ""
        Building(self.maker.stamp, self.store.revision(), replaces=replaces, back=self._back).write(self.store)
        self.store.remember({"swapped": str(time.time())})
        self.generations.swap(current, expected=live, keep=True)
        return self._conclude(live, verdict)

    def _conclude(self, replaced: Generation | None, verdict: Verdict | None) -> Report:
        # What the old generation shows may still be asked for by those who have it open.
        tidy(self.store, self.generations, 0, keep_s=float("inf"))
        live = self.generations.live(fresh=True)
        assert live is not None
        documents, chunks = self.store.count(self.store.revision(), self.maker.stamp.chunking)
        # Last of all: whoever is stopped before finds by it that the swap is done.
        self.store.remember({"building": None})
        return Report(live, replaced, documents, chunks, verdict)

    def _check_refused(self, new: Generation, live: Generation | None) -> None:
        known = {refused.source for refused in self.generations.refused(live)} if live else set()
        lost = [refused for refused in self.generations.refused(new) if refused.source not in known]
        if lost:
            raise IndexDamaged(
                f"The new index does not take {len(lost)} documents, such as {lost[0].source}: {lost[0].reason}.",
                way_out="Nothing has changed. With another encoder, look at the vectors that it makes.",
            )

    @property
    def _back(self) -> bool:
        return self.start is not None


def rollback(
    store: Store,
    generations: Generations,
    encoders: Encoders,
    *,
    alpha: float | None = None,
    on_phase: Callable[[Phase, int | None], None] = lambda *_: None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Report:
    """Make the generation before the last rebuild live again, with all that has changed since.

    The one that is live now becomes the previous one, so that a second rollback goes forward again.

    Raises:
        IndexMissing: there is nothing to go back to.
        IndexMismatch: its encoder is not here any more, or an earlier version of Beleg made it.
    """
    previous = generations.previous()
    if previous is None:
        raise IndexMissing(
            "There is no earlier index to go back to.",
            way_out="It is kept for the time that the setting `rollback_days` says. `beleg rebuild` makes a new one.",
        )
    live = generations.live()
    # Killed right after its swap, a rollback that is run again must not go forward again.
    target = live if live and swapped_already(store, generations, live.stamp, back=True) else previous
    maker = Maker(encoders.of(target), size_of(target))
    return Rebuild(store, generations, maker, target.encoder, encoders, alpha, None, target, on_phase, on_progress).run()


def swapped_already(store: Store, generations: Generations, stamp: Stamp, *, back: bool) -> bool:
    """Say whether such a run was killed after its swap, with nothing left to do but to tidy up.

    Args:
        stamp: of what it was making.
        back: whether it was a rollback.
    """
    building, live, previous = Building.read(store), generations.live(fresh=True), generations.previous()
    if not building or not live or not previous or building.replaces != previous.name or building.back != back:
        return False
    return building.stamp == live.stamp == stamp
