"""`POST /v1/search`: ranked passages, without a model that reads them."""

from __future__ import annotations

from fastapi import APIRouter

from serving.asking import Served
from serving.payloads import SearchPayload, SearchRequest, search_payload
from serving.problems import problem_responses

__all__ = ["search_router"]


def search_router(pipeline: Served) -> APIRouter:
    """Return the route that searches."""
    router = APIRouter(prefix="/v1", tags=["search"])

    # Not `async`: the framework runs it in its pool of threads, as searching computes.
    @router.post("/search", summary="Find passages", responses=problem_responses(400, 403, 413, 422, 500, 503))
    def search(wanted: SearchRequest) -> SearchPayload:
        hits = pipeline.search(wanted.query, limit=wanted.limit, mode=wanted.mode, filters=wanted.filters, rerank=wanted.rerank)
        return search_payload(hits)

    return router
