"""An example as the model is trained on it: each token, coloured by whether the loss counts it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from finetune.raft.export import example_of
from finetune.raft.row import RaftRow
from reader.engine.base import Tokenizer

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["Spells", "Vocabulary", "coloured", "pieces"]

_SMALLEST_CONTEXT = 512


class Spells(Tokenizer, Protocol):
    """An engine that says what a token stands for."""

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token; those of its name if it is a control token."""


class Vocabulary:
    """The tokenizer and chat template of a GGUF model, as the local engine has them; it generates nothing.

    Args:
        path: the GGUF file.
        context_size: tokens that an example may take.

    Raises:
        ModelError: the file is missing, damaged or too large.
    """

    def __init__(self, path: Path, *, model: str, context_size: int) -> None:
        from reader.engine.native import Native

        # Nothing is evaluated: the smallest context does, and takes no memory.
        self._native = Native(path, context_size=_SMALLEST_CONTEXT, threads=1)
        self.model = model
        self.context_size = context_size
        self.chat_template = self._native.chat_template
        self.bos = self._native.bos
        self.eos = self._native.eos

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of `text`; special tokens written in it are recognised, none are added."""
        return self._native.tokenize(text)

    def count(self, text: str) -> int:
        """Return how many tokens `text` takes."""
        return len(self.tokenize(text))

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token; those of its name if it is a control token."""
        import llama_cpp

        return self._native.piece(token) or bytes(llama_cpp.llama_vocab_get_text(self._native.vocab, token))

    def close(self) -> None:
        """Free the model."""
        self._native.free()


def pieces(engine: Spells, row: RaftRow) -> list[tuple[str, bool]]:
    """Return the text of each token of an example, with whether the loss counts it.

    Tokens that are only a part of a character stand together with those that complete it.
    """
    example = example_of(engine, row)
    found: list[tuple[str, bool]] = []
    rest = b""
    for token, counts in zip(example.tokens, example.mask, strict=True):
        rest += engine.piece(token)
        try:
            text = rest.decode()
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data":
                continue
            text = rest.decode("utf-8", "replace")
        found.append((text, bool(counts)))
        rest = b""
    return found if not rest else [*found, (rest.decode("utf-8", "replace"), bool(example.mask[-1]))]


def coloured(found: Sequence[tuple[str, bool]]) -> Text:
    """Return the tokens for a terminal: grey where the loss does not count, else green; every other one is underlined."""
    from rich.text import Text

    text = Text()
    for number, (piece, counts) in enumerate(found):
        # A line break ends a line as well, or nobody would find its way about.
        shown = piece.replace("\n", "⏎\n").replace("\t", "→")
        text.append(shown, style=("bold green" if counts else "bright_black") + (" underline" if number % 2 else ""))
    return text
