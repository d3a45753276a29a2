"""The model that is trained: a base, as it is or quantized, with what learns put onto it. Knows no data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from finetune.parity.reference import Reference
from finetune.recipe_reader import ReaderRecipe
from finetune.training import precision
from reader.engine.weights import load_base, load_tokenizer, open_base
from retriever.errors import SettingsError

if TYPE_CHECKING:
    from peft import PeftConfig

__all__ = ["Learner", "adapter_config", "load_learner", "tokenizer_of"]


class Learner(Reference):
    """The model in training, which also renders, and answers samples."""

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of `text`; special tokens written in it are recognised, none are added."""
        return self._ids(text)

    def tokenize_plain(self, text: str) -> list[int]:
        """Return the ids of a text in which no special token is recognised, whatever is written there."""
        return self._ids(text, split_special_tokens=True)

    def _ids(self, text: str, **options: Any) -> list[int]:
        # What is too long is found out here, where nobody needs to be warned of it; a lone surrogate has no UTF-8 form.
        text = text.encode("utf-8", "replace").decode()
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False, **options)["input_ids"]
        return ids

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, special ones included."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def tokenizer_of(recipe: ReaderRecipe) -> Learner:
    """Return the base's tokenizer, ready to render; it has no weights yet."""
    return Learner(load_tokenizer(open_base(recipe.base_model)), recipe.preprocessing.global_max_sequence_length)


def load_learner(recipe: ReaderRecipe) -> Any:
    """Load the base as the recipe wants it to be trained.

    An adapter's base never changes, so it is held in the numbers that are computed in; a model that learns as a whole is held
    in float32, or small steps would be rounded away.

    Raises:
        ModelError: it cannot be loaded.
        SettingsError: the recipe wants longer examples than the model can see.
    """
    import torch

    computed = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision(recipe)]
    dtype = torch.float32 if recipe.adapter.type == "none" else computed
    model = load_base(open_base(recipe.base_model), bits=recipe.quantization.bits, floating=False, dtype=dtype)
    sees = int(getattr(model.config, "max_position_embeddings", 0) or 0)
    if sees and recipe.preprocessing.global_max_sequence_length > sees:
        raise SettingsError(
            f"preprocessing.global_max_sequence_length is {recipe.preprocessing.global_max_sequence_length}, but "
            f"{recipe.base_model} sees {sees} tokens.",
            way_out=f"Set it to {sees} or less.",
        )
    model.config.use_cache = False
    return model.train()


def adapter_config(recipe: ReaderRecipe, *, steps: int) -> PeftConfig | None:
    """Return peft's configuration of what learns; None if that is the whole model.

    Args:
        steps: of the whole training, by which AdaLoRA plans its ranks.
    """
    from peft import AdaLoraConfig, AdaptionPromptConfig, LoraConfig, TaskType

    wanted = recipe.adapter
    layers: Any = list(wanted.target_modules) or "all-linear"
    shared: dict[str, Any] = {
        "task_type": TaskType.CAUSAL_LM,
        "lora_alpha": wanted.alpha,
        "lora_dropout": wanted.dropout,
        "target_modules": layers,
    }
    if wanted.type == "lora":
        return LoraConfig(r=wanted.r, use_rslora=wanted.rslora, **shared)
    if wanted.type == "adalora":
        # The share of its paper: warm up, then shed ranks over most of the way, then settle.
        return AdaLoraConfig(
            init_r=wanted.init_r or -(-wanted.r * 3 // 2),
            target_r=wanted.r,
            tinit=steps // 10,
            tfinal=steps // 3,
            deltaT=1,  # else shed ranks come back between, and what is saved is not what was measured
            total_step=steps,
            **shared,
        )
    if wanted.type == "adaption_prompt":
        return AdaptionPromptConfig(task_type=TaskType.CAUSAL_LM, adapter_len=wanted.length, adapter_layers=wanted.layers)
    return None
