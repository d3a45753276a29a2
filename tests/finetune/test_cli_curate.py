"""`beleg data clean`, `split`, `balance` and `stats`, as they are typed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from finetune.cli_curate import balance, clean, split, stats
from finetune.data.clean import RULES
from finetune.data.read import read_all
from finetune.data.schema import Answer, Context, Row
from finetune.data.write import write_rows
from finetune.ranks import ranks
from finetune.workspace import Workspace
from retriever.chunk import ChunkSize
from retriever.encode import Vectors
from retriever.errors import BelegError

Data = Callable[..., Result]

TOPICS = ["Urlaub", "Reisekosten", "Spesen", "Dienstwagen", "Fortbildung", "Überstunden", "Krankmeldung", "Elternzeit"]


def topic_rows() -> list[Row]:
    return [
        Row(f"q{number}", f"Wer entscheidet über {topic}?", (Answer("die Leitung", len(topic) + 23),),
            (Context(f"Über das Thema {topic} bestimmt die Leitung.", topic),), document=topic, language="de")
        for number, topic in enumerate(TOPICS)
    ]  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    write_rows(path, topic_rows())
    return path


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Data:
    monkeypatch.chdir(tmp_path)
    group = click.Group("data", commands={"clean": clean, "split": split, "balance": balance, "stats": stats})
    return lambda *arguments: CliRunner().invoke(group, [str(part) for part in arguments], env={"COLUMNS": "200"})


def printed(result: Result, code: int = 0) -> Any:
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_clean_writes_rows_and_changes_and_counts_rule_by_rule(data: Data, source: Path, tmp_path: Path) -> None:
    rows = topic_rows()
    rows[0] = Row(
        "q0", "Wer  entscheidet\xa0über Urlaub? ", rows[0].answers, rows[0].positives, document="Urlaub", language="de"
    )
    write_rows(source, [*rows, rows[1]])
    told = printed(data("clean", source, "--out", "clean.jsonl", "--changes", "changes.jsonl", "--json"))
    assert (told["rows"], told["kept"], told["left_out"]) == (9, 8, 0)
    assert told["rules"]["whitespace"] == {"changed": 1, "dropped": 0}
    assert told["rules"]["duplicates"]["dropped"] == 1
    assert [row.question for row in read_all([tmp_path / "clean.jsonl"])] == [row.question for row in topic_rows()]
    changes = lines(tmp_path / "changes.jsonl")
    assert {change["rule"] for change in changes} == {"unicode", "whitespace", "duplicates"}
    assert all("rows.jsonl, line" in change["origin"] for change in changes)


def test_clean_shows_a_table_with_rules_that_are_off(data: Data, source: Path) -> None:
    result = data("clean", source, "--out", "clean.jsonl", "--without", "unicode")
    assert result.exit_code == 0
    shown = {line.split()[0]: line.split()[1] for line in result.stdout.splitlines() if line.split()[0] in RULES}
    assert shown == {name: "off" if name in ("lowercase", "typos", "unicode") else "0" for name in RULES}
    assert "8 of 8 rows" in result.stdout


def test_help_lists_all_rules(data: Data) -> None:
    shown = " ".join(data("clean", "--help").stdout.split())
    assert all(f"{name} {rule.description}" in shown for name, rule in RULES.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--without", "spelling"], "there is no rule 'spelling'"),
        (["--without", "empty", "--with", "empty"], "both name empty"),
        (["--apply-typos", "--without", "typos"], "need the rule typos"),
    ],
)
def test_clean_refuses(data: Data, source: Path, options: list[str], message: str) -> None:
    result = data("clean", source, "--out", "clean.jsonl", *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not Path("clean.jsonl").exists()


def test_clean_suggests_and_applies_typos(data: Data, source: Path, tmp_path: Path) -> None:
    rows = topic_rows()
    rows[0] = Row("q0", "Welches Thmea bestimmt wer?", rows[0].answers, rows[0].positives, document="Urlaub", language="de")
    write_rows(source, rows)
    asked = data("clean", source, "--out", "clean.jsonl", "--with", "typos")
    assert "Thmea → Thema?" in asked.stdout
    printed(data("clean", source, "--out", "clean.jsonl", "--suggestions", "typos.jsonl", "--json"))
    assert [(item["word"], item["instead"]) for item in lines(tmp_path / "typos.jsonl")] == [("Thmea", "Thema")]
    assert read_all([tmp_path / "clean.jsonl"])[0].question == "Welches Thmea bestimmt wer?"
    printed(data("clean", source, "--out", "clean.jsonl", "--apply-typos", "--json"))
    assert read_all([tmp_path / "clean.jsonl"])[0].question == "Welches Thema bestimmt wer?"


def test_if_nothing_is_left_nothing_is_written(data: Data, source: Path) -> None:
    rows = [
        Row("1", "Wer?", (Answer(name),), (Context("Anna oder Bert."),), document="x", language="de")
        for name in ("Anna", "Bert")
    ]
    write_rows(source, rows)
    result = data("clean", source, "--out", "clean.jsonl")
    assert isinstance(result.exception, BelegError)
    assert "--without" in result.exception.way_out
    assert not Path("clean.jsonl").exists()


def test_records_that_cannot_be_read_are_named_and_give_3(data: Data, source: Path) -> None:
    with source.open("a", encoding="utf-8") as file:
        file.write('{"question": 7}\n' * 5)
    for command in (["clean", source, "--out", "clean.jsonl"], ["split", source, "--out", "parts"], ["stats", source]):
        result = data(*command)
        assert result.exit_code == 3, result.output
        assert "rows.jsonl, line 9" in result.stderr
        assert "2 more" in result.stderr
        assert printed(data(*command, "--json"), 3)["left_out"] == 5


def test_a_source_that_is_not_there(data: Data) -> None:
    for command in (["clean", "none.jsonl", "--out", "x"], ["split", "none.jsonl", "--out", "x"], ["stats", "none.jsonl"]):
        result = data(*command)
        assert isinstance(result.exception, BelegError)
        assert "none.jsonl" in str(result.exception)


def test_split_writes_three_files_and_what_they_are(data: Data, source: Path, tmp_path: Path) -> None:
    told = printed(data("split", source, "--out", "parts", "--shares", ".5,.25,.25", "--seed", 3, "--json"))
    kept = json.loads((tmp_path / "parts/split.json").read_text(encoding="utf-8"))
    assert {**kept, "left_out": 0} == told
    assert (kept["shares"], kept["seed"]) == ([0.5, 0.25, 0.25], 3)
    found = []
    for name, wanted in (("train", 4), ("dev", 2), ("test", 2)):
        path = tmp_path / f"parts/{name}.jsonl"
        assert kept["parts"][name]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert kept["parts"][name]["rows"] == wanted
        found += [row.id for row in read_all([path])]
    assert sorted(found) == sorted(row.id for row in topic_rows())


def test_none_leaves_nothing_of_an_earlier_split(data: Data, source: Path, tmp_path: Path) -> None:
    assert data("split", source, "--out", "parts").exit_code == 0
    result = data("split", source, "--out", "parts", "--none")
    assert result.exit_code == 0
    assert len(lines(tmp_path / "parts/train.jsonl")) == 8
    assert lines(tmp_path / "parts/dev.jsonl") == lines(tmp_path / "parts/test.jsonl") == []
    assert json.loads((tmp_path / "parts/split.json").read_text())["shares"] == [1.0, 0.0, 0.0]


def test_split_warns_of_a_giant_group(data: Data, source: Path) -> None:
    write_rows(source, [Row(str(number), f"Frage {number}?", (), (Context("Dasselbe."),), document="a") for number in range(5)])
    result = data("split", source, "--out", "parts")
    assert result.exit_code == 0
    assert "largest group has 5 of 5 rows" in result.stderr


@pytest.mark.parametrize(
    ("options", "code"), [(["--shares", "a,b,c"], 2), (["--shares", ".5,.4,.1", "--none"], 2), (["--shares", ".9,.2,.1"], 1)]
)
def test_split_refuses(data: Data, source: Path, options: list[str], code: int) -> None:
    assert data("split", source, "--out", "parts", *options).exit_code == code
    assert not Path("parts").exists()


def test_stats_for_people_programs_and_browsers(data: Data, source: Path, tmp_path: Path) -> None:
    result = data("stats", source, "--out", "page/report.html")
    assert result.exit_code == 0
    assert "8 rows (de 8), 8 documents" in result.stdout
    assert "<svg" in (tmp_path / "page/report.html").read_text(encoding="utf-8")
    assert printed(data("stats", source, "--json"))["rows"] == 8


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--out", "x.jsonl", "--report-only"],
        ["--report-only", "--easy", "5", "--hard", "4"],
        ["--report-only", "--shares", "easy"],
    ],
)
def test_balance_refuses(data: Data, source: Path, options: list[str]) -> None:
    assert data("balance", source, *options).exit_code == 2


class Counting:
    """Stands in for an encoder: each topic is a dimension, and queries about `blind` topics see another one."""

    fingerprint = tokenizer = "topics"
    dimensions = len(TOPICS)
    max_tokens = 1000
    alpha = None

    def __init__(self, blind: Sequence[str] = ()) -> None:
        self.blind = blind

    def token_starts(self, text: str) -> list[int]:
        return [match.start() for match in re.finditer(r"\S+", text)]

    def encode_passages(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Vectors:
        if progress:
            progress(len(texts))
        return np.stack([self._vector(text, 0) for text in texts])

    def encode_query(self, text: str) -> Vectors:
        return self._vector(text, 1 if any(topic in text for topic in self.blind) else 0)

    def _vector(self, text: str, shift: int) -> Vectors:
        vector = np.full(self.dimensions, 0.01, np.float32)
        for number, topic in enumerate(TOPICS):
            if topic in text:
                vector[(number + shift) % self.dimensions] = 1
        return (vector / np.linalg.norm(vector)).astype(np.float32)


def test_ranks_are_those_of_search(tmp_path: Path) -> None:
    rows = topic_rows()
    rows[1] = replace(rows[1], question="Wer regelt das?")
    rows.append(Row("none", "Wer zahlt Urlaub?", hard_negatives=(Context("Niemand weiß es."),), document="x", language="de"))
    rows.append(replace(rows[2], id="q2b", answers=()))
    searched: list[None] = []
    encoded: list[int] = []
    with Workspace(tmp_path / "ws", ChunkSize(50, 0)) as workspace:
        found = ranks(
            rows, workspace, Counting(["Urlaub"]), on_encoded=encoded.append, on_searched=lambda: searched.append(None)
        )
        again = ranks(rows, workspace, Counting(["Urlaub"]), on_encoded=encoded.append)
    assert found == again
    assert sum(encoded) == 9
    assert len(searched) == len(rows)
    assert found["keyword"][0] == 1
    assert found["dense"][0] is not None
    assert found["dense"][0] > 1
    assert found["keyword"][1] is None
    assert found["dense"][2:8] == [1] * 6
    assert found["keyword"][8] is found["dense"][8] is None
    assert (found["keyword"][9], found["dense"][9]) == (1, 1)


def test_balance_measures_and_writes(data: Data, source: Path, tmp_path: Path) -> None:
    """With the encoder of the settings, which is installed beside Beleg."""
    told = printed(data("balance", source, "--out", "balanced.jsonl", "--shares", "easy=1", "--json"))
    assert told["before"]["easy"] >= 7
    rows = read_all([tmp_path / "balanced.jsonl"])
    assert len(rows) == told["written"] == told["after"]["easy"]
    assert {row.difficulty for row in rows} == {"easy"}
    report = data("balance", source, "--report-only", "--workspace", "ws")
    assert report.exit_code == 0
    assert "Nothing was written" in report.stdout
    assert (tmp_path / "ws").is_dir()
