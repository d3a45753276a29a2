"""By keyboard, on a phone, in the dark, in two languages, and read aloud."""

from __future__ import annotations

from typing import Any

import pytest

CONTRAST = """() => {
  const channel = (v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const poor = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || !node.checkVisibility()) continue;
    if (node.closest('.unseen, noscript, :disabled, .skip')) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${node.className} ${walk.currentNode.textContent.slice(0, 40)}`);
  }
  return poor;
}"""

UNNAMED = """() => {
  const named = (node) => node.textContent.trim() || node.getAttribute('aria-label') || node.labels?.length || node.alt;
  const nodes = [...document.querySelectorAll('button, a[href], input, select, textarea, img, aside, nav')];
  return nodes.filter((node) => node.checkVisibility() && !named(node)).map((node) => node.outerHTML.slice(0, 120));
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_every_state_can_be_read_and_fits(visit: Any, fake: Any, ask: Any, scheme: str, width: int) -> None:
    page = visit(width=width, height=800, color_scheme=scheme, reduced_motion="reduce")

    def check(state: str) -> None:
        assert page.evaluate(CONTRAST) == [], state
        assert page.evaluate(UNNAMED) == [], state
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, state
        assert page.evaluate("document.querySelectorAll('h1').length") == 1, state

    page.wait_for_selector(".suggestions")
    page.click(".filters summary")
    check("welcome")
    ask(page, "Was zahlt die Firma je Kilometer?")
    page.click(".verbatim summary")
    page.click(".turn .hits summary")
    page.click(".feedback >> text=Ja")
    check("answer")
    page.click(".quote h3 a >> nth=0")
    page.wait_for_selector(".page-picture")
    check("printed")
    page.click("[role=tab] >> text=Text")
    page.wait_for_selector("#source mark")
    check("text")
    page.click("#source [aria-label='Schließen']")
    fake.abstain("not_in_passages", "Die gefundenen Stellen beantworten die Frage nicht.")
    ask(page, "Und mit dem Motorrad?", ".abstention")
    check("abstention")
    fake.ends = "error"
    ask(page, "Und noch?", ".problem")
    check("problem")
    page.click("#views >> text=Dokumente")
    page.wait_for_selector("table")
    check("documents")
    page.click("[aria-label='„Ersatzteile“ löschen']")
    check("dialog")
    page.keyboard.press("Escape")
    page.click("text=Reisekostenrichtlinie")
    page.wait_for_selector(".document .text")
    check("document")
    page.go_back()
    page.wait_for_selector("table")
    fake.documents.clear()
    page.reload()
    page.wait_for_selector(".empty")
    check("empty")


def test_all_of_it_works_by_keyboard(visit: Any, fake: Any) -> None:
    page = visit()
    page.wait_for_selector(".suggestions")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("/")
    page.keyboard.type("Was zahlt die Firma")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("je Kilometer?")
    page.keyboard.press("Enter")
    page.wait_for_selector(".answer")
    assert fake.asked[0]["question"] == "Was zahlt die Firma\nje Kilometer?"
    assert page.evaluate("document.activeElement.id") == "question"
    for _ in range(30):
        page.keyboard.press("Shift+Tab")
        if page.evaluate("document.activeElement.matches('.quote h3 a')"):
            break
    place = page.evaluate("document.activeElement.dataset.place")
    page.keyboard.press("Enter")
    page.wait_for_selector("#source mark")
    assert page.evaluate("document.activeElement.matches('#source h2')")
    page.keyboard.press("Escape")
    page.wait_for_selector("#source", state="hidden")
    assert page.evaluate("document.activeElement.dataset.place") == place


def test_the_first_stop_of_the_keyboard_leads_to_the_content(visit: Any) -> None:
    page = visit("/#/documents")
    page.wait_for_selector("table")
    page.evaluate("document.activeElement.blur()")
    page.focus("#skip")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    assert page.evaluate("location.hash") == "#/documents"


def test_tabs_are_changed_by_arrows(visit: Any, ask: Any) -> None:
    page = visit()
    ask(page, "Was gilt?")
    page.click(".quote h3 a >> nth=0")
    page.focus("[role=tab][aria-selected=true]")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#source mark")
    assert page.inner_text("[role=tab]:focus") == "Text"


def test_what_happens_is_read_aloud_in_portions(visit: Any, fake: Any, ask: Any) -> None:
    page = visit()
    page.evaluate("""() => {
      window.said = [];
      const status = document.getElementById('status');
      new MutationObserver(() => said.push(status.textContent)).observe(status, {childList: true});
    }""")
    ask(page, "Was gilt?")
    said = page.evaluate("said")
    assert said[-1] == "Antwort: 0,30 Euro je gefahrenem Kilometer belegt durch 2 wörtliche Zitate"
    assert len(said) <= 4
    assert not any("#" in text or "{" in text for text in said)


@pytest.mark.parametrize(
    ("locale", "says"),
    [("de-AT", "Was möchten Sie wissen?"), ("en-GB", "What do you want to know?"), ("fr-FR", "What do you want to know?")],
)
def test_it_speaks_the_language_of_the_browser(visit: Any, locale: str, says: str) -> None:
    page = visit(locale=locale)
    page.wait_for_selector("h1")
    assert page.inner_text("h1") == says
    assert page.evaluate("document.documentElement.lang") == ("de" if locale == "de-AT" else "en")


def test_the_language_can_be_changed_and_is_remembered(visit: Any, fake: Any, ask: Any) -> None:
    fake.held = True
    page = visit()
    ask(page, "Was gilt?", ".draft")
    page.click("#languages >> text=EN")
    page.wait_for_selector("text=Being written, not yet checked")
    fake.held = False
    page.wait_for_selector("text=proven by 2 verbatim quotes")
    assert len(fake.asked) == 1
    page.click("#views >> text=Documents")
    page.wait_for_selector("text=4 documents")
    page.click("#languages >> text=DE")
    page.wait_for_selector("text=Dateien wählen")
    page.click("#languages >> text=EN")
    page.reload()
    page.wait_for_selector("text=Choose files")


def test_what_is_being_written_survives_a_change_of_language(visit: Any) -> None:
    page = visit()
    page.fill("#question", "Was gilt bei")
    page.click("#languages >> text=EN")
    assert page.input_value("#question") == "Was gilt bei"


def test_on_a_phone_the_conversations_and_the_source_lie_over_the_page(visit: Any, ask: Any) -> None:
    page = visit(width=360, height=740)
    ask(page, "Was gilt?")
    assert page.is_hidden("#side")
    page.click("#history")
    assert page.is_visible("#side >> text=Was gilt?")
    assert page.evaluate("document.getElementById('main').inert")
    page.keyboard.press("Escape")
    assert page.is_hidden("#side")
    page.click(".quote h3 a >> nth=1")
    page.wait_for_selector("#source mark")
    assert page.locator("#source").bounding_box()["width"] == 360
    assert page.evaluate("document.getElementById('main').inert")
    page.go_back()
    page.wait_for_selector("#source", state="hidden")
    assert not page.evaluate("document.getElementById('main').inert")


def test_without_javascript_it_says_so(visit: Any, browser: Any, url: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(url)
    assert "braucht JavaScript" in page.inner_text("body")
    assert "needs JavaScript" in page.inner_text("body")
    context.close()


def test_one_visit_loads_little_and_a_second_one_nothing_new(visit: Any) -> None:
    page = visit()
    page.wait_for_selector(".suggestions")
    sizes = page.evaluate(
        "performance.getEntriesByType('resource').filter((it) => it.name.includes('/ui/')).map((it) => it.encodedBodySize)"
    )
    assert len(sizes) < 40
    assert sum(sizes) < 150_000
    page.reload()
    page.wait_for_selector(".suggestions")
    sent = page.evaluate(
        "performance.getEntriesByType('resource').filter((it) => it.name.includes('/ui/')).map((it) => it.transferSize)"
    )
    assert sum(sent) < 20_000
