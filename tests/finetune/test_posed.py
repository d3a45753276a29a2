"""Where questions and their passages come from, with the starter encoder on tiny data."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finetune.posed import is_raft_file, pose
from finetune.raft.row import Passage, RaftRow, write_raft
from reader.quotes import Span
from retriever.errors import BelegError, IndexMissing
from retriever.settings import Settings

Beleg = Callable[..., Any]
CANTEEN = "The canteen opens at noon. Guests pay 9.40 euros for a main dish. Staff pay less."
TRAM = "A tram ticket to the canteen costs 2.90 euros. Guests pay in the tram."
LIBRARY = "The library lends books for four weeks."


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", threads=1, passages=3)


@pytest.fixture
def training(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    rows = [
        {
            "id": "a",
            "question": "What do guests pay?",
            "answers": ["9.40 euros"],
            "positive_ctxs": [{"title": "Canteen", "text": CANTEEN}],
            "hard_negative_ctxs": [{"title": "Tram", "text": TRAM}],
            "negative_ctxs": [{"title": "Library", "text": LIBRARY}],
            "document": "canteen",
        },
        {
            "id": "a",
            "question": "Wie lange leiht die Bibliothek Bücher aus?",
            "answers": ["four weeks"],
            "positive_ctxs": [{"title": "Library", "text": LIBRARY}],
            "document": "library",
        },
        {"id": "c", "question": "Which passage is it?", "answers": [], "positive_ctxs": [{"title": "Tram", "text": TRAM}]},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def raft_row(key: str = "r1") -> RaftRow:
    passages = (
        Passage(TRAM, "Tram", (), "easy", "tram.md", 0, len(TRAM), "en"),
        Passage(CANTEEN, "Canteen", (), "golden", "canteen.md", 0, len(CANTEEN), "en"),
    )
    return RaftRow(key, "What do guests pay?", passages, 2, (Span(2, 27, 65),), "", "9.40 euros", False, "en", "canteen")


def test_training_data_is_searched_among_its_contexts(settings: Settings, training: Path) -> None:
    posed = pose(settings, [str(training)])
    assert [one.id for one in posed.asked] == ["a", "a#2"]
    assert posed.left_out == {"a passage answers it, but no answer in words is known": 1}
    assert (posed.documents, posed.search) == (3, None)
    first, second = posed.asked
    kinds = dict(zip([hit.text for hit in first.hits], first.kinds, strict=True))
    assert kinds == {CANTEEN: "golden", TRAM: "hard", LIBRARY: "easy"}
    assert first.golden == ("Guests pay 9.40 euros for a main dish.",)
    assert (first.document, second.document) == ("canteen", "library")
    assert set(posed.searching) == {"a", "a#2"}
    assert not settings.data_dir.exists()


def test_fewer_passages_and_fewer_questions(settings: Settings, training: Path) -> None:
    posed = pose(settings, [str(training)], passages=1, limit=1, seed=3)
    assert len(posed.asked) == 1
    assert len(posed.asked[0].hits) == 1


def test_questions_that_nothing_answers_are_asked_too(settings: Settings) -> None:
    squad = Path(__file__).parents[2] / "examples" / "training" / "squad.json"
    posed = pose(settings, [str(squad)])
    assert {one.id: bool(one.answers) for one in posed.asked} == {"faq-1": True, "faq-2": False, "faq-3": True}
    (unanswered,) = (one for one in posed.asked if not one.answers)
    assert "golden" not in unanswered.kinds
    assert unanswered.golden == ()


def test_a_question_file_in_the_live_index(settings: Settings, beleg: Beleg, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "canteen.md").write_text(f"# Canteen\n\n{CANTEEN}\n", encoding="utf-8")
    (files / "tram.md").write_text(f"# Tram\n\n{TRAM}\n", encoding="utf-8")
    questions = [
        {"id": "q1", "split": "s", "language": "en", "question": "What do guests pay?", "answer": "9.40 euros",
         "answers": ["9.40 €"], "proof": {"source": "canteen.md", "text": "Guests pay 9.40 euros for a main dish."}},
        {"id": "q2", "split": "s", "language": "en", "question": "Who is the cook?", "answer": None, "proof": None},
        {"id": "q3", "split": "t", "language": "en", "question": "Who is the cook?", "answer": "Ann", "proof": None},
    ]  # fmt: skip
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in questions), encoding="utf-8")
    with pytest.raises(IndexMissing):
        pose(settings, [str(path)])
    assert beleg("index", files, data_dir=settings.data_dir, threads=1).returncode == 0
    posed = pose(settings, [str(path)], split="s")
    first, second = posed.asked
    assert first.answers == ("9.40 euros", "9.40 €")
    assert first.golden == ("Guests pay 9.40 euros for a main dish.",)
    assert dict(zip([hit.source.rpartition("/")[2] for hit in first.hits], first.kinds, strict=True)) == {
        "canteen.md": "golden",
        "tram.md": "retrieved",
    }
    assert (second.answers, second.document) == ((), "q2")
    assert posed.search is not None
    assert set(posed.search) == {"fused", "dense", "keyword", "rrf"}
    assert set(posed.search["fused"]) == {"all", "en"}
    assert posed.search["fused"]["all"]["Success@5"] == 1
    assert list(posed.labels) == ["q1"]
    assert pose(settings, [str(path)]).left_out == {"an answer is known, but not what proves it": 1}


def test_examples_bring_their_own_passages(settings: Settings, tmp_path: Path) -> None:
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    write_raft(one, [raft_row(), raft_row("r2")])
    write_raft(two, [replace(raft_row(), abstains=True, golden=None, quotes=())])
    assert is_raft_file(str(one))
    posed = pose(settings, [str(one), str(two)])
    assert [one.id for one in posed.asked] == ["r1", "r2", "r1#2"]
    assert posed.asked[0].kinds == ("easy", "golden")
    assert posed.asked[2].answers == ()
    assert not posed.searching
    assert len(pose(settings, [str(one), str(two)], limit=2).asked) == 2


@pytest.mark.parametrize("more", [{"passages": 2}, {"split": "s"}])
def test_what_examples_have_no_use_for(settings: Settings, tmp_path: Path, more: dict[str, Any]) -> None:
    write_raft(tmp_path / "one.jsonl", [raft_row()])
    with pytest.raises(BelegError, match="own passages") as caught:
        pose(settings, [str(tmp_path / "one.jsonl")], **more)
    assert f"--{next(iter(more))}" in caught.value.way_out


def test_kinds_are_not_mixed(settings: Settings, tmp_path: Path, training: Path) -> None:
    write_raft(tmp_path / "one.jsonl", [raft_row()])
    with pytest.raises(BelegError, match="brings its own passages"):
        pose(settings, [str(training), str(tmp_path / "one.jsonl")])


def test_nothing_to_ask(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps({"question": "?", "answers": [], "positive_ctxs": [TRAM]}) + "\n", encoding="utf-8")
    with pytest.raises(BelegError, match="No question has an answer in words"):
        pose(settings, [str(path)])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"question": "?"}', "\n\n"])
def test_what_is_no_file_of_examples(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(text, encoding="utf-8")
    assert not is_raft_file(str(path))
    assert not is_raft_file(str(tmp_path))
    assert not is_raft_file(str(tmp_path / "nowhere"))
