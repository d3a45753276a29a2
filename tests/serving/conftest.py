"""A pipeline made by hand, and a real server in a thread to serve it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from reader.answering import Event, HitsFound, QuoteProven, Token
from reader.schema import Answer, Quote, Turn
from retriever.errors import QueryError
from retriever.schema import Hit
from retriever.search import Mode
from retriever.settings import Settings
from serving.app import create_app
from serving.documents import Documents
from serving.gate import Gate
from serving.jobs.jobs import Jobs
from serving.run import Server, bind

Cancelled = Callable[[], bool]
Script = Callable[[str, Cancelled], Iterator[Event]]

TEXT = "Belege über 25 € sind binnen 30 Tagen einzureichen. 🧾"
HIT = Hit(
    document="5f2d0c7a91e4b386",
    source="handbuch/reisen.pdf",
    title="Reisen",
    language="de",
    headings=("Reisen", "Belege"),
    page=3,
    start=1204,
    end=1204 + len(TEXT),
    text=TEXT,
    score=0.93,
    dense=0.61,
    keyword=8.42,
    revision=7,
)
KEYWORD_HIT = replace(HIT, document="00c0ffee00c0ffee", source="agb.html", title="AGB", page=None, dense=None)
QUOTE = Quote(HIT.document, HIT.source, HIT.title, HIT.page, HIT.start, HIT.end, HIT.text)
ANSWER = Answer(
    answer="Binnen 30 Tagen.",
    abstained=False,
    reason=None,
    quotes=(QUOTE,),
    hits=(HIT, KEYWORD_HIT),
    reasoning=f"##begin_quote## {TEXT} ##end_quote##\n<ANSWER>: Binnen 30 Tagen.",
    notes=("1 of 2 passages did not fit the model's context.",),
    release="a41be5d2c9f07318",
    timings={"search": 0.0121, "read": 3.4077},
)


def quick(question: str, cancelled: Cancelled) -> Iterator[Event]:
    """Answer at once."""
    yield HitsFound(ANSWER.hits)
    yield Token("Binnen\n")
    yield Token("30 Tagen.")
    yield QuoteProven(QUOTE)
    yield ANSWER


def endless(question: str, cancelled: Cancelled) -> Iterator[Event]:
    """Write on and on until cancelled; then, as the pipeline does, make an answer of what there is."""
    yield HitsFound(ANSWER.hits)
    while not cancelled():
        yield Token("… ")
        time.sleep(0.01)
    yield ANSWER


def silent(question: str, cancelled: Cancelled) -> Iterator[Event]:
    """Evaluate a prompt without end: say nothing until cancelled."""
    yield HitsFound(ANSWER.hits)
    while not cancelled():
        time.sleep(0.01)
    yield ANSWER


def deaf(question: str, cancelled: Cancelled) -> Iterator[Event]:
    """Wait for a model server that never answers."""
    yield HitsFound(ANSWER.hits)
    time.sleep(60)


def telling(question: str, cancelled: Cancelled) -> Iterator[Event]:
    """Tell whoever reads the output that the question has come in, and then nothing more."""
    print("asked", flush=True)  # noqa: T201
    yield from silent(question, cancelled)


class FakePipeline:
    """Does what its script says.

    Attributes:
        script: what `ask` yields.
        error: what `search` and `check` raise.
        asked: what `ask` was given, and `searched` what `search` was.
        ended: how many questions came to their end, whichever.
        cancelled: how many of them were told to stop.
    """

    def __init__(self, script: Script = quick) -> None:
        self.script = script
        self.error: Exception | None = None
        self.asked: list[tuple[str, Mapping[str, Sequence[str]] | None, Sequence[Turn]]] = []
        self.searched: list[tuple[str, int, Mode, Mapping[str, Sequence[str]] | None]] = []
        self.ended = 0
        self.cancelled = 0
        self.closed = False
        self._lock = threading.Lock()

    def ask(
        self,
        question: str,
        *,
        filters: Mapping[str, Sequence[str]] | None = None,
        history: Sequence[Turn] = (),
        cancelled: Cancelled,
    ) -> Iterator[Event]:
        self.asked.append((question, filters, history))
        if not question.strip():
            raise QueryError("The question is empty.", way_out="Write a question.")
        try:
            yield from self.script(question, cancelled)
        finally:
            with self._lock:
                self.ended += 1
                self.cancelled += cancelled()

    def search(
        self,
        query: str,
        *,
        limit: int = 10,
        mode: Mode = "fused",
        filters: Mapping[str, Sequence[str]] | None = None,
        rerank: bool | None = None,
    ) -> list[Hit]:
        self.searched.append((query, limit, mode, filters, rerank))
        if self.error:
            raise self.error
        return [HIT, KEYWORD_HIT][:limit]

    def check(self) -> None:
        if self.error:
            raise self.error

    def close(self) -> None:
        self.closed = True


class Relay:
    """Hands everything on to the fake of the test that runs now, so that tests can share a server."""

    def __init__(self) -> None:
        self.fake = FakePipeline()

    def ask(self, question: str, **more: Any) -> Iterator[Event]:
        return self.fake.ask(question, **more)

    def search(self, query: str, **more: Any) -> list[Hit]:
        return self.fake.search(query, **more)

    def check(self) -> None:
        self.fake.check()


@dataclass
class Running:
    """A server in a thread."""

    url: str
    client: httpx.Client
    gate: Gate

    def ask(self, question: str = "Bis wann?", **more: Any) -> httpx.Response:
        return self.client.post("/v1/ask", json={"question": question, **more})

    @contextmanager
    def stream(self, question: str = "Bis wann?", **more: Any) -> Iterator[Iterator[tuple[str, Any]]]:
        """Yield the events of an answer as pairs of name and data; a comment's name is `:`."""
        body = {"question": question, "stream": True, **more}
        with self.client.stream("POST", "/v1/ask", json=body) as response:
            assert response.headers["content-type"].startswith("text/event-stream"), response.read()
            yield events_of(response)


def events_of(response: httpx.Response) -> Iterator[tuple[str, Any]]:
    name = data = ""
    for line in response.iter_lines():
        if line.startswith(":"):
            yield ":", line[1:].strip()
        elif line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            data = line.removeprefix("data: ")
        elif not line and name:
            yield name, json.loads(data)
            name = data = ""


def eventually(true: Callable[[], bool], within_s: float = 5) -> bool:
    """Wait until something is true."""
    until = time.monotonic() + within_s
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture
def fake() -> FakePipeline:
    return FakePipeline()


@pytest.fixture
def scripts() -> dict[str, Script]:
    return {"quick": quick, "endless": endless, "silent": silent}


@pytest.fixture(name="eventually")
def _eventually() -> Callable[..., bool]:
    return eventually


@pytest.fixture
def answer() -> Answer:
    return ANSWER


@contextmanager
def serving(
    pipeline: FakePipeline | Relay, *, queue: int = 4, heartbeat_s: float = 15, settings: Settings | None = None
) -> Iterator[Running]:
    """Run a server that carries out no jobs; everything that it began must end with it."""
    settings = settings or Settings(queue=queue)
    gate = Gate(settings.queue)
    up = threading.Event()
    with bind("127.0.0.1", 0) as listener, closing(Documents(settings)) as documents, closing(Jobs(settings)) as jobs:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        app = create_app(pipeline, settings, gate=gate, jobs=jobs, documents=documents, heartbeat_s=heartbeat_s)
        server = Server(app, gate, on_start=lambda _: up.set())
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            assert up.wait(10)
            with httpx.Client(base_url=url, timeout=20) as client:
                yield Running(url, client, gate)
        finally:
            server.should_exit = True
            thread.join(15)
            assert not thread.is_alive()
            assert gate.wait_empty(5), "a question has outlived its server"


@pytest.fixture
def serve() -> Iterator[Callable[..., Running]]:
    """Start servers of a test's own."""
    with ExitStack() as stack:
        yield lambda pipeline, **more: stack.enter_context(serving(pipeline, **more))


@pytest.fixture(scope="session", name="serving")
def _serving() -> Callable[..., Any]:
    """Start servers that the tests of a module share."""
    return lambda **more: serving(FakePipeline(), **more)


@pytest.fixture(scope="session")
def shared() -> Iterator[tuple[Relay, Running]]:
    relay = Relay()
    with serving(relay) as running:
        yield relay, running


@pytest.fixture
def running(shared: tuple[Relay, Running], fake: FakePipeline) -> Iterator[Running]:
    """A server that other tests use too, with this test's fake behind it."""
    relay, running = shared
    relay.fake = fake
    yield running
    assert running.gate.wait_empty(5), "a question has outlived its test"


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, object], None]:
    """Compare a value with the file of that name."""
    update = request.config.getoption("--update-golden")

    def compare(name: str, value: object) -> None:
        path = Path(__file__).with_name("golden") / f"{name}.json"
        if update:
            path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        assert value == json.loads(path.read_text(encoding="utf-8"))

    return compare
