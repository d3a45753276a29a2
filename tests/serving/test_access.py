"""By which names the server answers, and that a page of another site changes nothing through a colleague's browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from retriever.settings import Settings


@pytest.fixture
def ask(serve: Callable[..., Any], fake: Any, tmp_path: Path) -> Callable[..., httpx.Response]:
    """Return what sends a request by a name to a server of such settings, which really listens here."""

    def send(name: str, *, method: str = "GET", path: str = "/healthz", headers: Any = None, **settings: str) -> httpx.Response:
        running = servers.get(tuple(settings.items()))
        if running is None:
            running = serve(fake, settings=Settings(data_dir=tmp_path / "data", jobs=False, **settings))
            servers[tuple(settings.items())] = running
        found: httpx.Response = running.client.request(method, path, headers={"Host": name, **(headers or {})})
        return found

    servers: dict[Any, Any] = {}
    return send


OWN = ["localhost", "localhost:8080", "LocalHost.:1", "127.0.0.1", "127.0.0.1:8080", "127.8.8.8", "[::1]", "[::1]:8080"]
OTHERS = [
    "evil.example",
    "evil.example:8080",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "10.0.0.1",
    "[::2]",
    "",
    "][",
]


def test_a_loopback_address_answers_to_its_own_names(ask: Callable[..., httpx.Response]) -> None:
    assert [name for name in OWN if ask(name).status_code != 200] == []
    for name in OTHERS:
        response = ask(name)
        assert response.status_code == 421, name
        assert response.json()["type"] == "urn:beleg:host-refused"
        assert "`hosts`" in response.json()["way_out"]
        assert response.headers["x-content-type-options"] == "nosniff"


def test_documents_are_not_read_by_another_name_either(ask: Callable[..., httpx.Response]) -> None:
    assert ask("evil.example", path="/v1/documents").status_code == 421
    assert ask("evil.example", path="/v1/search", method="POST").status_code == 421
    assert ask("evil.example", path="/v1/documents/a.txt", method="PUT").status_code == 421


def test_further_names(ask: Callable[..., httpx.Response]) -> None:
    names = "beleg.firma.example, Papier.firma.example."
    for name in ("beleg.firma.example", "BELEG.firma.example:443", "papier.firma.example", "localhost:8080"):
        assert ask(name, hosts=names).status_code == 200, name
    assert ask("firma.example", hosts=names).status_code == 421
    assert ask("192.168.1.5:8080", host="192.168.1.5", hosts=names).status_code == 200


def test_an_address_that_others_reach_goes_by_any_name_unless_told(ask: Callable[..., httpx.Response]) -> None:
    assert ask("beleg.firma.example", host="0.0.0.0").status_code == 200
    assert ask("beleg.firma.example", host="0.0.0.0", hosts="beleg.firma.example").status_code == 200
    assert ask("evil.example", host="0.0.0.0", hosts="beleg.firma.example").status_code == 421


CHANGES = [
    ("PUT", "/v1/documents/a.txt"),
    ("DELETE", "/v1/documents/0000000000000000"),
    ("POST", "/v1/jobs"),
    ("POST", "/v1/jobs/index-20260101-000000-0000/cancel"),
    ("POST", "/v1/feedback"),
    ("POST", "/v1/ask"),
]
ELSEWHERE = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost:8080"},
    {"Origin": "http://evil.example"},
    {"Origin": "http://localhost:9090"},  # another server on this machine
    {"Origin": "http://localhost:8080.evil.example"},
    {"Origin": "null"},
    {"Origin": "[]"},
    {"Origin": ""},
]
HERE: list[dict[str, str]] = [
    {},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://beleg.firma.example"},  # behind a proxy
    {"Origin": "http://localhost:8080"},
    {"Origin": "http://LOCALHOST:8080"},
]


def test_a_page_of_another_site_changes_nothing(ask: Callable[..., httpx.Response]) -> None:
    for headers in ELSEWHERE:
        for method, path in CHANGES:
            response = ask("localhost:8080", method=method, path=path, headers=headers)
            assert response.status_code == 403, (method, path, headers)
            assert response.json()["type"] == "urn:beleg:cross-site"
            assert not [name for name in response.headers if name.startswith("access-control")]


def test_pages_of_our_own_and_programs_may(ask: Callable[..., httpx.Response]) -> None:
    for headers in HERE:
        for method, path in CHANGES:
            response = ask("localhost:8080", method=method, path=path, headers=headers)
            assert response.headers["content-type"].endswith("json")
            assert response.json()["type"] != "urn:beleg:cross-site", (method, path, headers)


def test_a_further_name_is_an_origin_too(ask: Callable[..., httpx.Response]) -> None:
    request = {"method": "POST", "path": "/v1/search", "headers": {"Origin": "http://beleg.firma.example"}}
    assert ask("127.0.0.1:8080", hosts="beleg.firma.example", **request).status_code == 422
    assert ask("127.0.0.1:8080", **request).status_code == 403


def test_reading_from_a_link_elsewhere_is_allowed_but_shown_to_no_page(ask: Callable[..., httpx.Response]) -> None:
    response = ask("localhost", path="/v1/documents", headers={"Sec-Fetch-Site": "cross-site", "Origin": "http://evil.example"})
    assert response.status_code == 200
    assert response.headers["cross-origin-resource-policy"] == "same-origin"
    assert not [name for name in response.headers if name.startswith("access-control")]
    assert ask("localhost", method="OPTIONS", path="/v1/documents/a.txt").status_code == 405
