"""At which rank each side of search finds what answers a row today. Knows nothing of what is made of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from finetune.data.schema import Row
from finetune.workspace import Workspace
from retriever.encode import Encoder
from retriever.metrics import Label, evaluate
from retriever.schema import Hit
from retriever.search import Searcher

__all__ = ["ranks"]

_DEPTH = 50
_MEASURE = f"RR@{_DEPTH}"


def ranks(
    rows: Sequence[Row],
    workspace: Workspace,
    encoder: Encoder,
    *,
    on_encoded: Callable[[int], None] = lambda _: None,
    on_searched: Callable[[], None] = lambda: None,
) -> dict[Literal["keyword", "dense"], list[int | None]]:
    """Ask both sides every question among all contexts of the rows.

    Args:
        workspace: gets the contexts that it lacks.
        on_encoded: is told how many chunks more have their vectors.
        on_searched: is told of each row that is done.

    Returns:
        For each side and row the rank of the first hit that holds the answer, from 1; None if none of the first fifty does, or
        the row has no positive.
    """
    workspace.add_rows(rows)
    searcher = Searcher(workspace.index(encoder, progress=on_encoded), encoder, alpha=0.5)
    labels = workspace.labels(rows)
    found: dict[Literal["keyword", "dense"], list[int | None]] = {"keyword": [], "dense": []}
    for number, row in enumerate(rows):
        wanted = labels.get(str(number), [])
        for mode, places in found.items():
            hits = searcher.search(row.question, limit=_DEPTH, mode=mode, merge=False) if wanted else []
            places.append(_rank(wanted, hits))
        on_searched()
    return found


def _rank(labels: Sequence[Label], hits: Sequence[Hit]) -> int | None:
    # Asked of the measure that everything else is measured by, so that a hit counts here if and only if it counts there.
    found = evaluate({"": labels}, {"": hits}, measures=[_MEASURE])[_MEASURE][""] if hits else 0.0
    return round(1 / found) if found else None
