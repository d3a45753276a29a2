"""The page on which a person goes through rows: on this machine only, and only for whoever has the address with its token."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from finetune.data.fields import Text
from finetune.raft.review import Edit, Review
from finetune.raft.row import RaftRow
from retriever.errors import BelegError

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["create_app", "serve"]

_HOST = "127.0.0.1"


class _Quote(BaseModel):
    model_config = ConfigDict(extra="forbid")

    passage: int
    text: Annotated[Text, Field(max_length=20_000)]


class _Edit(BaseModel):
    model_config = ConfigDict(extra="forbid")

    question: Annotated[Text, Field(max_length=20_000)]
    answer: Annotated[Text, Field(max_length=20_000)]
    reasoning: Annotated[Text, Field(max_length=20_000)] = ""
    quotes: Annotated[list[_Quote], Field(max_length=20)] = []
    abstains: bool = False


class _Decision(BaseModel):
    model_config = ConfigDict(extra="forbid")

    decision: Literal["accept", "edit", "reject"]
    edit: _Edit | None = None


def create_app(review: Review, token: str) -> FastAPI:
    """Return the page and what it asks for. Every request must have the token: in the address, or as `X-Beleg-Token`."""
    from fastapi import FastAPI, HTTPException, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import HTMLResponse, JSONResponse, Response

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    page = files("finetune").joinpath("templates/raft-review.html").read_text(encoding="utf-8")

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Any]) -> Response:
        # Not a cookie: that would be sent along with other pages' requests.
        given = request.headers.get("x-beleg-token", "") or (
            request.query_params.get("token", "") if request.url.path == "/" else ""
        )
        if not secrets.compare_digest(given.encode(), token.encode()):
            return JSONResponse({"error": "Open the address that `beleg raft review` prints."}, status_code=403)
        answer: Response = await call_next(request)
        answer.headers["Cache-Control"] = "no-store"
        answer.headers["Referrer-Policy"] = "no-referrer"
        answer.headers["X-Content-Type-Options"] = "nosniff"
        return answer

    @app.exception_handler(BelegError)
    async def explain(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, status_code=422)

    @app.exception_handler(RequestValidationError)
    async def refuse(_: Request, error: RequestValidationError) -> Response:
        # Without what was sent: half of a character in it could not be sent back.
        first = error.errors()[0]
        return JSONResponse({"error": f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}"}, status_code=422)

    @app.get("/")
    def show() -> HTMLResponse:
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        return HTMLResponse(page.replace("NONCE", nonce), headers={"Content-Security-Policy": policy})

    @app.get("/api/state")
    def state() -> dict[str, Any]:
        return {"file": review.path.name, "next": review.next_open(), "stale": review.stale, **review.counts()}

    @app.get("/api/rows/{number}")
    def row(number: int) -> dict[str, Any]:
        return _shown(review, _known(number))

    @app.post("/api/rows/{number}")
    def decide(number: int, body: _Decision) -> dict[str, Any]:
        at = _known(number)
        edit = None
        if body.edit:
            given = body.edit
            quotes = tuple((quote.passage, quote.text) for quote in given.quotes)
            edit = Edit(given.question, given.answer, given.reasoning, quotes, given.abstains)
        review.decide(at, body.decision, edit)
        return {"next": review.next_open(at), **review.counts()}

    def _known(number: int) -> int:
        if not 0 <= number < len(review.rows):
            raise HTTPException(404, "no such row")
        return number

    return app


def serve(review: Review, *, port: int = 0, announce: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C.

    Args:
        port: 0 takes a free one.
        announce: told the address once it listens.

    Raises:
        BelegError: nothing can listen on the port.
    """
    import uvicorn

    token = secrets.token_urlsafe(18)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((_HOST, port))
        except OSError as error:
            raise BelegError(f"Port {port} cannot be used: {error.strerror}.", way_out="Leave out `--port`.") from error
        listening.listen()
        announce(f"http://{_HOST}:{listening.getsockname()[1]}/?token={token}")
        config = uvicorn.Config(create_app(review, token), log_level="warning", access_log=False, lifespan="off")
        uvicorn.Server(config).run(sockets=[listening])


def _shown(review: Review, number: int) -> dict[str, Any]:
    decided = review.decision(number)
    row = decided[1] if decided else review.rows[number]
    return {
        "number": number,
        "id": row.id,
        "question": row.question,
        "answer": row.answer,
        "reasoning": row.reasoning,
        "abstains": row.abstains,
        "golden": row.golden,
        "language": row.language,
        "document": row.document,
        "origin": row.origin,
        "by": row.by,
        "problems": row.problems,
        "decision": decided[0] if decided else None,
        "passages": [
            {"title": " > ".join(dict.fromkeys((one.title, *one.headings))), "kind": one.kind, "pieces": _pieces(row, at)}
            for at, one in enumerate(row.passages, start=1)
        ],
        "quotes": [
            {"passage": quote.passage, "text": text} for quote, text in zip(row.quotes, row.quoted(), strict=True)
        ],
    }  # fmt: skip


def _pieces(row: RaftRow, number: int) -> list[tuple[str, bool]]:
    """Return a passage's text cut at the borders of its quotes, each piece with whether it is quoted.

    Cut here and not in the browser, which counts in UTF-16.
    """
    text = row.passages[number - 1].text
    spans = sorted((quote.start, quote.end) for quote in row.quotes if quote.passage == number)
    found: list[tuple[str, bool]] = []
    at = 0
    for start, end in spans:
        start = max(start, at)
        if start < end:
            found += [(text[at:start], False), (text[start:end], True)]
            at = end
    return [piece for piece in (*found, (text[at:], False)) if piece[0]]
