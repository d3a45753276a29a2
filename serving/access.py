"""Who may ask: by which names the server answers, and that no page of another site acts in a user's browser.

A page of another site can have a browser send requests to a server that only this machine, or this network, can reach. It
cannot read what comes back, unless it gives the server a name of its own (DNS rebinding): so names are checked, and for what
changes something where the request comes from.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Container

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.errors import HostRefused

__all__ = ["Access"]

_READING = ("GET", "HEAD", "OPTIONS")
_BEHIND_PROXY = "If it is Beleg's own, behind a proxy, add its name to the setting `hosts`."


class Access:
    """Middleware around a whole app.

    Args:
        host: that the server listens on.
        names: further ones that it goes by, with commas between; without any, a server that listens on an address that others
            can reach goes by every name.
    """

    def __init__(self, app: ASGIApp, *, host: str, names: str) -> None:
        self._app = app
        self._names = frozenset(_plain(name) for name in names.split(",") if name.strip())
        self._host = _plain(host)
        self._any = not self._names and not _is_loopback(self._host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            HostRefused: it asks for a name that the server does not go by.
            HTTPException: with status 403, a page of another site asks for a change.
        """
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            host = headers.get("host", "")
            if not self._any and not self._goes_by(_name(host)):
                raise HostRefused(
                    f"This server does not answer to the name {_name(host) or '(none)'}.",
                    way_out="Ask it by one of its names, or add this one to the setting `hosts`.",
                )
            if scope["method"] not in _READING and not _is_own_page(headers, host, self._names):
                raise HTTPException(403, f"A page of another site must not do that. {_BEHIND_PROXY}")
        await self._app(scope, receive, send)

    def _goes_by(self, name: str) -> bool:
        return name == self._host or name in self._names or _is_loopback(name)


def _is_own_page(headers: Headers, host: str, names: Container[str]) -> bool:
    """Say whether a request comes from a page of this server, or from no page at all."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    # Browsers say the site only over HTTPS and to this machine; elsewhere the origin has to do.
    origin = headers.get("origin")
    if origin is None:
        return True
    place = origin.partition("://")[2]
    # Behind a proxy, the server may be asked by another name than the browser knows.
    return bool(place) and (place.lower() == host.lower() or _name(place) in names)


def _name(host: str) -> str:
    """Return the name in a `Host`, without its port.

    >>> _name("[::1]:8080"), _name("Beleg.Firma.example:8080"), _name("localhost.")
    ('::1', 'beleg.firma.example', 'localhost')
    """
    if host.startswith("["):
        return _plain(host[1:].partition("]")[0])
    return _plain(host.partition(":")[0])


def _plain(name: str) -> str:
    return name.strip().lower().rstrip(".")


def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
