"""What people wait for: from a question over HTTP to its first hit, to the first and the last word of its answer.

A real `beleg serve` with the starter reader is asked over HTTP, by one person and by several at once, each time a fresh one, so
that no answer is kept from before; then the first again what they have asked already. Bare is the same search in this process,
without HTTP, queue and reader. With `--chunks`, the same is asked of so many synthetic chunks: paragraphs of words by Zipf's
law, with vectors drawn at random.

    python benchmarks/asking.py [--questions 20] [--people 1 4] [--chunks 10000]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from handbook import EXAMPLES, handbook_files, index_handbook
from load import serving
from record import DEFAULT_OUT, record

from reader.pipeline import Pipeline
from retriever.chunk import ChunkSize
from retriever.encode import open_encoder
from retriever.fill import Maker
from retriever.index.engines import open_generations
from retriever.questions import read_questions
from retriever.schema import Document, document_id
from retriever.settings import Settings
from retriever.store import Store

SEED, PARAGRAPHS, WORDS, TIMEOUT_S = 7, 20, 120, 600
WARM = "How long must I wait before touching the DSH-2 after the power is off?"


@dataclass
class Waited:
    """Seconds from a question to each event of its stream: the first time, and the last."""

    first: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)


def ask(base: str, question: str) -> Waited:
    """Ask one question to its end.

    Raises:
        RuntimeError: there is no answer.
    """
    waited = Waited()
    begin = time.perf_counter()
    body = {"question": question, "stream": True}
    with httpx.stream("POST", f"{base}/v1/ask", json=body, timeout=TIMEOUT_S) as answer:
        for line in answer.iter_lines():
            name, _, event = line.partition(": ")
            if name == "event":
                waited.last[event] = time.perf_counter() - begin
                waited.first.setdefault(event, waited.last[event])
    if "answer" not in waited.first:
        raise RuntimeError(f"{question!r} was not answered, with status {answer.status_code}.")
    return waited


def percentiles(name: str, seconds: Sequence[float]) -> dict[str, float]:
    """Return two percentiles in milliseconds; -1 if nothing was waited for."""
    return {f"{name}_p{share}_ms": float(np.percentile(seconds, share)) * 1e3 if seconds else -1.0 for share in (50, 95)}


def asked(base: str, questions: Sequence[str], people: int) -> dict[str, float]:
    """Return how long so many people wait who share the questions."""
    with ThreadPoolExecutor(people) as pool:
        waited = list(pool.map(lambda question: ask(base, question), questions))
    return {
        **percentiles("first_hit", [one.first["hits"] for one in waited]),
        # Abstentions are left out: nothing is written of them, or it is over at once.
        **percentiles("first_token", [one.first["token"] for one in waited if "token" in one.first]),
        **percentiles("last_token", [one.last["token"] for one in waited if "token" in one.last]),
        **percentiles("answer", [one.last["answer"] for one in waited]),
        "with_tokens": sum("token" in one.first for one in waited),
    }


def searched(settings: dict[str, str], questions: Sequence[str]) -> list[float]:
    """Return the seconds that each search takes in this process."""
    seconds = []
    with Pipeline.open(Settings.model_validate(settings), reader=False) as pipeline:
        pipeline.search(WARM)
        for question in questions:
            begin = time.perf_counter()
            pipeline.search(question)
            seconds.append(time.perf_counter() - begin)
    return seconds


def fill(settings: dict[str, str], count: int) -> list[str]:
    """Index at least so many synthetic chunks, and return words of theirs."""
    rng = np.random.default_rng(SEED)
    words = np.array([f"wort{number}" for number in range(50_000)])
    chosen = Settings.model_validate(settings)
    maker = Maker(open_encoder(chosen.encoder), ChunkSize(chosen.chunk_tokens, chosen.chunk_overlap))
    made = 0
    with Store(chosen.data_dir) as store:
        while made < count:
            drawn = words[np.minimum(rng.zipf(1.3, (PARAGRAPHS, WORDS)) - 1, len(words) - 1)]
            source = f"/{made}.txt"
            text = "\n\n".join(" ".join(paragraph) + "." for paragraph in drawn)
            document = Document(document_id(source), source, "Titel", text, "de", str(made))
            chunks, inputs = maker.chunks(document)
            vectors = rng.normal(size=(len(inputs), maker.encoder.dimensions)).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            store.put(
                document, chunks, loader="", chunking=maker.stamp.chunking, encoder=maker.encoder.fingerprint,
                vectors=dict(zip(inputs, vectors, strict=True)),
            )  # fmt: skip
            made += len(chunks)
        generations = open_generations(chosen, store)
        generation = generations.build(maker.stamp, chosen.encoder, dimensions=maker.encoder.dimensions)
        generations.swap(generation, expected=generations.live(), keep=False)
    return words.tolist()


def measure(
    settings: dict[str, str],
    questions: Sequence[str],
    people: Sequence[int],
    *,
    data: bytes | list[Path],
    corpus: str,
    out: Path,
) -> None:
    """Record a line for each number of people at once, and one for those who ask again."""
    bare = percentiles("bare_search", searched(settings, questions))
    for place, count in enumerate(people):
        with serving(settings) as base:
            ask(base, WARM)
            rounds = [asked(base, questions, count)]
            if place == 0:
                rounds.append(asked(base, questions, count))
        for again, numbers in enumerate(rounds):
            line = record(
                "asking", data=data, seed=SEED, out=out, corpus=corpus, people=count, again=again,
                questions=len(questions), **numbers, **bare,
                first_hit_to_bare=numbers["first_hit_p50_ms"] / bare["bare_search_p50_ms"],
            )  # fmt: skip
            print(json.dumps(line), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=20, help="how many of those in examples/")
    parser.add_argument("--people", nargs="+", type=int, default=[1, 4], help="how many ask at once")
    parser.add_argument("--chunks", type=int, default=10_000, help="synthetic chunks to ask afterwards; 0 for none")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        settings = {"data_dir": str(Path(scratch, "handbook"))}
        index_handbook({**os.environ, "BELEG_DATA_DIR": settings["data_dir"]})
        known = [question.question for question in read_questions(EXAMPLES / "questions.jsonl") if question.proof]
        questions = [question for question in known if question != WARM]
        asking = questions[: options.questions]
        measure(settings, asking, options.people, data=handbook_files(), corpus="handbook", out=options.out)
        if options.chunks:
            settings = {"data_dir": str(Path(scratch, "synthetic"))}
            words = fill(settings, options.chunks)
            rng = np.random.default_rng(SEED)
            asking = [
                " ".join(words[rank] for rank in np.minimum(rng.zipf(1.3, 8) + 20, len(words) - 1))
                for _ in range(options.questions)
            ]
            corpus = f"{options.chunks} synthetic chunks"
            measure(settings, asking, options.people, data=b"synthetic", corpus=corpus, out=options.out)


if __name__ == "__main__":
    main()
