"""Records come with the line where they begin, and what is broken spoils no other record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.data.lines import LINE, Problem, read_file
from retriever.errors import BelegError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text() | st.sampled_from(["data", "qas", "paragraphs"]), inner, max_size=3)
    ),
    max_leaves=12,
)
RECORDS = st.lists(st.dictionaries(st.text().filter(lambda key: key != "data"), VALUES, max_size=4), min_size=1, max_size=4)


def read(path: Path) -> tuple[list[tuple[int, Any]], list[Problem]]:
    items = list(read_file(path))
    return [item for item in items if not isinstance(item, Problem)], [item for item in items if isinstance(item, Problem)]


def written(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def without_lines(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_lines(inner) for key, inner in value.items() if key != LINE}
    return [without_lines(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("name", "text", "records"),
    [
        ("a.jsonl", '{"a": 1}\n\n  \n{"b": 2}', [(1, {"a": 1}), (4, {"b": 2})]),
        ("a.jsonl", '\ufeff{"a": 1}\r\n{"b": 2}\r\n', [(1, {"a": 1}), (2, {"b": 2})]),
        ("a.jsonl", '{"a": "x\u2028y\u0085z"}\n{"b": 2}', [(1, {"a": "x\u2028y\u0085z"}), (2, {"b": 2})]),
        ("a.jsonl", '[{"a": 1},\n {"b": 2}]', [(1, {"a": 1}), (2, {"b": 2})]),
        ("a.jsonl", '{"😀": "ß"}', [(1, {"😀": "ß"})]),
        ("a.json", '[{"a": 1}, {"b":\n 2},\n\n{"c": 3}\n]\n', [(1, {"a": 1}), (1, {"b": 2}), (4, {"c": 3})]),
        ("a.json", '\ufeff\r\n[\r\n{"a": 1}]', [(2 + 1, {"a": 1})]),
        ("a.json", '{"version": 1,\n "data": [\n{"a": 1}]}', [(3, {"a": 1})]),
        ("a.json", '{"data": "not a list"}', [(1, {"data": "not a list"})]),
        ("a.json", '{\n"a": {"b": [1]}\n}', [(1, {"a": {"b": [1]}})]),
        ("a.json", '{"a": 1}\n{"b": 2}\n\n{"c": 3}\n', [(1, {"a": 1}), (2, {"b": 2}), (4, {"c": 3})]),
        ("a.JSON", "[1, null, []]", [(1, 1), (1, None), (1, [])]),
        ("a.json", "[]", []),
        ("a.json", "{}", [(1, {})]),
        ("a.json", "", []),
        ("a.json", " \n ", []),
        ("a.jsonl", "", []),
    ],
)
def test_records_and_their_lines(tmp_path: Path, name: str, text: str, records: list[tuple[int, Any]]) -> None:
    assert read(written(tmp_path, name, text)) == (records, [])


@pytest.mark.parametrize(
    ("name", "text", "good", "lines"),
    [
        ("a.jsonl", '{"a": 1}\n{"b": \n{"c": 3}\n', 2, [2]),
        ("a.jsonl", b'{"a": 1}\n{"b": "\xff"}\n{"c": 3}\n', 2, [2]),
        ("a.jsonl", '{"a": 1}\n{"b": ' + "[" * 200_000 + '\n{"c": 3}', 2, [2]),
        ("a.jsonl", '{"a": 1}\n{"b": ' + "9" * 5000 + "}\n", 1, [2]),
        ("a.jsonl", '{"a": 1}\n{"b": 2', 1, [2]),
        ("a.json", '[{"a": 1},\n{"b": 2}\n{"c": 3}]', 2, [3]),
        ("a.json", '[{"a": 1},\n{"b"}]', 1, [2]),
        ("a.json", '[{"a": 1},\n{b: 1}]', 1, [2]),
        ("a.json", '[{"a": 1},\n', 1, [2]),
        ("a.json", '[\n{"a": ' + "[" * 200_000, 0, [2]),
        ("a.json", '{"data": [{"a": 1}', 1, [1]),
        ("a.json", '{"a": 1}\n{"b": \n{"c": 3}', 2, [2]),
        ("a.json", "hello", 0, [1]),
        ("a.json", '{"a": 1,}', 0, [1]),
    ],
)
def test_what_is_broken_is_named_by_line(tmp_path: Path, name: str, text: str | bytes, good: int, lines: list[int]) -> None:
    path = written(tmp_path, name, text)
    records, problems = read(path)
    assert len(records) == good
    assert [problem.origin for problem in problems] == [f"{path}, line {line}" for line in lines]
    assert all(problem.fatal and problem.left_out for problem in problems)


def test_objects_within_an_article_have_lines(tmp_path: Path) -> None:
    text = '{"data": [\n {"paragraphs": [\n  {"qas": [\n   {"id": 1},\n   {"id": 2, "qas": "x"}, 3]}\n ]}\n]}'
    [(line, article)], problems = read(written(tmp_path, "a.json", text))
    assert (line, problems) == (2, [])
    [paragraph] = article["paragraphs"]
    assert paragraph[LINE] == 3
    assert paragraph["qas"] == [{"id": 1, LINE: 4}, {"id": 2, "qas": "x", LINE: 5}, 3]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(RECORDS, st.sampled_from([None, 1]), st.booleans())
def test_reads_what_the_library_reads(tmp_path: Path, records: list[Any], indent: int | None, escaped: bool) -> None:
    plain = json.loads(json.dumps(records))
    if any(LINE in json.dumps(record) for record in records):
        return
    array = written(tmp_path, "array.json", json.dumps(records, indent=indent, ensure_ascii=True))
    assert [without_lines(record) for _, record in read(array)[0]] == plain
    article = written(tmp_path, "data.json", json.dumps({"x": 1, "data": records, "y": []}, indent=indent))
    assert [without_lines(record) for _, record in read(article)[0]] == plain
    one_each = "\n".join(json.dumps(record, ensure_ascii=escaped or _has_half(record)) for record in records)
    for name in ("lines.jsonl", "lines.json"):
        found = [(line, without_lines(record)) for line, record in read(written(tmp_path, name, one_each))[0]]
        assert found == list(enumerate(plain, start=1))


def _has_half(record: Any) -> bool:
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "a.json", '[{"a": "ä"}]'.encode("latin-1"))
    with pytest.raises(BelegError, match=r"a\.json is not UTF-8: byte 8 is 0xe4"):
        read(path)


@pytest.mark.parametrize("name", ["gone.json", "gone.jsonl"])
def test_a_file_that_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BelegError, match=f"{name} cannot be read: No such file"):
        read(tmp_path / name)


def test_many_lines_are_counted_once(tmp_path: Path) -> None:
    path = written(tmp_path, "a.json", "[" + ",".join('\n\n{"a": 1}' for _ in range(20_000)) + "]")
    records, _ = read(path)
    assert [line for line, _ in records] == list(range(3, 40_003, 2))
