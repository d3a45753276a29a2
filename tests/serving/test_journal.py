"""What a journal tells, whole or torn, and read again while it grows."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from retriever.journal import Journal
from serving.jobs.journal import Document, Journals, Progress, read_journal


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "job.jsonl"


def counts(progress: Progress) -> tuple[int, ...]:
    return tuple(progress.documents[name] for name in ("queued", "done", "skipped", "failed"))


def outcome(journal: Journal, source: str, status: str, **more: object) -> None:
    journal.tell("outcome", source=source, status=status, **more)


def test_no_journal_is_an_empty_one(file: Path) -> None:
    assert read_journal(file) == (Progress(), [])
    assert Journals().progress(file) == Progress()
    assert Journals().documents(file) == []


def test_what_the_commands_write(file: Path) -> None:
    with Journal(file) as journal:
        journal.tell("total", documents=4)
        for name in ("a", "b", "c"):
            journal.tell("queued", source=name)
        outcome(journal, "a", "added", chunks=3)
        outcome(journal, "b", "failed", chunks=0, reason="it is empty", way_out="Fill it.")
        outcome(journal, "gone", "removed")
    progress, documents = read_journal(file)
    assert counts(progress) == (2, 2, 0, 1)  # c, and one that has not been named yet
    assert (progress.phase, progress.done, progress.total) == ("documents", 2, 4)
    assert documents == [
        Document("a", "added", 3),
        Document("b", "failed", 0, "it is empty", "Fill it."),
        Document("c", "queued"),
        Document("gone", "removed"),
    ]
    with Journal(file) as journal:
        journal.tell("progress", phase="build", done=10, total=None)
        journal.tell("result", documents=3)
    progress, _ = read_journal(file)
    assert (progress.phase, progress.done, progress.total) == ("build", 10, None)
    assert progress.result == {"documents": 3}


def test_a_run_that_goes_on_keeps_what_the_run_before_it_did(file: Path) -> None:
    with Journal(file) as journal:
        journal.tell("total", documents=3)
        outcome(journal, "a", "added", chunks=3)
        outcome(journal, "b", "failed", reason="no")
        journal.tell("error", message="Down.", way_out="", temporary=True)
    progress, _ = read_journal(file)
    assert progress.error == {"message": "Down.", "way_out": "", "temporary": True}
    with Journal(file) as journal:
        journal.tell("total", documents=3)
        outcome(journal, "a", "unchanged")
        journal.tell("queued", source="b")
        assert read_journal(file)[1][1] == Document("b", "queued")
        outcome(journal, "b", "added", chunks=1)
        outcome(journal, "c", "unchanged")
    progress, documents = read_journal(file)
    assert counts(progress) == (0, 2, 1, 0)
    assert progress.error is None
    assert documents[0] == Document("a", "added", 3)


def test_torn_foreign_and_broken_lines_are_skipped(file: Path) -> None:
    lines = [
        b'{"event": "outcome", "source": "half',
        b"\xff\xfe",
        b"null",
        b"[]",
        b'"event"',
        b"[" * 100_000,
        b'{"event": "outcome", "source": "x", "status": "invented"}',
        b'{"event": "outcome", "status": "added"}',
        b'{"event": "total", "documents": "many"}',
        b'{"event": "progress", "phase": "build"}',
        b'{"event": "of a newer version"}',
        b"",
        json.dumps({"event": "outcome", "source": "ok", "status": "added", "chunks": 2}).encode(),
        b'{"event": "outcome", "source": "last", "status": "add',
    ]
    file.write_bytes(b"\n".join(lines))
    progress, documents = read_journal(file)
    assert documents == [Document("ok", "added", 2)]
    assert counts(progress) == (0, 1, 0, 0)


def test_a_torn_end_is_read_once_it_is_whole(file: Path) -> None:
    line = json.dumps({"event": "outcome", "source": "ü", "status": "added"}).encode() + b"\n"
    journals = Journals()
    for end in range(len(line)):
        file.write_bytes(line[:end])
        assert journals.documents(file) == []
    file.write_bytes(line)
    assert journals.documents(file) == [Document("ü", "added")]
    # A kill leaves half a line, and the next run begins on a new one.
    with file.open("ab") as out:
        out.write(b'{"event": "outco')
    with Journal(file) as journal:
        outcome(journal, "b", "added")
    assert [document.source for document in journals.documents(file)] == ["ü", "b"]


def test_a_file_that_has_shrunk_is_read_anew(file: Path) -> None:
    journals = Journals()
    with Journal(file) as journal:
        outcome(journal, "a", "added")
        outcome(journal, "b", "added")
    assert len(journals.documents(file)) == 2
    file.unlink()
    assert journals.progress(file) == Progress()
    with Journal(file) as journal:
        outcome(journal, "c", "added")
    assert [document.source for document in journals.documents(file)] == ["c"]


def test_many_journals_take_turns_in_memory(tmp_path: Path) -> None:
    journals = Journals(kept=2)
    for number in range(5):
        with Journal(tmp_path / str(number)) as journal:
            for name in range(number):
                outcome(journal, str(name), "added")
    for _ in range(2):
        for number in range(5):
            assert counts(journals.progress(tmp_path / str(number))) == (0, number, 0, 0)
            assert len(journals.documents(tmp_path / str(number))) == number


def test_only_what_is_new_of_a_long_journal_is_read(file: Path) -> None:
    with file.open("w") as out:
        out.writelines(json.dumps({"event": "outcome", "source": str(n), "status": "added"}) + "\n" for n in range(50_000))
    journals = Journals()
    journals.progress(file)
    with Journal(file) as journal:
        began = time.perf_counter()
        for number in range(20):
            outcome(journal, f"more {number}", "added")
            assert counts(journals.progress(file)) == (0, 50_001 + number, 0, 0)
    assert time.perf_counter() - began < 1
