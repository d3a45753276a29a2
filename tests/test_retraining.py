"""The whole circle with the starter model: index, ask, train, promote, ask again, and take it back without a trace."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[1] / "examples"
QUERY = "How much does a lost badge cost?"
# Without warm-up, so that the first step moves the weights; with so few rows the first checkpoint may be the best.
SETS = (
    "trainer.max_steps=3",
    "trainer.batch_size=4",
    "trainer.learning_rate=2e-4",
    "trainer.warmup_steps=0",
    "trainer.eval_steps=3",
    "trainer.early_stopping=null",
    "data.split={shares: [.6, .2, .2]}",
    "negatives.margin=null",
)


def test_round_and_back(tmp_path: Path, beleg: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    def run(*arguments: object) -> Any:
        done = beleg(*arguments, data_dir=tmp_path, passages=1, threads=1)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if "--json" in arguments else done.stdout

    run("index", EXAMPLES / "handbook" / "onboarding-guide.md", EXAMPLES / "handbook" / "employee-faq.html")
    answer = run("ask", QUERY, "--json")
    made = run(
        "train", "retriever", "retriever", "--data", EXAMPLES / "training" / "qca.jsonl", "--name", "handbook", "--json",
        *(part for item in SETS for part in ("--set", item)),
    )  # fmt: skip
    assert made["fingerprint"] != made["base"]["fingerprint"]
    before = run("search", QUERY, "--json")
    # Training changes nothing that is served.
    assert before["hits"][0]["dense"] == answer["hits"][0]["dense"]

    assert run("promote", "handbook", "--override", "test", "--json")["status"] == "live"
    tuned = run("ask", QUERY, "--json")
    assert tuned["release"] != answer["release"]
    assert tuned["hits"][0]["dense"] != answer["hits"][0]["dense"]
    assert tuned["quotes"] or tuned["abstained"]

    run("rollback")
    again = run("ask", QUERY, "--json")
    assert {**again, "timings": None} == {**answer, "timings": None}
    assert run("search", QUERY, "--json") == before
