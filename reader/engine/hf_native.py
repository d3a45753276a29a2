"""A language model of transformers: weights, vocabulary, KV cache, one batch at a time.

Tokens in, logits out, as in `reader.engine.native` for llama.cpp. It knows nothing about prompts or when to stop.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from reader.errors import EngineError
from retriever.encode import best_precision, cores
from retriever.errors import ModelError

if TYPE_CHECKING:
    import llguidance

    from reader.engine.decoding import Logits

__all__ = ["Torch", "best_dtype"]

# llama.cpp takes these for ends by their names, whatever the model's settings say; so that one model ends alike in both.
_ENDS = {
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<|eom_id|>", "<EOT>",
    "<|return|>", "<|call|>", "</s>", "<｜end▁of▁sentence｜>",
}  # fmt: skip


def best_dtype() -> torch.dtype:
    """Return bfloat16 where the hardware multiplies it, float16 on other GPUs, float32 on other processors."""
    if best_precision() == "bf16":
        return torch.bfloat16
    return torch.float16 if torch.cuda.is_available() else torch.float32


class Torch:
    """A loaded model with one context.

    Args:
        model: of transformers or peft, ready to be asked.
        tokenizer: of transformers, a fast one.
        context_size: tokens that the KV cache holds; 0 takes what the model was trained with, which is the most there is.
        threads: CPU threads; None takes as many as this process may run on.

    Attributes:
        vocabulary: the tokens as llguidance sees them.
        ends: every token that ends a generation (EOS, EOT and their like).
        block: tokens that one batch holds.

    Raises:
        ModelError: tokenizer and model do not belong together, or cannot be served so.
    """

    def __init__(self, model: Any, tokenizer: Any, *, context_size: int, threads: int | None) -> None:
        self._model: Any = model
        self._tokenizer = tokenizer
        self._threads = threads or cores()
        config = model.config.get_text_config()
        trained: int = getattr(config, "max_position_embeddings", None) or 0
        self.context_size: int = min(context_size or trained, trained or context_size)
        if not self.context_size:
            raise ModelError("The model does not say how many tokens it takes.", way_out="Set `context_tokens`.")
        # Small batches let a long prompt be cancelled between them; a GPU wants larger ones.
        self.block = min(512 if self._device.type == "cuda" else 128, self.context_size)
        head = model.get_output_embeddings()
        self.vocab_size: int = config.vocab_size if head is None else head.weight.shape[0]
        self._special = {int(token) for token, added in tokenizer.added_tokens_decoder.items() if added.special}
        self.ends = self._find_ends()
        self.vocabulary = self._read_vocabulary()
        self._cache: Any = Cache(layer_class_to_replicate=partial(_Layer, self.context_size))  # type: ignore[arg-type]

    @property
    def chat_template(self) -> str:
        """The Jinja source that came with the tokenizer, or ""."""
        template = self._tokenizer.chat_template
        if isinstance(template, dict):
            template = template.get("default")
        return template or ""

    @property
    def bos(self) -> str:
        """The text of the token that begins a sequence, or ""."""
        return self._tokenizer.bos_token or ""

    @property
    def eos(self) -> str:
        """The text of the token that ends a sequence, or ""."""
        return self._tokenizer.eos_token or ""

    @property
    def _device(self) -> torch.device:
        device: torch.device = self._model.device
        return device

    def _find_ends(self) -> frozenset[int]:
        said = getattr(self._model.generation_config, "eos_token_id", None)
        found = {self._tokenizer.eos_token_id, *(said if isinstance(said, list) else [said])}
        added = self._tokenizer.added_tokens_decoder
        found |= {token for token in self._special if added[token].content in _ENDS}
        return frozenset(int(token) for token in found if token is not None)

    def _read_vocabulary(self) -> llguidance.LLTokenizer:
        from llguidance.hf import from_tokenizer

        if len(self._tokenizer) > self.vocab_size:
            raise ModelError(
                f"The tokenizer has {len(self._tokenizer)} tokens, but the model only {self.vocab_size}.",
                way_out="Take the tokenizer that belongs to the model.",
            )
        try:
            return from_tokenizer(self._tokenizer, n_vocab=self.vocab_size, eos_token=sorted(self.ends) or None)
        except ValueError as error:
            raise ModelError(
                f"The model's tokenizer cannot be constrained by a grammar: {error}.",
                way_out="Take a model with a tokenizer.json.",
            ) from error

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of `text`, with special tokens recognised and none added."""
        # A lone surrogate, as some PDFs yield, has no UTF-8 form.
        text = text.encode("utf-8", "replace").decode()
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def piece(self, token: int) -> bytes:
        """Return the bytes that a token stands for; none for control tokens."""
        if token in self._special:
            return b""
        data: bytes = self.vocabulary.decode_bytes([token])
        return data

    def keep(self, count: int) -> int:
        """Drop all but the first `count` tokens from the KV cache, and return how many are left."""
        for layer in self._cache.layers:
            layer.length = count
        return count

    def decode(self, tokens: list[int], position: int, *, logits: bool) -> Logits | None:
        """Evaluate at most `block` tokens that stand at `position`.

        Returns:
            The logits after the last one, shape (vocab,), in float32; None if they are not wanted.
        """
        if self._device.type == "cpu":
            # Set each time: it is global to the process, and the encoder takes another number.
            torch.set_num_threads(self._threads)
        try:
            with torch.inference_mode():
                ids = torch.tensor([tokens], device=self._device)
                positions = torch.arange(position, position + len(tokens), device=self._device)[None]
                made = self._model(
                    input_ids=ids, position_ids=positions, past_key_values=self._cache, use_cache=True, logits_to_keep=1
                )
                last: Logits = made.logits[0, -1].float().cpu().numpy()
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, NotImplementedError) as error:
            raise EngineError(
                f"transformers failed to evaluate {len(tokens)} tokens at {position}: {type(error).__name__}: {error}."
            ) from error
        return last if logits else None

    def free(self) -> None:
        """Give all memory back; afterwards nothing else may be called."""
        cuda = self._model is not None and self._device.type == "cuda"
        self._model = self._cache = None
        if cuda:
            torch.cuda.empty_cache()


class _Layer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values of one layer in buffers with room: transformers' own cache copies all of them at each token.

    It keeps every token, also for models whose attention slides: what a layer may not see, its mask hides.
    """

    def __init__(self, most: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._most = most
        self.length = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        end = self.length + key_states.shape[-2]
        if self.keys is None or self.values is None:
            self.keys, self.values = self._roomy(key_states, end), self._roomy(value_states, end)
            self.is_initialized = True
        elif end > self.keys.shape[-2]:
            self.keys, self.values = self._moved(self.keys, end), self._moved(self.values, end)
        self.keys[..., self.length : end, :] = key_states
        self.values[..., self.length : end, :] = value_states
        self.length = end
        return self.keys[..., :end, :], self.values[..., :end, :]

    def get_seq_length(self) -> int:
        return self.length

    def _roomy(self, like: torch.Tensor, end: int) -> torch.Tensor:
        room = min(max(2 * end, 512), max(self._most, end))
        return like.new_empty((*like.shape[:-2], room, like.shape[-1]))

    def _moved(self, old: torch.Tensor, end: int) -> torch.Tensor:
        new = self._roomy(old, end)
        new[..., : self.length, :] = old[..., : self.length, :]
        return new
