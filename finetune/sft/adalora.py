"""What AdaLoRA (arXiv 2303.10512) needs of a trainer, and no trainer gives it: a penalty, ranks that move, whole checkpoints.

Knows peft's AdaLoRA, and nothing of data or recipes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import TrainerCallback

__all__ = ["allocating", "keep_allocator", "orthogonality", "restore_allocator", "unpruned"]

_FILE = "allocator.pt"
_AVERAGES = ("ipt", "exp_avg_ipt", "exp_avg_unc")


def orthogonality(model: Any) -> Any:
    """Return the penalty, which peft adds only to losses that it has computed itself: P and Q shall be orthogonal."""
    import torch

    weight = model.peft_config["default"].orth_reg_weight
    terms = []
    for name, matrix in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            product = matrix @ matrix.T if "lora_A" in name else matrix.T @ matrix
            terms.append(torch.norm(product - torch.eye(len(product), device=product.device), p="fro"))
    return weight * sum(terms) / max(1, len(terms))


def allocating() -> TrainerCallback:
    """Return what has ranks move: no trainer calls that by itself."""
    from transformers import TrainerCallback

    class Allocating(TrainerCallback):
        # After the step, while its gradients are still there: by them it sees what matters.
        def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            del args, control
            model.base_model.update_and_allocate(state.global_step)

    return Allocating()


@contextmanager
def unpruned(model: Any) -> Iterator[None]:
    """Have an adapter written or read with all ranks, those that were shed as zeros.

    peft would cut them out, and then cut the model that is trained down to them as well: its optimizer would go on with weights
    that are no longer in use, and the best checkpoint could not be loaded if its ranks are others than the last one's. It also
    warns of its own files when it reads them again.
    """
    config = model.peft_config["default"]
    pattern, config.rank_pattern = config.rank_pattern, None
    try:
        yield
    finally:
        config.rank_pattern = pattern


def keep_allocator(model: Any, checkpoint: Path) -> None:
    """Write into a checkpoint by what ranks are judged."""
    import torch

    allocator = model.base_model.rankallocator
    averages = {name: getattr(allocator, name) for name in _AVERAGES}
    torch.save({**averages, "rank_pattern": model.peft_config["default"].rank_pattern}, checkpoint / _FILE)


def restore_allocator(model: Any, checkpoint: Path) -> None:
    """Go on with what `keep_allocator` wrote."""
    import torch

    state = torch.load(checkpoint / _FILE, map_location=model.device, weights_only=True)
    for name in _AVERAGES:
        setattr(model.base_model.rankallocator, name, state[name])
    model.peft_config["default"].rank_pattern = state["rank_pattern"]
