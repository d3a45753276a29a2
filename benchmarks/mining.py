"""Looking for negatives against the bare FAISS call that the same work needs, in one run, on made-up vectors and texts.

Vectors lie in clusters, so that there are near ones; every question's vector lies by its passage's. Both sides take turns, with
all threads; numbers are medians over the repetitions, ratios are medians of each repetition's ratio. `hard`, which filters what
`nearest` and the others have found, has no bare call of its own: its ratio is to the search whose results it looks at.

    python benchmarks/mining.py [--rows 10000 --passages 100000 --dimensions 384 --repeats 3]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
from record import DEFAULT_OUT, cores, record

from finetune.negatives import Filter, far, farthest, hard, nearest

Vectors = npt.NDArray[np.float32]

_DEPTH = 30
_SHARE = 0.05
_SLACK = 33  # what `far` looks at beyond the passages that it draws from
_CLUSTER = 200
_VOCABULARY = 5000


def made_up(rows: int, passages: int, dimensions: int, seed: int) -> tuple[Vectors, Vectors, npt.NDArray[np.int64], list[str]]:
    """Return vectors of questions and passages, each question's passage, and the passages' texts, a hundredth of them twice."""
    draw = np.random.default_rng(seed)

    def unit(vectors: npt.NDArray[np.float64]) -> Vectors:
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    centres = unit(draw.normal(size=(max(2, passages // _CLUSTER), dimensions)))
    noise = draw.normal(size=(passages, dimensions)) / np.sqrt(dimensions)
    vectors = unit(centres[draw.integers(len(centres), size=passages)] + 0.8 * noise)
    positives = draw.integers(passages, size=rows)
    queries = unit(vectors[positives] + 0.7 * draw.normal(size=(rows, dimensions)) / np.sqrt(dimensions))
    words = [f"w{number}" for number in range(_VOCABULARY)]
    texts = [" ".join(words[at] for at in row) for row in draw.integers(_VOCABULARY, size=(passages, 120))]
    for copy in range(0, passages, 100):
        texts[copy] = texts[(copy + 1) % passages]
    return queries, vectors, positives, texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    options = parser.parse_args()
    queries, vectors, positives, texts = made_up(options.rows, options.passages, options.dimensions, options.seed)
    golden = vectors[positives]
    pool = max(1, round(_SHARE * len(vectors)))
    near = nearest(queries, vectors, depth=_DEPTH)

    def same(passage: int, row: int) -> bool:
        return texts[passage] == texts[positives[row]]

    def filtered() -> object:
        rows = [
            (f"question {at}", queries[at], [f"w{at % _VOCABULARY} w{at * 7 % _VOCABULARY}"], int(positive), {int(positive)})
            for at, positive in enumerate(positives)
        ]
        return hard(rows, [[found.tolist()] for found in near], Filter(texts, vectors), wanted=1)

    work: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "farthest": (lambda: farthest(golden, vectors, depth=1), lambda: bare(-golden, vectors, 1)),
        "far": (lambda: far(golden, vectors, same=same), lambda: bare(-golden, vectors, 1 + _SLACK)),
        "far_share": (
            lambda: far(golden, vectors, share=_SHARE, same=same),
            lambda: bare(-golden, vectors, min(len(vectors), pool + _SLACK)),
        ),
        "nearest": (lambda: nearest(queries, vectors, depth=_DEPTH), lambda: bare(queries, vectors, _DEPTH)),
        "hard": (filtered, lambda: bare(queries, vectors, _DEPTH)),
    }
    numbers: dict[str, float] = {}
    for name, (ours, theirs) in work.items():
        rounds = [(seconds(ours), seconds(theirs)) for _ in range(options.repeats)]
        numbers[f"{name}_s"] = median(own for own, _ in rounds)
        numbers[f"{name}_bare_s"] = median(other for _, other in rounds)
        numbers[f"{name}_ratio"] = median(own / other for own, other in rounds)
        print(f"{name:10} {numbers[f'{name}_s']:8.3f} s, bare {numbers[f'{name}_bare_s']:8.3f} s", flush=True)
    shape = f"{options.rows} {options.passages} {options.dimensions}"
    line = record(
        "mining", data=shape.encode(), seed=options.seed, out=options.out, rows=options.rows, passages=options.passages,
        dimensions=options.dimensions, repeats=options.repeats, depth=_DEPTH, share=_SHARE, threads=cores(),
        **numbers,
    )  # fmt: skip
    print(json.dumps(line))


def bare(queries: Vectors, vectors: Vectors, depth: int) -> Any:
    """Return what FAISS finds in one call; of vectors of length 1, the largest inner product is the smallest L2 distance."""
    import faiss

    faiss.omp_set_num_threads(cores())
    return faiss.knn(queries, vectors, depth, metric=faiss.METRIC_INNER_PRODUCT)


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
