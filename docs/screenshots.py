"""Draw docs/screenshots/*.png: the web page of a running server that has indexed the example documents.

Run `beleg serve` after `make demo`, then `python docs/screenshots.py http://127.0.0.1:8080`. Needs Chromium and Playwright.
"""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

__all__ = ["main"]

ANSWERED = {
    "de": "Werden Flüge innerhalb Deutschlands erstattet?",
    "en": "How long must I wait before touching the DSH-2 after the power is off?",
}
UNANSWERED = {"de": "Wer hat die Fußball-Weltmeisterschaft gewonnen?", "en": "Who won the football world cup?"}
DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 860}}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "device_scale_factor": 2}
LONGEST_WAIT_MS = 300_000
MOST_BYTES = 120_000

_FOLDER = Path(__file__).resolve().with_name("screenshots")


def main(url: str) -> None:
    """Visit every view, and keep what it looks like."""
    _FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
        for name, language, options in (
            ("desktop", "de", DESKTOP),
            ("desktop-dark", "en", {**DESKTOP, "color_scheme": "dark"}),
            ("phone", "en", PHONE),
            ("phone-dark", "de", {**PHONE, "color_scheme": "dark"}),
        ):
            with _opened(browser, url, language, options) as page:
                _walk(page, language, lambda state, page=page, name=name: _keep(page, f"{name}-{state}"))
        browser.close()


@contextmanager
def _opened(browser: Browser, url: str, language: str, options: dict[str, Any]) -> Iterator[Page]:
    context = browser.new_context(locale=language, reduced_motion="reduce", **options)
    context.set_default_timeout(LONGEST_WAIT_MS)
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector("#question")
    yield page
    context.close()


def _walk(page: Page, language: str, keep: Callable[[str], None]) -> None:
    page.wait_for_load_state("networkidle")
    keep("welcome")
    _ask(page, ANSWERED[language])
    keep("answer")
    page.click(".turn:last-child .quotes a, .turn:last-child .hits a")
    page.wait_for_selector("#source mark, #source .page-picture")
    page.wait_for_load_state("networkidle")
    keep("source")
    page.keyboard.press("Escape")
    _ask(page, UNANSWERED[language])
    keep("abstention")
    page.evaluate("location.hash = '#/documents'")
    page.wait_for_selector("table")
    keep("documents")
    page.click("tbody a")
    page.wait_for_selector(".document-text .text")
    keep("document")


def _ask(page: Page, question: str) -> None:
    page.fill("#question", question)
    page.press("#question", "Enter")
    page.wait_for_selector(".turn:last-child .foot")


def _keep(page: Page, name: str) -> None:
    page.evaluate("Promise.all([...document.images].map((one) => one.decode().catch(() => {})))")
    # Long enough for what scrolls into place; nothing on the page says when that is done.
    page.wait_for_timeout(300)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    for colours in (128, 64, 32, 16):
        packed = io.BytesIO()
        picture.quantize(colours, dither=Image.Dither.NONE).save(packed, "PNG", optimize=True)
        if packed.tell() < MOST_BYTES:
            break
    (_FOLDER / f"{name}.png").write_bytes(packed.getvalue())


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080")
