"""`POST /v1/ask`, over real sockets."""

from __future__ import annotations

import json
import logging
import socket
import time
from typing import Any

import pytest

from reader.answering import HitsFound, Token
from reader.errors import EngineError, EngineUnavailable, PromptTooLong
from reader.schema import Turn
from retriever.errors import IndexMissing, QueryError


def test_an_answer_is_one_object(running: Any, golden: Any) -> None:
    response = running.ask()
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in response.headers
    golden("ask", response.json())


def test_a_stream_sends_each_event_and_ends(running: Any, golden: Any) -> None:
    with running.stream() as events:
        sent = [list(event) for event in events]
    assert [name for name, _ in sent] == ["hits", "token", "token", "quote", "answer", "done"]
    golden("stream", sent)
    assert dict(sent)["answer"] == running.ask().json()
    assert running.gate.taken == 0


def test_a_stream_is_not_to_be_stored_or_held_back(running: Any) -> None:
    headers = running.ask(stream=True).headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-accel-buffering"] == "no"


def test_everything_that_is_asked_reaches_the_pipeline(running: Any, fake: Any) -> None:
    history = [{"question": "Wer zahlt?", "answer": "Die Firma."}]
    running.ask("Bis wann? ü🧾", filters={"language": "de", "kind": ["pdf", "html"]}, history=history)
    assert fake.asked == [("Bis wann? ü🧾", {"language": ["de"], "kind": ["pdf", "html"]}, (Turn("Wer zahlt?", "Die Firma."),))]


def test_heartbeats_come_while_the_model_says_nothing(serve: Any, fake: Any, scripts: Any) -> None:
    fake.script = scripts["silent"]
    running = serve(fake, heartbeat_s=0.05)
    with running.stream() as events:
        assert next(events)[0] == "hits"
        assert [next(events) for _ in range(4)] == [(":", "ping")] * 4


def test_a_stream_begins_with_heartbeats_if_the_search_is_slow(serve: Any, fake: Any, scripts: Any) -> None:
    def slow(question: str, cancelled: Any) -> Any:
        time.sleep(1)
        yield from scripts["quick"](question, cancelled)

    fake.script = slow
    with serve(fake, heartbeat_s=0.1).stream() as events:
        names = [name for name, _ in events]
    assert names[:2] == [":", ":"]
    assert names[-1] == "done"


@pytest.mark.parametrize("kind", ["endless", "silent"])
def test_a_client_that_leaves_a_stream_stops_the_model_and_frees_its_place(
    serve: Any, fake: Any, scripts: Any, eventually: Any, kind: str
) -> None:
    fake.script = scripts[kind]
    running = serve(fake, queue=1)
    for left in range(1, 4):
        with running.stream() as events:
            next(events)
            assert running.gate.taken == 1
        assert eventually(lambda left=left: fake.cancelled == left)
        assert eventually(lambda: running.gate.taken == 0)


@pytest.mark.parametrize("stream", [True, False])
def test_a_socket_that_is_cut_stops_the_model_and_frees_its_place(
    serve: Any, fake: Any, scripts: Any, eventually: Any, stream: bool
) -> None:
    fake.script = scripts["silent"]
    running = serve(fake, queue=1)
    body = json.dumps({"question": "Bis wann?", "stream": stream}).encode()
    head = f"POST /v1/ask HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2]))) as client:
        client.sendall(head.encode() + body)
        assert eventually(lambda: running.gate.taken == 1)
    assert eventually(lambda: fake.cancelled == 1)
    assert eventually(lambda: running.gate.taken == 0)


@pytest.mark.parametrize(
    ("error", "status", "slug"),
    [
        (QueryError("There is no filter `colour`."), 422, "query"),
        (IndexMissing("Nothing has been indexed yet."), 503, "index-missing"),
        (RuntimeError("secret"), 500, "internal-error"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_an_error_before_the_first_event_has_its_status_even_when_streaming(
    running: Any, fake: Any, error: Exception, status: int, slug: str, stream: bool
) -> None:
    def failing(question: str, cancelled: Any) -> Any:
        raise error
        yield

    fake.script = failing
    response = running.ask(stream=stream)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] == f"urn:beleg:{slug}"
    assert "secret" not in response.text
    assert running.gate.taken == 0


@pytest.mark.parametrize(
    ("error", "status", "slug"),
    [
        (EngineUnavailable("The model server does not answer."), 503, "engine-unavailable"),
        (EngineError("The model failed."), 502, "engine"),
        (PromptTooLong("Too long."), 422, "prompt-too-long"),
        (TimeoutError("secret"), 500, "internal-error"),
    ],
)
def test_an_error_in_the_middle(running: Any, fake: Any, answer: Any, error: Exception, status: int, slug: str) -> None:
    def breaking(question: str, cancelled: Any) -> Any:
        yield HitsFound(answer.hits)
        yield Token("Bin")
        raise error

    fake.script = breaking
    with running.stream() as events:
        sent = list(events)
    assert [name for name, _ in sent] == ["hits", "token", "error"]
    problem = sent[-1][1]
    assert (problem["status"], problem["type"]) == (status, f"urn:beleg:{slug}")
    assert "secret" not in str(problem)
    assert running.gate.taken == 0
    response = running.ask()
    assert response.status_code == status
    assert response.json() == {**problem, **({"instance": response.json()["instance"]} if status == 500 else {})}


def test_a_pipeline_that_ends_without_an_answer_is_an_error(running: Any, fake: Any) -> None:
    fake.script = lambda question, cancelled: iter(())
    assert running.ask().status_code == 500
    assert running.gate.taken == 0


def test_many_can_be_answered_over_one_connection(running: Any) -> None:
    assert all(running.ask(stream=bool(turn % 2)).status_code == 200 for turn in range(30))
    assert running.gate.taken == 0


def test_one_line_is_logged_for_a_question_and_the_question_is_not_in_it(
    running: Any, fake: Any, scripts: Any, eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "serving")
    running.ask("Geheim?")
    fake.script = scripts["endless"]
    with running.stream("Geheim?") as events:
        next(events)
    assert eventually(lambda: len(caplog.records) == 2)
    first, second = [json.loads(record.getMessage()) for record in caplog.records]
    assert first["seconds"] >= 0
    assert first | {"seconds": 0} == {
        "event": "question",
        "outcome": "answered",
        "reason": None,
        "stream": False,
        "ahead": 0,
        "seconds": 0,
        "hits": 2,
        "quotes": 1,
        "cached": False,
        "release": "a41be5d2c9f07318",
    }
    assert (second["outcome"], second["stream"]) == ("cancelled", True)
    assert "Geheim" not in caplog.text
