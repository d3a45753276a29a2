"""Documents out of the store and out of what is searched. Their files are not looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from retriever.index.base import Generations
from retriever.ingest import Outcome
from retriever.publish import publish
from retriever.store import Store

__all__ = ["remove"]


def remove(
    store: Store,
    generations: Generations,
    documents: Sequence[str],
    *,
    keep_s: float,
    wait_s: float = 0.0,
    on_outcome: Callable[[Outcome], None] = lambda _: None,
) -> None:
    """Forget documents. Nothing is encoded, so this needs no model.

    Args:
        documents: their ids; one that is not there, or not any more, counts as unchanged.
        keep_s: see `publish`.
        wait_s: how long to wait for another run to finish.
        on_outcome: told of each document as soon as the store has forgotten it.

    Raises:
        StoreLocked: another run is writing.
        StoreError: the index cannot be brought up to date before the next `beleg index`; the store is.
    """
    with store.writer(wait_s=wait_s):
        generations.check()
        for document in documents:
            source = store.source_of(document) or document
            gone = bool(store.listed(document)) and store.remove(source)
            on_outcome(Outcome(source, "removed" if gone else "unchanged"))
        live = generations.live(fresh=True)
        if live:
            publish(store, generations, live, dimensions=1, keep_s=keep_s)
