"""The small modules that only compute, run where they will run: in a browser."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(scope="module")
def run(contexts: Any, shared: Any) -> Any:
    page = contexts(locale="de-DE").new_page()
    page.goto(f"{shared[1]}/ui/icon.svg")

    def call(module: str, expression: str, argument: Any = None) -> Any:
        return page.evaluate(
            f"async (given) => {{ const it = await import('/ui/{module}.js'); return {expression}; }}", argument
        )

    return call


def test_offsets_count_code_points(run: Any) -> None:
    text = "a🧾b\u0301🎈ß"
    units = run("offsets", "[0, 1, 2, 3, 4, 5, 6, 99].map((at) => it.toUnits(given, at))", text)
    assert units == [0, 1, 3, 4, 5, 7, 8, 8]
    assert run("offsets", "it.countPoints(given)", text) == len(text)
    for start in range(len(text) + 1):
        for end in range(start, len(text) + 1):
            pieces = run("offsets", "it.cutAt(given[0], given[1])", [text, [start, end]])
            assert pieces == [text[:start], text[start:end], text[end:]]


def test_cuts_outside_of_the_text_give_empty_pieces(run: Any) -> None:
    assert run("offsets", "it.cutAt('a🧾', [-3, 1, 7])") == ["", "a", "🧾", ""]


RAW = """Der Satz steht dort.
Passage 12: ##begin_quote##Passage 3: zahlt #1 & <5 €.##end_quote##
Passage 1: ##begin_quote##Zwei.##end_quote##
<ANSWER>: 5 Euro"""


def test_a_finished_text_is_prose_quotes_and_answer(run: Any) -> None:
    assert run("marks", "it.partsOf(given)", RAW) == [
        {"kind": "thought", "text": "Der Satz steht dort."},
        {"kind": "quote", "text": "Passage 3: zahlt #1 & <5 €."},
        {"kind": "quote", "text": "Zwei."},
        {"kind": "answer", "text": "5 Euro"},
    ]


def test_no_beginning_of_it_shows_a_mark_or_half_of_one(run: Any) -> None:
    beginnings = run("marks", "[...given].map((_, at) => it.partsOf(given.slice(0, at + 1)))", RAW)
    for at, parts in enumerate(beginnings):
        # What one quote really says may look like a mark's beginning.
        shown = " ".join(part["text"] for part in parts).replace("Passage 3: zahlt #1 & <5", "")
        for mark in ("##", "begin_", "end_quote", "<A", "ANSWER", "Passage 1", "Passage 12"):
            assert mark not in shown, RAW[: at + 1]
        assert not any(part["text"].endswith(("#", "<", "P", "Pass")) for part in parts if part["kind"] == "thought")
    assert beginnings[-1][-1]["text"] == "5 Euro"


@pytest.mark.parametrize("end", ["<ANSWER>: NOT", "<ANSWER>: NOT FOUND", "<ANSWER>: not found.", "<ANSWER>:"])
def test_that_the_model_found_nothing_is_not_shown(run: Any, end: str) -> None:
    assert run("marks", "it.partsOf(given)", end) == []


def test_a_title_that_begins_with_the_word_is_shown_once_it_is_clear(run: Any) -> None:
    assert run("marks", "it.partsOf('Passagiere')") == [{"kind": "thought", "text": "Passagiere"}]


def test_addresses_survive_the_way_there_and_back(run: Any) -> None:
    path = ["documents", "a/b ü?#%"]
    parameters = {"query": "A & B = ü", "offset": "50"}
    found = run("route", "it.routeOf(it.hashOf(given[0], given[1]))", [path, parameters])
    assert found == {"path": path, "parameters": parameters}
    assert run("route", "it.routeOf('#/c/%E0%A4%A')") == {"path": ["c", "%E0%A4%A"], "parameters": {}}


def test_events_are_read_however_they_are_cut(run: Any) -> None:
    expression = """await (async () => {
      const bytes = new TextEncoder().encode(given[0]);
      const pieces = [];
      for (let at = 0; at < bytes.length; at += given[1]) pieces.push(bytes.slice(at, at + given[1]));
      const body = new ReadableStream({ start(c) { pieces.forEach((piece) => c.enqueue(piece)); c.close(); } });
      const found = [];
      for await (const event of it.eventsOf(new Response(body))) found.push([event.name, event.data.text]);
      return found;
    })()"""
    for text in (': ping\n\nevent: token\ndata: {"text":\ndata: "ü🧾"}\n\ndata: {"text": "b"}\n\nevent: cut\ndata: {"te',):
        for newline in ("\n", "\r\n"):
            for size in (1, 2, 3, 7, 1000):
                found = run("stream", expression, [text.replace("\n", newline), size])
                assert found == [["token", "ü🧾"], ["message", "b"]]


def test_a_page_is_named_by_its_kind(run: Any) -> None:
    expression = "given.map((source) => it.pageLabel(source, 3))"
    found = run("places", expression, ["a.pdf", "b.XLSX", "c.pptx", "d.csv", "e.eml", "ohne"])
    assert found == ["Seite 3", "Blatt 3", "Folie 3", "Zeilen, Teil 3", "Teil 3", "Seite 3"]
    assert run("places", "it.pageLabel('a.pdf', null)") == ""


_ASKED = "const asked = (question, more) => { const one = it.begin(); one.turns.push({ question, ...more }); it.keep(one); };"


def test_a_conversation_without_end_does_not_push_out_all_others(run: Any) -> None:
    kept = run(
        "conversations",
        f"""(() => {{
          {_ASKED}
          asked('Kurz?');
          asked('x'.repeat(6_000_000));
          const kept = Object.values(localStorage).map((value) => JSON.parse(value).turns[0].question);
          it.forgetAll();
          return kept;
        }})()""",
    )
    assert kept == ["Kurz?"]


def test_the_hits_of_an_answer_are_kept_once(run: Any) -> None:
    kept = run(
        "conversations",
        f"""(() => {{
          {_ASKED}
          asked('Kurz?', {{ status: 'answered', hits: ['eine Stelle'], answer: {{ hits: ['eine Stelle'] }} }});
          asked('Lang?', {{ status: 'reading', hits: ['eine Stelle'], answer: null }});
          const kept = Object.values(localStorage).map((value) => value.split('eine Stelle').length - 1);
          it.forgetAll();
          return kept;
        }})()""",
    )
    assert kept == [1, 1]
