"""Whether a file is a LoRA that llama.cpp can put over a GGUF. Asked first, as llama.cpp ends the process over some others.

Reads heads, no weights. Whether shapes and architecture are the base's is left to llama.cpp, which says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retriever.errors import ModelError

__all__ = ["check_adapter"]

_EXPORT = "Name the file that `beleg export --adapter-only` wrote."
_KEYS = ("general.type", "adapter.type", "general.architecture", "adapter.lora.alpha", "adapter.alora.invocation_tokens")
_EMBEDDINGS = "token_embd.weight"
_KINDS = {"F32", "F16", "BF16", "Q8_0"}


def check_adapter(path: Path, base: Path) -> None:
    """Make sure that a file is a whole LoRA, and has nothing that llama.cpp leaves out or cannot compute.

    Args:
        path: the adapter's GGUF.
        base: the GGUF that it is to be put over.

    Raises:
        ModelError: it is missing, damaged, or something else.
    """
    if path.is_dir():
        raise ModelError(f"{path} is a folder, no adapter's GGUF.", way_out=f"{_EXPORT} A folder of peft goes into `reader`.")
    if not path.is_file():
        raise ModelError(f"There is no adapter file at {path}.", way_out=_EXPORT)
    (kind, lora, architecture, alpha, activated), tensors = _read(path)
    if kind != "adapter" or lora != "lora":
        what = "a whole model, which goes into `reader` by itself" if kind == "model" else "no LoRA"
        raise ModelError(f"{path} is {what}.", way_out=_EXPORT)
    if not isinstance(architecture, str) or not isinstance(alpha, float):
        raise ModelError(f"{path} is damaged: it does not say what it belongs to, or its scale.", way_out=_EXPORT)
    if activated is not None:
        raise ModelError(
            f"{path} is an activated LoRA, to be used from certain tokens on, which is not served here.",
            way_out="Train a plain LoRA.",
        )
    _check_tensors(path, tensors, base)


def _check_tensors(path: Path, tensors: list[Any], base: Path) -> None:
    ranks: dict[str, dict[str, int]] = {}
    for tensor in tensors:
        layer, dot, side = tensor.name.rpartition(".lora_")
        if not dot or side not in {"a", "b"}:
            raise ModelError(f"{path} brings {tensor.name}, which llama.cpp leaves out.", way_out="Export it merged.")
        if tensor.tensor_type.name not in _KINDS or len(tensor.shape) != 2:
            raise ModelError(
                f"{path}: {tensor.name} is no matrix of kind {', '.join(sorted(_KINDS))}.", way_out="Export it again."
            )
        # B is (rank, out) to llama.cpp, and A (in, rank); of embeddings, both have the rank first.
        rank = tensor.shape[0 if side == "b" or layer == _EMBEDDINGS else 1]
        ranks.setdefault(layer, {})[side] = int(rank)
    if not ranks:
        raise ModelError(f"{path} holds no weights.", way_out=_EXPORT)
    for layer, sides in ranks.items():
        if set(sides) != {"a", "b"} or sides["a"] != sides["b"]:
            raise ModelError(f"{path} is damaged: {layer} has no pair of matrices that fit each other.", way_out=_EXPORT)
    if _EMBEDDINGS in ranks and all(tensor.name != "output.weight" for tensor in _read(base)[1]):
        raise ModelError(
            f"{path} changes the embeddings, which in {base.name} are the output layer as well, and llama.cpp cannot do that.",
            way_out="Export it merged, or train it without the embeddings.",
        )


def _read(path: Path) -> tuple[list[Any], list[Any]]:
    """Return the values of `_KEYS`, None for what is not there, and the tensors."""
    from gguf import GGUFReader

    try:
        head = GGUFReader(str(path))
        fields = [head.get_field(key) for key in _KEYS]
        return [None if field is None else field.contents() for field in fields], head.tensors
    # What its reader stumbles over, in a file of any bytes.
    except (ValueError, LookupError, ArithmeticError, TypeError, AttributeError, MemoryError, OSError) as error:
        raise ModelError(
            f"{path} is no GGUF file, or a damaged one: {type(error).__name__} {error}.", way_out="Fetch or export it again."
        ) from error
