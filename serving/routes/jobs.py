"""`/v1/jobs`: long work that goes on when the client is gone, and when the server was restarted."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from serving.jobs.jobs import Jobs
from serving.jobs.kinds import KINDS, below
from serving.jobs.payloads import (
    DocumentStatus,
    JobDocumentsPayload,
    JobPayload,
    JobRequest,
    JobsPayload,
    documents_payload,
    job_payload,
)
from serving.problems import problem_responses

__all__ = ["jobs_router"]


def jobs_router(jobs: Jobs, *, documents: str) -> APIRouter:
    """Return the routes of jobs.

    Args:
        documents: the folder below which jobs may read files; empty allows none.
    """
    router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

    # None of them `async`: the framework runs them in its pool of threads, as they ask a database.
    @router.post("", status_code=202, summary="Start a job", responses=problem_responses(400, 403, 409, 413, 422, 500, 503))
    def start(wanted: JobRequest, response: Response) -> JobPayload:
        if wanted.kind not in KINDS:
            problem = {"type": "enum", "loc": ("body", "kind"), "msg": f"Input should be one of {', '.join(KINDS)}"}
            raise RequestValidationError([problem])
        try:
            arguments = KINDS[wanted.kind].arguments.model_validate(wanted.arguments)
        except ValidationError as error:
            raise RequestValidationError(
                [{**item, "loc": ("body", "arguments", *item["loc"])} for item in error.errors(include_url=False)]
            ) from error
        job = jobs.start(wanted.kind, arguments.placed(below(documents)))
        response.headers["Location"] = f"/v1/jobs/{job.id}"
        return job_payload(job)

    @router.get("", summary="List jobs, newest first", responses=problem_responses(422, 500, 503))
    def newest(limit: Annotated[int, Query(ge=1, le=200)] = 50) -> JobsPayload:
        return JobsPayload(jobs=[job_payload(job) for job in jobs.newest(limit)])

    @router.get("/{job}", summary="Show a job", responses=problem_responses(404, 422, 500, 503))
    def show(job: str) -> JobPayload:
        return job_payload(jobs.get(job))

    @router.get("/{job}/documents", summary="List a job's documents", responses=problem_responses(404, 422, 500, 503))
    def show_documents(
        job: str,
        status: DocumentStatus | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        offset: Annotated[int, Query(ge=0)] = 0,
    ) -> JobDocumentsPayload:
        return documents_payload(jobs.documents(job, status=status), limit=limit, offset=offset)

    @router.post(
        "/{job}/cancel",
        summary="Cancel a queued or running job",
        description="Its process ends within seconds. What it has stored stays.",
        responses=problem_responses(403, 404, 409, 422, 500, 503),
    )
    def cancel(job: str) -> JobPayload:
        return job_payload(jobs.cancel(job))

    @router.post(
        "/{job}/resume",
        status_code=202,
        summary="Go on with a failed or cancelled job",
        responses=problem_responses(403, 404, 409, 422, 500, 503),
    )
    def resume(job: str) -> JobPayload:
        return job_payload(jobs.resume(job))

    return router
