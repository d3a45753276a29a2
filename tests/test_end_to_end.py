"""The starter models over the example handbook: in this process, and over HTTP while another process indexes."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from reader.pipeline import Pipeline
from reader.schema import answer_json
from retriever.chunk import ChunkSize
from retriever.encode import open_encoder
from retriever.fill import Maker
from retriever.index.engines import open_generations
from retriever.ingest import Ingest
from retriever.metrics import evaluate
from retriever.questions import place, read_questions
from retriever.settings import Settings
from retriever.store import Store

ROOT = Path(__file__).parents[1]
ASKED = ("q002", "q006", "q008", "q017", "q053", "q059")
ANSWER_KEYS = {"answer", "abstained", "reason", "quotes", "hits", "release", "timings"}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("handbook"), threads=1)
    with Store(settings.data_dir) as store:
        encoder = open_encoder(settings.encoder)
        size = ChunkSize(settings.chunk_tokens, settings.chunk_overlap)
        generations = open_generations(settings, store)
        run = Ingest(store, generations, Maker(encoder, size), settings.encoder, max_bytes=1 << 24, timeout_s=60)
        run.run([ROOT / "examples" / "handbook"])
    with Pipeline.open(settings) as opened:
        yield opened


@pytest.mark.parametrize("name", ASKED)
def test_every_quote_is_verbatim_and_on_its_page(pipeline: Pipeline, name: str) -> None:
    (question,) = [item for item in read_questions(ROOT / "examples" / "questions.jsonl") if item.id == name]
    answer = pipeline.answer(question.question)
    assert answer_json(answer).keys() >= ANSWER_KEYS
    assert answer.hits
    assert answer.abstained == (answer.reason is not None)
    assert answer.quotes or answer.abstained
    for quote in answer.quotes:
        document = pipeline.store.document(quote.document)
        assert document is not None
        assert document.text[quote.start : quote.end] == quote.text
        assert (document.source, document.title, document.page_at(quote.start)) == (quote.source, quote.title, quote.page)
        assert any(hit.document == quote.document and hit.start <= quote.start < quote.end <= hit.end for hit in answer.hits)


def test_questions_for_identifiers_find_their_passage(pipeline: Pipeline) -> None:
    asked = [
        item
        for item in read_questions(ROOT / "examples" / "questions.jsonl", split="calibrate")
        if item.kind == "identifier" and item.proof
    ]
    labels = place(asked, pipeline.store)
    rankings = {item.id: pipeline.search(item.question, limit=5) for item in asked}
    found = evaluate(labels, rankings, measures=["Success@5"])["Success@5"]
    assert len(asked) >= 5
    assert sum(found.values()) / len(found) >= 0.6, found


def test_served_while_another_process_indexes(
    tmp_path: Path,
    beleg: Callable[..., subprocess.CompletedProcess[str]],
    beleg_command: Path,
    beleg_environment: Callable[[Mapping[str, str]], dict[str, str]],
) -> None:
    files, data = tmp_path / "files", tmp_path / "data"
    files.mkdir()
    (files / "canteen.md").write_text("# Canteen\n\nGuests pay 9.40 euros for a main dish.\n", encoding="utf-8")
    assert beleg("index", files, data_dir=data).returncode == 0
    settings = beleg_environment(
        {"BELEG_DATA_DIR": str(data), "BELEG_PORT": "0", "BELEG_PASSAGES": "1", "BELEG_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    )
    with subprocess.Popen([beleg_command, "serve"], env=settings, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline().strip()
            assert line.startswith("Beleg listens on http://127.0.0.1:"), line
            with httpx.Client(base_url=line.rpartition(" ")[2], timeout=120) as client:
                question = {"question": "What do guests pay for a main dish?"}
                first = client.post("/v1/ask", json=question).raise_for_status().json()
                assert first.keys() >= ANSWER_KEYS
                assert [quote["text"] for quote in first["quotes"]] == ["Guests pay 9.40 euros for a main dish."]

                (files / "canteen.md").write_text("# Canteen\n\nGuests pay 9.90 euros for a main dish.\n", encoding="utf-8")
                assert beleg("index", files, data_dir=data).returncode == 0
                until = time.monotonic() + 2
                text = ""
                while "9.90" not in text and time.monotonic() < until:
                    found = client.post("/v1/search", json={"query": "guests pay"}).raise_for_status().json()
                    text = " ".join(hit["text"] for hit in found["hits"])
                assert "9.90" in text
                assert "9.40" not in text

                events: list[str] = []
                sent = {}
                with client.stream("POST", "/v1/ask", json={**question, "stream": True}) as response:
                    assert response.headers["content-type"].startswith("text/event-stream")
                    for row in response.iter_lines():
                        if row.startswith("event: "):
                            events.append(row.removeprefix("event: "))
                        elif row.startswith("data: "):
                            sent[events[-1]] = json.loads(row.removeprefix("data: "))
                assert events[0] == "hits"
                assert events[-1] == "done"
                assert [quote["text"] for quote in sent["answer"]["quotes"]] == ["Guests pay 9.90 euros for a main dish."]
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 0
        finally:
            server.kill()
