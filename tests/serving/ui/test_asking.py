"""Somebody asks: what is seen on the way, in the end, and when it goes wrong."""

from __future__ import annotations

import re
from typing import Any

import pytest


def _text(page: Any, selector: str) -> str:
    return str(page.inner_text(selector))


def test_a_question_is_asked_streamed_and_proven(visit: Any, fake: Any, ask: Any, server: Any) -> None:
    fake.held = True
    page = visit()
    ask(page, "Was zahlt die Firma je Kilometer?", ".draft .worded")
    assert "4 Stellen gefunden" in _text(page, ".progress")
    assert "noch nicht geprüft" in _text(page, ".draft")
    assert page.locator(".hits[open] li").count() == 4
    fake.held = False
    page.wait_for_selector(".answer")
    assert page.locator(".draft").count() == 0
    assert _text(page, ".answer") == "0,30 Euro je gefahrenem Kilometer"
    cards = page.locator(".quote")
    assert cards.count() == 2
    assert cards.nth(0).locator("blockquote").inner_text() == server.LINE
    assert "Seite 3" in cards.nth(0).inner_text()
    assert "2 wörtliche Zitate" in _text(page, ".verbatim summary")
    assert fake.asked == [{"question": "Was zahlt die Firma je Kilometer?", "filters": {}, "history": [], "stream": True}]
    assert re.fullmatch(r"#/c/\w+", page.evaluate("location.hash"))


def test_no_mark_is_ever_seen(visit: Any, fake: Any, ask: Any) -> None:
    fake.held = True
    page = visit()
    page.evaluate("""() => {
      window.seen = '';
      const look = () => (seen += document.querySelector('.draft')?.innerText || '');
      new MutationObserver(look).observe(document.body, {subtree: true, childList: true});
    }""")
    ask(page, "Kilometer?", ".draft .worded")
    fake.held = False
    page.wait_for_selector(".answer")
    seen = page.evaluate("seen")
    assert "Die Richtlinie nennt den Satz." in seen
    assert not re.search(r"#|begin_|end_q|<|ANSWER|Passage", seen)


def test_a_follow_up_sends_the_turns_before_it_and_says_what_was_searched(visit: Any, fake: Any, ask: Any) -> None:
    page = visit()
    ask(page, "Was zahlt die Firma je Kilometer?")
    assert "Gesucht" not in _text(page, ".turn")
    fake.answer["query"] = "Was zahlt die Firma je Kilometer mit dem Motorrad?"
    ask(page, "Und mit dem Motorrad?")
    assert "Gesucht: „Was zahlt die Firma je Kilometer mit dem Motorrad?“" in _text(page, ".turn:last-child")
    history = [{"question": "Was zahlt die Firma je Kilometer?", "answer": "0,30 Euro je gefahrenem Kilometer"}]
    assert fake.asked[1]["history"] == history
    page.reload()
    assert page.locator(".turn").count() == 2


def test_filters_go_with_the_question_and_come_off_again(visit: Any, fake: Any, ask: Any) -> None:
    page = visit()
    page.click(".filters summary")
    page.select_option("label:has-text('Ordner') select", "handbuch")
    page.select_option("label:has-text('Art') select", "pdf")
    page.fill("label:has-text('Von') input", "2024-01-01")
    assert page.locator(".chips li").all_inner_texts() == ["handbuch", "PDF", "seit 01.01.2024"]
    page.click(".chips li:has-text('PDF') button")
    ask(page, "Was gilt?")
    assert fake.asked[0]["filters"] == {"folder": "handbuch", "date": "2024-01-01.."}


def test_a_suggested_question_is_asked_by_a_click(visit: Any, fake: Any) -> None:
    page = visit()
    page.click("text=Which gloves do I wear?")
    page.wait_for_selector(".answer")
    assert fake.asked[0]["question"] == "Which gloves do I wear?"


REASONS = {
    "nothing_found": "Keine einzige Stelle passt",
    "weak_retrieval": "zu weit von Ihrer Frage entfernt",
    "not_in_passages": "keine sagt, wonach Sie gefragt haben",
    "unproven": "belegt sie Wort für Wort",
    "unsupported": "den ihre Zitate nicht haben",
    "changed": "wurden geändert",
    "of_the_future": "Nehmen Sie die Wörter",
}


@pytest.mark.parametrize("reason", REASONS)
def test_an_abstention_says_why_and_how_to_go_on(visit: Any, fake: Any, ask: Any, reason: str) -> None:
    fake.abstain(reason, "Dazu steht nichts in den Dokumenten.")
    page = visit()
    ask(page, "Wie hoch ist der Bonus?", ".abstention")
    said = _text(page, ".abstention")
    assert "Dazu steht nichts in den Dokumenten." in said
    assert REASONS[reason] in said
    assert "Gesucht: „Wie hoch ist der Bonus?“" in said
    assert page.locator(".abstention .hits[open] li").count() == 4
    assert "Ohne Filter" not in said
    page.click("text=Anders formulieren")
    assert page.input_value("#question") == "Wie hoch ist der Bonus?"


def test_an_abstention_offers_to_take_the_filters_away(visit: Any, fake: Any, ask: Any) -> None:
    fake.abstain("nothing_found", "Nichts gefunden.")
    fake.answer["hits"] = []
    page = visit()
    page.click(".filters summary")
    page.select_option("label:has-text('Sprache') select", "en")
    ask(page, "Was gilt?", ".abstention")
    assert "Englisch" in _text(page, ".abstention")
    page.click(".abstention >> text=Ohne Filter")
    page.wait_for_selector(".turn:nth-child(2) .abstention")
    assert [asked["filters"] for asked in fake.asked] == [{"language": "en"}, {}]


def test_a_connection_lost_in_the_middle_keeps_what_came(visit: Any, fake: Any, ask: Any) -> None:
    fake.ends, fake.held = "cut", True
    page = visit()
    ask(page, "Was gilt?", ".draft .worded")
    fake.held = False
    page.wait_for_selector(".problem")
    assert "abgerissen" in _text(page, ".problem")
    assert "Die Richtlinie nennt den Satz." in _text(page, ".draft")
    assert "Nicht geprüft" in _text(page, ".draft")
    assert page.locator(".turn .hits li").count() == 4
    page.complaints.clear()
    fake.ends = "done"
    page.click("text=Noch einmal fragen")
    page.wait_for_selector(".answer")
    assert page.locator(".problem").count() == 0


def test_a_stream_that_ends_without_an_answer_is_a_lost_connection(visit: Any, fake: Any, ask: Any) -> None:
    fake.ends = "silent"
    page = visit()
    ask(page, "Was gilt?", ".problem")
    assert "abgerissen" in _text(page, ".problem")


def test_an_error_in_the_stream_says_its_way_out(visit: Any, fake: Any, ask: Any) -> None:
    fake.ends = "error"
    page = visit()
    ask(page, "Was gilt?", ".problem")
    assert "The model failed." in _text(page, ".problem")
    assert "Look at the log." in _text(page, ".problem")


def test_a_busy_server_is_asked_again_by_itself(visit: Any, fake: Any, ask: Any) -> None:
    fake.overloaded = 1
    page = visit()
    ask(page, "Was gilt?", ".progress:has-text('fragt in')")
    assert re.search(r"in [12] Sekunden? noch einmal", _text(page, ".progress"))
    page.wait_for_selector(".answer")
    assert len(fake.asked) == 2
    page.complaints.clear()


def test_waiting_can_be_cut_short_or_given_up(visit: Any, fake: Any, ask: Any, eventually: Any) -> None:
    fake.overloaded = 99
    page = visit()
    ask(page, "Was gilt?", "button:has-text('Jetzt fragen')")
    page.click("button:has-text('Jetzt fragen')")
    eventually(page, lambda: len(fake.asked) == 2)
    page.click("text=Anhalten")
    page.wait_for_selector(".stopped")
    assert len(fake.asked) == 2
    page.complaints.clear()


def test_a_server_that_is_down_is_named_and_nothing_is_lost(browser: Any, server: Any, fake: Any, ask: Any) -> None:
    with server.serving(fake) as url:
        page = browser.new_page(locale="de-DE")
        page.goto(url)
        page.wait_for_selector(".suggestions")
    ask(page, "Was gilt?", ".problem")
    assert "Der Server antwortet nicht" in _text(page, ".problem")
    assert _text(page, ".question") == "Was gilt?"
    page.close()


def test_escape_stops_a_slow_answer_and_the_next_question_goes_through(visit: Any, fake: Any, ask: Any) -> None:
    fake.held = True
    page = visit()
    ask(page, "Was gilt?", ".progress")
    assert page.is_disabled(".send")
    page.press("#question", "Escape")
    page.wait_for_selector(".stopped")
    fake.held = False
    ask(page, "Und jetzt?")
    assert len(fake.asked) == 2


def test_a_slow_model_is_said_to_be_slow(visit: Any, fake: Any, ask: Any) -> None:
    fake.held, fake.tokens = True, []
    page = visit()
    page.clock.install()
    ask(page, "Was gilt?", ".progress:has-text('gefunden')")
    page.clock.run_for(12_000)
    assert re.search(r"liest noch, 1[123]\ss", _text(page, ".progress"))


def test_an_answer_from_the_cache_says_so(visit: Any, fake: Any, ask: Any) -> None:
    fake.answer["cached"] = True
    page = visit()
    ask(page, "Was gilt?")
    assert "aus dem Gedächtnis" in _text(page, ".foot")


def test_feedback_is_sent_once_with_what_training_needs(visit: Any, fake: Any, ask: Any) -> None:
    fake.answer["query"] = "Was gilt für Reisen?"
    page = visit()
    ask(page, "Was gilt?")
    page.click(".feedback >> text=Nein")
    page.fill(".feedback textarea", "Seit März 0,38 Euro.")
    page.click(".feedback >> text=Senden")
    page.wait_for_selector("text=Danke.")
    assert len(fake.said) == 1
    said = fake.said[0]
    assert (said["verdict"], said["question"], said["comment"]) == ("bad", "Was gilt für Reisen?", "Seit März 0,38 Euro.")
    assert said["quotes"] == fake.answer["quotes"]
    assert said["hits"] == fake.answer["hits"]
    page.reload()
    page.wait_for_selector(".answer")
    assert page.locator(".feedback button").count() == 0


def test_copying_gives_the_quotes_with_their_sources(visit: Any, ask: Any, server: Any) -> None:
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    ask(page, "Was gilt?")
    page.click(".quote >> nth=0 >> text=Kopieren")
    page.wait_for_selector(".quote >> text=Kopiert")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == f"„{server.LINE}“\n— Reisekostenrichtlinie, Seite 3, reisekostenrichtlinie.pdf"
    assert "source=" not in page.evaluate("location.hash")
    page.click("text=Antwort und Zitate kopieren")
    page.wait_for_selector(".foot >> text=Kopiert")
    assert page.evaluate("navigator.clipboard.readText()").startswith("0,30 Euro je gefahrenem Kilometer\n\n„Für")


def test_conversations_are_kept_reopened_and_deleted(visit: Any, ask: Any) -> None:
    page = visit()
    ask(page, "Erste Frage?")
    page.click("text=Neue Frage")
    page.wait_for_selector(".ask:not(.begun)")
    ask(page, "Zweite Frage?")
    page.reload()
    assert page.locator("#side li .title").all_inner_texts() == ["Zweite Frage?", "Erste Frage?"]
    page.click("#side >> text=Erste Frage?")
    page.wait_for_selector(".question:has-text('Erste Frage?')")
    page.click("[aria-label='„Erste Frage?“ löschen']")
    page.wait_for_selector(".ask:not(.begun)")
    assert page.locator("#side li").count() == 1
    page.go_back()
    page.wait_for_selector("text=Dieses Gespräch ist nicht hier")
    ask(page, "Dritte Frage?")
    page.click("text=Alle löschen")
    page.click("dialog >> text=Alle löschen")
    page.wait_for_selector("text=Noch keine.")
    assert page.evaluate("Object.keys(localStorage).filter((key) => key.includes('conversation'))") == []


@pytest.mark.parametrize("broken", ["setItem", "getItem"])
def test_without_a_place_to_keep_things_everything_else_works(visit: Any, ask: Any, broken: str) -> None:
    page = visit()
    page.add_init_script(f"Storage.prototype.{broken} = () => {{ throw new DOMException('no', 'QuotaExceededError'); }}")
    page.reload()
    ask(page, "Erste Frage?")
    ask(page, "Zweite Frage?")
    assert page.locator(".turn").count() == 2


def test_what_an_old_page_or_another_program_left_in_the_storage_does_no_harm(visit: Any, ask: Any) -> None:
    page = visit()
    page.evaluate(
        "Object.assign(localStorage, {'beleg.conversation.a': '{', 'beleg.conversation.b': '[1]', 'beleg.language': 'xx'})"
    )
    page.reload()
    page.wait_for_selector("text=Noch keine.")


def test_a_question_broken_off_by_leaving_the_page_is_found_again(visit: Any, fake: Any, ask: Any) -> None:
    fake.held = True
    page = visit()
    ask(page, "Was gilt?", ".progress")
    page.reload()
    page.wait_for_selector(".problem")
    assert _text(page, ".question") == "Was gilt?"


def test_an_answer_goes_on_while_the_documents_are_looked_at(visit: Any, fake: Any, ask: Any) -> None:
    fake.held = True
    page = visit()
    ask(page, "Was gilt?", ".progress")
    page.click("#views >> text=Dokumente")
    page.wait_for_selector("table")
    fake.held = False
    page.click("#views >> text=Fragen")
    page.wait_for_selector(".answer")
    assert len(fake.asked) == 1


def test_nothing_indexed_says_how_to_begin(visit: Any, fake: Any) -> None:
    fake.documents.clear()
    fake.suggestions.clear()
    page = visit()
    page.click(".empty >> text=Dokumente hinzufügen")
    page.wait_for_selector("text=Noch ist nichts indiziert")
    page.complaints.clear()


def test_a_machine_that_only_answers_lists_no_documents_and_yet_is_not_empty(visit: Any, fake: Any, ask: Any) -> None:
    page = visit()
    page.route("**/v1/documents?*", lambda route: route.fulfill(json={"documents": [], "total": 0, "facets": {}}))
    fake.suggestions.clear()
    page.reload()
    ask(page, "Was gilt?")
    assert page.locator(".empty").count() == 0


def test_what_one_tab_deletes_does_not_come_back_from_another(visit: Any, ask: Any) -> None:
    page, other = visit(), visit()
    ask(page, "Erste Frage?")
    other.click("#side >> text=Erste Frage?")
    other.wait_for_selector(".answer")
    page.click("[aria-label='„Erste Frage?“ löschen']")
    other.wait_for_selector("text=Noch keine.")
    other.click(".feedback >> text=Ja")
    other.click(".feedback >> text=Senden")
    other.wait_for_selector("text=Danke.")
    other.reload()
    other.wait_for_selector("text=Dieses Gespräch ist nicht hier")
    assert page.evaluate("Object.keys(localStorage).filter((key) => key.includes('conversation'))") == []
