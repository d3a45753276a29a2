"""One shape for every error, and none that is forgotten."""

from __future__ import annotations

import json
import logging
import re
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import reader.errors
import retriever.errors
import serving.errors
from reader.errors import EngineError, EngineUnavailable, FeedbackError, Overloaded, PromptTooLong
from retriever.errors import (
    BelegError,
    GateFailed,
    IndexMismatch,
    IndexMissing,
    IndexUnavailable,
    LoadError,
    QueryError,
    StoreError,
    StoreLocked,
    SwapLost,
)
from serving.errors import JobConflict, JobMissing, JobRefused, JobsUnavailable
from serving.problems import KINDS, headers_of, problem_of, respond

MIB = 1024 * 1024
HERE = (retriever.errors, reader.errors, serving.errors)
JSON = {"Content-Type": "application/json"}


def tree(cls: type[BelegError]) -> Iterator[type[BelegError]]:
    yield cls
    for below in cls.__subclasses__():
        yield from tree(below)


def made(cls: type[BelegError]) -> BelegError:
    if cls is Overloaded:
        return Overloaded("Full.", retry_after_s=7)
    if cls is LoadError:
        return LoadError("a.pdf", "it is damaged")
    if cls is serving.errors.ShuttingDown:
        return serving.errors.ShuttingDown()
    return cls("It failed.", way_out="Mend it.")


def is_problem(response: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-content-type-options"] == "nosniff"
    problem = response.json()
    assert problem["type"] == f"urn:beleg:{slug}"
    assert problem["status"] == status
    assert {"title", "detail", "way_out"} <= problem.keys()
    return dict(problem)


def test_every_class_of_the_error_tree_has_its_own_row() -> None:
    # finetune never meets a client.
    ours = {cls for cls in tree(BelegError) if cls.__module__ in {module.__name__ for module in HERE}}
    assert set(KINDS) == ours
    slugs = [kind.slug for kind in KINDS.values()]
    assert len(set(slugs)) == len(slugs)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", slug) for slug in slugs)


@pytest.mark.parametrize("cls", sorted(KINDS, key=lambda cls: cls.__name__))
def test_the_status_of_every_class(cls: type[BelegError]) -> None:
    expected = {
        QueryError: 422,
        PromptTooLong: 422,
        EngineError: 502,
        FeedbackError: 507,
        SwapLost: 409,
        GateFailed: 409,
        JobMissing: 404,
        JobConflict: 409,
        JobRefused: 422,
        serving.errors.DocumentMissing: 404,
        serving.errors.FileMissing: 404,
        serving.errors.FileChanged: 409,
        serving.errors.HostRefused: 421,
        serving.errors.UploadsOff: 403,
        serving.errors.UploadRefused: 422,
        serving.errors.KindUnknown: 415,
        serving.errors.UploadNotKept: 507,
    }
    unavailable = {
        IndexMissing,
        IndexMismatch,
        IndexUnavailable,
        JobsUnavailable,
        StoreError,
        StoreLocked,
        EngineUnavailable,
        Overloaded,
        serving.errors.ShuttingDown,
    }
    status = 503 if cls in unavailable else expected.get(cls, 500)
    error = made(cls)
    response = respond(error)
    assert response.status_code == status
    assert ("retry-after" in response.headers) == (status == 503)
    body = json.loads(bytes(response.body))
    assert (body["detail"], body["way_out"]) == (error.message, error.way_out)
    assert ("instance" in body) == (status == 500)


def test_a_new_class_is_described_by_its_nearest_base() -> None:
    class Odd(StoreLocked):
        pass

    try:
        assert problem_of(Odd("Busy.")).type == "urn:beleg:store-locked"
        assert headers_of(Odd("Busy.")) == {"Retry-After": "5"}
    finally:
        del Odd


def test_no_such_address(running: Any) -> None:
    for path in ("/v1/", "/v1/ask/", "/docs", "/../etc/passwd", "/%00", "/%ff"):
        is_problem(running.client.get(path), 404, "not-found")


def test_no_such_method(running: Any) -> None:
    response = running.client.get("/v1/ask")
    is_problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == "POST"
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "body",
    [b"{", b"nonsense", b'{"question": "x"', b"[" * 500_000, b'{"a":' * 150_000, b'{"question": "\xff"}', b"\x00"],
    ids=["open", "word", "half", "deep list", "deep object", "not UTF-8", "NUL"],
)
def test_a_body_that_is_no_json(running: Any, body: bytes) -> None:
    problem = is_problem(running.client.post("/v1/ask", content=body, headers=JSON), 400, "invalid-json")
    assert len(problem["detail"]) < 200


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ["question"]),
        ({"question": ""}, ["question"]),
        ({"question": "x" * 4001}, ["question"]),
        ({"question": None}, ["question"]),
        ({"question": 5}, ["question"]),
        ({"question": ["x"]}, ["question"]),
        ({"question": "a\0b"}, ["question"]),
        ({"question": "x", "stream": "yes"}, ["stream"]),
        ({"question": "x", "stream": 1}, ["stream"]),
        ({"question": "x", "filters": []}, ["filters"]),
        ({"question": "x", "filters": {"a": {"b": "c"}}}, ["filters.a"]),
        ({"question": "x", "filters": {"a": "\0"}}, ["filters.a.0"]),
        ({"question": "x", "filters": {str(n): "a" for n in range(21)}}, ["filters"]),
        ({"question": "x", "history": [{}]}, ["history.0.question", "history.0.answer"]),
        ({"question": "x", "history": [{"question": "a", "answer": "b", "more": 1}]}, ["history.0.more"]),
        ({"question": "x", "history": [{"question": "a", "answer": "b"}] * 21}, ["history"]),
        ({"question": "x", "temperature": 2}, ["temperature"]),
        ([], ["body"]),
        ("x", ["body"]),
        (None, ["body"]),
    ],
    ids=str,
)
def test_a_question_that_is_none(running: Any, fake: Any, body: object, fields: list[str]) -> None:
    problem = is_problem(running.client.post("/v1/ask", json=body), 422, "invalid-request")
    assert [error["field"] for error in problem["errors"]] == fields
    assert fake.asked == []


@pytest.mark.parametrize(
    "body",
    [
        rb'{"question": "\ud800"}',
        rb'{"question": "x", "\ud800": 1}',
        rb'{"question": "x", "filters": {"\ud800": "a"}}',
        rb'{"question": "x", "filters": {"a": "\udfff"}}',
        rb'{"question": "x", "history": [{"question": "\ud800", "answer": ""}]}',
    ],
)
def test_lone_surrogates_are_refused_and_not_echoed(running: Any, fake: Any, body: bytes) -> None:
    problem = is_problem(running.client.post("/v1/ask", content=body, headers=JSON), 422, "invalid-request")
    assert len(problem["errors"]) == 1
    assert fake.asked == []


def test_deep_but_valid_json_is_refused(running: Any) -> None:
    body = b'{"question": "x", "filters": ' + b'{"a":' * 200 + b"1" + b"}" * 200 + b"}"
    is_problem(running.client.post("/v1/ask", content=body, headers=JSON), 422, "invalid-request")


def test_numbers_beyond_all_bounds_are_refused(running: Any) -> None:
    for number in (b"NaN", b"Infinity", b"1e999", b"9" * 4000, b"9" * 100_000):
        response = running.client.post("/v1/search", content=b'{"query": "x", "limit": ' + number + b"}", headers=JSON)
        assert response.status_code in {400, 422}
        assert len(response.content) < 2000


def test_a_problem_stays_small_whatever_was_sent(running: Any, golden: Any) -> None:
    body = {"question": 1} | {f"{n:04}" * 50: 1 for n in range(3000)}
    response = running.client.post("/v1/ask", json=body)
    problem = is_problem(response, 422, "invalid-request")
    assert len(problem["errors"]) == 20
    assert len(response.content) < 6000
    golden("problem", running.client.post("/v1/ask", json={"question": "", "colour": "red"}).json())


def test_a_form_is_no_json(running: Any, fake: Any) -> None:
    # A page of another origin can send these without asking first.
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        body = b'{"question": "x"}'
        is_problem(running.client.post("/v1/ask", content=body, headers={"Content-Type": kind}), 422, "invalid-request")
    assert fake.asked == []


@pytest.mark.parametrize("size", [MIB + 1, 3 * MIB, 12 * MIB])
@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_that_is_too_large(running: Any, size: int, chunked: bool) -> None:
    def pieces() -> Iterator[bytes]:
        for at in range(0, size, 65536):
            yield b" " * min(65536, size - at)

    content = pieces() if chunked else b" " * size
    is_problem(running.client.post("/v1/ask", content=content, headers=JSON), 413, "body-too-large")
    is_problem(running.client.request("GET", "/healthz", content=b" " * size), 413, "body-too-large")


def test_the_largest_body_is_read(running: Any) -> None:
    body = json.dumps({"question": "x"}).encode()
    assert running.client.post("/v1/ask", content=body.ljust(MIB), headers=JSON).status_code == 200


def test_whoever_asks_before_sending_too_much_is_told_at_once(running: Any) -> None:
    with socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2])), timeout=5) as client:
        client.sendall(b"POST /v1/ask HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_never_ends_takes_no_place(running: Any) -> None:
    with socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2]))) as client:
        client.sendall(b'POST /v1/ask HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n{"question": ')
        assert running.ask().status_code == 200
    assert running.gate.taken == 0
    assert running.ask().status_code == 200


def test_what_nobody_foresaw_is_logged_with_an_id_and_not_told(
    running: Any, fake: Any, caplog: pytest.LogCaptureFixture
) -> None:
    fake.error = ZeroDivisionError("the inside")
    response = running.client.post("/v1/search", json={"query": "x"})
    problem = is_problem(response, 500, "internal-error")
    assert "inside" not in response.text
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert problem["instance"] in record.getMessage()
    assert record.exc_info
    assert "the inside" in caplog.text
