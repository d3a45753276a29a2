"""Rows by rule: whatever the data, quotes are verbatim, and who abstains has no answer before him."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.data.lines import Problem
from finetune.data.schema import Answer, Context, Row
from finetune.negatives import stands
from finetune.raft.build import Built, Plan, build, row_tasks
from finetune.raft.checks import kind_of, row_problems
from finetune.raft.row import RaftRow, read_raft, target
from finetune.raft.sources import read_sources
from reader.quotes import parse
from retriever.errors import BelegError, StoreError
from retriever.store import Store

Lines = Callable[..., Path]
Opens = Callable[..., Any]
PLAN = Plan(counts=(1, 2, 3, 4), golden=0.6, seed=3)


def made(finding: Opens, source: Path, out: Path, plan: Plan, *, limit: int | None = None, **where: Any) -> Built:
    rows = read_sources([str(source)], None, lambda _: None)
    with finding(source, **where) as (found, _):
        return build(row_tasks(rows, limit=limit, seed=plan.seed), plan, out, finding=found)


def holds(rows: Sequence[RaftRow]) -> None:
    """Say that rows are as they must be."""
    for row in rows:
        kinds = set(map(kind_of, row_problems(row)))
        assert not kinds & {"quote not proven", "quote missing", "quote cut", "quote not golden", "golden missing", "form"}
        answer = row.answer.casefold()
        if row.abstains:
            assert row.golden is None
            assert not row.quotes
            assert all(one.kind != "golden" for one in row.passages)
            assert not any(stands(answer, " ".join(one.text.casefold().split())) for one in row.passages)
        else:
            assert row.golden is not None
            assert [one.kind for one in row.passages].count("golden") == 1
            assert row.passages[row.golden - 1].kind == "golden"
            assert parse(target(row)).quotes == tuple(zip([one.passage for one in row.quotes], row.quoted(), strict=True))
            assert answer in " ".join(" ".join(row.quoted()).casefold().split())
        assert len({one.text for one in row.passages}) == len(row.passages)


@pytest.mark.parametrize("seed", [0, 1])
def test_built_rows_are_sound(finding: Opens, lamps: list[Any], lines: Lines, tmp_path: Path, seed: int) -> None:
    out = tmp_path / "out.jsonl"
    built = made(finding, lines(lamps), out, Plan((1, 2, 4), 0.6, seed))
    assert read_raft(out) == list(built.rows)
    assert [row.id for row in built.rows] == [f"r{number}" for number in range(64)]
    holds(built.rows)
    assert 12 <= sum(row.abstains for row in built.rows) <= 40
    assert {len(row.passages) for row in built.rows} == {1, 2, 4}
    # The order is shuffled: the golden passage stands everywhere.
    assert {row.golden for row in built.rows if len(row.passages) == 4 and row.golden} == {1, 2, 3, 4}
    assert built.dropped["answers it"]


def test_passages_are_those_of_the_corpus_with_their_places(
    finding: Opens, lamps: list[Any], lines: Lines, tmp_path: Path
) -> None:
    texts = {row["positive_ctxs"][0]["text"]: row["positive_ctxs"][0]["title"] for row in lamps}
    for row in made(finding, lines(lamps), tmp_path / "o.jsonl", PLAN).rows:
        for one in row.passages:
            text = next(text for text in texts if one.text in text)
            assert one.text == text[one.start : one.end]
            assert one.title == texts[text]
            assert one.source.startswith(one.title.replace(" ", "-"))


def test_one_seed_gives_one_file_and_another_another(finding: Opens, lamps: list[Any], lines: Lines, tmp_path: Path) -> None:
    source = lines(lamps)
    texts = []
    for number, seed in enumerate((1, 1, 2)):
        out = tmp_path / f"{number}.jsonl"
        made(finding, source, out, Plan(seed=seed), limit=20)
        texts.append(out.read_bytes())
    assert texts[0] == texts[1] != texts[2]


def test_a_row_does_not_depend_on_the_others(finding: Opens, lamps: list[Any], lines: Lines, tmp_path: Path) -> None:
    whole = {row.id: row for row in made(finding, lines(lamps), tmp_path / "a.jsonl", PLAN).rows}
    part = made(finding, lines(lamps), tmp_path / "b.jsonl", PLAN, limit=9).rows
    assert len(part) == 9
    assert all(row == whole[row.id] for row in part)


@pytest.mark.parametrize(("share", "abstaining"), [(0.0, 64), (1.0, 0)])
def test_all_or_none_have_their_golden_passage(
    finding: Opens, lamps: list[Any], lines: Lines, tmp_path: Path, share: float, abstaining: int
) -> None:
    rows = made(finding, lines(lamps), tmp_path / "o.jsonl", Plan((3,), share)).rows
    assert sum(row.abstains for row in rows) == abstaining
    holds(rows)


def test_documents_are_searched_too(finding: Opens, lamps: list[Any], lines: Lines, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "red.txt").write_text("where is the red lamp? Nobody knows where the red lamp is.", encoding="utf-8")
    rows = made(finding, lines(lamps), tmp_path / "o.jsonl", Plan((3,), 1.0), documents=[tmp_path / "docs"]).rows
    assert any(one.source.endswith("red.txt") for one in rows[0].passages)


def test_what_answers_a_translation_is_no_distractor(finding: Opens, lines: Lines, tmp_path: Path) -> None:
    contexts = {"de": "Der Gurt wird mit zweihundert Newton gespannt.", "en": "The belt der gurt gets two hundred newtons."}
    records = [
        {"id": "t", "query": "Wie straff ist der Gurt?", "context": contexts["de"], "answer": "zweihundert Newton"},
        {"id": "t", "query": "How tight is der Gurt?", "context": contexts["en"], "answer": "two hundred newtons"},
        {"id": "u", "query": "Wer zahlt den Gurt?", "context": "Den Gurt zahlt Frau Ihde.", "answer": "Frau Ihde"},
    ]  # fmt: skip
    rows = made(finding, lines(records), tmp_path / "o.jsonl", Plan((3,), 1.0)).rows
    assert [row.id for row in rows] == ["t", "t#2", "u"]
    assert {one.text for one in rows[0].passages} == {contexts["de"], "Den Gurt zahlt Frau Ihde."}
    assert {one.text for one in rows[1].passages} == {contexts["en"], "Den Gurt zahlt Frau Ihde."}


def test_what_cannot_become_a_quote_is_left_out_with_its_reason(finding: Opens, lines: Lines, tmp_path: Path) -> None:
    records = [
        {"query": "Wie straff ist er?", "context": "Der Gurt hat 210 N.", "answer": "210 N"},
        {"query": "Was sagt das?", "context": "Alles sagt hier nichts."},
        {"query": "Was ist zweimal da?", "context": "Der Hut ist da. Der Hut ist rot.", "answer": "Der Hut"},
        {"query": "Was ist gefährlich?", "context": "Es heißt <b>Strom</b> im Haus.", "answer": "<b>Strom</b>"},
        {"query": "Was steht ##end_quote## da?", "context": "Da steht ##end_quote## im Text.", "answer": "im Text"},
    ]
    built = made(finding, lines(records), tmp_path / "o.jsonl", Plan((1,), 1.0))
    assert [row.answer for row in built.rows] == ["210 N"]
    assert built.left_out == {
        "there is no answer in words": 1,
        "where the answer stands is not known": 1,
        "the answer has a form that cannot be written": 1,
        "quote not proven": 1,
    }
    with pytest.raises(BelegError, match="No row could be built"):
        made(finding, lines(records[1:], "bad.jsonl"), tmp_path / "o.jsonl", Plan((1,), 1.0))
    assert len(read_raft(tmp_path / "o.jsonl")) == 1


def test_a_question_that_nothing_answers_abstains_before_its_own_paragraph(
    finding: Opens, lines: Lines, tmp_path: Path
) -> None:
    squad = [
        {"id": "s1", "title": "Gurt", "context": "Der Gurt hat 210 N.", "question": "Wer kauft den Gurt?",
         "answers": {"text": [], "answer_start": []}},
        {"id": "s2", "title": "Gurt", "context": "Den Gurt kauft niemand ein.", "question": "Wer kauft den Gurt ein?",
         "answers": {"text": ["niemand"], "answer_start": [15]}},
        {"id": "s3", "title": "Hut", "context": "Der Hut ist rot.", "question": "Wie ist der Hut?",
         "answers": {"text": ["rot"], "answer_start": [12]}},
    ]  # fmt: skip
    row = made(finding, lines(squad), tmp_path / "o.jsonl", Plan((2,), 1.0)).rows[0]
    assert row.abstains
    # Another paragraph of the same article might answer it.
    assert {one.text for one in row.passages} == {"Der Gurt hat 210 N.", "Der Hut ist rot."}


def test_a_live_index_is_no_workspace(finding: Opens, lamps: list[Any], lines: Lines, tmp_path: Path) -> None:
    with Store(tmp_path / "live") as store, store.writer():
        store.remember({"live": "x"})
    with pytest.raises(StoreError, match="holds a live index"):
        made(finding, lines(lamps), tmp_path / "o.jsonl", PLAN, workspace=tmp_path / "live")


NEGATIVES = (
    "Rot ist der Hut.",
    "Blau ist der Schal.",
    "Gelb ist der Schuh.",
    "Grün ist der Rock.",
    "Es ist warm, 210 N sind viel.",
)


def test_own_passages_keep_their_kinds(tmp_path: Path) -> None:
    row = Row(
        id="d", question="Wie straff?", answers=(Answer("210 N", 13),), positives=(Context("Der Gurt hat 210 N."),),
        negatives=tuple(map(Context, reversed(NEGATIVES))), hard_negatives=tuple(map(Context, reversed(NEGATIVES))),
    )  # fmt: skip
    orders = set()
    for seed in range(12):
        built = build(row_tasks([(row, None)]), Plan(golden=1, seed=seed, own=True), tmp_path / "o.jsonl")
        [one] = built.rows
        holds([one])
        orders.add(tuple(passage.kind for passage in one.passages))
        assert Counter(passage.kind for passage in one.passages) == {"golden": 1, "hard": 3, "easy": 1}
        assert built.dropped == {"holds the answer": 2, "same text": 3}
    assert len(orders) > 4
    [one] = build(row_tasks([(row, None)]), Plan(golden=0, own=True), tmp_path / "o.jsonl").rows
    assert one.abstains
    assert Counter(passage.kind for passage in one.passages) == {"hard": 3, "easy": 1}


WORDS = st.lists(
    st.sampled_from(["Gurt", "210 N", "ist", "🧾", "straff.", "Ja!", "\n", "ä", "§ 3", "z. B.", "\u2028", "<ANSWER>:"]),
    min_size=1,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(WORDS.map(" ".join), min_size=1, max_size=5), data=st.data(), seed=st.integers(0, 99))
def test_whatever_the_texts_rows_are_sound(tmp_path: Path, texts: list[str], data: st.DataObject, seed: int) -> None:
    first = texts[0]
    start = data.draw(st.integers(0, len(first) - 1))
    answer = first[start : data.draw(st.integers(start + 1, len(first)))]
    row = Row(
        "x",
        "Wie?",
        (Answer(answer, start),),
        (Context(first),),
        tuple(map(Context, texts[1:3])),
        tuple(map(Context, texts[3:])),
    )
    try:
        built = build(row_tasks([(row, None)]), Plan(golden=0.5, seed=seed, own=True), tmp_path / "o.jsonl")
    except BelegError:
        return
    given_texts = Counter(texts)
    for one in built.rows:
        # The order is a permutation of what the row brought, or of a part of it.
        assert not Counter(passage.text for passage in one.passages) - given_texts
    holds([one for one in built.rows if answer.strip() == answer and len(set(texts)) == len(texts)])
    assert read_raft(tmp_path / "o.jsonl") == list(built.rows)


PUBMED = {
    "1": {"QUESTION": "Does the belt slip?", "LABELS": ["AIM", "RESULTS"], "final_decision": "yes",
          "CONTEXTS": ["We asked whether the belt slips.", "Ten were tested. The belt slipped in nine tests under load."],
          "LONG_ANSWER": "The belt slipped under load in nearly all tests."},
    "2": {"QUESTION": "Is it?", "CONTEXTS": ["Nothing."], "LABELS": [], "LONG_ANSWER": "Unclear.", "final_decision": "maybe"},
    "3": {"QUESTION": "Is it?", "CONTEXTS": ["Nothing."], "LONG_ANSWER": "x", "final_decision": "perhaps"},
    "4": ["no object"],
}  # fmt: skip


def test_pubmedqa_quotes_the_result_nearest_to_the_conclusion(tmp_path: Path) -> None:
    path = tmp_path / "pubmed.json"
    path.write_text(json.dumps(PUBMED), encoding="utf-8")
    told: list[Problem] = []
    rows = read_sources([str(path)], None, told.append)
    [one] = build(row_tasks(rows), Plan(golden=1, own=True), tmp_path / "o.jsonl").rows
    assert one.quoted() == ["The belt slipped in nine tests under load."]
    assert (one.answer, one.problems) == ("yes", ())
    assert [(problem.origin.rpartition(", ")[2], problem.field, problem.kind) for problem in told] == [
        ("2", "CONTEXTS", "unused"), ("3", "final_decision", "malformed"), ("4", "", "malformed"),
    ]  # fmt: skip
    path.write_text('{"1": {"QUESTION": "", "CONTEXTS"', encoding="utf-8")
    with pytest.raises(BelegError, match="cannot be read"):
        read_sources([str(path)], None, told.append)
