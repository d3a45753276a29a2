"""Rows that a model writes: nothing unproven is taken, a server that fails is asked again, a killed run goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune.data.schema import Answer, Context, Row
from finetune.raft.build import Plan, RowTask, build, draw_chunks, row_tasks
from finetune.raft.row import Passage, read_raft
from finetune.raft.teacher import BudgetSpent, Teacher
from finetune.raft.written import Written, read_answer
from reader.errors import EngineError, EngineUnavailable
from retriever.errors import BelegError

TEXT = "Der Gurt wird mit 210 N gespannt. Zuständig ist Frau Ihde."
PASSAGE = Passage(TEXT, "Wartung", (), "golden", "w", 0, len(TEXT), "de")
GOOD = "Der Satz nennt die Kraft.\nPassage 1: ##begin_quote##Der Gurt wird mit 210 N gespannt.##end_quote##\n<ANSWER>: 210 N"
PLAN = Plan(golden=1, own=True)


def one(number: int) -> Row:
    text = f"Das Gerät {number} hat {number} mm Breite. Es ist rot."
    answers = (Answer(f"{number} mm", text.index(f"{number} mm")),)
    other = (Context(f"Es ist Nummer {number} da."),)
    return Row(f"r{number}", f"Was misst Gerät {number}?", answers, (Context(text),), other, language="de")


def rows(count: int = 6) -> list[RowTask]:
    return row_tasks([(one(number), None) for number in range(10, 10 + count)])


def answering(body: dict[str, Any]) -> str:
    """Answer as a good model would."""
    [number] = set(re.findall(r"Gerät (\d+) hat", body["messages"][-1]["content"]))
    return f"So steht es da.\nPassage 1: ##begin_quote##hat {number} mm##end_quote##\n<ANSWER>: {number} mm"


class Waits(list[float]):
    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def test_a_quote_is_widened_to_its_sentence_and_the_thought_is_kept() -> None:
    found = read_answer(GOOD.replace("Der Gurt wird mit 210 N gespannt.", "mit 210 N"), "Wie straff?", PASSAGE, ["210 N"])
    assert found == Written("Wie straff?", ((0, 33),), "Der Satz nennt die Kraft.", "210 N")
    found = read_answer(GOOD, "Wie straff?", PASSAGE, (), reasoning=False)
    assert isinstance(found, Written)
    assert found.reasoning == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no answer in the asked form"),
        ("210 N", "no answer in the asked form"),
        ("<ANSWER>: 210 N", "no quote"),
        ("<ANSWER>: NOT FOUND", "it abstains"),
        (GOOD.replace("gespannt", "angezogen"), "a quote that is not in the passage"),
        (GOOD.replace("Passage 1", "Passage 2"), "a quote that is not in the passage"),
        (GOOD.replace("Der Gurt wird mit 210 N gespannt.", "  "), "a quote that is not in the passage"),
        (GOOD.replace(": 210 N", ": 310 N"), "an answer that its quote does not support"),
        (GOOD.replace(": 210 N", ": gespannt"), "another answer than the known one"),
        (GOOD.replace(": 210 N", ": <b>"), "no answer in the asked form"),
    ],
)
def test_what_is_not_proven_is_not_taken(text: str, reason: str) -> None:
    assert read_answer(text, "Wie straff?", PASSAGE, ["210 N"]) == reason


def test_a_thought_that_the_grammar_forbids_is_left_out() -> None:
    found = read_answer(f"See <b>.\n{GOOD}", "Wie straff?", PASSAGE, ())
    assert isinstance(found, Written)
    assert found.reasoning == ""


def test_rows_are_what_the_model_proves_else_the_rule(model_server: Any, tmp_path: Path) -> None:
    model_server.says = lambda body: "nonsense" if "Gerät 11" in str(body) else answering(body)
    built = build(rows(3), PLAN, tmp_path / "o.jsonl", teacher=Teacher(model_server.url))
    assert [row.by for row in built.rows] == ["model", "rule", "model"]
    assert [row.reasoning for row in built.rows] == ["So steht es da.", "", "So steht es da."]
    assert [row.quoted() for row in built.rows] == [[f"Das Gerät {number} hat {number} mm Breite."] for number in (10, 11, 12)]
    # Asked three times, each time for another answer.
    assert [body["seed"] for body in model_server.asked if "Gerät 11" in str(body)] == [0, 1, 2]
    assert built.requests == 5
    assert not (tmp_path / "o.jsonl.unfinished").exists()


def test_a_busy_server_is_asked_again_with_longer_waits(model_server: Any, tmp_path: Path) -> None:
    statuses = [503, 429, 500]
    model_server.says = lambda body: statuses.pop() if statuses else answering(body)
    waits = Waits()
    built = build(rows(1), PLAN, tmp_path / "o.jsonl", teacher=Teacher(model_server.url, wait=waits))
    assert (built.requests, built.rows[0].by) == (4, "model")
    assert [round(wait // 1) for wait in waits] == [1, 2, 4]


@pytest.mark.parametrize(("status", "asked"), [(401, 1), (400, 1), (404, 1), (503, 5)])
def test_a_server_that_refuses_ends_the_run_and_nothing_is_lost(
    model_server: Any, tmp_path: Path, status: int, asked: int
) -> None:
    model_server.says = lambda body: status if "Gerät 12" in str(body) else answering(body)
    out = tmp_path / "o.jsonl"
    with pytest.raises(EngineError, match=str(status)):
        build(rows(4), PLAN, out, teacher=Teacher(model_server.url, wait=Waits()))
    assert not out.exists()
    assert len([body for body in model_server.asked if "Gerät 12" in str(body)]) == asked
    before = len(model_server.asked)
    model_server.says = answering
    built = build(rows(4), PLAN, out, teacher=Teacher(model_server.url))
    assert len(model_server.asked) - before == 2
    assert [row.id for row in built.rows] == ["r10", "r11", "r12", "r13"]


def test_a_server_that_is_gone_is_told(model_server: Any) -> None:
    teacher = Teacher(model_server.url, wait=Waits())
    model_server.close()
    with pytest.raises(EngineUnavailable, match="cannot be reached"):
        teacher.ask([("user", "x")])
    model_server.__init__()


def test_the_budget_ends_a_run_that_then_goes_on(model_server: Any, tmp_path: Path) -> None:
    model_server.says = answering
    out = tmp_path / "o.jsonl"
    built = build(rows(5), PLAN, out, teacher=Teacher(model_server.url, budget=2))
    assert (built.open, len(read_raft(out)), built.requests) == (3, 2, 2)
    built = build(rows(5), PLAN, out, teacher=Teacher(model_server.url, budget=2))
    assert (built.open, len(read_raft(out))) == (1, 4)
    built = build(rows(5), PLAN, out, teacher=Teacher(model_server.url), parallel=3)
    assert (built.open, [row.id for row in read_raft(out)]) == (0, [f"r{number}" for number in range(10, 15)])
    assert len(model_server.asked) == 5
    with pytest.raises(BudgetSpent):
        build(rows(1), PLAN, tmp_path / "p.jsonl", teacher=Teacher(model_server.url, budget=0))


def test_a_run_goes_on_with_its_own_options_only(model_server: Any, tmp_path: Path) -> None:
    model_server.says = answering
    out = tmp_path / "o.jsonl"
    build(rows(3), PLAN, out, teacher=Teacher(model_server.url, budget=1))
    with pytest.raises(BelegError, match="other rows or options"):
        build(rows(3), Plan(golden=1, own=True, seed=5), out, teacher=Teacher(model_server.url))
    with pytest.raises(BelegError, match="other rows or options"):
        build(rows(2), PLAN, out, teacher=Teacher(model_server.url))
    kept = out.with_name("o.jsonl.unfinished")
    whole = kept.read_bytes()
    kept.write_bytes(whole + b'{"key": "r11", "val')  # a line that a kill cut off
    assert len(build(rows(3), PLAN, out, teacher=Teacher(model_server.url)).rows) == 3
    kept.write_bytes(b"no json\n")
    with pytest.raises(BelegError, match="damaged"):
        build(rows(3), PLAN, out, teacher=Teacher(model_server.url))


def test_what_is_no_chat_completion_is_told(model_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = Teacher(model_server.url)
    model_server.says = lambda _: ["a", "list"]
    with pytest.raises(EngineError, match="chat completion"):
        teacher.ask([("user", "x")])


def test_questions_are_written_about_documents(model_server: Any, finding: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    for number in range(8):
        text = f"Gerät {number} misst {number}00 mm. Es steht in Halle {number}. Es gehört Frau Ihde."
        (folder / f"g{number}.txt").write_text(text, encoding="utf-8")

    def writing(body: dict[str, Any]) -> str:
        asked = body["messages"][-1]["content"]
        number = re.findall(r"Gerät (\d)", asked)[0]
        if number == "3":
            return f"Question: Was misst dieses Gerät laut Text?\n{GOOD}"
        if number == "4":
            return "I cannot do that."
        if "Ask something else" in asked:
            proof = f"Passage 1: ##begin_quote##Es steht in Halle {number}.##end_quote##"
            return f"Question: Wo steht Gerät {number}?\n{proof}\n<ANSWER>: Halle {number}"
        return (
            f"Question: Was misst Gerät {number}?\n"
            f"Passage 1: ##begin_quote##Gerät {number} misst {number}00 mm.##end_quote##\n<ANSWER>: {number}00 mm"
        )

    model_server.says = writing
    plan = Plan(counts=(3,), golden=0.7, questions=2)
    with finding(None, about=[folder]) as (found, about):
        tasks = draw_chunks(found, about, limit=None, seed=0)
        built = build(tasks, plan, tmp_path / "o.jsonl", finding=found, teacher=Teacher(model_server.url))
        assert len(draw_chunks(found, about, limit=3, seed=0)) == 3
    assert len(tasks) == 8
    assert len(built.rows) == 12
    assert built.left_out == {"the model gives not self-contained": 2, "the model gives no question": 2}
    assert {row.by for row in built.rows} == {"model"}
    for row in built.rows:
        assert row.problems == ()
        assert len(row.passages) == 3
        assert row.document.endswith(".txt")
        if row.abstains:
            assert not any(row.answer in one.text for one in row.passages)
        else:
            assert row.answer in row.quoted()[0]
    assert 0 < sum(row.abstains for row in built.rows) < 12


PROGRAM = "import sys; from finetune.cli_raft import raft; raft(sys.argv[1:])"


def test_a_killed_run_goes_on_and_gives_the_same_rows(model_server: Any, tmp_path: Path) -> None:
    records = [
        {"id": task.row.id, "question": task.row.question, "answers": [task.row.answers[0].text], "language": "de",
         "positive_ctxs": [{"text": task.row.positives[0].text}], "negative_ctxs": [{"text": task.row.negatives[0].text}]}
        for task in rows(12)
    ]  # fmt: skip
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BELEG_")}

    def start(out: Path) -> subprocess.Popen[bytes]:
        command = ["build", source, "--out", out, "--own-passages", "--golden", "0.8", "--model-url", model_server.url]
        program = [sys.executable, "-c", PROGRAM, *map(str, command)]
        settings = environment | {"BELEG_DATA_DIR": str(tmp_path / "data")}
        return subprocess.Popen(program, cwd=Path(__file__).parents[3], env=settings, stdout=subprocess.DEVNULL)

    model_server.says = answering
    assert start(tmp_path / "whole.jsonl").wait() == 0
    whole = len(model_server.asked)
    model_server.asked.clear()

    def slow(body: dict[str, Any]) -> str:
        if len(model_server.asked) > 4:
            time.sleep(60)  # until it is killed
        return answering(body)

    model_server.says = slow
    killed = start(tmp_path / "killed.jsonl")
    while len(model_server.asked) < 5:
        assert killed.poll() is None
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed.jsonl").exists()
    model_server.says = answering
    assert start(tmp_path / "killed.jsonl").wait() == 0
    assert len(model_server.asked) == whole + 1  # the one under way was asked again, no other
    assert (tmp_path / "killed.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not list(tmp_path.glob("*.unfinished"))
