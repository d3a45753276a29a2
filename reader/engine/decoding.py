"""One greedy generation, step by step: what is evaluated, what the grammar forces, and what it costs.

It knows nothing about documents or quotes: a grammar is a string to it. Three things make it fast: what the grammar
forces is evaluated in one batch and never sampled; the model's favourite token is tried against the grammar before any
mask is computed; and whole blocks of a prompt's beginning stay in the KV cache for the next question.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from reader.errors import EngineError

if TYPE_CHECKING:
    import llguidance

__all__ = ["Backend", "Logits", "Run", "Stats"]

Logits = npt.NDArray[np.float32]


class Backend(Protocol):
    """Weights with a vocabulary and one KV cache: tokens in, logits out.

    Attributes:
        vocab_size: how many logits there are.
        ends: every token that ends a generation.
        context_size: tokens that the KV cache holds.
        block: the most tokens that one batch holds.
    """

    vocab_size: int
    ends: frozenset[int]
    context_size: int
    block: int

    @property
    def chat_template(self) -> str:
        """The Jinja source that comes with the model, or ""."""

    @property
    def bos(self) -> str:
        """The text of the token that begins a sequence, or ""."""

    @property
    def eos(self) -> str:
        """The text of the token that ends a sequence, or ""."""

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of `text`, with special tokens recognised and none added."""

    def piece(self, token: int) -> bytes:
        """Return the bytes that a token stands for; none for control tokens."""

    def keep(self, count: int) -> int:
        """Drop all but the first `count` tokens from the KV cache, and return how many are left: `count` or 0."""

    def decode(self, tokens: list[int], position: int, *, logits: bool) -> Logits | None:
        """Evaluate at most `block` tokens that stand at `position`.

        Returns:
            The logits after the last one, shape (vocab,), valid until the next call; None if they are not wanted.

        Raises:
            EngineError: the model failed; what the cache holds is unknown.
        """

    def free(self) -> None:
        """Give all memory back; afterwards nothing else may be called."""


@dataclass(frozen=True, slots=True)
class Stats:
    """What one generation cost; seconds leave out what the caller did between two pieces.

    Attributes:
        prompt_tokens: length of the prompt.
        reused_tokens: of these, how many lay in the KV cache already.
        generated_tokens: tokens of the answer, forced ones included, the end token not.
        forced_tokens: of these, how many the grammar left no choice about.
        grammar_s: compiling the grammar.
        prompt_s: evaluating the prompt, with what the grammar forces at its end.
        generate_s: all the rest.
    """

    prompt_tokens: int = 0
    reused_tokens: int = 0
    generated_tokens: int = 0
    forced_tokens: int = 0
    grammar_s: float = 0.0
    prompt_s: float = 0.0
    generate_s: float = 0.0


class Run:
    """One generation.

    Args:
        matcher: the grammar, at its beginning; None leaves the model free.
        shared: tokens of the prompt that lie in the KV cache already, in whole blocks.
    """

    def __init__(
        self,
        backend: Backend,
        prompt: tuple[int, ...],
        matcher: llguidance.LLMatcher | None,
        max_tokens: int,
        shared: int,
    ) -> None:
        self._backend = backend
        self._matcher = matcher
        self._max_tokens = max_tokens
        self._prompt = prompt
        self._shared = shared
        self._position = 0
        self._reused = 0
        self._made = 0
        self._forced = 0
        self._prompt_s = 0.0
        self._generate_s = 0.0

    @property
    def whole_blocks(self) -> int:
        """How many tokens of the prompt lie in the KV cache in whole blocks."""
        return min(self._position, len(self._prompt)) // self._backend.block * self._backend.block

    def stats(self, grammar_s: float) -> Stats:
        """Return what it has cost until now; compiling the grammar, which is not done here, took `grammar_s`."""
        return Stats(
            prompt_tokens=len(self._prompt),
            reused_tokens=self._reused,
            generated_tokens=self._made,
            forced_tokens=self._forced,
            grammar_s=grammar_s,
            prompt_s=self._prompt_s,
            generate_s=self._generate_s,
        )

    def steps(self, cancelled: Callable[[], bool], check_open: Callable[[], None]) -> Iterator[bytes]:
        """Yield the bytes of each token, or of each stretch of forced tokens.

        Args:
            cancelled: asked before each batch; the generation ends as soon as it says True.
            check_open: asked with it; raises if the engine has been closed.
        """
        self._position = self._reused = self._backend.keep(self._shared)
        pending = list(self._prompt[self._reused :])
        while self._made < self._max_tokens:
            began = time.perf_counter()
            forced = self._force()
            pending += forced
            self._generate_s += time.perf_counter() - began
            if forced:
                yield b"".join(map(self._backend.piece, forced))
            if self._made == self._max_tokens or (self._matcher and self._matcher.is_stopped()):
                return
            logits = None
            while pending:
                if cancelled():
                    return
                check_open()
                block, pending = pending[: self._backend.block], pending[self._backend.block :]
                logits = self._evaluate(block, last=not pending)
            assert logits is not None
            began = time.perf_counter()
            token = self._choose(logits)
            self._generate_s += time.perf_counter() - began
            if token in self._backend.ends:
                return
            self._made += 1
            pending = [token]
            yield self._backend.piece(token)

    def _force(self) -> list[int]:
        """Consume and return the tokens that the grammar leaves no choice about.

        llguidance cuts the forced text as the tokenizer would and holds back a last token that what follows may
        change, so that the model sees the tokens it was trained on.
        """
        if self._matcher is None:
            return []
        forced = self._matcher.compute_ff_tokens()[: self._max_tokens - self._made]
        forced = [token for token in forced if token not in self._backend.ends]
        if forced and not self._matcher.consume_tokens(forced):
            raise EngineError(f"The grammar cannot be followed: {self._matcher.get_error()}")
        self._made += len(forced)
        self._forced += len(forced)
        return forced

    def _evaluate(self, block: list[int], *, last: bool) -> Logits | None:
        began = time.perf_counter()
        try:
            logits = self._backend.decode(block, self._position, logits=last)
        except EngineError:
            # What the cache holds now is anybody's guess.
            self._position = self._backend.keep(0)
            raise
        seconds = time.perf_counter() - began
        if self._position < len(self._prompt):
            self._prompt_s += seconds
        else:
            self._generate_s += seconds
        self._position += len(block)
        return logits

    def _choose(self, logits: Logits) -> int:
        best = int(logits.argmax())
        if np.isnan(logits[best]):
            raise EngineError("The model's output is not a number; its weights are damaged, or overflow in half precision.")
        if self._matcher is None:
            return best
        # The favourite is usually allowed: asking costs a microsecond, a mask over the vocabulary up to a millisecond.
        if best in self._backend.ends:
            if self._matcher.is_accepting():
                return best
        elif self._matcher.try_consume_tokens([best]) == 1:
            return best
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        allowed = np.unpackbits(bits, count=self._backend.vocab_size, bitorder="little").astype(bool)
        if self._matcher.is_error() or not allowed.any():
            raise EngineError(f"The grammar cannot be followed: {self._matcher.get_error() or 'no token is allowed'}")
        token = int(np.where(allowed, logits, -np.inf).argmax())
        if token not in self._backend.ends and not self._matcher.consume_token(token):
            raise EngineError(f"The grammar cannot be followed: {self._matcher.get_error()}")
        return token
