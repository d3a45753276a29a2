"""Rows made by hand, search with an encoder that needs no model, and a model server that says what it is told to."""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from finetune.data.read import read_all
from finetune.raft.finding import Finding
from finetune.raft.row import Passage, RaftRow
from finetune.raft.sources import Where, open_finding
from reader.quotes import Span
from retriever.settings import Settings

TEXT = "Der Gurt wird mit 210 N gespannt. 🧾 Zuständig ist Frau Ihde. Der Spalt misst 1,8 mm."


def by_path(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def fakes() -> ModuleType:
    return by_path("retriever_fakes_for_raft", Path(__file__).parents[2] / "retriever" / "fakes.py")


@pytest.fixture(scope="session")
def browsers() -> ModuleType:
    return by_path("raft_browser", Path(__file__).with_name("browser.py"))


@pytest.fixture
def make_row() -> Callable[..., RaftRow]:
    """A row of two passages, of which the second answers."""

    def make(**changes: Any) -> RaftRow:
        passages = (
            Passage(
                "Die Bahn ist das bevorzugte Verkehrsmittel.", "Reisen", ("Reisen", "Bahn"), "retrieved", "r.md", 4, 47, "de"
            ),
            Passage(TEXT, "Wartung", (), "golden", "w.md", 0, len(TEXT), "de"),
        )
        values: dict[str, Any] = {
            "id": "q1", "question": "Wie straff muss der Trägergurt sein?", "passages": passages, "golden": 2,
            "quotes": (Span(2, 0, 33),), "reasoning": "", "answer": "210 N", "abstains": False, "language": "de",
            "document": "w.md", "origin": "x.jsonl, line 1",
        }  # fmt: skip
        return RaftRow(**(values | changes))

    return make


@dataclass
class Told:
    """Hears of progress, and forgets it."""

    notes: list[str] = field(default_factory=list)

    def on_phase(self, phase: str, total: int | None) -> None:
        pass

    def on_progress(self, done: int) -> None:
        pass

    def on_note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def finding(fakes: ModuleType, tmp_path: Path) -> Callable[..., Any]:
    """Open a search over rows' contexts and files; yields it with the ids of the files that questions are about."""

    @contextmanager
    def opened(source: Path | None, **where: Any) -> Iterator[tuple[Finding, frozenset[str]]]:
        encoder = fakes.FakeEncoder()
        settings = Settings(data_dir=tmp_path / "data", encoder="fake-1", chunk_tokens=40, chunk_overlap=5)
        rows = [(row, None) for row in read_all([source])] if source else []
        with open_finding(settings, rows, Where(**where), tell=Told(), open_=lambda *_, **__: encoder) as found:
            yield found

    return opened


@pytest.fixture
def lines(tmp_path: Path) -> Callable[..., Path]:
    """Write records, an object a line."""

    def write(records: list[Any], name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
        return path

    return write


class ModelServer:
    """An OpenAI-compatible server.

    Attributes:
        says: what it answers to the messages of a request: text, or a status of HTTP.
        asked: the body of every request.
    """

    def __init__(self) -> None:
        self.says: Callable[[dict[str, Any]], str | int] = lambda _: "?"
        self.asked: list[dict[str, Any]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(200 if self.path == "/v1/models" else 404, {"data": [{"id": "m-1"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.asked.append(body)
                said = server.says(body)
                if isinstance(said, int):
                    self._answer(said, {"error": {"message": "no"}})
                else:
                    self._answer(200, {"choices": [{"message": {"role": "assistant", "content": said}}]})

            def _answer(self, status: int, content: object) -> None:
                data = json.dumps(content).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    pass  # whoever asked has been killed

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def model_server() -> Iterator[ModelServer]:
    server = ModelServer()
    yield server
    server.close()
