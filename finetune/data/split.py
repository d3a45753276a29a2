"""Split rows into train, dev and test so that nothing leaks from one into another. Knows no file.

Rows that share a document, a question id, a positive context or nearly a question form a group, and a group is never divided:
a model that has seen the article, or the same question in another language, is not measured on what it has not seen.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from finetune.data.duplicates import near_pairs, same
from finetune.data.schema import Row
from retriever.errors import BelegError

__all__ = ["PARTS", "SHARES", "Splits", "groups", "split"]

PARTS = ("train", "dev", "test")
SHARES = (0.7, 0.1, 0.2)

_LINE = re.compile(r", line \d+")


@dataclass(frozen=True, slots=True)
class Splits:
    """Rows in three parts, each in the order in which they came.

    Attributes:
        shares: of train, dev, test, as asked for.
        groups: how many there are in each part.
        largest: rows in the largest group.
        warnings: what somebody should know before relying on the split.
    """

    train: list[Row]
    dev: list[Row]
    test: list[Row]
    shares: tuple[float, float, float]
    seed: int
    groups: tuple[int, int, int]
    largest: int
    warnings: list[str] = field(default_factory=list)

    def parts(self) -> dict[str, list[Row]]:
        """Return the three parts by name."""
        return dict(zip(PARTS, (self.train, self.dev, self.test), strict=True))

    def report(self) -> dict[str, object]:
        """Return counts of each part, for people and for JSON."""
        counts = {
            name: {
                "rows": len(rows),
                "groups": number,
                "documents": len({row.document for row in rows if row.document}),
                "languages": dict(Counter(row.language for row in rows).most_common()),
            }
            for (name, rows), number in zip(self.parts().items(), self.groups, strict=True)
        }
        return {"shares": list(self.shares), "seed": self.seed, "parts": counts, "largest_group": self.largest,
                "warnings": self.warnings}  # fmt: skip


def split(rows: Iterable[Row], *, shares: Sequence[float] = SHARES, seed: int = 0) -> Splits:
    """Divide rows by groups, with languages and sources in each part as in the whole, as well as the groups allow.

    Groups are given away from the largest to the smallest, each to the part that lacks most of its languages and sources. The
    same rows and seed give the same parts, whatever the order of the rows.

    Args:
        shares: of rows in train, dev and test; dev and test may be 0.

    Raises:
        BelegError: there are no rows, or the shares are not three numbers that add up to 1, with something for train.
    """
    rows = list(rows)
    wanted = _checked(shares)
    if not rows:
        raise BelegError("There are no rows to split.", way_out="Look at the sources with `beleg data check`.")
    keys = _keys(rows)
    members = sorted(groups(rows), key=lambda group: (-len(group), _key(f"{seed} {min(keys[at] for at in group)}")))
    placed = _placed(rows, members, wanted)
    part = {at: number for group, number in zip(members, placed, strict=True) for at in group}
    train, dev, test = chosen = [[row for at, row in enumerate(rows) if part[at] == number] for number in range(3)]
    counted = Counter(placed)
    return Splits(
        train=train,
        dev=dev,
        test=test,
        shares=wanted,
        seed=seed,
        groups=(counted[0], counted[1], counted[2]),
        largest=len(members[0]),
        warnings=_warnings(rows, members, wanted, chosen),
    )


def groups(rows: Sequence[Row]) -> list[list[int]]:
    """Return positions of rows that must stay together, as connected components.

    >>> groups([Row("1", "Wer?", document="a"), Row("2", "Was?", document="b"), Row("3", "Wo?", document="a")])
    [[0, 2], [1]]
    """
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first: dict[tuple[str, str], int] = {}
    known = cache(same)
    pairs = [(at, first.setdefault(link, at)) for at, row in enumerate(rows) for link in _links(row, known)]
    pairs += near_pairs([row.question for row in rows])
    ends = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends), bool), (ends[:, 0], ends[:, 1])), shape=(len(rows), len(rows)))
    found: dict[int, list[int]] = defaultdict(list)
    for at, label in enumerate(connected_components(graph, directed=False)[1].tolist()):
        found[label].append(at)
    return list(found.values())


def _links(row: Row, known: Callable[[str], str]) -> list[tuple[str, str]]:
    # A positive that another row has as a negative does not join: being told apart from is not being learnt.
    links = [("document", row.document)] if row.document else []
    if row.id:
        links.append(("id", row.id))
    return links + [("context", known(context.text)) for context in row.positives if context.text.strip()]


def _checked(shares: Sequence[float]) -> tuple[float, float, float]:
    fine = len(shares) == 3 and all(math.isfinite(share) and 0 <= share <= 1 for share in shares)
    if not fine or not math.isclose(sum(shares), 1, abs_tol=1e-6) or not shares[0]:
        raise BelegError(
            f"The shares {', '.join(f'{share:g}' for share in shares)} are not three numbers that add up to 1.",
            way_out="Say, for instance, .7,.1,.2: the shares of train (not 0), dev and test.",
        )
    return shares[0], shares[1], shares[2]


def _keys(rows: Sequence[Row]) -> list[str]:
    """Return what a row is told from others by, wherever it stands in which file."""
    return [_key(repr(replace(row, origin=""))) for row in rows]


def _key(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _stratum(row: Row) -> tuple[str, str]:
    return row.language, _LINE.split(row.origin)[0]


def _placed(rows: Sequence[Row], members: Sequence[Sequence[int]], shares: Sequence[float]) -> list[int]:
    """Return the part of each group; strata count as if each were as large as any other."""
    totals = Counter(_stratum(row) for row in rows)
    strata = [Counter(_stratum(rows[at]) for at in group) for group in members]
    filled: list[Counter[tuple[str, str]]] = [Counter(), Counter(), Counter()]

    def cost(part: int, group: Mapping[tuple[str, str], int]) -> float:
        """Return by how much the squared distance from the wanted numbers grows, relative to them."""
        grown = []
        for stratum, number in group.items():
            target = shares[part] * totals[stratum]
            lacking = target - filled[part][stratum]
            grown.append(((lacking - number) ** 2 - lacking**2) / (target * totals[stratum]))
        # Exact, whatever the order: the same rows shuffled would else be split in another way.
        return math.fsum(grown)

    open_parts = [part for part in range(3) if shares[part]]
    placed = []
    for group in strata:
        part = min(open_parts, key=lambda part: (cost(part, group), -shares[part], part))
        filled[part].update(group)
        placed.append(part)
    for part in open_parts:
        # With few groups a small part may have gone without: it gets the smallest group of whoever has several.
        counted = Counter(placed)
        fullest = max(open_parts, key=lambda other: (counted[other], shares[other]))
        if not counted[part] and counted[fullest] > 1:
            placed[max(at for at, other in enumerate(placed) if other == fullest)] = part
    return placed


def _warnings(
    rows: Sequence[Row], members: Sequence[Sequence[int]], shares: Sequence[float], chosen: Sequence[Sequence[Row]]
) -> list[str]:
    found = []
    large = [name for name, share in zip(PARTS, shares, strict=True) if share and len(members[0]) > share * len(rows)]
    if large:
        group = [rows[at] for at in members[0]]
        documents = Counter(row.document for row in group if row.document)
        named = f", most of all {documents.most_common(1)[0][0]!r}" if documents else ""
        found.append(
            f"The largest group has {len(group)} of {len(rows)} rows, from {len(documents)} documents{named}: more than "
            f"{' or '.join(large)} should hold. Its rows share documents, ids, contexts or nearly a question."
        )
    found += [
        f"The part {name} should hold {share:.0%} of the rows and holds none: there are too few groups."
        for name, share, part in zip(PARTS, shares, chosen, strict=True)
        if share and not part
    ]
    return found
