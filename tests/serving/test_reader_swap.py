"""A server process under load while readers are promoted, break, and are taken back: no question fails."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from reader.prompt import fingerprint
from reader.rollback import roll_back
from reader.served import SERVED, Promoted, read_promoted, write_promoted
from retriever.releases import Releases
from retriever.settings import Settings
from serving.payloads import AnswerPayload

# The model files are JSON: what the model says, and how long it takes to load.
PROGRAM = """
import hashlib, json, logging, sys, time
from functools import partial
from pathlib import Path
from reader.pipeline import Pipeline
from reader.served import open_reader
from retriever.errors import ModelError
from retriever.settings import Settings
import serving.run


class Engine:
    name, bos, eos, chat_template, context_size, constrained = "fake", "", "", "", 100_000, True

    def __init__(self, settings):
        path = Path(settings.reader)
        if not path.is_file():
            raise ModelError(f"There is no model at {path}.", way_out="Bring it back.")
        text = path.read_text()
        time.sleep(json.loads(text)["loads_s"])
        self.says = json.loads(text)["says"]
        self.model, self.fingerprint = settings.reader, hashlib.sha256(text.encode()).hexdigest()
        self.closed = False

    def tokenize(self, text):
        return []

    def count(self, text):
        return len(text)

    def generate(self, prompt, *, grammar, max_tokens, cancelled):
        text = f"Passage 1: ##begin_quote##Lamps stand in hall 7.##end_quote##\\n<ANSWER>: {self.says}"
        for at in range(0, len(text), 8):
            if self.closed:
                raise RuntimeError("used after its end")
            time.sleep(0.002)
            yield text[at : at + 8]

    def close(self):
        self.closed = True
        print("closed", Path(self.model).name, flush=True)


open_ = partial(open_reader, open_=Engine)
serving.run.run(
    Settings(data_dir=sys.argv[1], reader=sys.argv[2], host="127.0.0.1", port=0, queue=32, jobs=False, passages=1),
    open_pipeline=lambda settings: Pipeline.open(settings, open_=open_),
)
"""
ANSWERS = {"old": "hall 7", "a": "in hall 7", "b": "hall 7 it is"}
QUESTION = {"question": "Where do lamps stand?"}


@dataclass
class House:
    """A data folder with model files, and a server over it."""

    data: Path
    url: str
    process: subprocess.Popen[str]
    said: list[str]

    @property
    def settings(self) -> Settings:
        return Settings(data_dir=self.data, reader=str(self.data / "old.json"))

    def promote(self, name: str, **more: Any) -> None:
        write_promoted(self.data, entry(self.data, name, **more).after(read_promoted(self.data)))

    def ready(self) -> Any:
        response = httpx.get(f"{self.url}/readyz", timeout=20)
        assert response.status_code == 200, response.text
        return response.json()["reader"]

    def becomes(self, name: str) -> bool:
        return eventually(lambda: Path(self.ready()["model"]).stem == name)


def entry(data: Path, name: str, **more: Any) -> Promoted:
    path = data / f"{name}.json"
    facts: dict[str, Any] = {
        "reader": str(path), "instead_of": str(data / "old.json"), "candidate": name, "id": name, "time": datetime.now(UTC),
        "fingerprint": hashlib.sha256(path.read_bytes()).hexdigest(), "prompt": fingerprint(_Template()),
    }  # fmt: skip
    return Promoted(**(facts | more))


class _Template:
    model, context_size, chat_template, bos, eos = "", 0, "", "", ""

    def tokenize(self, text: str) -> list[int]:
        return []

    def count(self, text: str) -> int:
        return 0


def write(path: Path, says: str, *, loads_s: float = 0.0) -> None:
    path.write_text(json.dumps({"says": says, "loads_s": loads_s}))


def eventually(true: Callable[[], bool], within_s: float = 20) -> bool:
    until = time.monotonic() + within_s
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory, beleg: Any) -> Path:
    root = tmp_path_factory.mktemp("indexed")
    (root / "lamps.md").write_text("# Lamps\n\nLamps stand in hall 7. They have the number 12.\n")
    done = beleg("index", root / "lamps.md", data_dir=root / "data")
    assert done.returncode == 0, done.stderr
    return root / "data"


@contextmanager
def serving(data: Path) -> Iterator[House]:
    command = [sys.executable, "-c", PROGRAM, str(data), str(data / "old.json")]
    with (
        (data / "log").open("a") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=dict(os.environ)) as child,
    ):
        try:
            assert child.stdout is not None
            line = child.stdout.readline()
            match = re.fullmatch(r"Beleg listens on (http://127\.0\.0\.1:\d+)\n", line)
            assert match, " ".join((data / "log").read_text().split())
            said: list[str] = []
            stream = child.stdout
            reading = threading.Thread(target=lambda: said.extend(text.strip() for text in stream))
            reading.start()
            yield House(data, match[1], child, said)
            if child.poll() is None:  # else the test has killed it
                child.send_signal(signal.SIGTERM)
                assert child.wait(20) == 0
            reading.join(5)
        finally:
            if child.poll() is None:
                child.kill()


@pytest.fixture
def data(indexed: Path, tmp_path: Path) -> Path:
    shutil.copytree(indexed, tmp_path / "data", ignore=shutil.ignore_patterns("*.lock"))
    for name, says in ANSWERS.items():
        write(tmp_path / "data" / f"{name}.json", says, loads_s=0.3)
    return tmp_path / "data"


@contextmanager
def asking(house: House, threads: int = 4) -> Iterator[list[list[tuple[str, str]]]]:
    """Ask on and on, streaming and not; yield the answers of each thread with their releases, in order."""
    answers: list[list[tuple[str, str]]] = [[] for _ in range(threads)]
    wrong: list[str] = []
    done = threading.Event()

    def ask(number: int) -> None:
        with httpx.Client(base_url=house.url, timeout=30) as client:
            while not done.is_set():
                response = client.post("/v1/ask", json={**QUESTION, "stream": bool(number % 2)})
                text = response.text
                if number % 2:
                    events = dict(re.findall(r"event: (\w+)\r?\ndata: (.*)", text))
                    text = events.get("answer", "")
                if response.status_code != 200 or not text:
                    wrong.append(response.text)
                    return
                answer = AnswerPayload.model_validate_json(text)
                if answer.abstained or not answer.quotes:
                    wrong.append(text)
                answers[number].append((answer.answer, answer.release))

    workers = [threading.Thread(target=ask, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield answers
    finally:
        done.set()
        for worker in workers:
            worker.join(40)
    assert wrong == []
    assert all(answers)


def some_more(answers: list[list[tuple[str, str]]], count: int = 5) -> None:
    """Wait until every thread has got some more answers."""
    before = [len(own) for own in answers]
    assert eventually(lambda: all(len(own) >= old + count for own, old in zip(answers, before, strict=True)))


def changes(answers: list[tuple[str, str]]) -> list[str]:
    """Return who answered, each time that somebody else did."""
    found = [answers[0][0]]
    for said, _ in answers:
        if said != found[-1]:
            found.append(said)
    return found


def test_promoted_and_taken_back_under_load(data: Path) -> None:
    with serving(data) as house:
        first = house.ready()
        assert (first["candidate"], first["problem"]) == (None, None)
        with asking(house) as answers:
            some_more(answers)
            house.promote("a")
            assert house.becomes("a")
            some_more(answers)
            second = house.ready()
            # Two in quick succession: the last wins.
            house.promote("b", candidate="not for long")
            house.promote("b")
            assert house.becomes("b")
            some_more(answers)
            roll_back(house.settings, Releases(data))
            roll_back(house.settings, Releases(data))
            assert house.becomes("a")
            some_more(answers)
            roll_back(house.settings, Releases(data))
            assert house.becomes("old")
            some_more(answers)
        assert house.ready() == first
        assert second["candidate"] == "a"
        for own in answers:
            assert changes(own) == [ANSWERS[name] for name in ("old", "a", "b", "a", "old")]
        releases = {said: {release for own in answers for other, release in own if other == said} for said in ANSWERS.values()}
        assert all(len(ids) == 1 for ids in releases.values())
        assert len(set.union(*releases.values())) == 3
        assert releases[ANSWERS["old"]] == {first["release"]}
        assert releases[ANSWERS["a"]] == {second["release"]}
        # Each has been closed when its last question ended, and only then.
        assert eventually(lambda: house.said == [f"closed {name}.json" for name in ("old", "a", "b", "a")])
    assert house.said[-1] == "closed old.json"
    assert "Traceback" not in (data / "log").read_text()


def test_what_cannot_take_over_leaves_the_old_one_alone(data: Path) -> None:
    with serving(data) as house, asking(house, threads=2) as answers:
        some_more(answers)
        for number, (harm, said) in enumerate(
            [
                ({"reader": str(data / "gone.json")}, "There is no model"),
                ({"fingerprint": "0" * 64}, "another fingerprint"),
                ({"prompt": "0" * 64}, "another prompt"),
            ]
        ):
            write_promoted(data, entry(data, "a", candidate=f"broken {number}", **harm))
            assert eventually(lambda said=said: said in str(house.ready()["problem"]))  # type: ignore[misc]
            some_more(answers)
            assert Path(house.ready()["model"]).name == "old.json"
        (data / SERVED).write_text('{"reader":')
        assert eventually(lambda: "is damaged" in str(house.ready()["problem"]))
        some_more(answers)
        assert {said for own in answers for said, _ in own} == {ANSWERS["old"]}
        write_promoted(data, entry(data, "b"))
        assert house.becomes("b")
        assert house.ready()["problem"] is None
        some_more(answers)
    errors = [line for line in (data / "log").read_text().splitlines() if " ERROR " in line]
    assert len(errors) == 4
    for own in answers:
        assert changes(own) == [ANSWERS["old"], ANSWERS["b"]]


def test_a_server_that_is_killed_comes_back_with_the_promoted_one(data: Path) -> None:
    with serving(data) as house:
        write(data / "a.json", ANSWERS["a"], loads_s=30)
        house.promote("a")
        house.ready()
        # While it opens the new one, the old one answers; then all of it ends at once.
        assert httpx.post(f"{house.url}/v1/ask", json=QUESTION, timeout=20).json()["answer"] == ANSWERS["old"]
        house.process.kill()
        house.process.wait(10)
    house.promote("b")
    with serving(data) as house:
        assert house.ready()["candidate"] == "b"
        assert httpx.post(f"{house.url}/v1/ask", json=QUESTION, timeout=20).json()["answer"] == ANSWERS["b"]


def test_it_does_not_start_with_what_is_damaged_or_gone(data: Path) -> None:
    def refused() -> str:
        command = [sys.executable, "-c", PROGRAM, str(data), str(data / "old.json")]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert ended.returncode == 1
        return " ".join(ended.stderr.split())

    (data / SERVED).write_text("{")
    assert "is damaged" in refused()
    write_promoted(data, entry(data, "a"))
    (data / "a.json").unlink()
    assert "The promoted reader does not open. There is no model" in refused()
