"""Jobs as they go over the wire. `beleg jobs … --json` prints the same payloads."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from serving import examples
from serving.jobs.jobs import Job, JobStatus
from serving.jobs.journal import Document
from serving.jobs.kinds import KINDS
from serving.payloads import well_formed

__all__ = [
    "DocumentStatus",
    "JobDocumentPayload",
    "JobDocumentsPayload",
    "JobErrorPayload",
    "JobPayload",
    "JobProgressPayload",
    "JobRequest",
    "JobsPayload",
    "documents_payload",
    "job_payload",
]

DocumentStatus = Literal["queued", "added", "changed", "unchanged", "removed", "failed"]

_Out = Annotated[str, BeforeValidator(well_formed)]


class _Payload(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)


class JobRequest(BaseModel):
    """A job to be done. `arguments` are those of the kind.

    `index`: `paths` (below the folder that the setting `documents` names; relative ones start there) and `prune`. `rebuild`:
    `encoder`, `chunk_tokens`, `chunk_overlap`, `questions` (a path, as above) and `margin`, all optional. `rollback`:
    optionally `which` (`reader` or `index`). `train`: `model` (`retriever`, `reranker` or `reader`), `recipe` (the name of a
    shipped one, or a path), and optionally `set` (a list of `key=value` for the keys of `trainer`, `loss`, `negatives`,
    `adapter`, `passages`, `preprocessing`, `prompt` and `quantization`), `limit` and `name`. `export`: `candidate` (of a
    reader; a name, or a path), and optionally `quantize` (a list of kinds). `promote`: `candidate` (a name, or a path), and
    optionally `override` (a reason) and `questions`, or of a reader `file` and `unmerged`. `remove` is started by
    `DELETE /v1/documents/{document}` only.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, json_schema_extra={"examples": [examples.JOB_REQUEST]})

    kind: Annotated[str, Field(json_schema_extra={"enum": [*KINDS]})]
    arguments: dict[str, Any] = {}


class JobCountsPayload(_Payload):
    """Numbers of documents."""

    queued: int
    done: int
    skipped: int
    failed: int


class JobProgressPayload(_Payload):
    """How far a job is: `done` of `total` in its phase, `total` being null where nobody knows."""

    phase: str | None
    done: int
    total: int | None
    documents: JobCountsPayload


class JobErrorPayload(_Payload):
    """Why a job has failed."""

    message: _Out
    way_out: _Out


class JobPayload(_Payload):
    """A job. `left_out` says that it is done but something was left out; its documents say what."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.JOB]})

    id: str
    kind: str
    arguments: dict[str, Any]
    status: JobStatus
    created: datetime
    started: datetime | None
    ended: datetime | None
    left_out: bool
    progress: JobProgressPayload
    result: dict[str, Any] | None
    error: JobErrorPayload | None


class JobsPayload(_Payload):
    """Jobs, newest first."""

    jobs: list[JobPayload]


class JobDocumentPayload(_Payload):
    """What became of one document."""

    source: _Out
    status: DocumentStatus
    chunks: int
    reason: _Out
    way_out: _Out


class JobDocumentsPayload(_Payload):
    """Some of a job's documents, in the order in which they were found; `total` counts all of them."""

    documents: list[JobDocumentPayload]
    total: int


def job_payload(job: Job) -> JobPayload:
    """Return a job as it is sent."""
    return JobPayload.model_validate(job)


def documents_payload(documents: list[Document], *, limit: int, offset: int) -> JobDocumentsPayload:
    """Return a page of a job's documents as it is sent."""
    page = documents[offset : offset + limit]
    return JobDocumentsPayload(documents=[JobDocumentPayload.model_validate(item) for item in page], total=len(documents))
