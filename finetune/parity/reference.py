"""The trained model as an engine: transformers behind the seam that the reader's engines have.

So that the reader's one renderer makes its prompts too, and its answers can be held against the served ones. It is slow, and
obeys no grammar.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from reader.engine.base import Prompt
from reader.engine.decoding import Stats
from retriever.errors import ModelError

__all__ = ["Reference"]


class Reference:
    """A tokenizer of transformers, and a model to answer with once there is one.

    Args:
        tokenizer: the one that training used.
        context_size: tokens that prompt and answer may take together.

    Attributes:
        weights: the model that answers; set while it is loaded.
        last_stats: of the answer that was made last.

    Raises:
        ModelError: the tokenizer has no chat template.
    """

    name = "transformers"
    model = "the trained model"
    fingerprint = ""
    constrained = False

    def __init__(self, tokenizer: Any, context_size: int) -> None:
        template = tokenizer.chat_template
        if isinstance(template, dict):
            template = template.get("default")
        if not template:
            raise ModelError(
                "The trained model's tokenizer has no chat template, so that no prompt can be rendered.",
                way_out="Give it the one that it was trained with, as chat_template.jinja in its folder.",
            )
        self.tokenizer = tokenizer
        self.chat_template: str = template
        self.bos: str = tokenizer.bos_token or ""
        self.eos: str = tokenizer.eos_token or ""
        self.context_size = context_size
        self.weights: Any = None
        self.last_stats = Stats()

    @property
    def special(self) -> dict[str, int]:
        """Texts of special tokens, with their ids."""
        added = self.tokenizer.added_tokens_decoder
        return {str(token.content): index for index, token in added.items() if token.special}

    def ends(self, folder: Path) -> frozenset[int]:
        """Return every id that ends an answer: the tokenizer's, and those of the generation settings in a folder."""
        found = {self.tokenizer.eos_token_id}
        path = folder / "generation_config.json"
        if path.is_file():
            value = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
            found |= set(value) if isinstance(value, list) else {value}
        return frozenset(found - {None})

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of `text`; special tokens written in it are recognised, none are added."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def count(self, text: str) -> int:
        """Return how many tokens `text` takes."""
        return len(self.tokenize(text))

    def generate(self, prompt: Prompt, *, grammar: str | None, max_tokens: int, cancelled: Callable[[], bool]) -> Iterator[str]:
        """Yield the whole greedy continuation at once."""
        import torch

        assert grammar is None
        assert self.weights is not None
        if cancelled():
            return
        ids = torch.tensor([prompt.tokens], device=self.weights.device)
        ends = sorted(self._stops())
        with torch.inference_mode():
            made = self.weights.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max_tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                eos_token_id=ends or None,
                pad_token_id=ends[0] if ends else 0,
            )[0, ids.shape[1] :].tolist()
        ended = next((at for at, token in enumerate(made) if token in ends), None)
        kept = made if ended is None else made[:ended]
        self.last_stats = Stats(prompt_tokens=ids.shape[1], generated_tokens=len(kept))
        yield self.tokenizer.decode(kept, skip_special_tokens=True)

    def close(self) -> None:
        """Let the weights go."""
        self.weights = None

    def _stops(self) -> set[int]:
        value = self.weights.generation_config.eos_token_id
        found = set(value) if isinstance(value, list) else {value}
        return {*found, self.tokenizer.eos_token_id} - {None}
