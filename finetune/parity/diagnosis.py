"""What a link that fails is likely to have failed by. Looks at weights and files; decides nothing about passing."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.merge import Adapter
from finetune.parity.limits import Bound
from finetune.parity.logits import Divergence
from finetune.parity.result import Cause, Finding

__all__ = ["Effect", "exceeds", "of_adapter_file", "of_length", "of_merge", "weights_effect"]

_LAYERS = 6


@dataclass(frozen=True, slots=True)
class Effect:
    """What a merge did to the weights, as a multiple of what it should have done.

    Attributes:
        factor: least squares; 1 is right, 0 is an erased adapter.
        noise: what of the change is no multiple of the adapter, as a share of the adapter's own size.
    """

    factor: float
    noise: float


def exceeds(found: Divergence, bound: Bound) -> bool:
    """Whether a divergence is more than its bound allows, at any length.

    Top 1 fails only if it is lower by more than chance explains, which is three standard errors of so many positions.
    """
    chance = 3 * math.sqrt(bound.top1 * (1 - bound.top1) / max(found.positions, 1))
    means = [value for value in (found.mean_kl, found.short_kl, found.full_kl) if value is not None]
    return max(means) > bound.mean_kl or found.p99_kl > bound.p99_kl or found.top1 < bound.top1 - chance


def weights_effect(adapted: Any, base: Any, merged: Any) -> Effect:
    """Compare the change of the weights with the adapter, over a few layers.

    Args:
        adapted: base with adapter, of peft.
        base: what was merged onto, in floating point.
        merged: what came out.
    """
    import torch

    before, after = dict(base.named_modules()), dict(merged.named_modules())
    product = own = rest = 0.0
    with torch.inference_mode():
        layers = ((name, module) for name, module in adapted.named_modules() if hasattr(module, "get_delta_weight"))
        for name, module in itertools.islice(layers, _LAYERS):
            inner = name.removeprefix("base_model.model.")
            if inner not in before or inner not in after:
                continue
            should = module.get_delta_weight(module.active_adapters[0]).detach().double().cpu().flatten()
            did = (after[inner].weight.double().cpu() - before[inner].weight.double().cpu()).flatten()
            product += float(should @ did)
            own += float(should @ should)
            rest += float(did @ did)
    if own == 0.0:
        return Effect(1.0, 0.0)
    factor = product / own
    return Effect(factor, max(rest / own - factor**2, 0.0) ** 0.5)


def of_merge(effect: Effect | None) -> Finding:
    """Say why a merged model is not base and adapter: a wrong factor is clean, rounding is noise."""
    if effect is None:
        return Finding(Cause.UNKNOWN, "merged and unmerged model are apart")
    told = f"the weights changed by {effect.factor:.3g} times the adapter, with noise of {effect.noise:.3g} times its size"
    if effect.noise > 0.2:
        return Finding(Cause.MERGED_INTO_QUANTIZED, f"{told}: they were rounded after merging")
    if abs(effect.factor - 1) > 0.02:
        return Finding(Cause.SCALE, told)
    return Finding(Cause.UNKNOWN, told)


def of_adapter_file(adapter: Adapter, file: Path) -> Finding | None:
    """Compare the scale that llama.cpp will take with the one of the training."""
    from gguf import GGUFReader

    reader = GGUFReader(str(file))
    alpha = reader.get_field("adapter.lora.alpha")
    rank = next((int(tensor.shape[0]) for tensor in reader.tensors if tensor.name.endswith(".lora_b")), 0)
    if alpha is None or not rank:
        return None
    taken = float(alpha.contents()) / rank
    if abs(taken / adapter.scale - 1) < 0.01:
        return None
    return Finding(
        Cause.SCALE,
        f"the file's scale is {taken:.4g}, and training's was {adapter.scale:.4g}{' (rsLoRA)' if adapter.rslora else ''}",
    )


_LONGER = 5
"""Coarse weights alone go further wrong on a full context, 1.1 times (q8_0) and 2.8 times (q4_k_m) as far as on short prompts.
What is cut off goes wrong hundreds of times as far."""


def of_length(found: Divergence, bound: Bound) -> Finding | None:
    """Say whether only long prompts go wrong."""
    if found.short_kl is None or found.full_kl is None:
        return None
    if found.full_kl <= max(bound.mean_kl, _LONGER * found.short_kl) or found.short_kl > bound.mean_kl:
        return None
    return Finding(
        Cause.TRUNCATED,
        f"short prompts agree (KL {found.short_kl:.2g}), those that fill the context do not ({found.full_kl:.2g})",
    )
