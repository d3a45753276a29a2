"""Latency, recall, memory and disk of the embedded engine with synthetic chunks; the question's vector is given.

Vectors are clustered, like those of text; words follow Zipf's law. Recall is against exact cosines over all vectors. The bare
library is FAISS with the same index, without keywords, filters, fusion and reading the passages.

    python benchmarks/search.py [--chunks 10000 100000]
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np
from record import DEFAULT_OUT, record

from retriever.index.base import Stamp
from retriever.index.embedded import EmbeddedIndex, build
from retriever.schema import Chunk, Document
from retriever.search import Searcher
from retriever.store import IndexedChunk, Store

DIMENSIONS, PER_DOCUMENT, SEED = 384, 20, 7


class Given:
    """An encoder whose next query's vector is set from outside, so that encoding takes no time."""

    fingerprint, tokenizer, dimensions, max_tokens = "given", "given", DIMENSIONS, 256
    vector: np.ndarray

    def encode_query(self, _: str) -> np.ndarray:
        return self.vector


def fill(store: Store, count: int, rng: np.random.Generator) -> np.ndarray:
    centres = rng.normal(size=(max(1, count // 20), DIMENSIONS)).astype(np.float32)
    # A digit makes a word an identifier: the analyser leaves it as it is, so questions meet it.
    words = np.array([f"wort{number}" for number in range(50_000)])
    for number in range(count // PER_DOCUMENT):
        vectors = centres[rng.integers(0, len(centres), PER_DOCUMENT)] + 0.7 * rng.normal(size=(PER_DOCUMENT, DIMENSIONS))
        vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        chunks = []
        for place in range(PER_DOCUMENT):
            terms = words[np.minimum(rng.zipf(1.3, 90) - 1, len(words) - 1)].tolist()
            text = " ".join(terms)
            # A gap between chunks keeps neighbours from merging.
            chunks.append(IndexedChunk(Chunk("d", place * 2000, place * 2000 + len(text), text), terms, f"{number}-{place}"))
        document = Document(f"d{number}", f"/{number}", "Titel", "", "de", "")
        given = {chunk.key: vector for chunk, vector in zip(chunks, vectors, strict=True)}
        store.put(document, chunks, recipe="", encoder="given", vectors=given)
    return words


def milliseconds(times: list[float]) -> tuple[float, float]:
    return float(np.percentile(times, 50)) * 1e3, float(np.percentile(times, 95)) * 1e3


def measure(count: int, queries: int) -> dict[str, float | int]:
    rng = np.random.default_rng(SEED)
    with tempfile.TemporaryDirectory() as scratch, Store(Path(scratch)) as store:
        words = fill(store, count, rng)
        folder = Path(scratch, "generations")
        begin = time.perf_counter()
        name = build(store, folder, Stamp("given", "1", "2"), dimensions=DIMENSIONS)
        build_s = time.perf_counter() - begin
        before = resident_mb()
        index = EmbeddedIndex(store, folder, name)
        encoder = Given()
        searcher = Searcher(index, encoder, alpha=0.5)  # type: ignore[arg-type]
        exact = np.load(folder / name / "vectors.npy")
        bare = faiss.read_index(str(folder / name / "vectors.faiss"))
        times: dict[str, list[float]] = {"fused": [], "dense": [], "keyword": [], "faiss": []}
        recall = []
        for number in range(queries):
            noise = rng.normal(size=DIMENSIONS) * 0.5 / np.sqrt(DIMENSIONS)
            vector = (exact[rng.integers(len(exact))] + noise).astype(np.float32)
            encoder.vector = vector / np.linalg.norm(vector)
            # Words by their share of the texts, as questions have them; stop words are gone before.
            query = " ".join(words[np.minimum(rng.zipf(1.3, 10) + 20, len(words) - 1)])
            for mode in ("fused", "dense", "keyword"):
                begin = time.perf_counter()
                searcher.search(query, mode=mode, merge=True)
                times[mode].append(time.perf_counter() - begin)
            begin = time.perf_counter()
            bare.search(encoder.vector[None], 100)
            times["faiss"].append(time.perf_counter() - begin)
            near = index._by_vector(encoder.vector, {}, 10)
            best = set(np.argsort(-(exact @ encoder.vector))[:10].tolist())
            recall.append(len(best & set(near)) / 10)
            if number == 9:  # the first ones only warm caches
                times = {key: [] for key in times}
        numbers: dict[str, float | int] = {"chunks": count, "build_s": build_s, "recall_at_10": float(np.mean(recall))}
        for key, values in times.items():
            numbers[f"{key}_p50_ms"], numbers[f"{key}_p95_ms"] = milliseconds(values)
        numbers["fused_to_faiss"] = float(numbers["fused_p50_ms"]) / float(numbers["faiss_p50_ms"])
        numbers["index_disk_mb"] = megabytes(folder)
        numbers["store_disk_mb"] = megabytes(Path(scratch)) - megabytes(folder)
        numbers["index_memory_mb"] = resident_mb() - before - exact.nbytes / 2**20 - bare.ntotal * DIMENSIONS / 2**20
        numbers["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return numbers


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def megabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", nargs="+", type=int, default=[10_000, 100_000])
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    options = parser.parse_args()
    for count in options.chunks:
        print(json.dumps(record("search", data=b"synthetic", seed=SEED, out=options.out, **measure(count, options.queries))))


if __name__ == "__main__":
    main()
