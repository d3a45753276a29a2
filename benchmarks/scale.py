"""Both engines side by side as the index grows: building, latency alone and with eight at once, recall, memory, disk.

Chunks are synthetic: vectors are clustered, like those of text; words follow Zipf's law; the question's vector is given. Recall
is against exact cosines over all vectors. Hits are read back with their passages. Bare is the engine's own library, asked for
the nearest vectors alone: FAISS, or Elasticsearch's k-NN through its client.

    python benchmarks/scale.py [--chunks 10000 100000]
    python benchmarks/scale.py --elasticsearch FOLDER_WITH_START_AND_STOP --kinds int8_hnsw hnsw bbq_hnsw flat --heap 2g
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
from record import DEFAULT_OUT, record

from retriever.analyze import ANALYSER
from retriever.index.base import Candidate, Generation, Generations, Index, Stamp
from retriever.index.engines import open_generations
from retriever.schema import Chunk, Document
from retriever.search import Searcher
from retriever.settings import Settings
from retriever.store import IndexedChunk, Store

DIMENSIONS, PER_DOCUMENT, QUERIES, SEED = 384, 20, 200, 7
STAMP = Stamp("given", "1:200:30:x", ANALYSER)


class Given:
    """An encoder that knows the vectors of its queries, so that encoding takes no time."""

    fingerprint, tokenizer, dimensions, max_tokens, alpha = "given", "given", DIMENSIONS, 256, None

    def __init__(self) -> None:
        self.vectors: dict[str, np.ndarray] = {}

    def encode_query(self, text: str) -> np.ndarray:
        return self.vectors[text]


def fill(store: Store, count: int, rng: np.random.Generator) -> np.ndarray:
    """Store synthetic chunks and return the words they are made of."""
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
        document = Document(f"d{number}", f"/{number}", "Titel", "x", "de", "")
        given = {chunk.key: vector for chunk, vector in zip(chunks, vectors, strict=True)}
        store.put(document, chunks, loader="", chunking=STAMP.chunking, encoder="given", vectors=given)
    return words


def questions(words: np.ndarray, vectors: np.ndarray, encoder: Given, rng: np.random.Generator) -> list[str]:
    made = []
    for number in range(QUERIES):
        noise = rng.normal(size=DIMENSIONS) * 0.5 / np.sqrt(DIMENSIONS)
        vector = (vectors[rng.integers(len(vectors))] + noise).astype(np.float32)
        # Words by their share of the texts, as questions have them; stop words are gone before.
        text = f"frage{number} " + " ".join(words[np.minimum(rng.zipf(1.3, 10) + 20, len(words) - 1)])
        encoder.vectors[text] = vector / np.linalg.norm(vector)
        made.append(text)
    return made


def timed(ask: Callable[[str], object], queries: Sequence[str], *, threads: int) -> tuple[list[float], float]:
    """Return the seconds that each query took, and queries a second, with so many asking at once."""

    def one(query: str) -> float:
        begin = time.perf_counter()
        ask(query)
        return time.perf_counter() - begin

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, queries[:20]))  # caches
        begin = time.perf_counter()
        seconds = list(pool.map(one, queries))
        return seconds, len(queries) / (time.perf_counter() - begin)


def numbers_of(
    index: Index,
    encoder: Given,
    queries: list[str],
    rows: np.ndarray,
    vectors: np.ndarray,
    bare: Callable[[np.ndarray], object],
) -> dict[str, float | int]:
    searcher = Searcher(index, encoder, alpha=0.5)  # type: ignore[arg-type]
    found: dict[str, float | int] = {}
    for mode in ("fused", "dense", "keyword"):
        seconds, _ = timed(lambda query, mode=mode: searcher.search(query, mode=mode), queries, threads=1)  # type: ignore[misc]
        found[f"{mode}_p50_ms"], found[f"{mode}_p95_ms"] = milliseconds(seconds)
    seconds, rate = timed(searcher.search, queries, threads=8)
    found["fused_8_p50_ms"], found["fused_8_p95_ms"] = milliseconds(seconds)
    found["fused_8_per_s"] = rate
    seconds, _ = timed(lambda query: bare(encoder.vectors[query]), queries, threads=1)
    found["bare_p50_ms"], found["bare_p95_ms"] = milliseconds(seconds)
    found["fused_to_bare"] = float(found["fused_p50_ms"]) / float(found["bare_p50_ms"])
    hits = 0
    for query in queries:
        best = set(rows[np.argsort(-(vectors @ encoder.vectors[query]))[:10]].tolist())
        candidates = index.candidates(vector=encoder.vectors[query], terms=[], depth=50, filters={})
        hits += len(best & set(best_rows(candidates, 10)))
    found["recall_at_10"] = hits / (10 * len(queries))
    return found


def best_rows(candidates: Sequence[Candidate], count: int) -> list[int]:
    return [item.row for item in sorted(candidates, key=lambda item: -(item.dense or 0))[:count]]


def build(generations: Generations, count: int) -> tuple[Generation, dict[str, float | int]]:
    begin = time.perf_counter()
    generation = generations.build(STAMP, "", dimensions=DIMENSIONS)
    generations.swap(generation, expected=generations.live(), keep=False)
    seconds = time.perf_counter() - begin
    return generation, {"chunks": count, "build_s": seconds, "built_per_s": count / seconds}


def embedded(
    store: Store, count: int, encoder: Given, queries: list[str], rows: np.ndarray, vectors: np.ndarray
) -> dict[str, float | int | str]:
    chosen = Settings(data_dir=store.path.parent)
    generations = open_generations(chosen, store)
    generation, numbers = build(generations, count)
    before = resident_mb()
    index = generations.open(generation)
    index.candidates(vector=vectors[0], terms=["wort1"], depth=50, filters={})
    memory = resident_mb() - before
    folder = chosen.data_dir / "generations" / generation.name
    near = faiss.read_index(str(folder / "vectors.faiss"))
    numbers |= numbers_of(index, encoder, queries, rows, vectors, lambda vector: near.search(vector[None], 100))
    return {"engine": "embedded", **numbers, "memory_mb": memory, "index_disk_mb": megabytes(folder)}


def elastic(
    store: Store,
    count: int,
    encoder: Given,
    queries: list[str],
    rows: np.ndarray,
    vectors: np.ndarray,
    url: str,
    kind: str,
    pid: int,
) -> dict[str, float | int | str]:
    from elasticsearch import Elasticsearch

    chosen = Settings.model_validate(
        {"data_dir": store.path.parent, "index": "elasticsearch", "elasticsearch_url": url, "elasticsearch_vectors": kind,
         "elasticsearch_index": kind.replace("_", "-"), "elasticsearch_timeout_s": 300}
    )  # fmt: skip
    generations = open_generations(chosen, store)
    generation, numbers = build(generations, count)
    client = Elasticsearch(url, request_timeout=60)

    def bare(vector: np.ndarray) -> object:
        near = {"field": "vector", "query_vector": vector.tolist(), "k": 50, "num_candidates": 200}
        return client.search(index=generation.name, knn=near, size=50, source=False)

    numbers |= numbers_of(generations.open(generation), encoder, queries, rows, vectors, bare)
    stats = client.indices.stats(index=generation.name, metric="store,segments")["_all"]["primaries"]
    client.indices.delete(index=generation.name)
    return {
        "engine": f"elasticsearch {kind}",
        **numbers,
        "segments": stats["segments"]["count"],
        "memory_mb": resident_mb(pid),
        "index_disk_mb": stats["store"]["size_in_bytes"] / 2**20,
    }


@contextlib.contextmanager
def node(programs: Path, heap: str) -> Iterator[tuple[str, int]]:
    """Start a fresh Elasticsearch node and yield its address and process id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "node")
        Path(scratch).chmod(0o755)
        subprocess.run([programs / "start", folder, "--port", str(port), "--heap", heap], check=True, stdout=subprocess.DEVNULL)
        try:
            yield f"http://127.0.0.1:{port}", int((folder / "n0" / "pid").read_text())
        finally:
            subprocess.run([programs / "stop", folder], check=False, stdout=subprocess.DEVNULL)


def milliseconds(seconds: list[float]) -> tuple[float, float]:
    return float(np.percentile(seconds, 50)) * 1e3, float(np.percentile(seconds, 95)) * 1e3


def resident_mb(pid: int | str = "self") -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def megabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", nargs="+", type=int, default=[10_000, 100_000])
    parser.add_argument("--elasticsearch", type=Path)
    parser.add_argument("--kinds", nargs="+", default=["int8_hnsw"])
    parser.add_argument("--heap", default="2g")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    options = parser.parse_args()
    for count in options.chunks:
        rng = np.random.default_rng(SEED)
        with tempfile.TemporaryDirectory() as scratch, Store(Path(scratch)) as store:
            words = fill(store, count, rng)
            entries = store.entries(store.current(store.revision()), chunking=STAMP.chunking, encoder="given")
            rows, vectors = np.empty(count, np.int64), np.empty((count, DIMENSIONS), np.float32)
            for at, entry in enumerate(entries):
                rows[at], vectors[at] = entry.row, entry.vector
            encoder = Given()
            queries = questions(words, vectors, encoder, rng)
            given = (store, count, encoder, queries, rows, vectors)
            print(json.dumps(record("scale", data=b"synthetic", seed=SEED, out=options.out, **embedded(*given))), flush=True)
            for kind in options.kinds if options.elasticsearch else ():
                with node(options.elasticsearch, options.heap) as (url, pid):
                    numbers = elastic(*given, url, kind, pid)
                print(json.dumps(record("scale", data=b"synthetic", seed=SEED, out=options.out, **numbers)), flush=True)


if __name__ == "__main__":
    main()
