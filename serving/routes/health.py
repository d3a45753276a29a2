"""`GET /healthz` and `GET /readyz`: is the process alive, and could it answer a question now, and by which reader?"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from reader.swap import ReaderState
from serving.asking import Served
from serving.errors import ShuttingDown
from serving.gate import Gate
from serving.problems import problem_responses

__all__ = ["health_router"]


class Status(BaseModel):
    """That all is well; anything else is a problem."""

    status: str = "ok"


class ReaderPayload(BaseModel):
    """What answers now.

    `candidate` is the one that it was promoted from, null for the reader of the settings; `release` is that of its answers;
    `problem` says why what was promoted last does not answer, null if it does.
    """

    model_config = ConfigDict(frozen=True, from_attributes=True)

    model: str
    candidate: str | None
    release: str
    problem: str | None


class Readiness(Status):
    """That questions can be answered; `reader` is left out where there is none."""

    reader: ReaderPayload | None = None


@runtime_checkable
class _Tells(Protocol):
    """A pipeline whose reader may change."""

    def reader_state(self) -> ReaderState | None:
        """Return what answers now."""


def health_router(pipeline: Served, gate: Gate) -> APIRouter:
    """Return the routes that probes ask."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="Say that the process is alive")
    async def healthz() -> Status:
        return Status()

    @router.get(
        "/readyz",
        summary="Say whether questions can be answered",
        responses=problem_responses(500, 503),
        response_model_exclude_unset=True,
    )
    def readyz() -> Readiness:
        if gate.closed:
            raise ShuttingDown
        pipeline.check()
        state = pipeline.reader_state() if isinstance(pipeline, _Tells) else None
        # Named, so that it is sent: what is unset is left out.
        if state is None:
            return Readiness(status="ok")
        return Readiness(status="ok", reader=ReaderPayload.model_validate(state))

    return router
