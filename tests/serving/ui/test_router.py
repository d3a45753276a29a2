"""The page's files as they go over the wire."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from serving.ui import ui_router

STATIC = Path(str(files("serving.ui"))) / "static"


@pytest.fixture
def client() -> Any:
    app = FastAPI()
    app.include_router(ui_router())
    return TestClient(app)


@pytest.mark.parametrize("name", sorted(path.name for path in STATIC.iterdir()))
def test_every_file_is_served_and_fenced_in(client: Any, name: str) -> None:
    response = client.get(f"/ui/{name}")
    assert response.status_code == 200
    assert response.content == (STATIC / name).read_bytes()
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert response.headers["x-frame-options"] == "DENY"
    assert response.headers["referrer-policy"] == "no-referrer"


def test_the_page_itself_stands_at_the_root(client: Any) -> None:
    response = client.get("/")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "<noscript>" in response.text
    assert response.headers["cache-control"] == "no-cache"
    assert client.head("/").headers["etag"] == response.headers["etag"]


def test_what_has_not_changed_is_not_sent_again(client: Any) -> None:
    first = client.get("/ui/main.js")
    for tag in (first.headers["etag"], f'"other", W/{first.headers["etag"]}'):
        again = client.get("/ui/main.js", headers={"If-None-Match": tag})
        assert again.status_code == 304
        assert again.content == b""
        assert "content-security-policy" in again.headers
    assert client.get("/ui/main.js", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize("name", ["nothing.js", "__init__.py", "..%2F__init__.py", "../__init__.py", ""])
def test_nothing_else_is_served(client: Any, name: str) -> None:
    assert client.get(f"/ui/{name}").status_code == 404


def test_nothing_is_loaded_from_elsewhere_and_nothing_is_markup() -> None:
    for path in STATIC.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|innerHTML|outerHTML|insertAdjacentHTML|eval\(|document\.write", text), path.name


def test_both_languages_say_everything() -> None:
    english, german = (
        re.findall(r"^  \"?([\w-]+)\"?: ", (STATIC / f"words-{language}.js").read_text(encoding="utf-8"), re.MULTILINE)
        for language in ("en", "de")
    )
    assert english == german
    assert len(set(english)) == len(english) > 100
    code = "".join(path.read_text(encoding="utf-8") for path in STATIC.glob("*.js") if not path.name.startswith("words-"))
    asked = set(re.findall(r"\bsay\(\s*\"([^\"]+)\"", code))
    assert asked <= set(english)
