"""The API's description says what is really sent."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from serving import examples
from serving.jobs.kinds import KINDS as KINDS_OF_JOB
from serving.jobs.payloads import JobPayload, JobRequest
from serving.payloads import AnswerPayload, AskRequest, SearchPayload, SearchRequest, answer_payload
from serving.problems import KINDS, Problem
from serving.routes.feedback import FeedbackRequest


def test_the_description(running: Any) -> None:
    document = running.client.get("/openapi.json").json()
    assert document["info"]["title"] == "Beleg"
    assert document["info"]["version"] == version("beleg")
    jobs = {"/v1/jobs", "/v1/jobs/{job}", "/v1/jobs/{job}/documents", "/v1/jobs/{job}/cancel", "/v1/jobs/{job}/resume"}
    asking = {"/v1/ask", "/v1/search", "/v1/suggestions", "/v1/feedback", "/healthz", "/readyz"}
    parts = ("", "/{document}", "/{document}/text", "/{document}/file", "/{document}/pages/{page}.png", "/{path}")
    assert set(document["paths"]) == asking | jobs | {f"/v1/documents{part}" for part in parts}
    ask = document["paths"]["/v1/ask"]["post"]["responses"]
    assert set(ask) == {"200", "400", "403", "413", "422", "500", "502", "503"}
    assert set(ask["200"]["content"]) == {"application/json", "text/event-stream"}
    assert all(set(ask[status]["content"]) == {"application/problem+json"} for status in ask if status != "200")
    schemas = document["components"]["schemas"]
    assert "HTTPValidationError" not in schemas
    assert set(schemas["Problem"]["required"]) >= {"type", "title", "status", "detail"}
    assert schemas["AskRequest"]["examples"] == [examples.ASK]
    assert schemas["AnswerPayload"]["examples"] == [examples.ANSWER]
    assert schemas["FeedbackRequest"]["examples"] == [examples.FEEDBACK]
    assert schemas["JobPayload"]["examples"] == [examples.JOB]
    assert schemas["JobRequest"]["properties"]["kind"]["enum"] == [*KINDS_OF_JOB]
    assert set(document["paths"]["/v1/jobs"]["post"]["responses"]) == {"202", "400", "403", "409", "413", "422", "500", "503"}


def test_every_reference_leads_somewhere(running: Any) -> None:
    document = running.client.get("/openapi.json").json()

    def references(node: object) -> set[str]:
        if isinstance(node, dict):
            found = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
            return found.union(*map(references, node.values()))
        return set().union(*map(references, node)) if isinstance(node, list) else set()

    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) <= known


def test_the_examples_are_valid() -> None:
    AskRequest.model_validate(examples.ASK)
    SearchRequest.model_validate(examples.SEARCH)
    FeedbackRequest.model_validate(examples.FEEDBACK)
    assert AnswerPayload.model_validate(examples.ANSWER).model_dump(mode="json") == examples.ANSWER
    assert SearchPayload.model_validate(examples.HITS).model_dump(mode="json") == examples.HITS
    assert JobPayload.model_validate(examples.JOB).model_dump(mode="json") == examples.JOB
    job = JobRequest.model_validate(examples.JOB_REQUEST)
    KINDS_OF_JOB[job.kind].arguments.model_validate(job.arguments)
    assert Problem.model_validate(examples.PROBLEM).type in {f"urn:beleg:{kind.slug}" for kind in KINDS.values()}
    (quote,) = AnswerPayload.model_validate(examples.ANSWER).quotes
    assert len(quote.text) == quote.end - quote.start


def test_the_stream_example_names_the_events_that_are_sent(running: Any) -> None:
    with running.stream() as events:
        sent = {name for name, _ in events}
    assert {line.removeprefix("event: ") for line in examples.STREAM.splitlines() if line.startswith("event: ")} == sent


def test_offsets_stay_true_to_the_text(answer: Any) -> None:
    for hit in answer_payload(answer).hits:
        assert len(hit.text) == hit.end - hit.start
