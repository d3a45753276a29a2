"""The local engine for models in safetensors: transformers computes, in 4 or 8 bits if asked, with an adapter left unmerged.

Slower than llama.cpp with the same model as GGUF; for what has no GGUF: adapters as they were trained, among them those that
cannot be merged. Knows nothing about documents or quotes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reader.engine.local import Local
from reader.engine.weights import Base, adapt, first_line, load_base, load_tokenizer, open_base
from retriever.errors import ModelError
from retriever.models import folder_fingerprint

if TYPE_CHECKING:
    from reader.engine.hf_native import Torch

__all__ = ["ADAPTER", "Source", "Transformers", "open_source"]

ADAPTER = "adapter_config.json"
"""The file by which the folder of an adapter is known."""

# Prompts that were learnt stand before the first token, in no layer, so that positions and KV cache would have to be others.
_UNSERVED = {"PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING", "CARTRIDGE", "CPT"}

# Of weights in memory: 4 bits with their scales, 8 bits, and what is not quantized (embeddings) on top.
_BYTES = {4: 0.75, 8: 1.2}


@dataclass(frozen=True, slots=True)
class Source:
    """What a reader is made of.

    Attributes:
        base: the whole model.
        adapter: folder of an adapter over it, or None.
        bits: 4 or 8 to quantize the base while it is loaded, or 0.
    """

    base: Base
    adapter: Path | None = None
    bits: int = 0

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the files of base and adapter, and the bits."""
        base = self.base.fingerprint
        if self.adapter is None and not self.bits:
            return base
        adapter = folder_fingerprint(self.adapter) if self.adapter else ""
        return hashlib.sha256(f"{base}\n{adapter}\n{self.bits}".encode()).hexdigest()


def open_source(path: Path, *, base: str = "", bits: int = 0) -> Source:
    """Find what belongs to the model in a folder.

    Args:
        path: a whole model, or an adapter.
        base: the model that the adapter belongs to; "" takes the one that the adapter names.
        bits: 4 or 8 to quantize, 0 to take weights as they are.

    Raises:
        ModelError: the base is not on this machine, or the adapter is damaged or of a kind that is not served.
    """
    if not (path / ADAPTER).is_file():
        return Source(open_base(str(path)), None, bits)
    try:
        config = json.loads((path / ADAPTER).read_text(encoding="utf-8"))
        kind, named = str(config["peft_type"]).upper(), str(config.get("base_model_name_or_path") or "")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path / ADAPTER} cannot be read: {type(error).__name__} {error}.", way_out="Train the adapter again."
        ) from error
    if kind in _UNSERVED:
        raise ModelError(
            f"{path} is an adapter of kind {kind}, which Beleg does not serve.", way_out="Train a LoRA or an adaption prompt."
        )
    if not (base or named):
        raise ModelError(f"{path / ADAPTER} does not name its base.", way_out="Name it with the setting `reader_base`.")
    try:
        return Source(open_base(base or named), path, bits)
    except ModelError as error:
        raise ModelError(
            f"The base of the adapter in {path} cannot be opened: {error.message}",
            way_out="Name it with the setting `reader_base`, or run `beleg fetch`.",
        ) from error


class Transformers(Local):
    """A model of transformers in this process; see `Local`. It runs on the GPU where there is one.

    Args:
        source: what to load.
        model: what to call it.
        fingerprint: of the source.
        context_size: tokens that prompt and answer may take together, at most as many as the model was trained with; 0 takes
            those.
        threads: CPU threads; None takes as many as this process may run on.

    Raises:
        ModelError: it is damaged or too large, its adapter does not fit it, or bitsandbytes is needed and missing.
    """

    name = "transformers"

    def __init__(self, source: Source, *, model: str, fingerprint: str, context_size: int, threads: int | None = None) -> None:
        native = _load(source, context_size, threads)
        super().__init__(native, lambda: native.vocabulary, model=model, fingerprint=fingerprint)


def _load(source: Source, context_size: int, threads: int | None) -> Torch:
    import torch

    from reader.engine.hf_native import Torch, best_dtype

    dtype = best_dtype()
    _require_memory(source, dtype.itemsize)
    tokenizer = load_tokenizer(source.base, source.adapter)
    if source.bits == 8:
        # It says at each of some two hundred layers, and for each token, that it casts.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    try:
        model: Any = load_base(source.base, bits=source.bits or None, floating=False, dtype=dtype)
        if source.adapter:
            model = adapt(model, source.adapter)
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise ModelError(f"{source.base.reference} does not fit the memory: {first_line(error)}", way_out=_SMALLER) from error
    return Torch(model, tokenizer, context_size=context_size, threads=threads)


_SMALLER = "Set `reader_bits` to 4, or take a smaller model."


def _require_memory(source: Source, width: int) -> None:
    """Refuse what cannot fit, before the system kills the process for it."""
    import psutil  # type: ignore[import-untyped]
    import torch

    weights = _count_weights(source.base)
    # A GGUF is read as floats, and written as such, before it is quantized.
    needed = weights * (_BYTES[source.bits] if source.bits and source.base.gguf is None else width)
    free = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else psutil.virtual_memory().available
    if needed > free:
        raise ModelError(
            f"{source.base.reference} takes {needed / 2**30:.1f} GiB of memory, but only {free / 2**30:.1f} are free.",
            way_out=_SMALLER,
        )


def _count_weights(base: Base) -> int:
    """Return how many numbers the model has, by the heads of its files; 0 where they do not tell."""
    if base.gguf:
        from gguf import GGUFReader

        return sum(int(tensor.n_elements) for tensor in GGUFReader(str(base.folder / base.gguf)).tensors)
    count = 0
    for file in base.folder.glob("*.safetensors"):
        try:
            with file.open("rb") as stream:
                (size,) = struct.unpack("<Q", stream.read(8))
                head = json.loads(stream.read(min(size, file.stat().st_size)))
        except (struct.error, ValueError):
            continue  # loading will say what is wrong with it
        count += sum(math.prod(tensor["shape"]) for name, tensor in head.items() if name != "__metadata__")
    return count
