"""Tell easy from hard rows by how well search finds their positives today, and balance them. Knows no index and no model."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from finetune.data.schema import Difficulty, Row
from retriever.errors import BelegError

__all__ = ["CLASSES", "EQUAL", "Balanced", "Rank", "balance", "difficulty"]

CLASSES: tuple[Difficulty, ...] = ("easy", "medium", "hard")
EQUAL: Mapping[str, float] = {"easy": 1.0, "medium": 1.0, "hard": 1.0}

_LITTLE = 0.5
"""A balanced set with less than this share of the rows is worth a warning: data is dear."""

Rank = Callable[[Row], int | None]
"""Returns the rank, from 1 on, of the first hit that holds a row's positive; None if no hit does."""


@dataclass(frozen=True, slots=True)
class Balanced:
    """Rows after balancing, in the order in which they came.

    Attributes:
        before: rows of each class; "" has those that nothing answers, which are all kept.
        after: the same, afterwards.
        warnings: what somebody should know.
    """

    rows: list[Row]
    before: dict[str, int]
    after: dict[str, int]
    warnings: list[str] = field(default_factory=list)


def difficulty(rows: Iterable[Row], ranks_keyword: Rank, ranks_dense: Rank, *, easy: int = 3, hard: int = 10) -> list[Row]:
    """Return the rows with their difficulty; rows without a positive have none.

    Args:
        ranks_keyword: of BM25.
        ranks_dense: of the encoder that is to be trained.
        easy: a row is easy if both have its positive at this rank or better.
        hard: a row is hard if neither has it at this rank or better.

    >>> from finetune.data.schema import Context
    >>> row = Row("1", "Wer?", positives=(Context("Er."),))
    >>> [difficulty([row], lambda _: 1, lambda _, rank=rank: rank)[0].difficulty for rank in (3, 4, None)]
    ['easy', 'medium', 'medium']
    """

    def judged(row: Row) -> Difficulty:
        if not row.positives:
            return ""
        ranks = [rank or math.inf for rank in (ranks_keyword(row), ranks_dense(row))]
        return "easy" if max(ranks) <= easy else "hard" if min(ranks) > hard else "medium"

    return [replace(row, difficulty=judged(row)) for row in rows]


def balance(rows: Sequence[Row], *, shares: Mapping[str, float] = EQUAL, seed: int = 0, repeat: bool = False) -> Balanced:
    """Leave out rows at random so that the classes of difficulty stand in the ratio of the shares.

    Args:
        shares: by class; only their ratio matters. A class with 0, or one that is not named, is left out altogether.
        repeat: repeat rows of the rarer classes instead, and leave none out (but classes with 0).

    Raises:
        BelegError: a share is negative, of an unknown class, or all are 0; no row has a difficulty.

    >>> rows = [Row(str(number), "?", difficulty="easy" if number else "hard") for number in range(5)]
    >>> balance(rows).after
    {'easy': 1, 'hard': 1}
    """
    unknown = sorted(set(shares) - set(CLASSES))
    if unknown or not all(0 <= share < float("inf") for share in shares.values()) or not any(shares.values()):
        what = f"no class is called {', '.join(unknown)}" if unknown else "none may be negative, and one must be above 0"
        raise BelegError(f"The shares cannot be used: {what}.", way_out="Say, for instance, easy=1,medium=1,hard=1.")
    places: dict[Difficulty, list[int]] = defaultdict(list)
    for at, row in enumerate(rows):
        places[row.difficulty].append(at)
    if not any(places[name] for name in CLASSES):
        raise BelegError("No row has a difficulty yet.", way_out="`beleg data balance` measures it first; see `--help`.")
    present = [name for name in CLASSES if shares.get(name) and places[name]]
    per_share = [len(places[name]) / shares[name] for name in present]
    scale = (max if repeat else min)(per_share, default=0.0)
    times = Counter(places[""])
    for name in present:
        number = round(scale * shares[name])
        # Of each class something is left: a share of 1 to 1,000 would else empty it.
        times.update(_drawn(places[name], max(1, number), random.Random(f"{seed} {name}")))
    chosen = [row for at, row in enumerate(rows) for _ in range(times[at])]
    warnings = [
        f"No row is {name}, so nothing can be balanced with it." for name in CLASSES if shares.get(name) and not places[name]
    ]
    if len(chosen) < _LITTLE * len(rows) and len(present) > 1:
        rarest = min(present, key=lambda name: len(places[name]) / shares[name])
        warnings.append(f"{len(chosen)} of {len(rows)} rows are left, since only {len(places[rarest])} are {rarest}.")
    return Balanced(chosen, _counts(rows), _counts(chosen), warnings)


def _drawn(places: Sequence[int], number: int, chance: random.Random) -> list[int]:
    """Return `number` of the places: each as often as any other, but for a rest drawn at random."""
    whole, rest = divmod(number, len(places))
    return [*places] * whole + chance.sample(places, rest)


def _counts(rows: Sequence[Row]) -> dict[str, int]:
    counted = Counter(row.difficulty for row in rows)
    return {name: counted[name] for name in (*CLASSES, "") if counted[name]}
