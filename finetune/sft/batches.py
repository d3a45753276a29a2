"""From packs of tokens to the tensors of a step. Knows neither models nor text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from finetune.sft.examples import Tokens

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["collate", "columns", "mean_weight"]


def collate(*, packed: bool, pad: int) -> Callable[[Sequence[dict[str, list[Any]]]], dict[str, Any]]:
    """Return what makes tensors of packs.

    Packed, they become one row in which positions start anew with each sequence: from that transformers tells them apart, so
    that they do not see each other. Else each is padded to the longest.
    """
    import torch

    def make(packs: Sequence[dict[str, list[Any]]]) -> dict[str, Any]:
        tokens, weights = [pack["tokens"] for pack in packs], [pack["weights"] for pack in packs]
        if packed:
            positions = [at for pack in packs for length in pack["lengths"] for at in range(length)]
            return {
                "input_ids": torch.tensor([list(chain.from_iterable(tokens))]),
                "position_ids": torch.tensor([positions]),
                "weights": torch.tensor([list(chain.from_iterable(weights))]),
                "rows": len(packs),
            }
        longest = max(map(len, tokens))
        lacking = [longest - len(one) for one in tokens]
        return {
            "input_ids": torch.tensor([[*one, *[pad] * more] for one, more in zip(tokens, lacking, strict=True)]),
            "attention_mask": torch.tensor([[1] * (longest - more) + [0] * more for more in lacking]),
            "weights": torch.tensor([[*one, *[0.0] * more] for one, more in zip(weights, lacking, strict=True)]),
            "rows": len(packs),
        }

    return make


def columns(packs: Sequence[Sequence[Tokens]]) -> Dataset:
    """Return packs as a data set: their tokens, the weights of these, and how many belong to each sequence."""
    from datasets import Dataset

    return Dataset.from_dict(
        {
            "tokens": [[token for one in pack for token in one.tokens] for pack in packs],
            # The first token of a sequence is nothing that the one before it could know.
            "weights": [[weight if at else 0.0 for one in pack for at, weight in enumerate(one.weights)] for pack in packs],
            "lengths": [[len(one.tokens) for one in pack] for pack in packs],
        }
    )


def mean_weight(packs: Sequence[Sequence[Tokens]]) -> float:
    """Return the mean of what packs weigh, by which losses are divided."""
    return sum(sum(one.weights[1:]) for pack in packs for one in pack) / max(1, len(packs)) or 1.0
