"""What people say of answers is kept before the server says so, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from reader.feedback import FILE, read_feedback
from retriever.settings import Settings
from serving import examples
from serving.app import create_app
from serving.routes.feedback import HitRequest


@pytest.fixture
def client(fake: Any, tmp_path: Path) -> Iterator[TestClient]:
    app = create_app(fake, Settings(data_dir=tmp_path / "data"))
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        yield client


def post(client: TestClient, **said: Any) -> Any:
    return client.post("/v1/feedback", json={"question": "Bis wann?", "verdict": "good", **said})


def test_an_answer_goes_back_as_it_came(client: TestClient, tmp_path: Path, answer: Any) -> None:
    came = client.post("/v1/ask", json={"question": "Bis wann? 🧾"}).json()
    given = {name: came[name] for name in ("answer", "release", "quotes", "hits")}
    response = post(client, question="Bis wann? 🧾", comment="Gut.\r\nDanke!", **given)
    assert response.status_code == 201, response.text
    (kept,) = read_feedback(tmp_path / "data")
    assert response.json() == {"time": kept.time}
    assert (kept.question, kept.verdict, kept.comment) == ("Bis wann? 🧾", "good", "Gut.\r\nDanke!")
    assert (kept.answer, kept.release, kept.quotes) == (answer.answer, answer.release, answer.quotes)
    assert [(hit.document, hit.start, hit.end, hit.text) for hit in kept.hits] == [
        (hit.document, hit.start, hit.end, hit.text) for hit in answer.hits
    ]


def test_a_passage_has_the_same_fields_here_and_there() -> None:
    from serving.payloads import HitPayload

    assert set(HitRequest.model_fields) == set(HitPayload.model_fields)


def test_the_line_is_what_training_reads(client: TestClient, tmp_path: Path) -> None:
    assert client.post("/v1/feedback", json=examples.FEEDBACK).status_code == 201
    assert post(client).status_code == 201
    first, second = (json.loads(line) for line in (tmp_path / "data" / FILE).read_bytes().splitlines())
    assert set(first) == {"time", "question", "verdict", "answer", "release", "comment", "correction", "quotes", "hits"}
    assert first["correction"] == examples.FEEDBACK["correction"]
    places = {"document", "source", "title", "page", "start", "end", "text"}
    assert {frozenset(place) for field in ("quotes", "hits") for place in first[field]} == {frozenset(places)}
    assert second["correction"] is None


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"question": ""}, "question"),
        ({"question": " \n"}, "question"),
        ({"question": "x" * 4001}, "question"),
        ({"question": "a\0b"}, "question"),
        ({"question": 1}, "question"),
        ({"verdict": "so so"}, "verdict"),
        ({"verdict": True}, "verdict"),
        ({"answer": None}, "answer"),
        ({"answer": "x" * 100_001}, "answer"),
        ({"comment": "x" * 10_001}, "comment"),
        ({"comment": "\ud800"}, "comment"),
        ({"correction": {"source": "a.pdf"}}, "correction.text"),
        ({"correction": {"source": "a.pdf", "text": "  "}}, "correction.text"),
        ({"correction": "a.pdf"}, "correction"),
        ({"quotes": [{}] * 1}, "quotes.0.document"),
        ({"quotes": [examples._PLACE] * 101}, "quotes"),
        ({"quotes": [examples._HIT]}, "quotes.0.score"),
        ({"hits": [{**examples._HIT, "start": -1}]}, "hits.0.start"),
        ({"hits": [{**examples._HIT, "start": 1.5}]}, "hits.0.start"),
        ({"hits": [{**examples._HIT, "end": 10**30}]}, "hits.0.end"),
        ({"hits": [{**examples._HIT, "colour": "blue"}]}, "hits.0.colour"),
        ({"who": "me"}, "who"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_none_is_not_kept(client: TestClient, tmp_path: Path, said: dict[str, Any], field: str) -> None:
    body = json.dumps({"question": "Bis wann?", "verdict": "good", **said})
    response = client.post("/v1/feedback", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 422, response.text
    assert response.json()["type"] == "urn:beleg:invalid-request"
    assert response.json()["errors"][0]["field"] == field
    assert not (tmp_path / "data" / FILE).exists()


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b'{"question": "q", "verdict": "good"}', "text/plain", 422),
        (b'{"question": "q", "verdict": "good", "answer": "' + b"x" * 1_100_000 + b'"}', "application/json", 413),
    ],
    ids=["half", "not UTF-8", "as a form of another site would", "too large"],
)
def test_bodies_that_are_none(client: TestClient, tmp_path: Path, body: bytes, kind: str, status: int) -> None:
    response = client.post("/v1/feedback", content=body, headers={"content-type": kind})
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert not (tmp_path / "data" / FILE).exists()


def test_many_at_once(client: TestClient, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda number: post(client, question=f"Frage {number}").status_code, range(40)))
    assert statuses == [201] * 40
    assert {item.question for item in read_feedback(tmp_path / "data")} == {f"Frage {number}" for number in range(40)}


def test_a_disk_that_refuses(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert post(client, question="vorher").status_code == 201

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        response = post(client, question="verloren")
    assert response.status_code == 507
    problem = response.json()
    assert problem["type"] == "urn:beleg:feedback-not-kept"
    assert "No space left on device" in problem["detail"]
    assert "room" in problem["way_out"]
    assert [item.question for item in read_feedback(tmp_path / "data")] == ["vorher"]
    assert post(client, question="nachher").status_code == 201


def test_a_data_folder_that_cannot_be_made(fake: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with TestClient(create_app(fake, Settings(data_dir=tmp_path / "file" / "data")), base_url="http://localhost") as client:
        assert post(client).status_code == 507


def test_it_is_described(client: TestClient) -> None:
    described: Callable[..., Any] = client.get("/openapi.json").json()["paths"]["/v1/feedback"]["post"]["responses"].get
    assert set(described("201")["content"]) == {"application/json"}
    assert set(described("507")["content"]) == {"application/problem+json"}
