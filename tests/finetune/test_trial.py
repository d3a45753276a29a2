"""What is searched for which kind of source, and that measuring leaves what people are answered from as it was."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from finetune.trial import SERVED, Asked, is_question_file, open_trial, read_asked
from finetune.workspace import Workspace
from retriever.chunk import ChunkSize
from retriever.errors import BelegError, IndexMissing, ModelError, StoreError
from retriever.settings import Settings
from retriever.store import Store


def load_fakes() -> ModuleType:
    name = "retriever_fakes"
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / "retriever" / "fakes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


fakes = load_fakes()
SQUAD = [
    {"id": f"s{at}", "title": word, "context": f"Der {word} ist rot.", "question": f"Wie ist der {word}?",
     "answers": {"text": ["rot"], "answer_start": [len(word) + 9]}}
    for at, word in enumerate(["Anker", "Balken", "Dübel", "Eimer"])
]  # fmt: skip
QUESTIONS = [
    {"id": "q1", "split": "measure", "language": "de", "question": "Wo ist das Hotel?", "answer": "Rom",
     "proof": {"source": "hotel.txt", "text": "Das Hotel ist in Rom."}},
    {"id": "q2", "split": "measure", "language": "de", "question": "Wer wohnt dort?", "answer": None, "proof": None},
    {"id": "q3", "split": "calibrate", "language": "de", "question": "Was kostet der Zug?", "answer": "9 Euro",
     "proof": {"source": "zug.txt", "text": "Der Zug kostet 9 Euro."}},
]  # fmt: skip
DOCUMENTS = {"hotel.txt": "Das Hotel ist in Rom.", "zug.txt": "Der Zug kostet 9 Euro.", "bad.txt": "Das Bad ist zu."}


def lines(path: Path, records: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return str(path)


@pytest.fixture
def squad(tmp_path: Path) -> Asked:
    return read_asked([lines(tmp_path / "squad.jsonl", SQUAD)])


@pytest.fixture
def questions(tmp_path: Path) -> Asked:
    return read_asked([lines(tmp_path / "questions.jsonl", QUESTIONS)])


class Opened:
    """Opens fakes by name, and remembers which."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.made: dict[str, Any] = {}

    def __call__(self, reference: str, *, threads: int | None = None) -> Any:
        if reference == "missing":
            raise ModelError("There is no model at missing.")
        self.names.append(reference)
        return self.made.setdefault(reference, fakes.FakeEncoder(fingerprint=reference))


@pytest.fixture
def opened() -> Opened:
    return Opened()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", encoder="fake-1", chunk_tokens=16, chunk_overlap=2)


@pytest.fixture
def live(settings: Settings) -> Settings:
    """Settings with a live index, cut smaller than they say."""
    house = fakes.House(settings.data_dir)
    house.change(*DOCUMENTS.items())
    house.store.close()
    return settings


def test_training_data_is_searched_among_its_contexts(settings: Settings, squad: Asked, opened: Opened) -> None:
    with open_trial(settings, squad, open_=opened) as trial:
        assert (trial.documents, trial.chunks, trial.unanswerable, trial.unread) == (4, 4, 0, [])
        assert list(trial.labels) == ["0", "1", "2", "3"]
        (searcher,) = trial.searchers.values()
        hit = searcher.search("Wie ist der Eimer?", merge=False)[0]
        (label,) = trial.labels["3"]
        assert (hit.text, label.document, hit.text[label.start : label.end]) == ("Der Eimer ist rot.", hit.document, "rot")
    assert not settings.data_dir.exists()


def test_documents_of_files_and_of_the_live_index_lie_among_them(
    live: Settings, squad: Asked, opened: Opened, tmp_path: Path
) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.md").write_text("# A\n\nNoch etwas.", encoding="utf-8")
    (tmp_path / "more" / "b.pdf").write_bytes(b"%PDF-1.4 nothing")
    with open_trial(live, squad, documents=[tmp_path / "more"], with_index=True, open_=opened) as trial:
        assert trial.documents == 4 + 1 + 3
        (searcher,) = trial.searchers.values()
        assert searcher.search("Hotel in Rom")[0].source == "hotel.txt"
        assert [reason.partition(":")[0].rpartition("/")[2] for reason in trial.unread] == ["b.pdf"]
    with Store(live.data_dir) as store:
        assert set(store.known()) == set(DOCUMENTS)


def test_the_live_chunks_are_those_that_are_measured(live: Settings, squad: Asked, opened: Opened) -> None:
    with open_trial(live, squad, open_=opened) as trial:
        (searcher,) = trial.searchers.values()
        assert f":{fakes.SMALL.tokens}:{fakes.SMALL.overlap}:" in searcher.index.stamp.chunker
        assert live.chunk_tokens != fakes.SMALL.tokens


def test_questions_are_searched_in_the_live_index(live: Settings, questions: Asked, opened: Opened) -> None:
    with Store(live.data_dir) as store:
        before = (store.revision(), store.recall("live"))
    with open_trial(live, questions, open_=opened) as trial:
        assert list(trial.searchers) == [SERVED]
        assert (trial.documents, trial.unanswerable, list(trial.labels)) == (3, 1, ["0", "2"])
        assert trial.searchers[SERVED].search("Wo ist das Hotel?")[0].source == "hotel.txt"
        assert (trial.rows[0].id, trial.rows[0].document) == ("q1", "hotel.txt")
    assert [len(encoder.encoded) for encoder in opened.made.values()] == [0]
    with Store(live.data_dir) as store:
        assert (store.revision(), store.recall("live")) == before


def test_with_several_encoders_questions_are_searched_in_a_copy(live: Settings, questions: Asked, opened: Opened) -> None:
    with open_trial(live, questions, encoders=[SERVED, "data/law/model", "data/tax/model"], open_=opened) as trial:
        assert list(trial.searchers) == [SERVED, "law", "tax"]
        assert [searcher.encoder.fingerprint for searcher in trial.searchers.values()] == [
            "fake-1",
            "data/law/model",
            "data/tax/model",
        ]
        assert trial.documents == 3
    with Store(live.data_dir) as store:
        assert store.dimensions("data/law/model") is None


def test_questions_on_documents_that_are_not_indexed(
    settings: Settings, questions: Asked, opened: Opened, tmp_path: Path
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for name, text in DOCUMENTS.items():
        (folder / name).write_text(text, encoding="utf-8")
    with open_trial(settings, questions, documents=[folder], open_=opened) as trial:
        assert (trial.documents, list(trial.labels)) == (3, ["0", "2"])
    assert not settings.data_dir.exists()
    with (
        pytest.raises(BelegError, match=r"q1: 0 indexed documents are called hotel\.txt"),
        open_trial(settings, questions, documents=[folder / "bad.txt"], open_=opened),
    ):
        pass


def test_names_that_would_be_alike_are_told_in_full(settings: Settings, squad: Asked, opened: Opened) -> None:
    with open_trial(settings, squad, encoders=["a/x", "b/x", "c/y", "c/y"], open_=opened) as trial:
        assert list(trial.searchers) == ["a/x", "b/x", "y"]


def test_a_limit_draws_questions_and_leaves_the_documents(settings: Settings, squad: Asked, opened: Opened) -> None:
    drawn = []
    for seed in (0, 0, 1, 2, 3):
        with open_trial(settings, squad, limit=2, seed=seed, open_=opened) as trial:
            assert (len(trial.labels), trial.documents, trial.unanswerable) == (2, 4, 0)
            drawn.append(tuple(trial.labels))
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1
    with open_trial(settings, squad, limit=400, open_=opened) as trial:
        assert len(trial.labels) == 4


def test_a_kept_workspace_encodes_nothing_twice(settings: Settings, squad: Asked, opened: Opened, tmp_path: Path) -> None:
    for _ in range(2):
        with open_trial(settings, squad, workspace=tmp_path / "space", open_=opened) as trial:
            assert trial.chunks == 4
    assert len(opened.made["fake-1"].encoded) == 4


def test_a_temporary_workspace_is_removed_whatever_happens(
    settings: Settings, squad: Asked, opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()

    def interrupted() -> None:
        with open_trial(settings, squad, open_=opened):
            assert list((tmp_path / "scratch").iterdir())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(ModelError), open_trial(settings, squad, encoders=["missing"], open_=opened):
        pass
    assert list((tmp_path / "scratch").iterdir()) == []


def test_nothing_is_put_into_what_people_are_answered_from(live: Settings, squad: Asked, opened: Opened) -> None:
    with pytest.raises(StoreError, match="holds a live index"), open_trial(live, squad, workspace=live.data_dir, open_=opened):
        pass
    with Store(live.data_dir) as store:
        assert set(store.known()) == set(DOCUMENTS)


@pytest.mark.parametrize("more", [{}, {"encoders": ["law"]}, {"with_index": True, "encoders": ["law"]}])
def test_without_an_index_questions_name_the_way_out(
    settings: Settings, questions: Asked, opened: Opened, more: dict[str, Any]
) -> None:
    with (
        pytest.raises(IndexMissing, match=r"Nothing has been indexed in .*--documents"),
        open_trial(settings, questions, open_=opened, **more),
    ):
        pass


def test_nothing_that_could_be_found(live: Settings, opened: Opened, tmp_path: Path) -> None:
    asked = read_asked([lines(tmp_path / "q.jsonl", QUESTIONS[1:2])])
    with pytest.raises(BelegError, match="No question has a passage"), open_trial(live, asked, open_=opened):
        pass


# -- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "is_one"),
    [
        ('{"id": "1", "question": "?", "answer": null, "proof": null}\n', True),
        ('\n\n{"proof": 1}', True),
        ('\ufeff{"proof": 1}\r\n', True),
        ('{"question": "proof"}', False),
        ('["proof"]', False),
        ("proof", False),
        ("", False),
        ("{", False),
    ],
)
def test_a_question_file_is_known_by_its_proof(tmp_path: Path, content: str, is_one: bool) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(content, encoding="utf-8", newline="")
    assert is_question_file(str(file)) == is_one


def test_what_is_no_text_is_no_question_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff\xfe\x00")
    assert not is_question_file(str(tmp_path / "x"))
    assert not is_question_file(str(tmp_path))
    assert not is_question_file("name/name")


def test_splits(tmp_path: Path) -> None:
    source = lines(tmp_path / "q.jsonl", QUESTIONS)
    assert [row.id for row in read_asked([source], split="measure").rows] == ["q1", "q2"]
    with pytest.raises(BelegError, match="no question of the split 'test'"):
        read_asked([source], split="test")
    with pytest.raises(BelegError, match=r"s\.jsonl has no splits.*--split"):
        read_asked([lines(tmp_path / "s.jsonl", SQUAD)], split="measure")


def test_sources_that_do_not_go_together(tmp_path: Path) -> None:
    ours, theirs = lines(tmp_path / "q.jsonl", QUESTIONS), lines(tmp_path / "s.jsonl", SQUAD)
    with pytest.raises(BelegError, match=r"s\.jsonl is training data and the others are question files"):
        read_asked([ours, theirs])
    with pytest.raises(BelegError, match=r"The question q1 is there 2 times"):
        read_asked([ours, ours])


def test_a_malformed_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps(SQUAD[0]) + "\n{broken\n", encoding="utf-8")
    with pytest.raises(BelegError, match=r"s\.jsonl, line 2"):
        read_asked([str(path)])
    with pytest.raises(BelegError, match=r"There is no .*nowhere\.jsonl"):
        read_asked([str(tmp_path / "nowhere.jsonl")])


def test_a_workspace_that_was_made_elsewhere_can_be_used(
    settings: Settings, squad: Asked, opened: Opened, tmp_path: Path
) -> None:
    with Workspace(tmp_path / "space", ChunkSize(16, 2)) as space:
        space.add_documents([fakes.document("other.txt", "Etwas anderes.")])
    with open_trial(settings, squad, workspace=tmp_path / "space", open_=opened) as trial:
        assert trial.documents == 5
