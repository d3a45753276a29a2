"""From a quote to its place: the page as printed, the text, and whatever a document may try."""

from __future__ import annotations

from typing import Any

import pytest


def _open_text(page: Any, number: int) -> None:
    page.click(f".quote h3 a >> nth={number}")
    page.wait_for_selector("#source .document-text, #source .page-picture")
    tab = page.locator("[role=tab] >> text=Text")
    if number == 0:
        tab.click()
    page.wait_for_selector("#source mark")


@pytest.mark.parametrize("number", [0, 1])
def test_a_quote_is_marked_with_exactly_its_words(visit: Any, fake: Any, ask: Any, number: int) -> None:
    page = visit()
    ask(page, "Was gilt?")
    _open_text(page, number)
    quoted = fake.answer["quotes"][number]["text"]
    # Emoji stand before it, and in it: one code point each, two units of JavaScript's strings.
    assert page.locator("#source mark").all_text_contents() == [quoted]
    assert page.locator("#source mark").is_visible()
    box, frame = page.locator("#source mark").bounding_box(), page.locator("#source .content").bounding_box()
    assert frame["y"] <= box["y"] < frame["y"] + frame["height"]


def test_a_pdf_is_shown_as_printed_first(visit: Any, ask: Any) -> None:
    page = visit()
    ask(page, "Was gilt?")
    with page.expect_request("**/pages/3.png?*") as asked:
        page.click(".quote h3 a >> nth=0")
    assert "start=" in asked.value.url
    assert "end=" in asked.value.url
    picture = page.locator(".page-picture")
    picture.wait_for()
    assert "Reisekostenrichtlinie" in picture.get_attribute("alt")
    with page.expect_request("**/pages/4.png?*"):
        page.click("[aria-label='Nächste Seite']")
    assert page.is_disabled("[aria-label='Nächste Seite']")
    with page.expect_request("**width=1100*"):
        page.click("[aria-label='Größer']")


def test_a_page_that_cannot_be_drawn_sends_to_the_text(visit: Any, ask: Any) -> None:
    page = visit()
    page.route("**/pages/*", lambda route: route.fulfill(status=404))
    ask(page, "Was gilt?")
    page.click(".quote h3 a >> nth=0")
    page.wait_for_selector("text=lässt sich nicht als Bild zeigen")
    page.complaints.clear()


def test_all_of_a_long_text_comes_as_one_scrolls_and_none_of_it_twice(visit: Any, ask: Any, server: Any) -> None:
    page = visit()
    ask(page, "Was gilt?")
    _open_text(page, 0)
    whole = server.TRAVEL
    assert len(page.text_content("#source .text")) < len(whole)
    for edge, text in (("scrollHeight", "Ende der Richtlinie."), ("-scrollHeight", "Diese Richtlinie regelt")):
        for _ in range(6):
            sign = "-" if edge[0] == "-" else ""
            page.evaluate(
                f"(() => {{ const it = document.querySelector('#source .content'); it.scrollTop = {sign}it.scrollHeight; }})()"
            )
            page.wait_for_timeout(120)
        assert text in page.text_content("#source .text")
    assert page.text_content("#source .text") == whole
    assert page.locator("#source mark").all_text_contents() == [server.LINE]


def test_scrolling_up_keeps_the_place(visit: Any, ask: Any) -> None:
    page = visit()
    ask(page, "Was gilt?")
    _open_text(page, 0)
    page.wait_for_timeout(300)
    top = "document.querySelector('#source mark').getBoundingClientRect().top"
    before = page.evaluate(top)
    page.evaluate("document.querySelector('#source .content').scrollTop -= 400")
    page.wait_for_timeout(500)
    assert abs(page.evaluate(top) - before - 400) < 5


def test_the_source_is_part_of_the_address(visit: Any, ask: Any) -> None:
    page = visit()
    ask(page, "Was gilt?")
    page.click(".quote h3 a >> nth=1")
    page.wait_for_selector("#source mark")
    page.reload()
    page.wait_for_selector("#source mark")
    page.go_back()
    page.wait_for_selector("#source", state="hidden")
    assert page.locator(".answer").count() == 1
    page.go_forward()
    page.wait_for_selector("#source mark")


def test_markup_in_documents_is_text_and_nothing_of_it_runs(visit: Any, fake: Any, ask: Any, server: Any) -> None:
    fake.answer["answer"] = f"Es heißt {server.NASTY}"
    fake.answer["notes"] = [server.NASTY]
    fake.suggestions[0]["question"] = server.NASTY
    fake.tokens = [server.NASTY, f"\nPassage 1: ##begin_quote##{server.NASTY}##end_quote##\n<ANSWER>: {server.NASTY}"]
    fake.held = True
    page = visit()
    page.wait_for_selector(".suggestions")
    ask(page, server.NASTY, ".draft blockquote")
    fake.held = False
    page.wait_for_selector(".answer")
    _open_text(page, 1)
    assert server.NASTY in page.inner_text("#source .text")
    assert server.NASTY in page.inner_text("#source h2")
    page.goto(page.url.split("#")[0] + f"#/documents/{fake.documents[1]['document']}")
    page.wait_for_selector(".document h1:has-text('Notizen')")
    page.goto(page.url.split("#")[0] + "#/documents")
    page.wait_for_selector("table")
    assert page.evaluate("window.hacked") is None
    assert page.locator("img[src=x], main script").count() == 0


def test_the_page_could_not_make_markup_of_a_string_if_it_wanted(visit: Any) -> None:
    page = visit()
    with pytest.raises(Exception, match="TrustedHTML"):
        page.evaluate("document.body.innerHTML = '<b>x</b>'")
    page.complaints.clear()


def test_a_document_that_is_gone_is_said_to_be(visit: Any, fake: Any, ask: Any) -> None:
    page = visit()
    ask(page, "Was gilt?")
    fake.documents.clear()
    page.click(".quote h3 a >> nth=0")
    page.wait_for_selector("#source >> text=Dieses Dokument ist nicht mehr da")
    page.goto(page.url.split("#")[0] + "#/documents/0123456789abcdef")
    page.wait_for_selector("main >> text=Dieses Dokument ist nicht mehr da")
    page.complaints.clear()


def test_words_that_have_moved_are_marked_where_they_stand_now(visit: Any, fake: Any, ask: Any, server: Any) -> None:
    page = visit()
    ask(page, "Was gilt?")
    travel = fake.documents[0]
    travel["text"] = "Ganz neu 🎉, mit noch einem Absatz.\n\n" + travel["text"]
    now = travel["text"].index(server.LINE)
    with page.expect_request(f"**/pages/*.png?start={now}&*"):
        page.click(".quote h3 a >> nth=0")
    assert f"start={now}&" in page.get_attribute("#source footer a >> nth=0", "href")
    page.click("[role=tab] >> text=Text")
    page.wait_for_selector("#source mark")
    assert page.locator("#source mark").all_text_contents() == [server.LINE]
    assert page.locator("#source .problem").count() == 0


@pytest.mark.parametrize("number", [0, 1])
def test_other_words_are_not_marked_in_place_of_the_quote(
    visit: Any, fake: Any, ask: Any, eventually: Any, number: int
) -> None:
    page = visit()
    pictures: list[str] = []
    page.on("request", lambda asked: pictures.append(asked.url) if ".png" in asked.url else None)
    ask(page, "Was gilt?")
    # As long as before, so that everything still stands at its old place; and kept by the browser over a reload.
    for old, new in (("0,30 Euro", "0,38 Euro"), ("sechs Wochen", "sieben Tage.")):
        fake.documents[number]["text"] = fake.documents[number]["text"].replace(old, new)
    page.reload()
    page.click(f".quote h3 a >> nth={number}")
    page.wait_for_selector("#source .problem >> text=hat sich geändert")
    assert "start=" not in page.get_attribute("#source footer a >> nth=0", "href")
    if number == 0:
        eventually(page, lambda: bool(pictures))
        assert not any("start=" in picture for picture in pictures)
        assert "markiert" not in page.get_attribute(".page-picture", "alt")
        page.click("[role=tab] >> text=Text")
    page.wait_for_selector("#source .text >> text=/Reisekosten|Notizen/")
    assert page.locator("#source mark").count() == 0
