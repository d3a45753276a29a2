"""Language models in transformers: found, loaded, quantized, with the adapter and the tokenizer that belong to them.

Both training and serving load through here. Knows nothing about prompts, grammars or recipes, and never merges.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from retriever.errors import ModelError
from retriever.models import file_hash, folder_fingerprint, locate, weights_in

__all__ = [
    "Base",
    "adapt",
    "first_line",
    "forget_quantization",
    "load_base",
    "load_tokenizer",
    "open_base",
    "quietly",
]

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
        """SHA-256 over its files; of a GGUF file, its own: other models may lie beside it."""
        return file_hash(self.folder / self.gguf) if self.gguf else folder_fingerprint(self.folder)


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


def load_base(base: Base, *, bits: int | None = None, floating: bool = True, dtype: Any = None) -> Any:
    """Load a base's weights, on the GPU where there is one.

    Args:
        bits: quantize it to 4 (nf4, twice) or 8 bits first, as training does.
        floating: turn a quantized base into float weights again. False leaves it as it was while training.
        dtype: torch's type of the float weights, and of what 4-bit weights compute in; None takes float32, or the
            checkpoint's own where memory is short of that, and computes in float32.

    Raises:
        ModelError: it cannot be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    options: dict[str, Any] = {"dtype": dtype or _precision(base)}
    if bits:
        if importlib.util.find_spec("bitsandbytes") is None:
            raise ModelError(
                f"{base.reference} cannot be loaded in {bits} bits: the package bitsandbytes is not installed.",
                way_out="Run `make install`, or load it without quantizing.",
            )
        source = _as_folder_of_weights(base)
        with source as folder:
            options["quantization_config"] = _quantization(bits, dtype)
            model = _from_pretrained(AutoModelForCausalLM, folder, device_map={"": device}, **options)
            if floating:
                model = model.dequantize()
                forget_quantization(model)
                model = model.to(options["dtype"])
        return model.eval()
    if base.gguf is None:
        return _from_pretrained(AutoModelForCausalLM, base.folder, **options).to(device).eval()
    return _from_gguf(base, options["dtype"]).to(device).eval()


def load_tokenizer(base: Base, adapter: Path | None = None) -> Any:
    """Load the tokenizer that training used: that of the adapter's folder, where it brings one, else the base's.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    own = adapter if adapter and (adapter / "tokenizer_config.json").is_file() else None
    options = {"gguf_file": base.gguf} if base.gguf and not own else {}
    tokenizer = _from_pretrained(AutoTokenizer, own or base.folder, **options)
    if options:
        _restore_digits(tokenizer, base)
    return tokenizer


def adapt(model: Any, adapter: Path) -> Any:
    """Put the adapter in a folder onto a loaded base, unmerged.

    Raises:
        ModelError: it does not belong to this base.
    """
    with quietly():  # bitsandbytes, which peft imports, misses optional kernels aloud
        from peft import PeftModel

    try:
        with warnings.catch_warnings():
            # peft 0.21 asks transformers 5 by an old name.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            # It says so of every AdaLoRA that has shed ranks, and goes on to shed them here too.
            warnings.filterwarnings("ignore", "The following rank_pattern keys", RuntimeWarning)
            return PeftModel.from_pretrained(model, str(adapter)).eval()
    except _broken() as error:
        raise ModelError(
            f"The adapter in {adapter} does not fit the base model: {first_line(error)}",
            way_out="Name the base that it was trained on.",
        ) from error


def _restore_digits(tokenizer: Any, base: Base) -> None:
    """Have digits cut one by one, where the GGUF says so: transformers 5.23 forgets it, and " ²" becomes other tokens."""
    from gguf import GGUFReader
    from tokenizers import pre_tokenizers

    kind = GGUFReader(str(base.folder / (base.gguf or ""))).get_field("tokenizer.ggml.pre")
    if kind is not None and kind.contents() in _SINGLE_DIGITS:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
        )


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


def _quantization(bits: int, compute: Any) -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    configure: Any = BitsAndBytesConfig

    if bits == 8:
        return configure(load_in_8bit=True)
    return configure(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute or torch.float32,
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

        model = _from_gguf(base, torch.float32)
        with quietly():
            model.save_pretrained(name)
        del model
        yield Path(name)


def _from_gguf(base: Base, dtype: Any) -> Any:
    """Load a GGUF as a plain model: as transformers leaves it, it claims to be quantized and refuses to be saved."""
    import torch
    from transformers import AutoModelForCausalLM

    # What the file is packed to is unpacked to float32 anyway, and transformers complains of any other wish.
    loaded = _from_pretrained(AutoModelForCausalLM, base.folder, gguf_file=base.gguf, dtype=torch.float32)
    config = loaded.config
    forget_quantization(loaded)
    with quietly():
        model = cast(Any, AutoModelForCausalLM).from_config(config, dtype=dtype)
    model.load_state_dict(loaded.state_dict())
    model.tie_weights()
    model.generation_config = loaded.generation_config
    return model


def forget_quantization(model: Any) -> None:
    """Have a model whose weights are floats again no longer claim to be quantized."""
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    for name in ("is_quantized", "is_loaded_in_4bit", "is_loaded_in_8bit"):
        if getattr(model, name, False):
            setattr(model, name, False)
    model.hf_quantizer = None


def _broken() -> tuple[type[Exception], ...]:
    """Return what the libraries raise at files that are damaged, incomplete or of another kind."""
    from safetensors import SafetensorError

    return (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError, SafetensorError)


def _from_pretrained(factory: Any, folder: Path, **options: Any) -> Any:
    with quietly():
        try:
            return factory.from_pretrained(str(folder), local_files_only=True, **options)
        except _broken() as error:
            raise ModelError(
                f"{folder} cannot be loaded with transformers: {first_line(error)}",
                way_out="Any model of the Llama or Mistral kind works; check that the folder is complete.",
            ) from error


@contextlib.contextmanager
def quietly() -> Iterator[None]:
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


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its kind where it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
