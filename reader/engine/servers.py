"""The kinds of model servers: how to recognise one, what to send it, how to read what it sends.

It knows nothing about errors of the network (see `wire`) or about documents.

llama-server and vLLM take token ids, so the prompt that a reader was trained on reaches the model unchanged; any other
server takes messages and applies its own template.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from reader.engine.base import Message, Prompt
from reader.engine.wire import Json, Wire, refusal
from reader.errors import EngineError

__all__ = ["Server", "recognise", "request", "text_of"]

Kind = Literal["llama-server", "vllm", "openai"]
# A server that does not tell: small enough for the smallest models in use.
_UNKNOWN_CONTEXT = 4096


@dataclass(frozen=True, slots=True)
class Server:
    """What a server said about itself.

    Attributes:
        model: the name by which it knows the model, "" if it did not say.
        context_size: tokens for prompt and answer together.
        grammar: the request field that takes our grammars; "" where none does, or it has not been tried yet.
    """

    kind: Kind
    model: str = ""
    context_size: int = _UNKNOWN_CONTEXT
    chat_template: str = ""
    bos: str = ""
    eos: str = ""
    grammar: Literal["", "grammar", "structured_outputs", "guided_grammar"] = ""

    @property
    def takes_tokens(self) -> bool:
        """Whether prompts can be sent as token ids, and text be tokenized."""
        return self.kind != "openai"

    @property
    def possible_grammars(self) -> tuple[Literal["grammar", "structured_outputs", "guided_grammar"], ...]:
        """The request fields worth trying with a Lark grammar, the newest first."""
        if self.kind == "llama-server":
            return ("grammar",)
        # vLLM 0.12 dropped `guided_grammar`; both ignore a field that they do not know.
        return ("structured_outputs", "guided_grammar") if self.kind == "vllm" else ()


def recognise(wire: Wire, model: str) -> Server:
    """Ask a server what it is.

    Args:
        model: which of its models to use; "" takes the only or first one.

    Raises:
        EngineUnavailable: it does not answer, refuses us, or is not ready.
    """
    props = wire.get("/props")
    if props and "default_generation_settings" in props:
        return Server(
            kind="llama-server",
            model=model or str(props.get("model_alias") or props.get("model_path") or ""),
            context_size=_positive(props["default_generation_settings"].get("n_ctx")),
            chat_template=_text(props.get("chat_template")),
            bos=_text(props.get("bos_token")),
            eos=_text(props.get("eos_token")),
        )
    status, content = wire.ask("GET", "/v1/models")
    # Some gateways list no models; a named one may still be there.
    if status != 200 and not (status in {404, 405, 501} and model):
        raise refusal(status, content, wire.shown)
    listed = wire.get("/v1/models") if status == 200 else None
    models = [entry for entry in (listed or {}).get("data") or [] if isinstance(entry, dict)]
    names = [str(entry.get("id", "")) for entry in models]
    if model and names and model not in names:
        raise EngineError(
            f"The model server at {wire.shown} has no model {model}.", way_out=f"It has: {', '.join(names[:10])}."
        )
    entry = models[names.index(model)] if model in names else (models[0] if models and not model else {})
    found = Server(
        kind="openai",
        model=model or str(entry.get("id", "")),
        context_size=_positive(entry.get("max_model_len")),
    )
    if "max_model_len" not in entry or "version" not in (wire.get("/version") or {}):
        return found
    # Only there if the operator started vLLM with --enable-tokenizer-info-endpoint.
    tokenizer = wire.get("/tokenizer_info") or {}
    return Server(
        kind="vllm",
        model=found.model,
        context_size=found.context_size,
        chat_template=_text(tokenizer.get("chat_template")),
        bos=_text(tokenizer.get("bos_token")),
        eos=_text(tokenizer.get("eos_token")),
    )


def tokens_of(wire: Wire, server: Server, text: str) -> list[int]:
    """Have the server tokenize `text`; special tokens are recognised, none are added."""
    body: Json = (
        {"content": text, "add_special": False, "parse_special": True}
        if server.kind == "llama-server"
        else {"model": server.model, "prompt": text, "add_special_tokens": False}
    )
    tokens = wire.post("/tokenize", body).get("tokens")
    if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
        raise EngineError(f"The model server at {wire.shown} cannot tokenize.", way_out="Check its version.")
    return tokens


def request(server: Server, prompt: Prompt, grammar: str | None, max_tokens: int) -> tuple[str, Json]:
    """Return path and body of the request that continues `prompt`."""
    body: Json = {"temperature": 0, "stream": True}
    if grammar is not None and server.grammar:
        body |= _grammar(server, grammar)
    if server.kind == "llama-server":
        # An operator's defaults must not colour a greedy decode. The cache is llama-server's own prefix reuse.
        body |= {"cache_prompt": True, "top_k": 1, "repeat_penalty": 1.0, "presence_penalty": 0.0}
        body |= {"frequency_penalty": 0.0, "dry_multiplier": 0.0}
        if prompt.tokens:
            return "/completion", body | {"prompt": list(prompt.tokens), "n_predict": max_tokens}
    if server.kind == "vllm":
        body |= {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    body |= {"max_tokens": max_tokens}
    if server.model:
        body["model"] = server.model
    if server.kind == "vllm" and prompt.tokens:
        return "/v1/completions", body | {"prompt": list(prompt.tokens)}
    if server.kind == "vllm" and prompt.messages and prompt.messages[-1].role == "assistant":
        body |= {"add_generation_prompt": False, "continue_final_message": True}
    return "/v1/chat/completions", body | {"messages": [_message(message) for message in prompt.messages]}


def _grammar(server: Server, grammar: str) -> Json:
    if server.grammar == "grammar":
        # llama-server takes its own GBNF in this field, unless the text starts with this directive.
        return {"grammar": "%llguidance {}\n" + grammar}
    if server.grammar == "structured_outputs":
        return {"structured_outputs": {"grammar": grammar}}
    return {"guided_grammar": grammar, "guided_decoding_backend": "guidance"}


def text_of(event: Json) -> tuple[str, bool]:
    """Return the text that an event of any of the servers brings, and whether it is the last one."""
    if "content" in event:
        return _text(event["content"]), bool(event.get("stop"))
    choices = event.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return "", False  # usage figures, a keep-alive
    choice = choices[0]
    delta = choice.get("delta")
    text = delta.get("content") if isinstance(delta, dict) else choice.get("text")
    return _text(text), bool(choice.get("finish_reason"))


def _message(message: Message) -> Json:
    return {"role": message.role, "content": message.content}


def _positive(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else _UNKNOWN_CONTEXT


def _text(value: Any) -> str:
    # Tokenizer files write a special token as text or as {"content": text, …}.
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""
