"""The seam between Beleg and language models: tokens in, text out, under a grammar where the engine can.

An engine knows nothing about documents, quotes or prompts' wording.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Engine", "Message", "Prompt", "Tokenizer", "never"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered prompt, in the two forms that engines take.

    Attributes:
        tokens: the exact ids, special tokens included. Empty where the engine has no tokenizer at hand.
        messages: the same content as turns, for servers that take nothing else. The last one may be an assistant
            message that the model goes on with.
    """

    tokens: tuple[int, ...]
    messages: tuple[Message, ...]


class Tokenizer(Protocol):
    """What rendering a prompt takes of a model.

    Attributes:
        model: what the model is called, for people and manifests.
        context_size: tokens that prompt and answer may take together.
        chat_template: Jinja source that turns messages into text, or "" where only the server knows it.
        bos, eos: the texts of the special tokens that chat templates refer to.
    """

    model: str
    context_size: int
    chat_template: str
    bos: str
    eos: str

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of `text`; special tokens written in it are recognised, none are added."""

    def count(self, text: str) -> int:
        """Return how many tokens `text` takes: exact where there is a tokenizer, else an upper estimate."""


class Engine(Tokenizer, Protocol):
    """A language model that continues a prompt.

    Attributes:
        name: the kind of engine, such as `llamacpp` or `remote`.
        fingerprint: SHA-256 of the weights, or "" where a server does not tell.
        constrained: True if `generate` obeys `grammar`. An engine that does not is never trusted with quotes.
    """

    name: str
    fingerprint: str
    constrained: bool

    def generate(self, prompt: Prompt, *, grammar: str | None, max_tokens: int, cancelled: Callable[[], bool]) -> Iterator[str]:
        """Yield the continuation piece by piece, greedily decoded; pieces are never half a character.

        Args:
            grammar: Lark grammar for llguidance; None leaves the model free.
            cancelled: asked before each step; generation ends as soon as it says True.

        Raises:
            PromptTooLong: prompt and `max_tokens` exceed the context; nothing is ever cut off.
            EngineError: the grammar is wrong, or the model failed.
            EngineUnavailable: its server does not answer.
        """

    def close(self) -> None:
        """Free the model."""


def never() -> bool:
    """Say that nobody wants to stop: the `cancelled` of a caller who waits for the end."""
    return False
