"""`POST /v1/search`, `GET /healthz`, `GET /readyz`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reader.swap import ReaderState
from retriever.errors import IndexMissing, ModelError, QueryError


def test_a_search_answers_with_hits(running: Any, fake: Any, golden: Any) -> None:
    body = {"query": "Belege", "limit": 5, "filters": {"language": "de"}, "mode": "rrf"}
    response = running.client.post("/v1/search", json=body)
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    golden("search", response.json())
    assert fake.searched == [("Belege", 5, "rrf", {"language": ["de"]}, None)]


def test_what_a_search_need_not_say(running: Any, fake: Any) -> None:
    assert running.client.post("/v1/search", json={"query": "Belege"}).status_code == 200
    assert fake.searched == [("Belege", 10, "fused", {}, None)]


@pytest.mark.parametrize("rerank", [True, False, None])
def test_a_search_with_and_without_the_reranker(running: Any, fake: Any, rerank: bool | None) -> None:
    assert running.client.post("/v1/search", json={"query": "Belege", "rerank": rerank}).status_code == 200
    assert fake.searched == [("Belege", 10, "fused", {}, rerank)]


def test_nothing_to_rerank_with(running: Any, fake: Any) -> None:
    fake.error = QueryError("There is no reranker.", way_out="Leave `rerank` out.")
    response = running.client.post("/v1/search", json={"query": "Belege", "rerank": True})
    assert (response.status_code, response.json()["type"]) == (422, "urn:beleg:query")
    assert response.json()["detail"] == "There is no reranker."


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "query"),
        ({"query": ""}, "query"),
        ({"query": "x" * 4001}, "query"),
        ({"query": "x", "limit": 0}, "limit"),
        ({"query": "x", "limit": 101}, "limit"),
        ({"query": "x", "limit": "10"}, "limit"),
        ({"query": "x", "limit": True}, "limit"),
        ({"query": "x", "mode": "magic"}, "mode"),
        ({"query": "x", "rerank": 1}, "rerank"),
        ({"query": "x", "rerank": "yes"}, "rerank"),
        ({"query": "x", "filters": {"a": 1}}, "filters.a"),
        ({"query": "x", "filters": {"a": []}}, "filters.a"),
        ({"query": "x", "filters": {"a": ["b", None]}}, "filters.a.1"),
        ({"query": "x", "colour": "red"}, "colour"),
    ],
)
def test_a_search_that_is_none(running: Any, fake: Any, body: dict[str, object], field: str) -> None:
    response = running.client.post("/v1/search", json=body)
    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]
    assert fake.searched == []


def test_searching_goes_on_while_all_places_are_taken(serve: Any, fake: Any, scripts: Any) -> None:
    fake.script = scripts["silent"]
    running = serve(fake, queue=1)
    with running.stream() as events:
        next(events)
        assert running.client.post("/v1/search", json={"query": "Belege"}).status_code == 200
        assert running.client.get("/readyz").status_code == 200
        assert running.ask().status_code == 503


def test_a_file_name_that_is_not_utf_8_can_be_sent(running: Any, fake: Any, answer: Any) -> None:
    named = replace(answer.hits[0], source="Bericht_\udcfc.pdf")
    fake.search = lambda *_, **__: [named]
    (hit,) = running.client.post("/v1/search", json={"query": "Belege"}).json()["hits"]
    assert hit["source"] == "Bericht_\ufffd.pdf"


def test_healthy(running: Any) -> None:
    for path in ("/healthz", "/readyz"):
        response = running.client.get(path)
        assert (response.status_code, response.json()) == (200, {"status": "ok"})
        assert "cache-control" not in response.headers


def test_alive_but_not_ready(running: Any, fake: Any) -> None:
    fake.error = IndexMissing("Nothing has been indexed yet.", way_out="Run `beleg index`.")
    assert running.client.get("/healthz").status_code == 200
    response = running.client.get("/readyz")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "30"
    assert response.json() == {
        "type": "urn:beleg:index-missing",
        "title": "Nothing has been indexed",
        "status": 503,
        "detail": "Nothing has been indexed yet.",
        "way_out": "Run `beleg index`.",
    }


def test_what_people_must_mend_is_a_500_with_its_reason(running: Any, fake: Any) -> None:
    fake.error = ModelError("The weights are damaged.")
    response = running.client.get("/readyz")
    assert (response.status_code, response.json()["detail"]) == (500, "The weights are damaged.")
    assert response.json()["instance"].startswith("urn:uuid:")


def test_not_ready_while_shutting_down(serve: Any, fake: Any) -> None:
    running = serve(fake)
    running.gate.close()
    for response in (running.client.get("/readyz"), running.ask(), running.ask(stream=True)):
        assert (response.status_code, response.json()["type"]) == (503, "urn:beleg:shutting-down")
        assert response.headers["retry-after"] == "5"


def test_ready_with_its_reader(serve: Any, fake: Any) -> None:
    state = {"model": "m.gguf", "candidate": None, "release": "a41be5d2c9f0", "problem": "b cannot take over."}
    fake.reader_state = lambda: ReaderState(**state)
    running = serve(fake)
    assert running.client.get("/healthz").json() == {"status": "ok"}
    fake.error = IndexMissing("Nothing has been indexed yet.")
    assert running.client.get("/readyz").status_code == 503
    fake.error = None
    response = running.client.get("/readyz")
    assert response.status_code == 200
    # Not being promoted, and having no problem, are said too: a probe need not guess.
    assert response.json() == {"status": "ok", "reader": state}
    fake.reader_state = lambda: None
    assert running.client.get("/readyz").json() == {"status": "ok"}
