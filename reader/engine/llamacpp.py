"""The local engine for GGUF files: llama.cpp computes, `reader.engine.local` decodes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from reader.engine.local import Local

if TYPE_CHECKING:
    import llguidance

    from reader.engine.native import Native

__all__ = ["LlamaCpp"]


class LlamaCpp(Local):
    """A GGUF model in this process; see `Local`.

    Args:
        path: the GGUF file.
        model: what to call the model.
        fingerprint: SHA-256 of the file, or of both files.
        context_size: tokens that prompt and answer may take together; 0 takes what the model was trained with.
        threads: CPU threads; None takes as many as this process may run on.
        adapter: GGUF of a LoRA to put over it.

    Raises:
        ModelError: a file is missing, damaged or too large, or the adapter is of another base.
    """

    name = "llamacpp"

    def __init__(
        self,
        path: Path | str,
        *,
        model: str,
        fingerprint: str,
        context_size: int,
        threads: int | None = None,
        adapter: Path | None = None,
    ) -> None:
        from reader.engine.native import Native

        self._native: Native = Native(Path(path), context_size=context_size, threads=threads, adapter=adapter)
        super().__init__(self._native, self._read_vocabulary, model=model, fingerprint=fingerprint)

    def _read_vocabulary(self) -> llguidance.LLTokenizer:
        from llguidance.llamacpp import lltokenizer_from_vocab

        with warnings.catch_warnings():
            # llguidance 1.9 calls this by its old name, once per token.
            warnings.filterwarnings("ignore", "llama_token_get_attr", DeprecationWarning)
            return lltokenizer_from_vocab(self._native.vocab, eos_token=sorted(self._native.ends) or None)
