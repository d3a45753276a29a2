"""What the gate lets pass, how much it looks at, and where each number comes from. Measures nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

__all__ = ["Bound", "Effort", "Limits"]


@dataclass(frozen=True, slots=True)
class Bound:
    """How far two models' next-token distributions may be apart.

    Attributes:
        mean_kl: mean Kullback-Leibler divergence, in nats, at most. Holds for short and full-length prompts separately.
        p99_kl: its 99th percentile, at most.
        top1: share of positions where both hold the same token for the likeliest, at least.
    """

    mean_kl: float
    p99_kl: float
    top1: float


# Means and "same top p": llama.cpp, tools/perplexity/README.md, Llama 3 8B against f16 on Wikitext 2 (f364eb6f). q8_0 .00136
# and 97.7%, q6_K .0055 and 96.0%, q5_K_M .0108, q5_0 .0222, q4_K_M .0313 and 91.9%, q4_0 .0719, q3_K_M .102, q2_K .445 and
# 71.1%; Llama 2 7B q8_0 .0004 and 98.8%, q4_K_M .0127 and 94.7%. Ours allow twice the mean and three points of top 1, since a
# few hundred positions are looked at, not 300,000, and small models lose more. That table has no 99th percentile of the
# divergence: fifteen times the mean is ours. Top 1 of kinds that it does not have stands between its neighbours.
_QUANTIZED = {
    "f16": Bound(0.002, 0.03, 0.97),
    "q8_0": Bound(0.003, 0.045, 0.95),
    "q6_k": Bound(0.011, 0.17, 0.93),
    "q5_k_m": Bound(0.022, 0.33, 0.91),
    "q5_k_s": Bound(0.033, 0.5, 0.90),
    "q5_1": Bound(0.036, 0.54, 0.90),
    "q5_0": Bound(0.045, 0.67, 0.89),
    "q4_k_m": Bound(0.063, 0.94, 0.88),
    "q4_k_s": Bound(0.087, 1.3, 0.86),
    "q4_1": Bound(0.144, 2.2, 0.82),
    "q4_0": Bound(0.144, 2.2, 0.82),
    "q3_k_m": Bound(0.204, 3.1, 0.78),
    "q2_k": Bound(0.89, 13.0, 0.65),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """The thresholds of all links.

    Attributes:
        merged: merged against base with adapter. Measured: 3e-6 dequantized; merging into 4-bit layers 2.6.
        merged_rounded: the same where the adapter learned over a quantized base and is merged onto the original: there the
            rounding that it was trained with is missing. Measured: .0135 with nf4.
        f16: GGUF in f16 against merged. The same README has .00055 for bf16 turned into f16; the faults that it is
            to find were measured at .04 and more.
        quantized: by kind, against f16.
        adapter_over_quantized: base GGUF with adapter GGUF against base with adapter, where the base is a quantized GGUF:
            llama.cpp multiplies with rounded activations. As q8_0.
        rates_drop: how much lower the shares of answers, proven quotes, ended and context-dependent answers may be when
            served than they are with transformers. One answer in eight may differ: greedy decoding multiplies near ties.
    """

    merged: Bound = Bound(0.001, 0.02, 0.98)
    merged_rounded: Bound = Bound(0.05, 0.75, 0.90)
    f16: Bound = Bound(0.002, 0.03, 0.97)
    quantized: Mapping[str, Bound] = field(default_factory=lambda: MappingProxyType(_QUANTIZED))
    adapter_over_quantized: Bound = Bound(0.003, 0.045, 0.95)
    rates_drop: float = 0.13


@dataclass(frozen=True, slots=True)
class Effort:
    """How much the gate looks at; the whole takes some 10 forward passes over all prompts.

    Attributes:
        rendered: prompts whose ids are compared.
        short: prompts with one passage whose logits are compared.
        full: prompts filled up to the context whose logits are compared.
        tail: positions at the end of each, the answer's.
        context: tokens that prompt and answer take together when served.
        answers: questions that are answered by both, each a second time with another question's passages.
        answer_tokens: longest answer.
    """

    rendered: int = 300
    short: int = 12
    full: int = 2
    tail: int = 48
    context: int = 4096
    answers: int = 8
    answer_tokens: int = 96
