"""The remote engine: any OpenAI-compatible server, used as well as it allows.

It knows nothing about documents or quotes. On opening it finds out what the server is (llama-server, vLLM, or some other)
and proves by a tiny request whether it obeys a grammar; what it says about itself would not do, as servers ignore
fields that they do not know.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from reader.engine.base import Message, Prompt, never
from reader.engine.servers import Server, recognise, request, text_of, tokens_of
from reader.engine.wire import Wire
from reader.errors import EngineError, EngineUnavailable, PromptTooLong

__all__ = ["Remote"]

# No model says this unasked, and it takes the very feature that quotes are made of.
_PROBE = 'start: "Beleg-" Q\nQ: %regex {"substring_chunks": ["7h", "3k"]}\n'
_PROBE_ANSWERS = frozenset({"Beleg-", "Beleg-7h", "Beleg-3k", "Beleg-7h3k"})


class Remote:
    """A model on a server.

    A server that cannot be constrained is used all the same, with `constrained` False and grammars left away. Beware of
    servers that silently cut a long prompt (Ollama does): only llama-server and vLLM let us count tokens.

    Args:
        url: the server's address, with or without `/v1`.
        model: which of its models; "" takes the first.
        api_key: bearer token, if the server wants one.
        timeout_s: longest silence of the server, in seconds; reading a long prompt is silent.
        context_size: tokens for prompt and answer together, where the server allows more or does not tell; 0 for what
            the server tells.

    Raises:
        EngineUnavailable: the server does not answer, refuses us, or is not ready.
        EngineError: the address is no address, or the server is no model server.
    """

    name = "remote"
    # The weights are the server's; nothing it says about them could be checked.
    fingerprint = ""

    def __init__(
        self, url: str, *, model: str = "", api_key: str = "", timeout_s: float = 120.0, context_size: int = 0
    ) -> None:
        self._wire = Wire(url, api_key=api_key, timeout_s=timeout_s)
        self._server = self._find_grammar(recognise(self._wire, model))
        self._closed = False
        self.kind = self._server.kind
        # llama.cpp's servers call a model by its path on their disk unless told otherwise, which is nobody's business.
        self.model = _basename(self._server.model)
        self.constrained = bool(self._server.grammar)
        told = self._server.context_size
        self.context_size = min(context_size, told) if context_size and self._server.takes_tokens else context_size or told
        self.chat_template = self._server.chat_template
        self.bos = self._server.bos
        self.eos = self._server.eos

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of `text`, as the server cuts it.

        Raises:
            EngineError: this kind of server tokenizes for nobody.
        """
        self._check_open()
        if not self._server.takes_tokens:
            raise EngineError(
                f"The model server at {self._wire.shown} does not tokenize.",
                way_out="Use its messages, or run llama-server or vLLM.",
            )
        return tokens_of(self._wire, self._server, text)

    def count(self, text: str) -> int:
        """Return how many tokens `text` takes: exact if the server tokenizes, else an upper estimate.

        The estimate: letters of the Latin alphabet and blanks make tokens of two characters at least, on the average of
        any text; digits and signs may be cut one by one, and other characters into their bytes.
        """
        if self._server.takes_tokens:
            return len(self.tokenize(text))
        plain = sum(char.isascii() and (char.isalpha() or char == " ") for char in text)
        return (plain + 1) // 2 + len(text.encode("utf-8", "replace")) - plain

    def generate(self, prompt: Prompt, *, grammar: str | None, max_tokens: int, cancelled: Callable[[], bool]) -> Iterator[str]:
        """Yield the continuation piece by piece; see `Engine.generate`.

        Raises:
            PromptTooLong: prompt and `max_tokens` do not fit: at once if we count the tokens, else when the server says.
            EngineError: the grammar is wrong (at once), or the server failed.
            EngineUnavailable: the server does not answer.
        """
        self._check_open()
        tokens = prompt.tokens if self._server.takes_tokens else ()
        if not tokens and not prompt.messages:
            raise EngineError(
                f"The model server at {self._wire.shown} takes messages, and was given tokens only.",
                way_out="Render the prompt as messages too.",
            )
        if len(tokens) + max_tokens > self.context_size:
            raise PromptTooLong(
                f"The prompt has {len(tokens)} tokens and the answer may take {max_tokens}, "
                f"but {self.model or 'the server'} takes {self.context_size} together.",
                way_out="Show fewer or shorter passages, or raise the server's context size.",
            )
        if grammar is not None:
            _check(grammar)
        if max_tokens < 1:
            return iter(())
        return self._stream(self._server, prompt, grammar, max_tokens, cancelled)

    def close(self) -> None:
        """Refuse further work; connections last no longer than an answer anyway."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError(f"The engine of {self.model or self._wire.shown} has been closed.")

    def _stream(
        self, server: Server, prompt: Prompt, grammar: str | None, max_tokens: int, cancelled: Callable[[], bool]
    ) -> Iterator[str]:
        half = ""
        asked_to_stop = False

        def stop() -> bool:
            nonlocal asked_to_stop
            asked_to_stop = asked_to_stop or cancelled()
            return asked_to_stop

        events = self._wire.events(*request(server, prompt, grammar, max_tokens), stop)
        try:
            for event in events:
                text, last = text_of(event)
                text, half = half + text, ""
                # JSON may cut a character above U+FFFF into two escapes, and a server these into two events.
                if text and "\ud800" <= text[-1] <= "\udbff":
                    text, half = text[:-1], text[-1]
                if text:
                    yield text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
                if last:
                    return
        finally:
            events.close()
        if not asked_to_stop:
            raise EngineUnavailable(
                f"The model server at {self._wire.shown} stopped in the middle of its answer.",
                way_out="Look into the server's log, and ask again.",
            )

    def _find_grammar(self, server: Server) -> Server:
        """Return `server` with the grammar field that works, if any does."""
        message = "Say hello."
        for field in server.possible_grammars:
            candidate = dataclasses.replace(server, grammar=field)
            prompt = Prompt(tuple(tokens_of(self._wire, server, message)), (Message("user", message),))
            try:
                answer = "".join(self._stream(candidate, prompt, _PROBE, 16, never))
            except EngineUnavailable:
                raise
            except EngineError:
                continue  # it says that it cannot
            if answer in _PROBE_ANSWERS:
                return candidate
        return server


def _basename(model: str) -> str:
    return model.replace("\\", "/").rsplit("/", 1)[-1].removesuffix(".gguf") if model.endswith(".gguf") else model


def _check(grammar: str) -> None:
    """Compile a grammar here first: llama-server notes a wrong one in its log and goes on without it."""
    import llguidance

    try:
        if message := llguidance.LLMatcher.validate_grammar(grammar):
            raise EngineError(f"The grammar cannot be compiled: {message}")
    except UnicodeEncodeError as error:
        raise EngineError("The grammar cannot be compiled: it has half a character in it.") from error
