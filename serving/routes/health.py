"""`GET /healthz` and `GET /readyz`: is the process alive, and could it answer a question now?"""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel

from serving.asking import Served
from serving.errors import ShuttingDown
from serving.gate import Gate
from serving.problems import problem_responses

__all__ = ["health_router"]


class Status(BaseModel):
    """That all is well; anything else is a problem."""

    status: str = "ok"


def health_router(pipeline: Served, gate: Gate) -> APIRouter:
    """Return the routes that probes ask."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="Say that the process is alive")
    async def healthz() -> Status:
        return Status()

    @router.get("/readyz", summary="Say whether questions can be answered", responses=problem_responses(500, 503))
    def readyz() -> Status:
        if gate.closed:
            raise ShuttingDown
        pipeline.check()
        return Status()

    return router
