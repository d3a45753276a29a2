"""A model in this process, whatever computes it: one generation at a time, for callers in many threads."""

from __future__ import annotations

import codecs
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from reader.engine.base import Prompt
from reader.engine.decoding import Backend, Run, Stats
from reader.errors import EngineError, PromptTooLong

if TYPE_CHECKING:
    import llguidance

__all__ = ["Local"]

# How often a waiting call asks whether its caller still wants it, in seconds.
_PATIENCE_S = 0.05


class Local:
    """One model in this process.

    The same prompt and grammar give the same text whatever was asked before: only whole blocks of prompt tokens are
    reused, so that a warm call evaluates batches of the very shape that a cold one does. (Sums in another order differ
    in their last bits, and a near tie would fall the other way.)

    One generation runs at a time; a second call waits until the first generator ends or is closed.

    Args:
        backend: what computes; it is freed when the engine is closed.
        vocabulary: makes what llguidance has to know of the tokens; called once, with the first grammar.
        model: what to call the model.
        fingerprint: SHA-256 of its files.

    Attributes:
        last_stats: what the generation that ended last cost.
    """

    constrained = True

    def __init__(
        self, backend: Backend, vocabulary: Callable[[], llguidance.LLTokenizer], *, model: str, fingerprint: str
    ) -> None:
        self._backend = backend
        self._vocabulary = vocabulary
        self.model = model
        self.fingerprint = fingerprint
        self.context_size = backend.context_size
        self.chat_template = backend.chat_template
        self.bos = backend.bos
        self.eos = backend.eos
        self.last_stats = Stats()
        self._kept: tuple[int, ...] = ()
        self._tokenizer: llguidance.LLTokenizer | None = None
        self._closed = False
        # Two locks: `_turn` is held for a whole generation, `_alive` only while the vocabulary is being read.
        self._turn = threading.Lock()
        self._alive = threading.Lock()

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of `text`; special tokens written in it are recognised, none are added."""
        with self._alive:
            self._check_open()
            return self._backend.tokenize(text)

    def count(self, text: str) -> int:
        """Return exactly how many tokens `text` takes."""
        return len(self.tokenize(text))

    def generate(self, prompt: Prompt, *, grammar: str | None, max_tokens: int, cancelled: Callable[[], bool]) -> Iterator[str]:
        """Yield the continuation piece by piece; see `Engine.generate`.

        Raises:
            PromptTooLong: prompt and `max_tokens` do not fit the context; at once, as nothing is ever cut off.
            EngineError: the grammar is wrong (at once), or the model failed.
        """
        self._check_open()
        if not prompt.tokens:
            raise EngineError("The local engine takes a prompt of tokens, and was given none.")
        if len(prompt.tokens) + max_tokens > self.context_size:
            raise PromptTooLong(
                f"The prompt has {len(prompt.tokens)} tokens and the answer may take {max_tokens}, "
                f"but {self.model} takes {self.context_size} together.",
                way_out="Show fewer or shorter passages, or raise the reader's context size.",
            )
        began = time.perf_counter()
        matcher = None if grammar is None else self._compile(grammar)
        return self._take_turn(prompt.tokens, matcher, max_tokens, cancelled, time.perf_counter() - began)

    def close(self) -> None:
        """Free the model: now, or as soon as a generation that is under way ends."""
        self._closed = True
        self._free_if_idle()

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError(f"The engine of {self.model} has been closed.")

    def _free_if_idle(self) -> None:
        # Never waits: the generation under way may be suspended in this very thread. It calls this when it ends.
        if self._closed and self._turn.acquire(blocking=False):
            with self._alive:
                self._backend.free()
            self._turn.release()

    def _compile(self, grammar: str) -> llguidance.LLMatcher:
        import llguidance

        with self._alive:
            self._check_open()
            if self._tokenizer is None:
                # 0.3 s to 1.5 s, by the vocabulary's size; a grammar then compiles in about a millisecond.
                self._tokenizer = self._vocabulary()
            matcher = llguidance.LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise EngineError(f"The grammar cannot be compiled: {matcher.get_error()}")
        return matcher

    def _take_turn(
        self,
        prompt: tuple[int, ...],
        matcher: llguidance.LLMatcher | None,
        max_tokens: int,
        cancelled: Callable[[], bool],
        grammar_s: float,
    ) -> Iterator[str]:
        while not self._turn.acquire(timeout=_PATIENCE_S):
            if cancelled():
                return
        run = Run(self._backend, prompt, matcher, max_tokens, self._shared(prompt))
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        try:
            self._check_open()
            for data in run.steps(cancelled, self._check_open):
                # A character may span tokens; its bytes wait here. What is incomplete at the end is dropped.
                if text := decoder.decode(data):
                    yield text
        finally:
            self._kept = prompt[: run.whole_blocks]
            self.last_stats = run.stats(grammar_s)
            self._turn.release()
            self._free_if_idle()

    def _shared(self, prompt: tuple[int, ...]) -> int:
        """Return how many tokens of whole blocks this prompt has in common with the KV cache."""
        same = 0
        for ours, cached in zip(prompt, self._kept, strict=False):
            if ours != cached:
                break
            same += 1
        # At least one token must be evaluated, or there would be no logits.
        return min(same, len(prompt) - 1) // self._backend.block * self._backend.block
