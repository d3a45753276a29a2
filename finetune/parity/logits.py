"""Next-token distributions of a model, by transformers or by llama.cpp, and how far two models' are apart.

Both are given ids, never text. Knows nothing about prompts, links or thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reader.engine.native import Native

__all__ = ["Divergence", "GgufModel", "Logits", "Probe", "compare", "logits_of_gguf", "logits_of_model"]

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Probe:
    """A prompt with an answer.

    Attributes:
        tail: how many positions at the end count.
        full: whether it fills the context.
    """

    tokens: tuple[int, ...]
    tail: int
    full: bool


@dataclass(frozen=True, slots=True)
class Divergence:
    """How far two models are apart over the same positions.

    Attributes:
        mean_kl, p99_kl: of the Kullback-Leibler divergence of the second from the first, in nats.
        top1: share of positions with the same likeliest token.
        short_kl, full_kl: means over short and full-length prompts; None where there were none.
        positions: how many.
    """

    mean_kl: float
    p99_kl: float
    top1: float
    short_kl: float | None
    full_kl: float | None
    positions: int


class GgufModel(Native):
    """A GGUF whose logits are wanted at more positions than the last; the reader's own decoding otherwise.

    Args:
        adapter: GGUF of a LoRA to put over it.

    Attributes:
        trained_context: tokens that the file says it was trained for.
    """

    def __init__(self, path: Path, *, context_size: int, adapter: Path | None = None, threads: int | None = None) -> None:
        super().__init__(path, context_size=context_size, threads=threads, adapter=adapter)
        self.trained_context: int = self._api.llama_model_n_ctx_train(self._model)
        self._cached: tuple[int, ...] = ()

    def tail(self, tokens: Sequence[int], count: int) -> Logits:
        """Return the logits at the last `count` positions, shape (count, vocabulary)."""
        same = 0
        for ours, cached in zip(tokens[: len(tokens) - count], self._cached, strict=False):
            if ours != cached:
                break
            same += 1
        at = self.keep(same // self.block * self.block)
        first = len(tokens) - count
        while at < first:
            block = list(tokens[at : min(at + self.block, first)])
            self.decode(block, at, logits=False)
            at += len(block)
        found = np.empty((count, self.vocab_size), np.float32)
        for row, at in enumerate(range(first, len(tokens))):
            logits = self.decode([tokens[at]], at, logits=True)
            assert logits is not None
            found[row] = logits
        self._cached = tuple(tokens)
        return found


def logits_of_gguf(model: GgufModel, probes: Sequence[Probe], on_done: Callable[[int], None]) -> list[Logits]:
    """Return the logits at each probe's tail, shape (tail, vocabulary) each.

    Raises:
        PromptTooLong: a probe does not fit the model's context.
    """
    from reader.errors import PromptTooLong

    found = []
    for probe in probes:
        if len(probe.tokens) > model.context_size:
            raise PromptTooLong(f"A prompt has {len(probe.tokens)} tokens, and the context is {model.context_size}.")
        found.append(model.tail(probe.tokens, probe.tail))
        on_done(1)
    return found


def logits_of_model(model: Any, probes: Sequence[Probe], on_done: Callable[[int], None]) -> list[Logits]:
    """Return the same of a model of transformers, with an adapter or without."""
    import torch

    found = []
    for probe in probes:
        with torch.inference_mode():
            ids = torch.tensor([probe.tokens], device=model.device)
            logits = model(input_ids=ids, logits_to_keep=probe.tail, use_cache=False).logits[0]  # (tail, vocabulary)
        found.append(logits.float().cpu().numpy())
        on_done(1)
    return found


def compare(probes: Sequence[Probe], first: Sequence[Logits], second: Sequence[Logits]) -> Divergence:
    """Measure how far the second is from the first.

    >>> same = [np.array([[0.0, 1.0]], np.float32)]
    >>> compare([Probe((1,), 1, False)], same, same)
    Divergence(mean_kl=0.0, p99_kl=0.0, top1=1.0, short_kl=0.0, full_kl=None, positions=1)
    """
    divergences, agreements = [], []
    for ours, theirs in zip(first, second, strict=True):
        # Some files pad the vocabulary; nobody says the tokens beyond it.
        width = min(ours.shape[1], theirs.shape[1])
        p, q = _log_softmax(ours[:, :width]), _log_softmax(theirs[:, :width])
        divergences.append(np.maximum((np.exp(p) * (p - q)).sum(axis=1), 0.0))
        agreements.append(p.argmax(axis=1) == q.argmax(axis=1))
    kl, agree = np.concatenate(divergences), np.concatenate(agreements)

    def mean(full: bool) -> float | None:
        part = [values for probe, values in zip(probes, divergences, strict=True) if probe.full == full]
        return float(np.concatenate(part).mean()) if part else None

    return Divergence(
        float(kl.mean()), float(np.percentile(kl, 99)), float(agree.mean()), mean(full=False), mean(full=True), len(kl)
    )


def _log_softmax(logits: Logits) -> npt.NDArray[np.float64]:
    wide = logits.astype(np.float64)
    # What is not a number is as far from everything as can be, and must not pass as no divergence.
    wide = np.where(np.isfinite(wide), wide, -1e4)
    wide -= wide.max(axis=1, keepdims=True)
    made: npt.NDArray[np.float64] = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return made
