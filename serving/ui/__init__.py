"""The web page: static files of this package and the headers that fence them in. Knows nothing of the API it talks to."""

from __future__ import annotations

import hashlib
from importlib.resources import files

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import Response

__all__ = ["ui_router"]

_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

_HEADERS = {
    # Whatever a document says, the page cannot run it: no script but its own files, and no way to make markup of a string.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Frame-Options": "DENY",
    # A link out of a document must not tell which question led there.
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Asked for every time, answered with 304 mostly: after an update no page is put together of two versions.
    "Cache-Control": "no-cache",
}


def ui_router() -> APIRouter:
    """Return the routes of the page: `/` and, for what it loads, `/ui/NAME`."""
    router = APIRouter(include_in_schema=False)
    served = {
        item.name: _File(item.read_bytes(), _MEDIA_TYPES["." + item.name.rpartition(".")[2]])
        for item in files(__name__).joinpath("static").iterdir()
    }

    @router.api_route("/", methods=["GET", "HEAD"])
    async def page(request: Request) -> Response:
        return served["index.html"].respond(request)

    @router.api_route("/ui/{name}", methods=["GET", "HEAD"])
    async def part(name: str, request: Request) -> Response:
        if name not in served:
            raise HTTPException(404, "The page has no such part.")
        return served[name].respond(request)

    return router


class _File:
    def __init__(self, content: bytes, media_type: str) -> None:
        self._content = content
        self._media_type = media_type
        self._etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'

    def respond(self, request: Request) -> Response:
        headers = {**_HEADERS, "ETag": self._etag}
        known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
        if self._etag in known:
            return Response(status_code=304, headers=headers)
        return Response(self._content, headers=headers, media_type=self._media_type)
