"""Puts the HTTP service together around a pipeline. Builds nothing at import, and keeps no state of its own."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from retriever.errors import BelegError
from retriever.settings import Settings
from serving import examples
from serving.access import Access
from serving.asking import Served
from serving.documents import Documents
from serving.gate import Gate
from serving.jobs.jobs import Jobs
from serving.problems import Problem, respond
from serving.routes.ask import ask_router
from serving.routes.documents import UPLOADS, documents_router
from serving.routes.feedback import feedback_router
from serving.routes.health import health_router
from serving.routes.jobs import jobs_router
from serving.routes.search import search_router
from serving.routes.suggestions import suggestions_router
from serving.shell import Shell
from serving.ui import ui_router

__all__ = ["create_app"]


def create_app(
    pipeline: Served,
    settings: Settings,
    *,
    gate: Gate | None = None,
    jobs: Jobs | None = None,
    documents: Documents | None = None,
    heartbeat_s: float = 15.0,
) -> FastAPI:
    """Return the service, ready for any ASGI server.

    Args:
        pipeline: answers and searches; stays the caller's to close.
        gate: for a caller who will close it before shutting down; defaults to one with `settings.queue` places.
        jobs: for a caller who will close it; defaults to those of the settings, which connect when first asked for.
        documents: likewise.
        heartbeat_s: how long a stream may be silent.
    """
    gate = gate or Gate(settings.queue)
    jobs = jobs or Jobs(settings)
    app = _App(
        title="Beleg",
        summary="Answers questions over a company's own documents, with verbatim quotes.",
        version=version("beleg"),
        # The pages that draw the API load their scripts from somebody else's server. The document itself is served.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers=dict.fromkeys((BelegError, HTTPException, RequestValidationError), _handle),
    )
    app.include_router(ask_router(pipeline, gate, heartbeat_s=heartbeat_s))
    app.include_router(search_router(pipeline))
    app.include_router(suggestions_router(pipeline))
    app.include_router(feedback_router(settings.data_dir))
    app.include_router(jobs_router(jobs, documents=settings.documents))
    documents = documents or Documents(settings)
    app.include_router(documents_router(documents, jobs, changes=settings.uploads and settings.jobs))
    app.include_router(health_router(pipeline, gate))
    app.include_router(ui_router())
    app.add_middleware(Access, host=settings.host, names=settings.hosts)
    app.add_middleware(Shell, uploads=UPLOADS, largest_upload=settings.max_file_mb << 20)
    return app


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """Return the API's description; the framework knows no schema for errors other than its own."""
        if not self.openapi_schema:
            schemas = super().openapi()["components"]["schemas"]
            problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(problem.pop("$defs"), Problem=problem)
            # It also drops every null, and with it the `reason` of an answer that has none.
            schemas["FeedbackRequest"]["examples"] = [examples.FEEDBACK]
            schemas["AnswerPayload"]["examples"] = [examples.ANSWER]
            schemas["JobPayload"]["examples"] = [examples.JOB]
        return super().openapi()


async def _handle(_: Request, error: Exception) -> Response:
    return respond(error)
