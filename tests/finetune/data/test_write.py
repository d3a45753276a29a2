"""What is written is read again as it was; what a shape cannot hold is counted; a failed run leaves what was there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.data.check import check_row
from finetune.data.read import read_rows, shape_of
from finetune.data.schema import Answer, Context, Row
from finetune.data.write import WriteShape, Written, write_rows
from retriever.errors import BelegError

TEXT = "Im Inland werden 28 Euro gezahlt, im Ausland 59 Euro."
FULL = Row(
    id="q 1",
    question="Wie viel? 😀",
    answers=(Answer("28 Euro", 17), Answer("Euro"), Answer("Inland", 3)),
    positives=(Context(TEXT, "RL"), Context("Zweitens.", "Anderes")),
    negatives=(Context("n\u2028n"),),
    hard_negatives=(Context("h", "RL"),),
    document="rl.pdf",
    language="de",
    origin="a, line 1",
    difficulty="hard",
)
IMPOSSIBLE = Row("q2", "Wer?", hard_negatives=(Context(TEXT, "RL"),), document="rl.pdf", language="de")
PAIR = Row("q3", "Was?", positives=(Context("Flüge."),), document="rl.pdf", language="de")
ROWS = [FULL, IMPOSSIBLE, PAIR]

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
CONTEXTS = st.lists(st.builds(Context, TEXTS, TEXTS), max_size=3).map(tuple)
ANY = st.builds(
    Row,
    id=TEXTS.filter(bool),
    question=TEXTS,
    answers=st.lists(st.builds(Answer, TEXTS, st.none() | st.integers(0, 9)), max_size=3).map(tuple),
    positives=CONTEXTS,
    negatives=CONTEXTS,
    hard_negatives=CONTEXTS,
    document=TEXTS.filter(bool),
    language=st.sampled_from(["de", "en", "und"]),
    origin=st.just("x"),
    difficulty=st.sampled_from(["", "easy", "hard"]),
)


def again(path: Path) -> list[Row]:
    return [replace(row, origin="") for row in read_rows(path, on_problem=lambda problem: None)]


def plain(rows: list[Row]) -> list[Row]:
    return [replace(row, origin="") for row in rows]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(ANY, max_size=4))
def test_dpr_loses_nothing(tmp_path: Path, given_rows: list[Row]) -> None:
    checked = [check_row(row) for row in given_rows]
    rows = [row for row, problems in checked if not any(problem.fatal for problem in problems)]
    assert write_rows(tmp_path / "a.jsonl", rows) == Written(len(rows), {})
    if rows:
        assert again(tmp_path / "a.jsonl") == plain(rows)


def test_qca(tmp_path: Path) -> None:
    written = write_rows(tmp_path / "a.jsonl", ROWS, "qca")
    assert written == Written(2, {"rows": 1, "difficulties": 1})
    assert shape_of(tmp_path / "a.jsonl") == "qca"
    assert again(tmp_path / "a.jsonl") == plain([replace(FULL, difficulty=""), PAIR])
    lost = write_rows(tmp_path / "b.jsonl", [replace(FULL, answers=(Answer("Euro", 20),))], "qca").lost
    assert lost == {"places of answers": 1, "difficulties": 1}


def test_squad(tmp_path: Path) -> None:
    written = write_rows(tmp_path / "a.json", ROWS, "squad")
    assert written == Written(2, {"rows": 1, "answers without a place": 1, "positives": 1, "negatives": 2, "difficulties": 1})
    [article] = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["data"]
    [paragraph] = article["paragraphs"]
    assert [question["is_impossible"] for question in paragraph["qas"]] == [False, True]
    kept = replace(FULL, answers=(FULL.answers[0], FULL.answers[2]), positives=FULL.positives[:1], difficulty="")
    assert again(tmp_path / "a.json") == plain([replace(kept, negatives=(), hard_negatives=()), IMPOSSIBLE])


def test_beir(tmp_path: Path) -> None:
    written = write_rows(tmp_path / "set", ROWS, "beir")
    assert written.rows == 2
    assert written.lost == {
        "rows": 1, "answers": 3, "hard negatives, as negatives": 1, "names of documents": 2, "languages": 2, "difficulties": 1,
    }  # fmt: skip
    first, second = again(tmp_path / "set")
    assert (first.id, first.question, first.positives) == ("q 1", FULL.question, FULL.positives)
    assert first.negatives == FULL.negatives + FULL.hard_negatives
    assert (second.id, second.positives, second.negatives) == ("q3", PAIR.positives, ())


def test_beir_makes_ids_unique_and_fit_for_a_table(tmp_path: Path) -> None:
    rows = [PAIR, replace(PAIR, question="What?"), replace(PAIR, question="What?"), replace(PAIR, id="a\tb\n")]
    written = write_rows(tmp_path / "set", rows, "beir")
    assert written.lost["ids, made unique"] == 3
    found = again(tmp_path / "set")
    assert [row.question for row in found] == [row.question for row in rows]
    assert len({row.id for row in found}) == 4


def test_beir_says_of_a_context_that_is_both_that_it_is_relevant(tmp_path: Path) -> None:
    write_rows(tmp_path / "set", [replace(PAIR, negatives=PAIR.positives)], "beir")
    [row] = again(tmp_path / "set")
    assert (row.positives, row.negatives) == (PAIR.positives, ())


@pytest.mark.parametrize("shape", ["dpr", "qca", "squad", "beir"])
def test_what_was_there_is_replaced(tmp_path: Path, shape: WriteShape) -> None:
    target = tmp_path / "new" / "folder" / ("set" if shape == "beir" else "rows.json")
    answered = replace(PAIR, answers=(Answer("Flüge", 0),))
    write_rows(target, [answered, replace(answered, id="q4")], shape)
    write_rows(target, [answered], shape)
    assert [row.id for row in read_rows(target)] == ["q3"]
    assert list(target.parent.iterdir()) == [target], "nothing else is left"


@pytest.mark.parametrize("shape", ["dpr", "qca", "squad", "beir"])
def test_a_run_that_fails_leaves_what_was_there(tmp_path: Path, shape: WriteShape) -> None:
    def failing() -> Iterator[Row]:
        yield FULL
        raise BelegError("broken")

    target = tmp_path / ("set" if shape == "beir" else "rows.json")
    write_rows(target, [FULL], shape)
    before = sorted((path, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file())
    with pytest.raises(BelegError, match="broken"):
        write_rows(target, failing(), shape)
    assert sorted((path, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file()) == before


def test_a_killed_run_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "rows.jsonl"
    write_rows(target, [PAIR])
    program = (
        "import os, sys, time\n"
        "from finetune.data.read import read_rows\n"
        "from finetune.data.write import write_rows\n"
        "def rows():\n"
        "    [row] = read_rows(sys.argv[1])\n"
        "    for _ in range(5000):\n"
        "        yield row\n"
        "    print('half', flush=True)\n"
        "    time.sleep(60)\n"
        "write_rows(sys.argv[1], rows())\n"
    )
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", program, target], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(root)}
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    assert again(target) == [PAIR]


def test_rows_can_be_written_over_their_own_source(tmp_path: Path) -> None:
    target = tmp_path / "rows.jsonl"
    write_rows(target, [PAIR, FULL])
    write_rows(target, read_rows(target))
    assert again(target) == plain([PAIR, FULL])


def test_a_folder_of_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("x", encoding="utf-8")
    with pytest.raises(BelegError, match="is no BEIR folder"):
        write_rows(tmp_path, [PAIR], "beir")
    with pytest.raises(BelegError, match="is no BEIR folder"):
        write_rows(tmp_path / "precious.txt", [PAIR], "beir")
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


@pytest.mark.parametrize("shape", ["dpr", "squad", "beir"])
def test_what_cannot_be_written_is_told(tmp_path: Path, shape: WriteShape) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BelegError, match="cannot be written"):
        write_rows(tmp_path / "file" / "rows.json", [PAIR], shape)
    (tmp_path / "folder").mkdir()
    if shape != "beir":
        with pytest.raises(BelegError, match="folder cannot be written: Is a directory"):
            write_rows(tmp_path / "folder", [PAIR], shape)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
