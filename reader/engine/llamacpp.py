"""The local engine: llama.cpp decodes greedily, llguidance says which tokens are allowed.

It knows nothing about documents or quotes: a grammar is a string to it. Three things make it fast: what the grammar
forces is evaluated in one batch and never sampled; the model's favourite token is tried against the grammar before any
mask is computed; and whole blocks of a prompt's beginning stay in the KV cache for the next question.
"""

from __future__ import annotations

import codecs
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reader.engine.base import Prompt
from reader.errors import EngineError, PromptTooLong

if TYPE_CHECKING:
    import llguidance

    from reader.engine.native import Logits, Native

__all__ = ["LlamaCpp", "Stats"]

# How often a waiting call asks whether its caller still wants it, in seconds.
_PATIENCE_S = 0.05


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


class LlamaCpp:
    """A GGUF model in this process.

    The same prompt and grammar give the same text whatever was asked before: only whole blocks of prompt tokens are
    reused, so that a warm call evaluates batches of the very shape that a cold one does. (Sums in another order differ
    in their last bits, and a near tie would fall the other way.)

    One generation runs at a time; a second call waits until the first generator ends or is closed.

    Args:
        path: the GGUF file.
        model: what to call the model.
        fingerprint: SHA-256 of the file.
        context_size: tokens that prompt and answer may take together; 0 takes what the model was trained with.
        threads: CPU threads; None takes as many as this process may run on.

    Attributes:
        last_stats: what the generation that ended last cost.

    Raises:
        ModelError: the file is missing, damaged or too large.
    """

    name = "llamacpp"
    constrained = True

    def __init__(
        self, path: Path | str, *, model: str, fingerprint: str, context_size: int, threads: int | None = None
    ) -> None:
        from reader.engine.native import Native

        self._native: Native = Native(Path(path), context_size=context_size, threads=threads)
        self.model = model
        self.fingerprint = fingerprint
        self.context_size = self._native.context_size
        self.chat_template = self._native.chat_template
        self.bos = self._native.bos
        self.eos = self._native.eos
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
            return self._native.tokenize(text)

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
                self._native.free()
            self._turn.release()

    def _compile(self, grammar: str) -> llguidance.LLMatcher:
        import llguidance
        from llguidance.llamacpp import lltokenizer_from_vocab

        with self._alive:
            self._check_open()
            if self._tokenizer is None:
                # 0.3 s to 1.5 s, by the vocabulary's size; a grammar then compiles in about a millisecond.
                ends = sorted(self._native.ends)
                with warnings.catch_warnings():
                    # llguidance 1.9 calls this by its old name, once per token.
                    warnings.filterwarnings("ignore", "llama_token_get_attr", DeprecationWarning)
                    self._tokenizer = lltokenizer_from_vocab(self._native.vocab, eos_token=ends or None)
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
        run = _Run(self._native, prompt, matcher, max_tokens, self._shared(prompt))
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
        return min(same, len(prompt) - 1) // self._native.block * self._native.block


class _Run:
    """One generation: what is evaluated, what is still to be, and what it costs."""

    def __init__(
        self,
        native: Native,
        prompt: tuple[int, ...],
        matcher: llguidance.LLMatcher | None,
        max_tokens: int,
        shared: int,
    ) -> None:
        self._native = native
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
        return min(self._position, len(self._prompt)) // self._native.block * self._native.block

    def stats(self, grammar_s: float) -> Stats:
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
        """Yield the bytes of each token, or of each stretch of forced tokens."""
        self._position = self._reused = self._native.keep(self._shared)
        pending = list(self._prompt[self._reused :])
        while self._made < self._max_tokens:
            began = time.perf_counter()
            forced = self._force()
            pending += forced
            self._generate_s += time.perf_counter() - began
            if forced:
                yield b"".join(map(self._native.piece, forced))
            if self._made == self._max_tokens or (self._matcher and self._matcher.is_stopped()):
                return
            logits = None
            while pending:
                if cancelled():
                    return
                check_open()
                block, pending = pending[: self._native.block], pending[self._native.block :]
                logits = self._evaluate(block, last=not pending)
            assert logits is not None
            began = time.perf_counter()
            token = self._choose(logits)
            self._generate_s += time.perf_counter() - began
            if token in self._native.ends:
                return
            self._made += 1
            pending = [token]
            yield self._native.piece(token)

    def _force(self) -> list[int]:
        """Consume and return the tokens that the grammar leaves no choice about.

        llguidance cuts the forced text as the tokenizer would and holds back a last token that what follows may
        change, so that the model sees the tokens it was trained on.
        """
        if self._matcher is None:
            return []
        forced = self._matcher.compute_ff_tokens()[: self._max_tokens - self._made]
        forced = [token for token in forced if token not in self._native.ends]
        if forced and not self._matcher.consume_tokens(forced):
            raise EngineError(f"The grammar cannot be followed: {self._matcher.get_error()}")
        self._made += len(forced)
        self._forced += len(forced)
        return forced

    def _evaluate(self, block: list[int], *, last: bool) -> Logits | None:
        began = time.perf_counter()
        try:
            logits = self._native.decode(block, self._position, logits=last)
        except EngineError:
            # What the cache holds now is anybody's guess.
            self._position = self._native.keep(0)
            raise
        seconds = time.perf_counter() - began
        if self._position < len(self._prompt):
            self._prompt_s += seconds
        else:
            self._generate_s += seconds
        self._position += len(block)
        return logits

    def _choose(self, logits: Logits) -> int:
        import numpy as np

        best = int(logits.argmax())
        if np.isnan(logits[best]):
            raise EngineError("The model's output is not a number; its weights are damaged, or overflow in half precision.")
        if self._matcher is None:
            return best
        # The favourite is usually allowed: asking costs a microsecond, a mask over the vocabulary up to a millisecond.
        if best in self._native.ends:
            if self._matcher.is_accepting():
                return best
        elif self._matcher.try_consume_tokens([best]) == 1:
            return best
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        allowed = np.unpackbits(bits, count=self._native.vocab_size, bitorder="little").astype(bool)
        if self._matcher.is_error() or not allowed.any():
            raise EngineError(f"The grammar cannot be followed: {self._matcher.get_error() or 'no token is allowed'}")
        token = int(np.where(allowed, logits, -np.inf).argmax())
        if token not in self._native.ends and not self._matcher.consume_token(token):
            raise EngineError(f"The grammar cannot be followed: {self._matcher.get_error()}")
        return token
