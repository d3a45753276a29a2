"""What goes over the wire: requests with their limits, and answers and hits as JSON. Knows neither HTTP nor the pipeline.

`beleg ask --json` and `beleg search --json` print the same payloads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from reader.schema import Answer, Quote, Reason, Turn
from reader.suggestions import Suggestion
from retriever.schema import Hit
from retriever.search import Mode
from serving import examples

__all__ = [
    "AnswerPayload",
    "AskRequest",
    "HitPayload",
    "QuotePayload",
    "SearchPayload",
    "SearchRequest",
    "SuggestionPayload",
    "SuggestionsPayload",
    "TokenPayload",
    "TurnRequest",
    "answer_payload",
    "plain",
    "quote_payload",
    "search_payload",
    "suggestions_payload",
    "well_formed",
]

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def well_formed(text: str) -> str:
    """Replace what UTF-8 cannot carry, one code point for one, so that offsets stay true.

    A file name that is not valid UTF-8 reaches Python with lone surrogates.

    >>> well_formed("Bericht_\\udcfc.pdf")
    'Bericht_\ufffd.pdf'
    """
    return _LONE_SURROGATE.sub("\ufffd", text)


def plain(text: str) -> str:
    """Return a text that holds only what any document could; a validator."""
    # No document holds either. C libraries take NUL for the end of a text, and tokenizers fail on half a character.
    if "\0" in text or _LONE_SURROGATE.search(text):
        raise PydanticCustomError("plain_text", "Text must hold neither NUL characters nor lone surrogates")
    return text


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


_Question = Annotated[str, Field(min_length=1, max_length=4000), AfterValidator(plain)]
_Said = Annotated[str, Field(max_length=20_000), AfterValidator(plain)]
_Word = Annotated[str, Field(max_length=1000), AfterValidator(plain)]
_Words = Annotated[
    list[_Word],
    Field(min_length=1, max_length=100),
    BeforeValidator(_listed),
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 100}]}
    ),
]
_FilterRequest = Annotated[
    dict[_Word, _Words],
    Field(
        max_length=20,
        description="Key to the value, or values, one of which a document must have. Those of `date` may be ranges: "
        "2024-01-01..2024-12-31, either end open.",
    ),
]
_Out = Annotated[str, BeforeValidator(well_formed)]


class _Request(BaseModel):
    # Strict: `"limit": "10"` or `"stream": 1` is a client's slip that it should hear of.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Payload(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)


class TurnRequest(_Request):
    """An earlier question of the same conversation and the answer it got."""

    question: _Said
    answer: _Said


class AskRequest(_Request):
    """A question."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.ASK]})

    question: _Question
    filters: _FilterRequest = {}
    history: Annotated[list[TurnRequest], Field(max_length=20, description="Earlier turns, oldest first.")] = []
    stream: Annotated[bool, Field(description="Answer with server-sent events.")] = False

    def turns(self) -> tuple[Turn, ...]:
        """Return the history as the reader takes it."""
        return tuple(Turn(turn.question, turn.answer) for turn in self.history)


class SearchRequest(_Request):
    """A search for passages."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.SEARCH]})

    query: _Question
    limit: Annotated[int, Field(ge=1, le=100)] = 10
    filters: _FilterRequest = {}
    mode: Mode = "fused"
    rerank: Annotated[
        bool | None,
        Field(description="Have the reranker judge the best ones again; null: if there is one and the mode allows."),
    ] = None


class QuotePayload(_Payload):
    """Words of a document, verbatim. Offsets count Unicode code points in its text, `end` exclusive."""

    document: _Out
    source: _Out
    title: _Out
    page: int | None
    start: int
    end: int
    text: _Out


class HitPayload(_Payload):
    """A passage. `score` orders this list only; the others are null where not looked at.

    `dense` is a cosine, `keyword` a BM25 score, and `reranked` the probability that the reranker gave it.
    """

    document: _Out
    source: _Out
    title: _Out
    page: int | None
    start: int
    end: int
    text: _Out
    score: float
    dense: float | None
    keyword: float | None
    reranked: float | None


class SearchPayload(_Payload):
    """Passages, best first."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.HITS]})

    hits: list[HitPayload]


class AnswerPayload(_Payload):
    """An answer with its quotes, or an abstention with its reason.

    `hits` are the passages that were looked at, `reasoning` is what the model wrote, quotes included, `notes` say what was
    left out on the way, `release` names what answered, and `timings` are seconds by step. `query` is what was searched for: the
    question, made self-contained if it followed up on others. `cached` says that the same was asked before, and that nothing
    has changed since.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [examples.ANSWER]})

    answer: _Out
    abstained: bool
    reason: Reason | None
    quotes: list[QuotePayload]
    hits: list[HitPayload]
    release: _Out
    timings: dict[str, float]
    reasoning: _Out
    notes: list[_Out]
    query: _Out
    cached: bool


class SuggestionPayload(_Payload):
    """A question to begin with, and the document that answers it."""

    question: _Out
    document: _Out
    title: _Out


class SuggestionsPayload(_Payload):
    """Questions to begin with; none where the documents suggest none."""

    questions: list[SuggestionPayload]


class TokenPayload(_Payload):
    """The next piece of what the model writes, not yet checked."""

    text: _Out


def quote_payload(quote: Quote) -> QuotePayload:
    """Return a quote as it is sent."""
    return QuotePayload.model_validate(quote)


def search_payload(hits: Iterable[Hit]) -> SearchPayload:
    """Return the result of a search as it is sent."""
    return SearchPayload(hits=[HitPayload.model_validate(hit) for hit in hits])


def suggestions_payload(suggestions: Iterable[Suggestion]) -> SuggestionsPayload:
    """Return questions to begin with as they are sent."""
    return SuggestionsPayload(questions=[SuggestionPayload.model_validate(one) for one in suggestions])


def answer_payload(answer: Answer) -> AnswerPayload:
    """Return an answer as it is sent."""
    return AnswerPayload(
        answer=answer.answer,
        abstained=answer.abstained,
        reason=answer.reason,
        quotes=[quote_payload(quote) for quote in answer.quotes],
        hits=search_payload(answer.hits).hits,
        release=answer.release,
        timings=dict(answer.timings),
        reasoning=answer.reasoning,
        notes=list(answer.notes),
        query=answer.query,
        cached=answer.cached,
    )
