"""Make one model of a base and an adapter, with all that its tokenizer and its end tokens need.

Knows nothing about GGUF files to be made of it, nor whether the result is right: the parity gate finds that out. An adapter is
never merged into quantized layers: rounding them again erases it, and after a forward pass on a CPU they are repacked, so that
the merge is noise. A quantized base is loaded afresh, made floating-point, and merged with then.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from finetune.pieces import complete_sentencepiece
from reader.engine.weights import Base, adapt, first_line, forget_quantization, load_base, load_tokenizer, quietly
from retriever.errors import ModelError

__all__ = ["FULL", "Adapter", "Way", "keep_tokenizer", "load_merged", "merge", "open_adapter", "trained_bits", "write_base"]

Way = Literal["original", "dequantized"]
"""Onto which base: as it was published, or as training saw it, rounded to 4 or 8 bits and made floating-point again."""

FULL = "FULL"
"""The kind of an "adapter" that is a whole tuned model."""

_MERGEABLE = {"LORA", "ADALORA", "LOHA", "LOKR", "OFT", "BOFT", "IA3", "VERA", "HRA", "RANDLORA", FULL}
_TOKENIZER_FILES = (
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
)
_GENERATION = "generation_config.json"


@dataclass(frozen=True, slots=True)
class Adapter:
    """What training left: an adapter of peft, or a whole model.

    Attributes:
        folder: with adapter_config.json, or config.json.
        kind: peft's name, such as LORA, or `FULL`.
        rank, alpha: of a LoRA; 0 for other kinds.
        rslora: whether its scale is alpha / √rank instead of alpha / rank.
        dora: whether it has magnitudes as well.
        bits: 4 or 8 if the base was quantized while it was trained, else None.
    """

    folder: Path
    kind: str
    rank: int = 0
    alpha: float = 0.0
    rslora: bool = False
    dora: bool = False
    bits: int | None = None

    @property
    def scale(self) -> float:
        """The factor of B·A."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank) if self.rank else 1.0


def open_adapter(folder: Path, *, bits: int | None = None) -> Adapter:
    """Read what an adapter is; a candidate's folder, with the adapter in `model/`, will do.

    Args:
        bits: 4 or 8 if it was trained over a quantized base. None looks for a manifest.json of its training.

    Raises:
        ModelError: it is no adapter, a damaged one, or of a kind that cannot be merged.
    """
    if (folder / "model").is_dir() and not (folder / "adapter_config.json").exists():
        folder = folder / "model"
    bits = bits or trained_bits(folder)
    path = folder / "adapter_config.json"
    if not path.exists():
        if (folder / "config.json").is_file():
            return Adapter(folder, FULL, bits=bits)
        raise ModelError(
            f"{folder} is no adapter: it has no adapter_config.json.", way_out="Name the folder that training wrote."
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind = str(config["peft_type"]).upper()
        rank, alpha = (int(config["r"]), float(config["lora_alpha"])) if "LORA" in kind and "r" in config else (0, 0.0)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path} cannot be read: {type(error).__name__} {error}.", way_out="Train the adapter again."
        ) from error
    if kind not in _MERGEABLE:
        raise ModelError(
            f"{folder} is an adapter of kind {kind}, which adds to what layers compute instead of to their weights: "
            "it cannot be merged, so there is no GGUF of it.",
            way_out="Have it served unmerged by transformers (`beleg promote NAME --unmerged`), or train a LoRA.",
        )
    if not any((folder / name).is_file() for name in ("adapter_model.safetensors", "adapter_model.bin")):
        raise ModelError(f"{folder} has no adapter_model.safetensors.", way_out="Train the adapter again.")
    return Adapter(folder, kind, rank, alpha, bool(config.get("use_rslora")), bool(config.get("use_dora")), bits)


def load_merged(folder: Path) -> Any:
    """Load a merged or fully tuned model."""
    return load_base(Base(str(folder), folder, None))


def merge(base: Base, adapter: Adapter, out: Path, way: Way) -> None:
    """Write the merged model to a folder, complete with tokenizer.

    Args:
        way: onto the base as published, or as training saw it; see `Way`.

    Raises:
        ModelError: base and adapter do not fit, or the adapter was not trained over a quantized base.
    """
    if way == "dequantized" and adapter.bits is None:
        raise ModelError(
            f"{adapter.folder} was not trained over a quantized base, so there is nothing to dequantize.",
            way_out="Merge onto the original, or say with `--bits` what it was trained over.",
        )
    from transformers import GenerationConfig

    out.mkdir(parents=True, exist_ok=True)
    if adapter.kind == FULL:
        model = load_merged(adapter.folder)
    else:
        loaded = load_base(base, bits=adapter.bits if way == "dequantized" else None)
        model = adapt(loaded, adapter.folder).merge_and_unload(safe_merge=True)
    try:
        forget_quantization(model)
        if _generation_of(base, adapter):
            # The file itself comes along below; some hold sampling values that transformers refuses to write.
            model.generation_config = cast(Any, GenerationConfig)()
        with quietly():
            model.save_pretrained(out)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"The merged model cannot be written to {out}: {first_line(error)}") from error
    keep_tokenizer(base, adapter, out)


def write_base(base: Base, adapter: Adapter, out: Path) -> None:
    """Write a base as a folder that a converter reads, with the tokenizer that the adapter was trained with."""
    model = load_base(base)
    with quietly():
        model.save_pretrained(out)
    keep_tokenizer(base, adapter, out)


def keep_tokenizer(base: Base, adapter: Adapter, out: Path) -> None:
    """Bring along every file of the tokenizer as it is, the generation settings and the end tokens.

    A tokenizer that is loaded and saved again by transformers 5 loses its tokenizer.model, without which a converter knows no
    scores and cuts most texts differently. Where there never was one, it is made of tokenizer.json.
    """
    sources = [base.folder]
    if (adapter.folder / "tokenizer_config.json").is_file():
        sources.insert(0, adapter.folder)
    if base.gguf and len(sources) == 1:
        load_tokenizer(base).save_pretrained(out)
    for name in _TOKENIZER_FILES:
        source = next((folder / name for folder in sources if (folder / name).is_file()), None)
        if source:
            shutil.copyfile(source, out / name)
    if generation := _generation_of(base, adapter):
        shutil.copyfile(generation, out / _GENERATION)
    complete_sentencepiece(out)


def _generation_of(base: Base, adapter: Adapter) -> Path | None:
    return next((folder / _GENERATION for folder in (adapter.folder, base.folder) if (folder / _GENERATION).is_file()), None)


def trained_bits(folder: Path) -> int | None:
    """Return to how many bits a base was quantized while it was trained, by the manifest that training leaves; None if not."""
    for path in (folder / "manifest.json", folder.parent / "manifest.json"):
        with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
            bits = (json.loads(path.read_text(encoding="utf-8")).get("recipe", {}).get("quantization") or {}).get("bits")
            if bits in (4, 8):
                return int(bits)
    return None
