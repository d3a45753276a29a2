"""`beleg feedback`, and the file that it keeps."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from reader.cli_feedback import feedback
from reader.errors import FeedbackError
from reader.feedback import FILE, Correction, Feedback, keep, read_feedback
from reader.schema import Quote

QUOTE = Quote("d1", "handbuch.pdf", "Reisen", 3, 4, 9, "Ü 🧾 x")
HIT = Quote("d1", "handbuch.pdf", "Reisen", None, 0, 20, "Der Ü 🧾 x ist hier. ")


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Result]:
    environment = {name: None for name in os.environ if name.startswith("BELEG_")} | {"BELEG_DATA_DIR": str(tmp_path)}
    return lambda *arguments, **more: CliRunner().invoke(feedback, arguments, env=environment, **more)


def test_it_comes_back_as_it_was_said(tmp_path: Path) -> None:
    said = [
        Feedback("Bis wann?\r\n🧾", "good", "Ü", "r1", "danke", None, (QUOTE,), (HIT, QUOTE)),
        Feedback("Wer?", "bad", correction=Correction("a.pdf", "Frau Müller"), time="2026-11-21T10:00:00+00:00"),
    ]
    kept = [keep(tmp_path, item) for item in said]
    assert list(read_feedback(tmp_path)) == kept
    assert kept[1] == said[1]
    assert kept[0].time.endswith("+00:00")


def test_nothing_was_said(tmp_path: Path) -> None:
    assert list(read_feedback(tmp_path)) == []


def test_a_line_that_says_nothing_is_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keep(tmp_path, Feedback("eins", "good"))
    with (tmp_path / FILE).open("a") as file:
        file.write('{"question": "x", "verdict": "so so"}\nnonsense\n{"half')
    keep(tmp_path, Feedback("zwei", "bad"))
    with caplog.at_level(logging.WARNING):
        assert [item.question for item in read_feedback(tmp_path)] == ["eins", "zwei"]
    assert "verdict" in caplog.text


def test_a_disk_that_refuses(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(FeedbackError, match=r"feedback\.jsonl cannot be written: Is a directory"):
        keep(tmp_path, Feedback("q", "good"))
    with pytest.raises(FeedbackError, match="cannot be read"):
        list(read_feedback(tmp_path))


def test_what_training_makes_of_it(tmp_path: Path) -> None:
    from finetune.data.read import read_all

    hit = Quote("d1", "a.pdf", "A", 1, 100, 131, "Belege sind bald abzugeben: hier")
    other = Quote("d2", "b.pdf", "B", 1, 0, 12, "Etwas anders")
    quote = Quote("d1", "a.pdf", "A", 1, 111, 116, "d bal")
    keep(tmp_path, Feedback("Wann?", "good", "bald", quotes=(quote,), hits=(hit, other)))
    keep(tmp_path, Feedback("Wer?", "bad", correction=Correction("c.pdf", "Frau Müller tut es."), hits=(other,)))
    good, bad = read_all([tmp_path / FILE])
    assert [context.text for context in good.positives] == [hit.text]
    assert [context.text for context in good.hard_negatives] == [other.text]
    assert [context.text for context in bad.positives] == ["Frau Müller tut es."]


class TestCommands:
    def test_add_and_list(self, run: Callable[..., Result], tmp_path: Path) -> None:
        assert "Nobody has said anything yet." in run("list").output
        assert run("add", "--question", "Wer?", "--verdict", "good").output == "Kept.\n"
        added = run("add", "--question", "Wo?", "--verdict", "bad", "--comment", "falsch", "--correct-source", "a.pdf",
                    "--correct-text", "In Köln.", "--json")  # fmt: skip
        assert json.loads(added.output)["correction"] == {"source": "a.pdf", "text": "In Köln."}
        listed = run("list").output
        assert "good  Wer?" in listed
        assert "bad   Wo?  corrected by a.pdf" in listed
        assert "1 good, 1 bad." in listed
        shown = json.loads(run("list", "--json").output)["feedback"]
        assert [item["question"] for item in shown] == ["Wer?", "Wo?"]
        assert shown[1] == json.loads(added.output)

    def test_an_answer_that_was_printed(self, run: Callable[..., Result], tmp_path: Path) -> None:
        place = {"document": "d", "source": "s", "title": "t", "page": None, "start": 0, "end": 1, "text": "x"}
        answer = {
            "answer": "x",
            "release": "r",
            "quotes": [place],
            "hits": [place | {"score": 1.0, "dense": None}],
            "timings": {},
        }
        run("add", "--question", "q", "--verdict", "good", "--answer", "-", input=json.dumps(answer))
        (kept,) = read_feedback(tmp_path)
        assert (kept.answer, kept.release) == ("x", "r")
        assert kept.quotes == kept.hits == (Quote("d", "s", "t", None, 0, 1, "x"),)

    @pytest.mark.parametrize(
        ("arguments", "given", "said"),
        [
            (["--verdict", "good"], "", "--question"),
            (["--question", " ", "--verdict", "good"], "", "empty"),
            (["--question", "q", "--verdict", "fine"], "", "--verdict"),
            (["--question", "q", "--verdict", "bad", "--correct-text", "x"], "", "go together"),
            (["--question", "q", "--verdict", "good", "--answer", "missing.json"], "", "missing.json"),
            (["--question", "q", "--verdict", "good", "--answer", "-"], "{", "not valid JSON"),
            (["--question", "q", "--verdict", "good", "--answer", "-"], "[]", "not an answer"),
            (["--question", "q", "--verdict", "good", "--answer", "-"], '{"hits": [{"document": "d"}]}', "hits.0"),
            (["--question", "q", "--verdict", "good", "--answer", "-"], '{"quotes": 1}', "quotes"),
        ],
    )
    def test_wrong_usage(self, run: Callable[..., Result], tmp_path: Path, arguments: list[str], given: str, said: str) -> None:
        result = run("add", *arguments, input=given)
        assert result.exit_code == 2
        assert said in result.output
        assert not (tmp_path / FILE).exists()
