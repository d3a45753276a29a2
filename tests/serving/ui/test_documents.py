"""What is indexed: found, read, added and taken away."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def _titles(page: Any) -> list[str]:
    return [title.split("\n")[0] for title in page.locator("tbody th a").all_inner_texts()]


def test_documents_are_found_filtered_and_sorted(visit: Any) -> None:
    page = visit("/#/documents")
    page.wait_for_selector("table")
    assert _titles(page)[0] == "Ersatzteile"
    page.select_option("label:has-text('Ordner') select", "handbuch")
    page.wait_for_selector("text=2 Dokumente")
    page.select_option("label:has-text('Sortieren') select", "-date")
    page.fill("[type=search]", "reise")
    page.wait_for_selector("text=1 Dokument")
    assert _titles(page) == ["Reisekostenrichtlinie"]
    assert "4 Seiten" in page.inner_text("tbody")
    page.reload()
    page.wait_for_selector("text=1 Dokument")
    assert page.input_value("[type=search]") == "reise"
    page.fill("[type=search]", "nirgends")
    page.wait_for_selector("text=Kein Dokument passt.")


def test_typing_a_search_does_not_lose_a_letter(visit: Any) -> None:
    page = visit("/#/documents")
    page.wait_for_selector("table")
    page.locator("[type=search]").press_sequentially("reisekosten", delay=90)
    page.wait_for_selector("text=1 Dokument")
    assert page.input_value("[type=search]") == "reisekosten"


def test_many_documents_are_turned_page_by_page(visit: Any, fake: Any, server: Any) -> None:
    fake.documents = [server.document(f"datei-{n:03}.txt", "Text.", title=f"Datei {n:03}") for n in range(120)]
    page = visit("/#/documents")
    page.wait_for_selector("text=1–50 von 120")
    page.click("[aria-label='Nächste Seite']")
    page.wait_for_selector("text=51–100 von 120")
    assert _titles(page)[0] == "Datei 050"
    page.go_back()
    page.wait_for_selector("text=1–50 von 120")


def test_a_document_shows_its_text_and_outline(visit: Any, fake: Any, ask: Any, eventually: Any) -> None:
    page = visit("/#/documents")
    page.click("text=Reisekostenrichtlinie")
    page.wait_for_selector(".outline")
    assert page.inner_text("h1") == "Reisekostenrichtlinie"
    assert page.evaluate("scrollY") == 0
    page.click(".outline >> text=3.20 Absatz")
    page.wait_for_selector(".text .heading:has-text('3.20 Absatz')")
    eventually(page, lambda: page.evaluate("scrollY") > 500)
    page.click("text=Nur dieses Dokument fragen")
    page.wait_for_selector(".chips >> text=Reisekostenrichtlinie")
    ask(page, "Was gilt?")
    assert fake.asked[0]["filters"] == {"document": fake.documents[0]["document"]}


def test_uploads_are_shown_with_what_became_of_them(visit: Any, fake: Any, tmp_path: Path) -> None:
    paths = [tmp_path / "Urlaub & Co. ü.pdf", tmp_path / "virus.exe"]
    for path in paths:
        path.write_bytes(b"data")
    page = visit("/#/documents")
    with page.expect_file_chooser() as choosing:
        page.click("text=Dateien wählen")
    choosing.value.set_files(paths)
    page.wait_for_selector(".uploads [data-status=done] >> text=2 Seiten")
    page.wait_for_selector(".uploads [data-status=failed] >> text=Read are .pdf, .docx, .md.")
    assert dict(fake.put) == {"Urlaub & Co. ü.pdf": b"data", "virus.exe": b"data"}
    page.wait_for_selector("tbody >> text=Urlaub & Co. ü.pdf")
    page.click("text=Liste leeren")
    assert page.locator(".uploads li").count() == 0
    page.complaints.clear()


def test_a_file_that_cannot_be_read_says_why(visit: Any, fake: Any, tmp_path: Path) -> None:
    fake.upload_fails = True
    (tmp_path / "geheim.pdf").write_bytes(b"data")
    page = visit("/#/documents")
    with page.expect_file_chooser() as choosing:
        page.click("text=Dateien wählen")
    choosing.value.set_files([tmp_path / "geheim.pdf"])
    page.wait_for_selector(".uploads [data-status=failed] >> text=Save it without a password.")


def test_a_folder_is_sent_with_its_paths_and_without_what_is_hidden(visit: Any, fake: Any, tmp_path: Path) -> None:
    folder = tmp_path / "hr"
    (folder / "policies").mkdir(parents=True)
    for name in ("leave.md", "policies/travel.md", ".DS_Store"):
        (folder / name).write_bytes(b"data")
    page = visit("/#/documents")
    with page.expect_file_chooser() as choosing:
        page.click("text=Ordner wählen")
    choosing.value.set_files(folder)
    page.wait_for_selector(".uploads li:nth-child(2)[data-status=done]")
    assert sorted(path for path, _ in fake.put) == ["hr/leave.md", "hr/policies/travel.md"]


def test_files_can_be_dropped_anywhere(visit: Any, fake: Any) -> None:
    page = visit("/#/documents")
    page.wait_for_selector("table")
    transfer = page.evaluate_handle(
        "() => { const it = new DataTransfer(); it.items.add(new File(['data'], 'plan.txt')); return it; }"
    )
    page.dispatch_event("h1", "dragenter", {"dataTransfer": transfer})
    page.wait_for_selector(".dropping")
    page.dispatch_event("h1", "drop", {"dataTransfer": transfer})
    page.wait_for_selector(".uploads [data-status=done]")
    assert page.locator(".dropping").count() == 0
    assert [path for path, _ in fake.put] == ["plan.txt"]


def test_deleting_asks_first(visit: Any, fake: Any) -> None:
    page = visit("/#/documents")
    page.click("[aria-label='„Ersatzteile“ löschen']")
    assert "hochgeladene Datei wird gelöscht" in page.inner_text("dialog")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")
    assert len(fake.documents) == 4
    page.click("[aria-label='„Reisekostenrichtlinie“ löschen']")
    assert "Die Datei bleibt" in page.inner_text("dialog")
    page.click("dialog button:has-text('Löschen')")
    page.wait_for_selector("text=3 Dokumente")
    assert "Reisekostenrichtlinie" not in _titles(page)


def test_an_empty_index_invites_files(visit: Any, fake: Any) -> None:
    fake.documents.clear()
    page = visit("/#/documents")
    page.wait_for_selector("text=Noch ist nichts indiziert")
    assert page.is_visible("text=Dateien wählen")
    assert page.locator("table").count() == 0


def test_a_listing_that_fails_can_be_tried_again(visit: Any) -> None:
    page = visit("/")
    page.route("**/v1/documents?*", lambda route: route.abort())
    page.click("#views >> text=Dokumente")
    page.wait_for_selector("text=Der Server antwortet nicht")
    page.unroute("**/v1/documents?*")
    page.click("text=Noch einmal versuchen")
    page.wait_for_selector("table")
    page.complaints.clear()


class _Held:
    """Requests that are let through when a test says so."""

    def __init__(self, page: Any, pattern: str, part: str) -> None:
        self.page, self.part, self.routes = page, part, []
        page.route(pattern, self._meet)

    def _meet(self, route: Any) -> None:
        if self.part in route.request.url:
            self.routes.append(route)
        else:
            route.continue_()

    def release(self) -> None:
        """Let the first one through, and give the page the time to do something with the response."""
        with self.page.expect_response(self.routes[0].request.url) as came:
            self.routes[0].continue_()
        came.value.finished()
        self.page.wait_for_timeout(100)


def test_a_list_that_comes_late_is_not_shown(visit: Any, eventually: Any) -> None:
    page = visit("/#/documents")
    page.wait_for_selector("table")
    held = _Held(page, "**/v1/documents?*", "query=reise")
    page.fill("[type=search]", "reise")
    eventually(page, lambda: bool(held.routes))
    page.fill("[type=search]", "ersatz")
    page.wait_for_selector("text=1 Dokument")
    held.release()
    assert _titles(page) == ["Ersatzteile"]


def test_a_list_of_a_view_that_was_left_leads_nowhere(visit: Any, eventually: Any) -> None:
    page = visit()
    held = _Held(page, "**/v1/documents?*", "offset=50")
    page.evaluate("location.hash = '#/documents?offset=50'")
    eventually(page, lambda: bool(held.routes))
    page.click("#views >> text=Fragen")
    page.wait_for_selector("#question")
    held.release()
    assert page.evaluate("location.hash") == "#/"


def test_of_two_places_of_the_outline_the_last_is_shown(visit: Any, fake: Any, server: Any, eventually: Any) -> None:
    page = visit(f"/#/documents/{fake.documents[0]['document']}")
    page.wait_for_selector(".text .heading")
    start = server.TRAVEL.index("3.30 Absatz")
    held = _Held(page, "**/text?*", f"start={start - 3000}&")
    page.click(".outline >> text=3.30 Absatz")
    eventually(page, lambda: bool(held.routes))
    page.click(".outline >> text=3.10 Absatz")
    page.wait_for_selector(".text .heading:has-text('3.10 Absatz')")
    shown = page.text_content(".text")
    held.release()
    assert page.text_content(".text").startswith(shown[:100])


def test_text_that_comes_late_is_not_put_below_another_place(visit: Any, fake: Any, server: Any, eventually: Any) -> None:
    page = visit(f"/#/documents/{fake.documents[0]['document']}")
    page.wait_for_selector(".text .heading")
    held = _Held(page, "**/text?*", "start=3000&")
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    eventually(page, lambda: bool(held.routes))
    page.click(".outline >> text=3.20 Absatz")
    page.wait_for_selector(".text .heading:has-text('3.20 Absatz')")
    held.release()
    assert page.text_content(".text") in server.TRAVEL
    for _ in range(6):
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        page.wait_for_timeout(120)
    assert page.text_content(".text") in server.TRAVEL
    assert page.text_content(".text").endswith("Ende der Richtlinie.")


def test_a_job_that_nobody_could_be_asked_about_has_not_failed(visit: Any, fake: Any, tmp_path: Path) -> None:
    lost: list[str] = []

    def lose(route: Any) -> None:
        lost.append(route.request.url)
        if len(lost) % 3 == 0:
            route.continue_()
        elif len(lost) % 3 == 1:
            route.abort()
        else:
            route.fulfill(status=503, body="starting")

    (tmp_path / "plan.pdf").write_bytes(b"data")
    page = visit("/#/documents")
    page.route("**/v1/jobs/*", lose)
    with page.expect_file_chooser() as choosing:
        page.click("text=Dateien wählen")
    choosing.value.set_files([tmp_path / "plan.pdf"])
    page.wait_for_selector(".uploads [data-status=done]")
    page.wait_for_selector("text=5 Dokumente")
    page.click("[aria-label='„Ersatzteile“ löschen']")
    page.click("dialog button:has-text('Löschen')")
    page.wait_for_selector("text=4 Dokumente")
    assert len(lost) == 6
    page.complaints.clear()


def test_a_server_that_takes_no_changes_is_offered_none_a_second_time(visit: Any, fake: Any) -> None:
    fake.unchangeable = True
    page = visit("/#/documents")
    page.click("[aria-label='„Ersatzteile“ löschen']")
    page.click("dialog button:has-text('Löschen')")
    page.wait_for_selector("tbody >> text=Files cannot be added here")
    for view in ("Fragen", "Dokumente"):
        assert page.locator(".zone:visible, .actions button:visible").count() == 0
        page.click(f"#views >> text={view}")
    page.wait_for_selector("table")
    assert page.locator(".zone:visible, .actions button:visible").count() == 0
    page.complaints.clear()


def test_a_refused_upload_takes_the_place_to_drop_files_away(visit: Any, fake: Any, tmp_path: Path) -> None:
    fake.unchangeable = True
    (tmp_path / "plan.pdf").write_bytes(b"data")
    page = visit("/#/documents")
    with page.expect_file_chooser() as choosing:
        page.click("text=Dateien wählen")
    choosing.value.set_files([tmp_path / "plan.pdf"])
    page.wait_for_selector(".uploads [data-status=failed] >> text=Files cannot be added here")
    page.wait_for_selector(".zone", state="hidden")
    page.complaints.clear()
