"""How well a follow-up finds its passage, by how it is made self-contained: hit@1, hit@5 and MRR of the passage with the proof.

Ways: the bare question, the last question put in front of it, by rule, by the reader's model, and as a person would write it.

    python benchmarks/followups.py [examples/followups.jsonl] [--no-model]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from handbook import EXAMPLES, index_handbook
from record import DEFAULT_OUT, record

from reader.followup import by_rule, standalone
from reader.schema import Turn
from reader.served import open_reader
from retriever.encode import open_encoder
from retriever.encoders import Encoders
from retriever.index.embedded import EmbeddedGenerations
from retriever.live import Live
from retriever.metrics import Label, evaluate
from retriever.questions import Proof, Question, place
from retriever.search import Searcher
from retriever.settings import Settings
from retriever.store import Store

_MEASURES = {"Success@1": "hit_1", "Success@5": "hit_5", "RR@10": "mrr"}

Row = Mapping[str, Any]
Way = Callable[[str, Sequence[Turn]], str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=EXAMPLES / "followups.jsonl")
    parser.add_argument("--no-model", action="store_true", help="leave the reader's model out: it takes seconds a question")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    options = parser.parse_args()
    rows: list[Row] = [json.loads(line) for line in options.file.read_text(encoding="utf-8").splitlines()]
    settings = Settings()
    encoder = open_encoder(settings.encoder, threads=1)
    ways: dict[str, Way] = {
        "bare": lambda question, _: question,
        "last": lambda question, history: f"{history[-1].question} {question}",
        "rule": lambda question, history: by_rule(question, history, encoder),
    }
    if not options.no_model:
        engine = open_reader(settings, None).engine
        ways["model"] = lambda question, history: standalone(question, history, "model", encoder=encoder, engine=engine)
    with tempfile.TemporaryDirectory() as scratch, Store(Path(scratch)) as store:
        index_handbook({**os.environ, "BELEG_DATA_DIR": scratch})
        generations = EmbeddedGenerations(store, Path(scratch, "generations"))
        searcher = Live(generations, Encoders(settings.encoder, open_=lambda _: encoder)).searcher()
        asked = [Question(row["id"], "", row["language"], row["question"], (), Proof(**row["proof"]), "") for row in rows]
        labels = place(asked, store)
        for split in sorted({row["split"] for row in rows}):
            part = [row for row in rows if row["split"] == split]
            numbers: dict[str, float] = {}
            for name, way in ways.items():
                numbers |= measured(name, searcher, labels, {row["id"]: timed(way, row) for row in part})
            numbers |= measured("person", searcher, labels, {row["id"]: (row["standalone"], 0.0) for row in part})
            line = record(
                "followups", data=[options.file], seed=0, out=options.out, split=split, questions=len(part), **numbers
            )
            print(json.dumps(line))


def timed(way: Way, row: Row) -> tuple[str, float]:
    """Return what a follow-up becomes, and the milliseconds that took."""
    history = [Turn(**turn) for turn in row["history"]]
    begin = time.perf_counter()
    return way(row["question"], history), 1000 * (time.perf_counter() - begin)


def measured(
    name: str, searcher: Searcher, labels: Mapping[str, Sequence[Label]], asked: Mapping[str, tuple[str, float]]
) -> dict[str, float]:
    """Return the measures of one way over some questions."""
    rankings = {key: searcher.search(question, limit=10) for key, (question, _) in asked.items()}
    values = evaluate({key: labels[key] for key in asked}, rankings, measures=list(_MEASURES))
    found = {f"{name}_{short}": fmean(values[measure].values()) for measure, short in _MEASURES.items()}
    return found | {f"{name}_ms": fmean(milliseconds for _, milliseconds in asked.values())}


if __name__ == "__main__":
    main()
