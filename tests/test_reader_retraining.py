"""The reader's whole circle with a tiny model: rows, training, export, measuring, promotion, and back without a trace."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
QUESTION = "How much does a lost badge cost?"
RECIPE = """\
task: reader
base_model: {base}
data: {{format: raft, split: {{shares: [0.5, 0.25, 0.25]}}}}
passages: {{golden: 0.9}}
adapter: {{type: lora, r: 4, alpha: 8}}
trainer:
  max_steps: 2
  gradient_accumulation_steps: 1
  learning_rate: 1.0e-3
  warmup_steps: 0
  eval_steps: 2
  early_stopping: null
  samples: 1
  test_rows: 1
export: {{quantizations: [f16]}}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A base of random weights, with a tokenizer of its own."""
    path = Path(__file__).with_name("finetune") / "parity" / "conftest.py"
    spec = importlib.util.spec_from_file_location("tiny_models_for_the_circle", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: Path = module.make_base(tmp_path / "tiny", tmp_path)
    return made


def test_round_and_back(tmp_path: Path, tiny: Path, beleg: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    data = tmp_path / "data"

    def run(*arguments: object) -> Any:
        done = beleg(*arguments, "--json", cwd=tmp_path, data_dir=data, reader=tiny, passages=1, threads=1)
        # 3: the examples hold a row or two that cannot be learnt from.
        assert done.returncode in ((0, 3) if arguments[0] == "raft" else (0,)), done.stderr
        return json.loads(done.stdout)

    run("index", EXAMPLES / "handbook" / "onboarding-guide.md", EXAMPLES / "handbook" / "employee-faq.html")
    sources = [EXAMPLES / "training" / name for name in ("dpr.jsonl", "qca.jsonl", "squad.json", "beir")]
    built = run("raft", "build", *sources, "--with-index", "--passages", "1,2", "--out", "raft.jsonl")
    assert built["rows"] >= 5
    before = run("ask", QUESTION)

    (tmp_path / "recipe.yaml").write_text(RECIPE.format(base=tiny))
    made = run("train", "reader", "recipe.yaml", "--data", "raft.jsonl", "--name", "tuned")
    assert made["data"]["test"] > 0
    folder = data / "candidates" / "tuned"
    exported = run("export", "tuned", "--context", "1024")
    assert (exported["folder"], exported["passed"], [*exported["files"]]) == (str(folder / "export"), True, ["model-f16.gguf"])
    facts = json.loads((folder / "export" / "export.json").read_text())
    assert (facts["base_fingerprint"], facts["adapter_fingerprint"]) == (made["base"]["fingerprint"], made["fingerprint"])
    # Served as it was trained: without worked examples in the prompt.
    assert json.loads((folder / "export" / "calibration.json").read_text())["shots"] is False

    compared = run("evaluate", "reader", folder / "test.jsonl", "--system", "served", "--system", "tuned")
    assert [(one["name"], one["asked"]) for one in compared["systems"]] == [
        (name, made["data"]["test"]) for name in ("served", "tuned")
    ]
    taken = run("promote", "tuned", "--override", "test")
    assert (taken["status"], taken["reader"]) == ("live", str(folder / "export" / "model-f16.gguf"))
    tuned = run("ask", QUESTION)
    assert tuned["release"] != before["release"]
    assert tuned["hits"] == before["hits"]
    assert tuned["quotes"] or tuned["abstained"]

    assert run("rollback")["reader"] == str(tiny)
    assert {**run("ask", QUESTION), "timings": None} == {**before, "timings": None}
