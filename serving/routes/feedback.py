"""`POST /v1/feedback`: what people say of answers, kept for training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from reader.feedback import Correction, Feedback, Verdict, keep
from reader.schema import Quote
from serving import examples
from serving.payloads import plain
from serving.problems import problem_responses

__all__ = ["CorrectionRequest", "FeedbackPayload", "FeedbackRequest", "HitRequest", "QuoteRequest", "feedback_router"]

_MOST_PLACES = 100


def _said(text: str) -> str:
    if not text.strip():
        raise ValueError("Text must not be empty")
    return plain(text)


_Line = Annotated[str, Field(max_length=4000), AfterValidator(plain)]
_Text = Annotated[str, Field(max_length=100_000), AfterValidator(plain)]
_Offset = Annotated[int, Field(ge=0, lt=1 << 53)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class QuoteRequest(_Request):
    """A quote, as it came with the answer."""

    document: _Line
    source: _Line
    title: _Line
    page: int | None
    start: _Offset
    end: _Offset
    text: _Text

    def quote(self) -> Quote:
        """Return what is kept of it."""
        return Quote(self.document, self.source, self.title, self.page, self.start, self.end, self.text)


class HitRequest(QuoteRequest):
    """A passage, as it came with the answer; its scores are not kept."""

    score: float | None = None
    dense: float | None = None
    keyword: float | None = None
    reranked: float | None = None


class CorrectionRequest(_Request):
    """What would have been right: the path or name of a document, and its words."""

    source: Annotated[_Line, AfterValidator(_said)]
    text: Annotated[_Text, AfterValidator(_said)]


class FeedbackRequest(_Request):
    """What somebody thinks of an answer, with the answer as it came back.

    Training learns from a good answer by its quotes and hits, and from a bad one by its correction.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [examples.FEEDBACK]})

    question: Annotated[_Line, AfterValidator(_said)]
    verdict: Verdict
    answer: _Text = ""
    release: _Line = ""
    quotes: Annotated[list[QuoteRequest], Field(max_length=_MOST_PLACES)] = []
    hits: Annotated[list[HitRequest], Field(max_length=_MOST_PLACES)] = []
    comment: Annotated[str, Field(max_length=10_000), AfterValidator(plain)] = ""
    correction: CorrectionRequest | None = None

    def feedback(self) -> Feedback:
        """Return it as the reader keeps it."""
        given = self.correction
        return Feedback(
            question=self.question,
            verdict=self.verdict,
            answer=self.answer,
            release=self.release,
            comment=self.comment,
            correction=Correction(given.source, given.text) if given else None,
            quotes=tuple(place.quote() for place in self.quotes),
            hits=tuple(place.quote() for place in self.hits),
        )


class FeedbackPayload(BaseModel):
    """That it is kept, and since when."""

    time: str


def feedback_router(data_dir: Path) -> APIRouter:
    """Return the route that keeps feedback in the data folder."""
    router = APIRouter(prefix="/v1", tags=["feedback"])

    # Not `async`: the framework runs it in its pool of threads, as it waits for the disk.
    @router.post(
        "/feedback",
        status_code=201,
        summary="Say what an answer was worth",
        responses=problem_responses(400, 403, 413, 422, 500, 507),
    )
    def feedback(said: FeedbackRequest) -> FeedbackPayload:
        return FeedbackPayload(time=keep(data_dir, said.feedback()).time)

    return router
