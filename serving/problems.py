"""Errors as `application/problem+json` (RFC 9457): one shape for whatever goes wrong, and one table that says what is what.

Knows nothing of routes. What nobody foresaw is logged with an id, and the client is told the id and nothing else.
"""

from __future__ import annotations

import http
import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from reader.errors import EngineError, EngineUnavailable, FeedbackError, Overloaded, PromptTooLong, ReaderError
from retriever.errors import (
    BelegError,
    GateFailed,
    IndexDamaged,
    IndexMismatch,
    IndexMissing,
    IndexUnavailable,
    LoadError,
    ModelError,
    QueryError,
    SettingsError,
    StoreError,
    StoreLocked,
    SwapLost,
)
from serving import examples
from serving.errors import (
    DocumentMissing,
    FileChanged,
    FileMissing,
    HostRefused,
    JobConflict,
    JobMissing,
    JobRefused,
    JobsUnavailable,
    KindUnknown,
    ShuttingDown,
    UploadNotKept,
    UploadRefused,
    UploadsOff,
)
from serving.payloads import well_formed

__all__ = ["KINDS", "MEDIA_TYPE", "FieldError", "Kind", "Problem", "headers_of", "problem_of", "problem_responses", "respond"]

MEDIA_TYPE = "application/problem+json"

_log = logging.getLogger(__name__)

_MOST_FIELD_ERRORS = 20
"""A body of a mebibyte can be wrong in a hundred thousand places."""

_LONGEST_FIELD = 100


@dataclass(frozen=True, slots=True)
class Kind:
    """What a class of errors is to a client.

    Attributes:
        slug: the stable end of `type`.
        retry_after_s: when asking again may help; None where it will not, or where the error itself says.
    """

    status: int
    slug: str
    title: str
    retry_after_s: int | None = None


_UNFORESEEN = Kind(500, "internal-error", "Something went wrong on the server")

KINDS: Mapping[type[BelegError], Kind] = {
    QueryError: Kind(422, "query", "The question or search cannot be carried out"),
    PromptTooLong: Kind(422, "prompt-too-long", "The question does not fit the model"),
    IndexMissing: Kind(503, "index-missing", "Nothing has been indexed", 30),
    IndexMismatch: Kind(503, "index-mismatch", "The index belongs to another encoder", 30),
    IndexUnavailable: Kind(503, "index-unavailable", "The search engine does not answer", 10),
    IndexDamaged: Kind(500, "index-damaged", "The index does not hold what the store does"),
    SwapLost: Kind(409, "swap-lost", "Another index has become live meanwhile"),
    GateFailed: Kind(409, "gate-failed", "The new index finds less than the live one"),
    StoreError: Kind(503, "store", "The store cannot be read", 10),
    StoreLocked: Kind(503, "store-locked", "Another process is writing to the store", 5),
    EngineUnavailable: Kind(503, "engine-unavailable", "The model server does not answer", 10),
    EngineError: Kind(502, "engine", "The model failed"),
    FeedbackError: Kind(507, "feedback-not-kept", "What was said cannot be kept"),
    Overloaded: Kind(503, "overloaded", "Too much waits already"),
    ShuttingDown: Kind(503, "shutting-down", "The server is shutting down", 5),
    HostRefused: Kind(421, "host-refused", "The server does not go by that name"),
    JobMissing: Kind(404, "job-missing", "There is no such job"),
    JobConflict: Kind(409, "job-conflict", "That does not go with the jobs as they are"),
    JobRefused: Kind(422, "job-refused", "The job may not read these files"),
    JobsUnavailable: Kind(503, "jobs-unavailable", "The job database cannot be used", 10),
    DocumentMissing: Kind(404, "document-missing", "There is no such document"),
    FileMissing: Kind(404, "file-missing", "There is no such file or page"),
    FileChanged: Kind(409, "file-changed", "The file is not what was indexed"),
    UploadsOff: Kind(403, "uploads-off", "Documents cannot be changed here"),
    UploadRefused: Kind(422, "upload-refused", "The file cannot be kept"),
    KindUnknown: Kind(415, "kind-unknown", "Files of that kind are not read"),
    UploadNotKept: Kind(507, "upload-not-kept", "There is no room for the file"),
    SettingsError: Kind(500, "settings", "A setting is wrong"),
    LoadError: Kind(500, "load", "A file cannot be read"),
    ModelError: Kind(500, "model", "A model is missing or damaged"),
    ReaderError: Kind(500, "reader", "No answer could be made"),
    BelegError: _UNFORESEEN,
}
"""Every class of the error tree. An error is described by the row of its class, or else of its nearest base."""

_HTTP = {
    400: Kind(400, "invalid-json", "The request body is not valid JSON"),
    403: Kind(403, "cross-site", "A page of another site must not do that"),
    404: Kind(404, "not-found", "There is nothing at this address"),
    405: Kind(405, "method-not-allowed", "This address does not take that method"),
    413: Kind(413, "body-too-large", "The request body is too large"),
    422: Kind(422, "invalid-request", "The request is not what this address takes"),
}


class FieldError(BaseModel):
    """What is wrong with one field of a request."""

    field: str
    message: str


class Problem(BaseModel):
    """What went wrong, after RFC 9457; `instance` and `errors` stand only where there is something to say."""

    type: str = Field(description="Stable name of the kind of problem.", examples=["urn:beleg:index-missing"])
    title: str
    status: int
    detail: str
    way_out: str = Field("", description="What to do about it.")
    instance: str | None = Field(None, description="Id under which the server's log tells more.")
    errors: list[FieldError] | None = Field(None, description="What is wrong with which field of the request.")

    def json_bytes(self) -> bytes:
        """Return the problem as it is sent."""
        return self.model_dump_json(exclude_none=True).encode()


def problem_of(error: Exception) -> Problem:
    """Describe an error to a client. A status of 500 is also logged, with its traceback, under the problem's `instance`."""
    if isinstance(error, RequestValidationError):
        return _of_request(error.errors())
    if isinstance(error, HTTPException):
        phrase = http.HTTPStatus(error.status_code).phrase
        kind = _HTTP.get(error.status_code) or Kind(error.status_code, f"http-{error.status_code}", phrase)
        return _problem(kind, error.detail or phrase)
    kind = _kind(error)
    # What a foreseen error says is meant for people; any other could tell of the server's inside.
    detail = error.message if isinstance(error, BelegError) else "The server's log says more, under the id in `instance`."
    way_out = error.way_out if isinstance(error, BelegError) else ""
    instance = None
    if kind.status == _UNFORESEEN.status:
        instance = uuid.uuid4().urn
        _log.error("%s %s", instance, kind.slug, exc_info=error)
    return _problem(kind, detail, way_out=way_out, instance=instance)


def headers_of(error: Exception) -> dict[str, str]:
    """Return the headers that go with the problem: `Retry-After`, `Allow`."""
    if isinstance(error, HTTPException):
        return dict(error.headers or {})
    seconds = error.retry_after_s if isinstance(error, Overloaded) else _kind(error).retry_after_s
    return {} if seconds is None else {"Retry-After": str(seconds)}


def respond(error: Exception) -> Response:
    """Return the whole response for an error."""
    problem = problem_of(error)
    return Response(problem.json_bytes(), problem.status, headers_of(error), media_type=MEDIA_TYPE)


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI of the problems that a route may answer with; `Problem` is among the components."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": examples.PROBLEM}}
    return {
        status: {"description": http.HTTPStatus(status).phrase, "content": content if status == 503 else _bare(content)}
        for status in statuses
    }


def _bare(content: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {media: {"schema": entry["schema"]} for media, entry in content.items()}


def _kind(error: Exception) -> Kind:
    return next((KINDS[cls] for cls in type(error).__mro__ if cls in KINDS), _UNFORESEEN)


def _problem(
    kind: Kind, detail: str, *, way_out: str = "", instance: str | None = None, errors: list[FieldError] | None = None
) -> Problem:
    return Problem(
        type=f"urn:beleg:{kind.slug}",
        title=kind.title,
        status=kind.status,
        detail=well_formed(detail),
        way_out=well_formed(way_out),
        instance=instance,
        errors=errors,
    )


def _of_request(errors: Sequence[Mapping[str, Any]]) -> Problem:
    if errors and errors[0]["type"] == "json_invalid":
        return _problem(_HTTP[400], f"{errors[0]['ctx']['error']} at character {errors[0]['loc'][-1]}.")
    fields = [FieldError(field=_field(error["loc"]), message=error["msg"]) for error in errors[:_MOST_FIELD_ERRORS]]
    left_out = len(errors) - len(fields)
    detail = "; ".join(f"{item.field}: {item.message}" for item in fields[:3])
    if len(errors) > 3:
        detail += f"; and {len(errors) - 3} more"
    return _problem(
        _HTTP[422], detail + ".", errors=fields, way_out="" if not left_out else "Only the first errors are listed."
    )


def _field(location: Sequence[object]) -> str:
    # A key may be anything that a client sends, however long.
    name = ".".join(str(part) for part in location[1:]) or str(location[0])
    return well_formed(name if len(name) <= _LONGEST_FIELD else name[:_LONGEST_FIELD] + "…")
