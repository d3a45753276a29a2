"""`beleg data check` and `convert` as people and programs call them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from finetune.cli_data import data
from finetune.data.read import Shape, read_rows
from finetune.data.write import WriteShape
from retriever.errors import BelegError

EXAMPLES = Path(__file__).parents[2] / "examples" / "training"
ALL = [EXAMPLES / name for name in ("dpr.jsonl", "qca.jsonl", "squad.json", "beir", "feedback.jsonl")]
TEXT = "Im Inland werden 28 Euro gezahlt, im Ausland 59 Euro."


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(data, [str(part) for part in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.jsonl"
    records: list[Any] = [
        {"query": "Wie viel?", "context": TEXT, "answer": answer} for answer in ("28 Euro", "30 Euro", "Euro", "29 Euro")
    ]
    records += [{"query": "Wie viel?", "context": TEXT, "answer": 3}, {"query": "Wie viel?"}]
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + "{", encoding="utf-8")
    return path


def test_check_counts_all_shapes() -> None:
    result = run("check", *ALL, "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found == {
        "rows": 12,
        "left_out": 0,
        "shapes": {"dpr": 2, "qca": 3, "squad": 3, "beir": 2, "feedback": 2},
        "languages": {"de": 6, "en": 6},
        "problems": {},
    }
    assert run("check", *ALL).stdout.startswith("12 rows (3 qca, 3 squad, 2 dpr, 2 beir, 2 feedback) (6 ")


def test_check_names_what_is_wrong(broken: Path) -> None:
    result = run("check", broken, "--show", 2)
    assert result.exit_code == 3
    assert result.stdout == "4 rows (4 qca) (4 de), 3 records left out.\n"
    assert "3 malformed: left out" in result.stderr
    assert f"{broken}, line 5, answer" in result.stderr
    assert f"{broken}, line 6, context: missing" in result.stderr
    assert f"{broken}, line 7" not in result.stderr
    assert "… and 1 more (--show)" in result.stderr
    assert f"{broken}, line 2, answers.0: “30 Euro” is not in the first positive context" in result.stderr
    assert f"{broken}, line 3, answers.0: “Euro” stands in 2 places" in result.stderr


def test_check_tells_programs_the_same(broken: Path) -> None:
    result = run("check", broken, "--json", "--show", 1)
    assert (result.exit_code, result.stderr) == (3, "")
    found = json.loads(result.stdout)
    assert {kind: problem["count"] for kind, problem in found["problems"].items()} == {
        "not found": 2,
        "ambiguous": 1,
        "malformed": 3,
    }
    [example] = found["problems"]["ambiguous"]["examples"]
    assert (example["origin"], example["field"], example["fatal"]) == (f"{broken}, line 3", "answers.0", False)


def test_what_was_mended_or_is_suspicious_is_not_left_out(broken: Path) -> None:
    lines = broken.read_text(encoding="utf-8").splitlines()
    broken.write_text("\n".join(lines[:4]), encoding="utf-8")
    assert run("check", broken).exit_code == 0


def test_an_error_is_raised_for_beleg_to_show(tmp_path: Path) -> None:
    with pytest.raises(BelegError, match="There is no"):
        run("check", EXAMPLES / "dpr.jsonl", tmp_path / "gone.jsonl")


def test_check_takes_the_shape_it_is_given() -> None:
    assert run("check", EXAMPLES / "dpr.jsonl", "--shape", "qca").exit_code == 3
    assert run("check", EXAMPLES / "dpr.jsonl", "--shape", "xml").exit_code == 2
    assert run("check").exit_code == 2


@pytest.mark.parametrize(("to", "rows"), [("dpr", 12), ("qca", 11), ("squad", 8), ("beir", 11)])
def test_convert(tmp_path: Path, to: str, rows: int) -> None:
    out = tmp_path / "out.jsonl"
    result = run("convert", *ALL, out, "--to", to)
    assert f"{rows} rows written to {out} ({to})." in result.stdout
    assert result.exit_code == (0 if rows == 12 else 3)
    assert (f"Lost, since {to} cannot hold it: {12 - rows} rows" in result.stderr) == (rows < 12)
    assert len(list(read_rows(out))) == rows


def test_convert_tells_programs_what_is_lost(tmp_path: Path, broken: Path) -> None:
    result = run("convert", broken, tmp_path / "out", "--to", "beir", "--json")
    assert result.exit_code == 3
    found = json.loads(result.stdout)
    assert (found["rows"], found["written"], found["left_out"], found["out"]) == (4, 4, 3, str(tmp_path / "out"))
    assert found["lost"]["answers"] == 4


def test_convert_over_its_own_source(tmp_path: Path, broken: Path) -> None:
    assert run("convert", broken, broken, "--to", "dpr").exit_code == 3
    assert run("check", broken).exit_code == 0


def test_nothing_takes_the_place_of_what_is_there(tmp_path: Path) -> None:
    source, out = tmp_path / "source.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"query": "", "context": "a"}\n', encoding="utf-8")
    out.write_text("precious", encoding="utf-8")
    with pytest.raises(BelegError, match="No question to be had"):
        run("convert", source, out, "--to", "dpr")
    assert out.read_text(encoding="utf-8") == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "source.jsonl"]


def test_the_shapes_to_choose_from_are_those_there_are() -> None:
    for command, option, shapes in (("check", "shape", Shape), ("convert", "shape", Shape), ("convert", "to", WriteShape)):
        [choice] = [parameter.type for parameter in data.commands[command].params if parameter.name == option]
        assert tuple(choice.choices) == shapes.__args__  # type: ignore[attr-defined]


def test_all_commands_are_mounted() -> None:
    assert set(data.commands) == {"check", "convert", "clean", "split", "balance", "stats"}
    assert run("--help").exit_code == 0
