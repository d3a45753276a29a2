"""Rows on disk: nothing is lost, nothing malformed gets through, and what the model shall write is what the reader reads."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import llguidance
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data.fields import Malformed
from finetune.data.lines import Problem
from finetune.raft.row import Passage, RaftRow, hits_of, raft_json, raft_row, read_raft, target, whole, write_raft
from reader.quotes import Freedom, Span, grammar, parse
from retriever.errors import BelegError

Make = Callable[..., RaftRow]
BYTES = llguidance.LLTokenizer("byte")


def test_a_file_gives_back_what_was_written(make_row: Make, tmp_path: Path) -> None:
    rows = [
        make_row(),
        make_row(id="q2", golden=None, quotes=(), abstains=True, problems=("too long: question",), by="person"),
        make_row(id="ü 🧾 \u2028 \r\n", reasoning="Das sagt der Satz.", by="model"),
    ]
    path = tmp_path / "new" / "r.jsonl"
    assert write_raft(path, rows) == 3
    assert read_raft(path) == rows
    assert [item.name for item in path.parent.iterdir()] == ["r.jsonl"]


def test_bom_crlf_and_blank_lines_do_not_matter(make_row: Make, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    line = json.dumps(raft_json(make_row())).encode()
    path.write_bytes(codecs.BOM_UTF8 + line + b"\r\n\r\n")
    assert read_raft(path) == [make_row()]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"question": 3}, "question"),
        ({"question": "\ud800"}, "question"),
        ({"passages": []}, "passages"),
        ({"passages": "text"}, "passages"),
        ({"passages": [{"text": "x", "kind": "wrong"}]}, "passages.0.kind"),
        ({"passages": [{"kind": "golden"}]}, "passages.0.text"),
        ({"golden": 3}, ""),
        ({"golden": 0}, ""),
        ({"golden": True}, "golden"),
        ({"golden": "2"}, "golden"),
        ({"quotes": [{"passage": 3, "start": 0, "end": 1}]}, ""),
        ({"quotes": [{"passage": 2, "start": 0, "end": 1000}]}, ""),
        ({"quotes": [{"passage": 2, "start": 5, "end": 5}]}, ""),
        ({"quotes": [{"passage": 2, "start": -2, "end": 5}]}, ""),
        ({"quotes": [{"passage": 2, "start": 0.5, "end": 5}]}, "quotes.0.start"),
        ({"abstains": True}, ""),
        ({"abstains": "no"}, "abstains"),
        ({"by": "nobody"}, "by"),
        ({"answer": None}, "answer"),
    ],
)
def test_malformed_rows_are_named(make_row: Make, lines: Callable[..., Path], change: dict[str, Any], field: str) -> None:
    record = json.loads(json.dumps(raft_json(make_row())))
    with pytest.raises(Malformed) as raised:
        raft_row(record | change)
    assert raised.value.field == field
    path = lines([record, {**record, "id": "q2"}])
    path.write_text(path.read_text() + json.dumps({**record, "id": "q3", **change}) + "\n")
    with pytest.raises(BelegError, match="line 3"):
        read_raft(path)
    told: list[Problem] = []
    assert [row.id for row in read_raft(path, on_problem=told.append)] == ["q1", "q2"]
    assert [(one.origin, one.field, one.fatal) for one in told] == [(f"{path}, line 3", field, True)]


@pytest.mark.parametrize("missing", ["id", "question", "passages", "golden", "quotes", "answer", "abstains"])
def test_missing_fields_are_named(make_row: Make, missing: str) -> None:
    record = json.loads(json.dumps(raft_json(make_row())))
    del record[missing]
    with pytest.raises(Malformed, match="missing"):
        raft_row(record)


@pytest.mark.parametrize("text", ["{", "[]", "3", '"x"', "null", '{"id": "a"}', "\xff"])
def test_lines_that_are_no_rows(tmp_path: Path, make_row: Make, text: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(json.dumps(raft_json(make_row())).encode() + b"\n" + text.encode("latin-1") + b"\n")
    with pytest.raises(BelegError, match=r"r\.jsonl, line 2"):
        read_raft(path)


def test_ids_are_unique_and_files_are_not_empty(make_row: Make, lines: Callable[..., Path]) -> None:
    record = raft_json(make_row())
    with pytest.raises(BelegError, match="line 2: id: q1 is there twice"):
        read_raft(lines([record, record]))
    with pytest.raises(BelegError, match="holds no row"):
        read_raft(lines([]))
    with pytest.raises(BelegError, match="cannot be read"):
        read_raft(Path("nowhere.jsonl"))


def test_a_failed_run_leaves_what_was_there(make_row: Make, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    write_raft(path, [make_row()])

    def breaking() -> Any:
        yield make_row(id="q2")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_raft(path, breaking())
    assert [row.id for row in read_raft(path)] == ["q1"]
    assert list(tmp_path.iterdir()) == [path]
    (tmp_path / "file").touch()
    with pytest.raises(BelegError, match="cannot be written"):
        write_raft(tmp_path / "file" / "r.jsonl", [make_row()])


TEXTS = st.text(
    st.one_of(st.sampled_from(list("abcÄß .!?\n🧾\u2028\u3000\"'\\|")), st.characters(exclude_categories=["Cs"])), min_size=1
)


@settings(max_examples=80, deadline=None)
@given(text=TEXTS, data=st.data(), answer=st.text("abc 1ä", min_size=1).map(str.strip).filter(bool))
def test_what_the_model_shall_write_passes_the_grammar_and_is_read_back(text: str, data: st.DataObject, answer: str) -> None:
    passage = Passage(text, "T", (), "golden", "s", 0, len(text), "en")
    start = data.draw(st.integers(0, len(text) - 1))
    span = whole(passage, start, data.draw(st.integers(start + 1, len(text))))
    if span is None:
        return  # nothing but white space
    row = RaftRow("1", "?", (replace(passage, kind="easy"), passage), 2, (Span(2, *span),), "So it says.", answer, False)
    matcher = llguidance.LLMatcher(BYTES, grammar(hits_of(row), Freedom()), log_level=0)
    tokens = BYTES.tokenize_bytes(target(row).encode())
    assert matcher.try_consume_tokens(tokens) == len(tokens)
    assert matcher.is_accepting()
    if "##" not in text and "<ANSWER>" not in text:
        assert parse(target(row)).quotes == ((2, text[span[0] : span[1]]),)
        assert parse(target(row)).answer == answer


def test_abstaining_is_written_as_the_reader_reads_it(make_row: Make) -> None:
    row = make_row(golden=None, quotes=(), abstains=True)
    assert parse(target(row)).abstained
    assert "210" not in target(row)
