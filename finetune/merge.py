"""Make one model of a base and an adapter, with all that its tokenizer and its end tokens need.

Knows nothing about GGUF files to be made of it, nor whether the result is right: the parity gate finds that out. An adapter is
never merged into quantized layers: rounding them again erases it, and after a forward pass on a CPU they are repacked, so that
the merge is noise. A quantized base is loaded afresh, made floating-point, and merged with then.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from finetune.pieces import complete_sentencepiece
from retriever.errors import ModelError
from retriever.models import folder_fingerprint, locate, weights_in

__all__ = [
    "FULL",
    "Adapter",
    "Base",
    "Way",
    "adapt",
    "keep_tokenizer",
    "load_base",
    "load_merged",
    "load_tokenizer",
    "merge",
    "open_adapter",
    "open_base",
    "write_base",
]

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
_SINGLE_DIGITS = {"smollm", "starcoder", "refact"}
"""llama.cpp's names of tokenizers that cut digits one by one and the rest as GPT-2 does."""


@dataclass(frozen=True, slots=True)
class Base:
    """A model that training started from.

    Attributes:
        reference: by which it was found.
        folder: where it lies.
        gguf: name of its GGUF file in the folder, where it is nothing but that; else None.
    """

    reference: str
    folder: Path
    gguf: str | None

    @property
    def fingerprint(self) -> str:
        """SHA-256 over its files."""
        return folder_fingerprint(self.folder)


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


def open_base(reference: str) -> Base:
    """Find a base model: a folder with weights in safetensors, or one with a GGUF file and nothing else to load.

    Raises:
        ModelError: it is not on this machine, or is no language model.
    """
    path = locate(reference)
    if path.is_dir() and (path / "config.json").is_file():
        return Base(reference, path, None)
    if path.is_dir() and not list(path.rglob("*.gguf")):
        raise ModelError(f"{path} has neither config.json nor a GGUF file.", way_out="Name the folder of a language model.")
    file = weights_in(path, "*.gguf")
    return Base(reference, file.parent, file.name)


def open_adapter(folder: Path, *, bits: int | None = None) -> Adapter:
    """Read what an adapter is; a candidate's folder, with the adapter in `model/`, will do.

    Args:
        bits: 4 or 8 if it was trained over a quantized base. None looks for a manifest.json of its training.

    Raises:
        ModelError: it is no adapter, a damaged one, or of a kind that cannot be merged.
    """
    if (folder / "model").is_dir() and not (folder / "adapter_config.json").exists():
        folder = folder / "model"
    bits = bits or _trained_bits(folder)
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
            way_out="Serve it unmerged with transformers, or train a LoRA.",
        )
    if not any((folder / name).is_file() for name in ("adapter_model.safetensors", "adapter_model.bin")):
        raise ModelError(f"{folder} has no adapter_model.safetensors.", way_out="Train the adapter again.")
    return Adapter(folder, kind, rank, alpha, bool(config.get("use_rslora")), bool(config.get("use_dora")), bits)


def load_base(base: Base, *, bits: int | None = None, floating: bool = True) -> Any:
    """Load a base's weights, on the GPU where there is one.

    Args:
        bits: quantize it to 4 (nf4, twice) or 8 bits first, as training does.
        floating: turn a quantized base into float weights again. False leaves it as it was while training.

    Raises:
        ModelError: it cannot be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    options: dict[str, Any] = {"dtype": _precision(base)}
    if bits:
        source = _as_folder_of_weights(base)
        with source as folder:
            options["quantization_config"] = _quantization(bits)
            model = _from_pretrained(AutoModelForCausalLM, folder, device_map={"": device}, **options)
            if floating:
                model = model.dequantize()
                _forget_quantization(model)
                model = model.to(options["dtype"])
        return model.eval()
    if base.gguf is None:
        return _from_pretrained(AutoModelForCausalLM, base.folder, **options).to(device).eval()
    return _from_gguf(base, options["dtype"]).to(device).eval()


def load_merged(folder: Path) -> Any:
    """Load a merged or fully tuned model."""
    return load_base(Base(str(folder), folder, None))


def load_tokenizer(base: Base, adapter: Adapter | None = None) -> Any:
    """Load the tokenizer that training used: the adapter's own, where it brings one, else the base's.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    own = adapter is not None and (adapter.folder / "tokenizer_config.json").is_file()
    folder = adapter.folder if own and adapter else base.folder
    options = {"gguf_file": base.gguf} if base.gguf and not own else {}
    tokenizer = _from_pretrained(AutoTokenizer, folder, **options)
    if options:
        _restore_digits(tokenizer, base)
    return tokenizer


def adapt(model: Any, adapter: Adapter) -> Any:
    """Put an adapter onto a loaded base, unmerged.

    Raises:
        ModelError: it does not belong to this base.
    """
    from peft import PeftModel

    try:
        with warnings.catch_warnings():
            # peft 0.21 asks transformers 5 by an old name.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            return PeftModel.from_pretrained(model, str(adapter.folder)).eval()
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ModelError(
            f"The adapter in {adapter.folder} does not fit the base model: {_first_line(error)}",
            way_out="Name the base that it was trained on.",
        ) from error


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
        model = adapt(loaded, adapter).merge_and_unload(safe_merge=True)
    try:
        _forget_quantization(model)
        if _generation_of(base, adapter):
            # The file itself comes along below; some hold sampling values that transformers refuses to write.
            model.generation_config = cast(Any, GenerationConfig)()
        with _silence():
            model.save_pretrained(out)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"The merged model cannot be written to {out}: {_first_line(error)}") from error
    keep_tokenizer(base, adapter, out)


def write_base(base: Base, adapter: Adapter, out: Path) -> None:
    """Write a base as a folder that a converter reads, with the tokenizer that the adapter was trained with."""
    model = load_base(base)
    with _silence():
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


def _restore_digits(tokenizer: Any, base: Base) -> None:
    """Have digits cut one by one, where the GGUF says so: transformers 5.23 forgets it, and " ²" becomes other tokens."""
    from gguf import GGUFReader
    from tokenizers import pre_tokenizers

    kind = GGUFReader(str(base.folder / (base.gguf or ""))).get_field("tokenizer.ggml.pre")
    if kind is not None and kind.contents() in _SINGLE_DIGITS:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
        )


def _trained_bits(folder: Path) -> int | None:
    """Look into the manifest that training leaves."""
    for path in (folder / "manifest.json", folder.parent / "manifest.json"):
        with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
            bits = (json.loads(path.read_text(encoding="utf-8")).get("recipe", {}).get("quantization") or {}).get("bits")
            if bits in (4, 8):
                return int(bits)
    return None


def _precision(base: Base) -> Any:
    """Return float32, in which merging loses nothing, or the checkpoint's own precision where memory is short of that."""
    import psutil  # type: ignore[import-untyped]
    import torch

    files = [*base.folder.glob("*.safetensors"), *base.folder.glob("*.bin")]
    if torch.cuda.is_available():
        return torch.float32 if 2 * _size(files) < torch.cuda.mem_get_info()[0] // 3 else "auto"
    # Twice, as base and merged model stand side by side while they are compared; most checkpoints hold two bytes a weight.
    return torch.float32 if 2 * 2 * _size(files) < psutil.virtual_memory().available else "auto"


def _size(files: list[Path]) -> int:
    return sum(file.stat().st_size for file in files)


def _quantization(bits: int) -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    configure: Any = BitsAndBytesConfig

    if bits == 8:
        return configure(load_in_8bit=True)
    return configure(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32
    )


@contextlib.contextmanager
def _as_folder_of_weights(base: Base) -> Iterator[Path]:
    """Yield a folder with the base in safetensors: bitsandbytes cannot quantize while a GGUF is being read."""
    if base.gguf is None:
        yield base.folder
        return
    import tempfile

    with tempfile.TemporaryDirectory(prefix="beleg-base-") as name:
        import torch

        _from_gguf(base, torch.float32).save_pretrained(name)
        yield Path(name)


def _from_gguf(base: Base, dtype: Any) -> Any:
    """Load a GGUF as a plain model: as transformers leaves it, it claims to be quantized and refuses to be saved."""
    from transformers import AutoModelForCausalLM

    loaded = _from_pretrained(AutoModelForCausalLM, base.folder, gguf_file=base.gguf, dtype=dtype)
    config = loaded.config
    _forget_quantization(loaded)
    with _silence():
        model = cast(Any, AutoModelForCausalLM).from_config(config, dtype=dtype)
    model.load_state_dict(loaded.state_dict())
    model.tie_weights()
    model.generation_config = loaded.generation_config
    return model


def _forget_quantization(model: Any) -> None:
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    for name in ("is_quantized", "is_loaded_in_4bit", "is_loaded_in_8bit"):
        if getattr(model, name, False):
            setattr(model, name, False)
    model.hf_quantizer = None


def _from_pretrained(factory: Any, folder: Path, **options: Any) -> Any:
    with _silence():
        try:
            return factory.from_pretrained(str(folder), local_files_only=True, **options)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError) as error:
            raise ModelError(
                f"{folder} cannot be loaded with transformers: {_first_line(error)}",
                way_out="Any model of the Llama or Mistral kind works; check that the folder is complete.",
            ) from error


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep progress bars of other libraries off the screen; their errors come as exceptions."""
    from transformers.utils import logging as imported

    logging: Any = imported

    was = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        if was:
            logging.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
