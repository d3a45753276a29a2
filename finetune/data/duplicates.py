"""Find texts that say nearly the same in nearly the same words. Knows nothing of rows.

Pairs to compare come from MinHash banding (Broder 1997, https://doi.org/10.1109/SEQUEN.1997.666900; bands as in Leskovec et
al., Mining of Massive Datasets, 3.4), so that a hundred thousand questions take seconds instead of five thousand million
comparisons. Whether a pair is compared depends on its two texts only, never on what else is there.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

__all__ = ["NEAR", "near_pairs", "near_texts", "same", "sketch", "sorted_words"]

NEAR = 0.95
"""From this similarity on, two texts are near-identical."""

# 40 bands of 5: pairs that share .65 of their letter triples, as three changed letters in sixty leave, are found in 99 of 100
# cases; of unrelated pairs that share .15 of them, 3 in 1,000 are compared.
_BANDS = 40
_ROWS = 5
_WIDTH = 3
_SEED = 2026
_SKETCH = 8
_MANY = 1_000_000

_WORD = re.compile(r"\w+")
_DIGIT = re.compile(r"\d")

Numbers = npt.NDArray[np.uint64]


def same(text: str) -> str:
    r"""Return what is equal for texts that differ only in white space, case, or how letters are coded.

    >>> same(" Das\tHAUS\n") == same("das Haus")
    True
    """
    return unicodedata.normalize("NFKC", " ".join(text.split()).casefold())


def near_pairs(texts: Sequence[str], *, threshold: float = NEAR) -> Iterator[tuple[int, int]]:
    """Yield pairs of positions, the lower first, whose texts have nearly the same words in any order, and the same numbers.

    Similarity is rapidfuzz's `token_sort_ratio`. Not `token_ratio`: that calls two texts equal if one has all the words of the
    other, and "Who won?" is not "Who won in 1999?". Equal texts are paired each with the one before, not with all.

    Args:
        threshold: of the similarity, 0 to 1. Pairs well below .9 may be missed.

    >>> list(near_pairs(["Wer zahlt die Reise?", "Was kostet das?", "Die Reise, wer zahlt?", "Wer zahlt 2 Reisen?"]))
    [(0, 2)]
    """
    from rapidfuzz import fuzz

    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for number, text in enumerate(texts):
        key = sorted_words(text)
        if key in last:
            yield last[key], number
        first.setdefault(key, number)
        last[key] = number
    keys = [key for key in first if key]
    places = [first[key] for key in keys]
    for left, right in _candidates(keys):
        if fuzz.ratio(keys[left], keys[right], score_cutoff=100 * threshold):
            one, other = places[left], places[right]
            yield (one, other) if one < other else (other, one)


def near_texts(one: str, other: str, *, threshold: float = NEAR) -> bool:
    """Tell whether two contexts are the same but for small things; `same` has been applied to both."""
    from rapidfuzz import fuzz

    return one == other or bool(fuzz.ratio(one, other, score_cutoff=100 * threshold))


def sketch(text: str) -> frozenset[int]:
    """Return the least hashes of a context's word pairs; near-identical contexts have at least one of them in common.

    If a fifth of the pairs differ, all eight are lost once in 400,000 times.
    """
    words = text.split()
    pairs = {" ".join(pair) for pair in pairwise(words)} or {text}
    return frozenset(sorted(zlib.crc32(pair.encode("utf-8", "surrogatepass")) for pair in pairs)[:_SKETCH])


def sorted_words(text: str) -> str:
    """Return the words of a text in the order of the alphabet: what questions are compared by.

    >>> sorted_words("Die Reise, wer zahlt?")
    'die reise wer zahlt'
    """
    return " ".join(sorted(_WORD.findall(same(text))))


def _candidates(keys: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield distinct pairs that have a band in common and the same numbers."""
    if len(keys) < 2:
        return
    numbers = np.array([_hash(" ".join(word for word in key.split() if _DIGIT.search(word))) for key in keys], np.uint64)
    found: list[Numbers] = []
    waiting = 0
    for band in _bands(keys):
        pairs = _pairs(band ^ numbers, len(keys))
        found.append(pairs)
        waiting += len(pairs)
        if waiting > _MANY:
            found = [np.unique(np.concatenate(found))]
            waiting = 0
    for pair in np.unique(np.concatenate(found)).tolist():
        yield divmod(pair, len(keys))


def _pairs(band: Numbers, total: int) -> Numbers:
    """Return pairs of positions that have equal values, each as one number: lower times `total`, plus higher."""
    order = np.argsort(band, kind="stable")
    values = band[order]
    edges = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1], [True]]))
    sizes = np.diff(edges)
    parts = [np.empty(0, np.uint64)]
    for size in np.unique(sizes[sizes > 1]).tolist():
        # All groups of a size at once: shape (groups, size).
        members = order[edges[:-1][sizes == size][:, None] + np.arange(size)].astype(np.uint64)
        lower, higher = np.triu_indices(size, 1)
        parts.append((members[:, lower] * np.uint64(total) + members[:, higher]).ravel())
    return np.concatenate(parts)


def _bands(keys: Sequence[str]) -> Iterator[Numbers]:
    """Yield a value for each text, shape (texts,), once for each band."""
    # Two spaces between words: no triple spans two of them, so that their order does not matter.
    joined = "".join(f"  {key.replace(' ', '  ')}  " for key in keys)
    lengths = np.array([len(key) + key.count(" ") + 4 for key in keys])
    letters = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    # Triples that begin in the last two places would reach into the next text.
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    grams = np.zeros(len(letters), np.uint64)
    for place, factor in enumerate((0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)[:_WIDTH]):
        grams[: len(letters) - _WIDTH + 1] += letters[place : len(letters) - _WIDTH + 1 + place] * np.uint64(factor)
    inside = np.ones(len(letters), bool)
    ends = starts + lengths
    inside[ends - 1] = inside[ends - 2] = False
    grams, starts = grams[inside], starts - 2 * np.arange(len(keys))
    random = np.random.default_rng(_SEED)
    for _ in range(_BANDS):
        band = np.zeros(len(keys), np.uint64)
        for _ in range(_ROWS):
            band = _mixed(band + np.minimum.reduceat(_mixed(grams ^ random.integers(2**63, dtype=np.uint64)), starts))
        yield band


def _mixed(values: Numbers) -> Numbers:
    """Return well-spread numbers (the middle of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    return values ^ (values >> np.uint64(27))


def _hash(text: str) -> int:
    """Return a number of 64 bits that is the same in every run."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
