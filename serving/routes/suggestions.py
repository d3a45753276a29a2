"""`GET /v1/suggestions`: questions to begin with, which the documents answer."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from reader.pipeline import MOST_SUGGESTIONS
from serving.asking import Served
from serving.payloads import SuggestionsPayload, suggestions_payload
from serving.problems import problem_responses

__all__ = ["suggestions_router"]

_Language = Annotated[str | None, Query(max_length=20, description="Of the documents that they come from; any if left out.")]
_Limit = Annotated[int, Query(ge=1, le=MOST_SUGGESTIONS)]


def suggestions_router(pipeline: Served) -> APIRouter:
    """Return the route that suggests questions."""
    router = APIRouter(prefix="/v1", tags=["ask"])

    # Not `async`: the first of the day searches, which computes.
    @router.get("/suggestions", summary="Questions to begin with", responses=problem_responses(422, 500, 503))
    def suggestions(language: _Language = None, limit: _Limit = 6) -> SuggestionsPayload:
        return suggestions_payload(pipeline.suggestions(language=language, limit=limit))

    return router
