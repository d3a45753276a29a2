"""Question files: what is wrong is named by file, line and field; proofs are found whatever white space lies between."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retriever.errors import BelegError
from retriever.load.isolated import Loader
from retriever.metrics import Label
from retriever.questions import Proof, Question, place, read_questions
from retriever.schema import Document, document_id
from retriever.store import Store

ROOT = Path(__file__).parents[2]
GOOD: dict[str, Any] = {
    "id": "q1", "split": "measure", "language": "de", "question": "Wo?", "answer": "hier", "answers": ["da"], "kind": "fact",
    "proof": {"source": "a.md", "text": "Es ist hier."},
}  # fmt: skip


def written(tmp_path: Path, *rows: object) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def without(field: str) -> dict[str, Any]:
    return {name: value for name, value in GOOD.items() if name != field}


def test_good_lines(tmp_path: Path) -> None:
    no_answer = {**GOOD, "id": "q2", "split": "calibrate", "answer": None, "answers": [], "proof": None}
    path = written(tmp_path, GOOD, "", no_answer, "  ")
    first, second = read_questions(path)
    assert first == Question("q1", "measure", "de", "Wo?", ("hier", "da"), Proof("a.md", "Es ist hier."), "fact")
    assert (second.answers, second.proof) == ((), None)
    assert read_questions(path, split="calibrate") == [second]


def test_files_as_windows_and_other_programs_write_them(tmp_path: Path) -> None:
    """A byte order mark, carriage returns, and a line separator that JSON allows within a text."""
    path = tmp_path / "questions.jsonl"
    odd = json.dumps({**GOOD, "question": "Wo\u2028denn?"}, ensure_ascii=False)
    path.write_bytes(f"\ufeff{odd}\r\n{json.dumps(GOOD)}\r\n".encode())
    assert [item.question for item in read_questions(path)] == ["Wo\u2028denn?", "Wo?"]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("{", "JSON"),
        ("[1]", ""),
        ("3", ""),
        ("null", ""),
        (without("id"), "id"),
        (without("question"), "question"),
        (without("answer"), "answer"),
        (without("proof"), "proof"),
        ({**GOOD, "proof": {"text": "x"}}, "source"),
        ({**GOOD, "proof": {"source": "x"}}, "text"),
        ({**GOOD, "proof": "a.md"}, "proof"),
        ({**GOOD, "proof": ["a.md"]}, "proof"),
        ({**GOOD, "proof": {"source": "a.md", "text": " "}}, "proof"),
        ({**GOOD, "answers": 3}, "answers"),
        ({**GOOD, "answers": "hier"}, "answers"),
        ({**GOOD, "answers": None}, "answers"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: object, named: str) -> None:
    path = written(tmp_path, GOOD, "", line)
    with pytest.raises(BelegError) as caught:
        read_questions(path)
    assert f"{path}, line 3" in caught.value.message
    assert named in caught.value.message


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BelegError, match=r"missing\.jsonl cannot be read"):
        read_questions(tmp_path / "missing.jsonl")
    (tmp_path / "latin.jsonl").write_bytes("ä".encode("latin-1"))
    with pytest.raises(BelegError, match=r"latin\.jsonl cannot be read"):
        read_questions(tmp_path / "latin.jsonl")


def test_no_question_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BelegError, match="no question"):
        read_questions(written(tmp_path, ""))
    with pytest.raises(BelegError, match="'other'"):
        read_questions(written(tmp_path, GOOD), split="other")


# -- place ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "data") as opened:
        put(opened, "one/a.md", "Vorwort (1).\nEs ist\n  hier\u00a0*drin*. Ende.")
        put(opened, "one/aa.md", "Nichts.")
        put(opened, "two/b.md", "Nichts.")
        put(opened, "three/b.md", "Nichts.")
        yield opened


def put(store: Store, source: str, text: str) -> None:
    digest = hashlib.sha256(text.encode()).hexdigest()
    document = Document(document_id(source), source, source, text, "de", digest)
    with store.writer():
        store.put(document, [], loader="l", chunking="c", encoder="e", vectors={})


def question(source: str, text: str) -> Question:
    return Question("q7", "", "de", "Wo?", ("hier",), Proof(source, text), "fact")


@pytest.mark.parametrize("source", ["a.md", "one/a.md"])
@pytest.mark.parametrize("text", ["Es ist hier *drin*.", "Es\nist hier\t*drin*.", " Es ist  hier *drin*. "])
def test_white_space_does_not_matter(store: Store, source: str, text: str) -> None:
    ((label,),) = place([question(source, text)], store).values()
    assert label == Label(document_id("one/a.md"), 13, 34)


@pytest.mark.parametrize(
    ("source", "text", "named"),
    [
        ("c.md", "Nichts.", "0 indexed documents are called c.md"),
        ("b.md", "Nichts.", "2 indexed documents are called b.md"),
        ("a.md", "Es ist dort.", "does not have the words"),
        ("a.md", "Esist hier", "does not have the words"),
        ("a.md", "hier .drin.", "does not have the words"),
    ],
)
def test_a_proof_that_is_nowhere(store: Store, source: str, text: str, named: str) -> None:
    with pytest.raises(BelegError) as caught:
        place([question(source, text)], store)
    assert "q7" in caught.value.message
    assert named in caught.value.message


def test_questions_without_a_proof_have_no_place(store: Store) -> None:
    assert place([Question("q", "", "de", "Wo?", (), None, "unanswerable")], store) == {}


# -- the examples -----------------------------------------------------------------------------------------------------


def test_the_example_questions_are_consistent() -> None:
    script = ROOT / "examples" / "check_questions.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_proof_of_the_examples_is_found_in_the_documents_as_beleg_reads_them(tmp_path: Path) -> None:
    files = sorted((ROOT / "examples" / "handbook").iterdir())
    with Store(tmp_path) as store, Loader(max_bytes=1 << 24, timeout_s=60) as loader:
        with store.writer():
            for document in loader.load_many([(path, f"handbook/{path.name}") for path in files]):
                assert isinstance(document, Document), document
                store.put(document, [], loader="l", chunking="c", encoder="e", vectors={})
        asked = read_questions(ROOT / "examples" / "questions.jsonl")
        labels = place(asked, store)
        assert set(labels) == {item.id for item in asked if item.proof}
        for item in asked:
            for label in labels.get(item.id, []):
                found = store.document(label.document)
                assert found is not None
                assert item.proof is not None
                assert found.text[label.start : label.end].split() == item.proof.text.split()
