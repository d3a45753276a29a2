"""Going through rows: every decision is kept at once, edits are proven, and the page is for whoever has its address only."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from finetune.raft.review import Edit, Review, decisions_of, reviewed
from finetune.raft.row import RaftRow, read_raft, write_raft
from finetune.raft.web import create_app
from reader.quotes import Span
from retriever.errors import BelegError

Make = Callable[..., RaftRow]
EDIT = Edit("Wer ist zuständig?", "Frau Ihde", "Das steht da.", ((2, "🧾 Zuständig ist Frau Ihde."),), False)


@pytest.fixture
def path(make_row: Make, tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    write_raft(path, [make_row(), make_row(id="q2"), make_row(id="<script>", question="Was heißt <b>hier</b>?")])
    return path


def test_decisions_are_kept_and_the_last_one_counts(path: Path) -> None:
    review = Review(path)
    assert review.next_open() == 0
    review.decide(0, "reject")
    review.decide(1, "edit", EDIT)
    review.decide(0, "accept")
    assert review.next_open(1) == 2
    assert review.next_open(2) == 2
    again = Review(path)
    assert again.counts() == {"rows": 3, "accept": 1, "edit": 1, "reject": 0}
    assert [again.decision(number) for number in range(3)] == [review.decision(number) for number in range(3)]
    assert len(decisions_of(path).read_text(encoding="utf-8").splitlines()) == 3
    kept = reviewed(again, undecided=False)
    assert [row.id for row in kept] == ["q1", "q2"]
    assert kept[1].quoted() == ["🧾 Zuständig ist Frau Ihde."]
    assert (kept[1].by, kept[1].problems) == ("person", ())
    assert [row.id for row in reviewed(again, undecided=True)] == ["q1", "q2", "<script>"]


def test_a_line_that_was_cut_off_by_a_kill_does_not_matter(path: Path) -> None:
    Review(path).decide(0, "accept")
    kept = decisions_of(path)
    kept.write_bytes(kept.read_bytes() + '{"row": "q2", "hash": "🧾'.encode()[:-2])
    review = Review(path)
    assert review.counts()["accept"] == 1
    review.decide(1, "reject")
    assert Review(path).counts() == {"rows": 3, "accept": 1, "edit": 0, "reject": 1}


def test_decisions_on_rows_that_have_changed_do_not_count(path: Path, make_row: Make) -> None:
    review = Review(path)
    review.decide(0, "accept")
    review.decide(1, "accept")
    write_raft(path, [make_row(question="Wie straff?"), make_row(id="q2", problems=("too long: x",))])
    again = Review(path)
    assert again.stale == 1
    assert again.decision(0) is None
    assert again.decision(1) is not None


@pytest.mark.parametrize("line", ["{}", "[]", "x", '{"row": "q1", "hash": "x", "decision": "maybe"}'])
def test_a_damaged_file_of_decisions_is_named(path: Path, line: str) -> None:
    decisions_of(path).write_text(line + "\n", encoding="utf-8")
    with pytest.raises(BelegError, match=r"rows\.jsonl\.review\.jsonl, line 1"):
        Review(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quotes": ((2, "Zuständig ist Herr Ihde."),)}, "word for word"),
        ({"quotes": ((1, "🧾 Zuständig ist Frau Ihde."),)}, "word for word"),
        ({"quotes": ((3, "x"),)}, "no passage 3"),
        ({"quotes": ((2, " "),)}, "word for word"),
        ({"quotes": ()}, "no quote"),
        ({"answer": " "}, "no answer"),
        ({"question": ""}, "question is empty"),
    ],
)
def test_an_edit_must_be_proven(path: Path, change: dict[str, Any], message: str) -> None:
    review = Review(path)
    values = {name: getattr(EDIT, name) for name in EDIT.__slots__}
    with pytest.raises(BelegError, match=message):
        review.decide(0, "edit", Edit(**(values | change)))
    assert review.decision(0) is None
    assert not decisions_of(path).exists()


def test_a_person_may_find_another_golden_passage_or_none(path: Path) -> None:
    review = Review(path)
    review.decide(
        0, "edit", Edit("Was ist bevorzugt?", "Die Bahn", "", ((1, "Die Bahn ist das bevorzugte Verkehrsmittel."),), False)
    )
    review.decide(1, "edit", Edit("Wer kauft ein?", "", "x", ((1, "ignored"),), True))
    first, second = reviewed(review, undecided=False)
    assert (first.golden, [one.kind for one in first.passages], first.problems) == (1, ["golden", "retrieved"], ())
    assert (second.golden, second.quotes, second.abstains, second.problems) == (None, (), True, ())


def test_many_threads_lose_no_decision(path: Path, make_row: Make) -> None:
    write_raft(path, [make_row(id=f"q{number}") for number in range(40)])
    review = Review(path)
    threads = [threading.Thread(target=review.decide, args=(number, "accept")) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Review(path).counts()["accept"] == 40


@pytest.fixture
def client(path: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Review(path), "secret"), headers={"X-Beleg-Token": "secret"}) as client:
        yield client


def test_nothing_without_the_token(client: TestClient, path: Path) -> None:
    for headers in (
        {"X-Beleg-Token": ""},
        {"X-Beleg-Token": "wrong"},
        {"X-Beleg-Token": "sécret".encode("latin-1").decode("latin-1")},
    ):
        for method, url in (
            ("GET", "/"),
            ("GET", "/api/state"),
            ("GET", "/api/rows/0"),
            ("POST", "/api/rows/0"),
            ("GET", "/docs"),
        ):
            raw = {name: value.encode("latin-1") for name, value in headers.items()}
            answer = client.request(method, url, headers=raw, json={"decision": "accept"})
            assert answer.status_code == 403
    # In the address it opens the page and nothing else: addresses end up in histories.
    assert client.get("/?token=secret", headers={"X-Beleg-Token": ""}).status_code == 200
    assert (
        client.post("/api/rows/0?token=secret", headers={"X-Beleg-Token": ""}, json={"decision": "accept"}).status_code == 403
    )
    assert not decisions_of(path).exists()


def test_the_page_loads_nothing_from_elsewhere(client: TestClient) -> None:
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    nonce = policy.partition("'nonce-")[2].partition("'")[0]
    assert answer.text.count(f'nonce="{nonce}"') == 2
    assert "NONCE" not in answer.text
    assert client.get("/").headers["content-security-policy"] != policy
    assert "http" not in answer.text.replace("http-equiv", "")
    assert "innerHTML" not in answer.text
    assert answer.headers["cache-control"] == "no-store"


def test_rows_come_with_their_quotes_cut_out(client: TestClient) -> None:
    row = client.get("/api/rows/0").json()
    assert row["passages"][1]["pieces"] == [
        ["Der Gurt wird mit 210 N gespannt.", True],
        [" 🧾 Zuständig ist Frau Ihde. Der Spalt misst 1,8 mm.", False],
    ]
    assert row["quotes"] == [{"passage": 2, "text": "Der Gurt wird mit 210 N gespannt."}]
    assert client.get("/api/state").json() == {
        "file": "rows.jsonl", "next": 0, "stale": 0, "rows": 3, "accept": 0, "edit": 0, "reject": 0,
    }  # fmt: skip
    assert client.get("/api/rows/3").status_code == 404
    assert client.get("/api/rows/-1").status_code == 404


def test_decisions_over_http(client: TestClient, path: Path) -> None:
    assert client.post("/api/rows/0", json={"decision": "accept"}).json()["next"] == 1
    edit = {"question": "Wer?", "answer": "Frau Ihde", "quotes": [{"passage": 2, "text": "🧾 Zuständig ist Frau Ihde."}]}
    assert client.post("/api/rows/1", json={"decision": "edit", "edit": edit}).json()["edit"] == 1
    wrong = {**edit, "quotes": [{"passage": 2, "text": "nirgends"}]}
    answer = client.post("/api/rows/2", json={"decision": "edit", "edit": wrong})
    assert answer.status_code == 422
    assert "word for word" in answer.json()["error"]
    for body in (
        {},
        {"decision": "perhaps"},
        {"decision": "edit"},
        {"decision": "accept", "more": 1},
        {"decision": "edit", "edit": {}},
    ):
        assert client.post("/api/rows/2", json=body).status_code == 422
    lone = json.dumps({"decision": "edit", "edit": {**edit, "question": "\ud800"}})
    assert client.post("/api/rows/2", content=lone, headers={"Content-Type": "application/json"}).status_code == 422
    assert [json.loads(line)["decision"] for line in decisions_of(path).read_text().splitlines()] == ["accept", "edit"]
    assert client.get("/api/rows/1").json()["decision"] == "edit"
    assert client.get("/api/rows/1").json()["answer"] == "Frau Ihde"


def test_overlapping_quotes_are_marked_once(make_row: Make, path: Path) -> None:
    write_raft(path, [make_row(quotes=(Span(2, 0, 33), Span(2, 0, 60), Span(2, 4, 10)))])
    with TestClient(create_app(Review(path), "secret"), headers={"X-Beleg-Token": "secret"}) as client:
        pieces = client.get("/api/rows/0").json()["passages"][1]["pieces"]
    assert "".join(text for text, _ in pieces) == read_raft(path)[0].passages[1].text
    assert "".join(text for text, quoted in pieces if quoted) == read_raft(path)[0].passages[1].text[:60]


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to look with")
def test_a_person_goes_through_rows_by_keyboard(path: Path, browsers: Any, tmp_path: Path) -> None:
    import socket

    import uvicorn

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        config = uvicorn.Config(create_app(Review(path), "secret"), log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}/?token=secret"
            with browsers.Browser(CHROMIUM, tmp_path / "profile", "de-DE") as browser:
                _go_through(browser, url)
        finally:
            server.should_exit = True
            thread.join()
    assert Review(path).counts() == {"rows": 3, "accept": 1, "edit": 1, "reject": 1}
    _, edited = reviewed(Review(path), undecided=False)
    assert edited.answer == "210 Newton N"


def _go_through(browser: Any, url: str) -> None:
    count = "document.getElementById('count').textContent"
    browser.open(url)
    browser.until(count, "1 von 3")
    assert browser.run("document.querySelector('mark').textContent") == "Der Gurt wird mit 210 N gespannt."
    browser.press("a")
    browser.until(count, "2 von 3")
    browser.press("r")
    browser.until(count, "3 von 3")
    # What a document says is shown, never obeyed.
    assert browser.run("document.getElementById('question').textContent") == "Was heißt <b>hier</b>?"
    assert browser.run("document.querySelectorAll('main b').length") == 0
    browser.press("e")
    browser.until("document.getElementById('form').hidden", expected=False)
    browser.run("document.querySelector('#f-quotes textarea').value = 'nirgends'")
    browser.press("Enter", ctrl=True)
    browser.until("document.getElementById('error').hidden", expected=False)
    browser.run("document.querySelector('#f-quotes textarea').value = 'Der Gurt wird mit 210 N gespannt.'")
    browser.run("document.getElementById('f-answer').value = '210 Newton N'")
    browser.press("Enter", ctrl=True)
    browser.until("document.getElementById('finished').hidden", expected=False)
    browser.press("b")
    browser.until("document.getElementById('says').textContent", "210 Newton N")
    browser.press("b")
    browser.until(count, "2 von 3")
    assert browser.run("document.querySelector('.badge').textContent") == "abgelehnt"
