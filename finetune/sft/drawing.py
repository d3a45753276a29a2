"""Which of its passages a row shows this time. Knows neither tokens nor models."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from finetune.raft.row import RaftRow
from finetune.recipe_reader import Passages, Prompt
from reader.quotes import Span

__all__ = ["drawn", "held", "only", "plain"]


def drawn(row: RaftRow, passages: Passages, draw: random.Random) -> RaftRow:
    """Return the row with as many of its passages as were drawn, shuffled; quotes move along.

    A row that loses its golden passage becomes one that abstains: nobody learns to quote what is not shown (RAFT's own
    generator does, arXiv 2403.10131).
    """
    if passages.count is None and passages.golden is None:
        return row
    count = len(row.passages) if passages.count is None else draw.choice(passages.count)
    kept_whole = held(row)
    others = [number for number in range(1, len(row.passages) + 1) if number not in kept_whole]
    lost = bool(kept_whole and others) and passages.golden is not None and draw.random() >= passages.golden
    kept = [] if lost else sorted(kept_whole)
    shown = [*kept, *draw.sample(others, max(0, min(len(others), count - len(kept))))]
    draw.shuffle(shown)
    return only(row, shown)


def only(row: RaftRow, shown: Sequence[int]) -> RaftRow:
    """Return the row with these of its passages, in this order; it abstains if one that its answer rests on is missing."""
    place = {number: at for at, number in enumerate(shown, start=1)}
    passages = tuple(row.passages[number - 1] for number in shown)
    if not held(row) <= place.keys():
        return replace(row, passages=passages, golden=None, quotes=(), reasoning="", abstains=True)
    quotes = tuple(Span(place[one.passage], one.start, one.end) for one in row.quotes)
    return replace(row, passages=passages, golden=place[row.golden] if row.golden else None, quotes=quotes)


def held(row: RaftRow) -> set[int]:
    """Return the passages that an answer rests on: the golden one, and whatever else is quoted."""
    return {one.passage for one in row.quotes} | ({row.golden} if row.golden else set())


def plain(row: RaftRow, prompt: Prompt) -> RaftRow:
    """Return the row without reasoning and quotes, if that is how its answer is learnt."""
    return row if prompt.chain_of_thought else replace(row, quotes=(), reasoning="")
