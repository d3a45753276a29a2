"""A browser, and a server that answers as a test wants."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# No sandbox: tests run as root in containers. Nothing but our own page is opened.
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
_PATIENCE_MS = 30_000


def _fake_server() -> Any:
    # Test folders are no packages; a module beside this one is loaded by its path.
    name = "beleg_fake_server"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("fake_server.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="session")
def server() -> Any:
    """The module with the fake server, for its texts and its helpers."""
    return _fake_server()


# Not of the session: while it lives, its event loop runs in this thread, and no test beside these could start one.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium to look with")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def shared(server: Any) -> Iterator[tuple[Any, str]]:
    fake = server.Fake.usual()
    with server.serving(fake) as address:
        yield fake, address


@pytest.fixture
def fake(server: Any, shared: tuple[Any, str]) -> Any:
    """What the shared server says, as it is at first."""
    fake, _ = shared
    vars(fake).update(vars(server.Fake.usual()))
    return fake


@pytest.fixture
def url(shared: tuple[Any, str]) -> str:
    return shared[1]


@pytest.fixture(scope="module")
def contexts(browser: Any) -> Iterator[Callable[..., Any]]:
    """Browser windows by what is special of them, kept so that the page's files are loaded once."""
    kept: dict[str, Any] = {}

    def context(**options: Any) -> Any:
        key = json.dumps(options, sort_keys=True)
        if key not in kept:
            kept[key] = browser.new_context(**options)
            kept[key].set_default_timeout(_PATIENCE_MS)
        return kept[key]

    yield context
    for one in kept.values():
        one.close()


@pytest.fixture
def visit(contexts: Callable[..., Any], fake: Any, url: str) -> Iterator[Callable[..., Any]]:
    """Open the page with nothing kept; what it complains of stands in `page.complaints`, and must be nothing in the end.

    A test that provokes an error of the network empties the list.
    """
    opened = []

    def go(path: str = "/", *, width: int = 1280, height: int = 860, locale: str = "de-DE", **more: Any) -> Any:
        page = contexts(viewport={"width": width, "height": height}, locale=locale, **more).new_page()
        opened.append(page)
        page.complaints = []
        page.on("console", lambda said: page.complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.goto(url + path)
        page.wait_for_selector("#top:not([hidden])")
        return page

    yield go
    complaints = [[*page.complaints] for page in opened]
    for page in opened:
        # On a page of the same origin that keeps nothing of its own.
        page.goto(f"{url}/ui/icon.svg")
        page.evaluate("localStorage.clear()")
        page.close()
    assert not any(complaints), complaints


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Wait until something is true. Playwright's own way evaluates strings in the page, which the page does not allow."""

    def wait(page: Any, check: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE_MS / 1000
        while not check() and time.monotonic() < deadline:
            page.wait_for_timeout(20)
        assert check()

    return wait


@pytest.fixture
def ask() -> Callable[..., None]:
    """Type a question and press Enter; waits for a selector."""

    def asked(page: Any, question: str, until: str | None = ".answer") -> None:
        page.fill("#question", question)
        page.press("#question", "Enter")
        if until:
            page.wait_for_selector(f".turn:last-child {until}")

    return asked
