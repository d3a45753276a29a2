"""From rows or paragraphs to tokens with weights, in the order in which they are trained on.

All epochs are laid out beforehand, each with its own draws: what a training sees depends on the seed alone, so that one that
was killed goes on with what it would have seen.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol

from finetune.raft.row import RaftRow, hits_of, target
from finetune.recipe_reader import ReaderRecipe
from finetune.sft.drawing import drawn, only, plain
from finetune.sft.parts import Paragraph, ReaderParts
from finetune.sft.weighing import weights_of
from finetune.training import Watch
from reader.engine.base import Tokenizer
from reader.errors import PromptTooLong
from reader.prompt import render_example
from retriever.errors import BelegError

__all__ = ["Cuts", "Laid", "Tokens", "lay_out"]

_WINDOW = 16
"""Batches among which sequences are sorted by length: less padding, and still another order each time."""


class Cuts(Tokenizer, Protocol):
    """A tokenizer that also puts text together again."""

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, special ones included."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """One run of tokens that sees nothing of others.

    Attributes:
        weights: of the loss of each token, given those before it; the first one's does not count.
    """

    tokens: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Laid:
    """Everything that a training sees.

    Attributes:
        train: packs of sequences, in order, for all epochs; one sequence each if they are not packed.
        dev: the same, to choose by.
        shown: development rows to answer while training.
        fewer, dropped: examples that lost distractors or were left out, as they were too long.
        tokens: of `train`.
    """

    train: Sequence[tuple[Tokens, ...]]
    dev: Sequence[tuple[Tokens, ...]]
    shown: Sequence[RaftRow] = ()
    fewer: int = 0
    dropped: int = 0

    @property
    def tokens(self) -> int:
        """How many tokens are trained on."""
        return sum(len(one.tokens) for pack in self.train for one in pack)


def lay_out(recipe: ReaderRecipe, parts: ReaderParts, tokenizer: Cuts, watch: Watch) -> Laid:
    """Render everything.

    Args:
        tokenizer: its context size is the longest example.

    Raises:
        BelegError: examples are too long, and the recipe does not say what to do about that.
    """
    trainer = recipe.trainer
    making = _Making(recipe, tokenizer)
    whole, rest = divmod(trainer.epochs, 1)
    epochs = [1.0] * int(whole) + ([rest] if rest else [])
    amount = len(parts.paragraphs.train) or len(parts.train)
    watch.on_phase("render", round(amount * trainer.epochs))
    order = random.Random(trainer.seed)
    train: list[Tokens] = []
    for epoch, share in enumerate(epochs):
        if parts.paragraphs.train:
            made = making.paragraphs(parts.paragraphs.train, watch.on_progress)
        else:
            made = making.rows(parts.train, epoch, watch.on_progress)
        order.shuffle(made)
        train += made[: max(1, round(share * len(made)))]
    some = random.Random(0).sample(list(parts.dev), min(len(parts.dev), trainer.eval_rows))
    dev = making.rows(some, -1, lambda _: None) + making.paragraphs(parts.paragraphs.dev, lambda _: None)[: trainer.eval_rows]
    making.judge()
    if not train:
        raise BelegError("No example is short enough to be trained on.", way_out="Raise global_max_sequence_length.")
    return Laid(
        _packed(train, making.longest) if trainer.packing else [(one,) for one in _sorted(train, recipe, order)],
        _packed(dev, making.longest) if trainer.packing else [(one,) for one in dev],
        [making.drawn(row, -1) for row in some[: trainer.samples]],
        making.fewer,
        making.dropped,
    )


@dataclass
class _Making:
    recipe: ReaderRecipe
    tokenizer: Cuts
    fewer: int = 0
    dropped: int = 0
    too_long: list[str] = field(default_factory=list)

    @property
    def longest(self) -> int:
        return self.tokenizer.context_size

    def drawn(self, row: RaftRow, epoch: int) -> RaftRow:
        """Return the row as it is shown in an epoch; development rows (-1) always the same."""
        draw = random.Random(f"{self.recipe.trainer.seed} {epoch} {row.id}")
        return plain(drawn(row, self.recipe.passages, draw), self.recipe.prompt)

    def rows(self, rows: Sequence[RaftRow], epoch: int, on_progress: Callable[[int], None]) -> list[Tokens]:
        made = []
        for row in rows:
            sequence = self._fitting(self.drawn(row, epoch))
            if sequence:
                made.append(sequence)
            on_progress(1)
        return made

    def paragraphs(self, pieces: Sequence[Paragraph], on_progress: Callable[[int], None]) -> list[Tokens]:
        made = []
        begin = self.tokenizer.tokenize(self.tokenizer.bos) if self.tokenizer.bos else []
        for piece in pieces:
            tokens = [*self.tokenizer.tokenize(piece.text), *self.tokenizer.tokenize(self.tokenizer.eos)]
            room = self.longest - len(begin)
            made += [_full((*begin, *tokens[at : at + room])) for at in range(0, len(tokens), room)]
            on_progress(1)
        return made

    def judge(self) -> None:
        """Stop if something is too long and nobody said what to do with it."""
        if self.too_long and self.recipe.preprocessing.too_long == "fail":
            raise BelegError(
                f"{len(self.too_long)} examples have more than {self.longest} tokens, such as {self.too_long[0]}.",
                way_out="Set preprocessing.too_long to fewer (passages) or drop, or raise global_max_sequence_length.",
            )

    def _fitting(self, row: RaftRow) -> Tokens | None:
        while True:
            try:
                return self._sequence(row)
            except PromptTooLong:
                what = self.recipe.preprocessing.too_long
                others = [number for number in range(1, len(row.passages) + 1) if number != row.golden]
                if what == "fewer" and len(row.passages) > 1 and others:
                    last = others[-1]
                    row = only(row, [number for number in range(1, len(row.passages) + 1) if number != last])
                    self.fewer += 1
                    continue
                self.too_long.append(row.id)
                self.dropped += 1
                return None

    def _sequence(self, row: RaftRow) -> Tokens:
        answer = target(row)
        example = render_example(self.tokenizer, row.question, hits_of(row), answer, shots=self.recipe.prompt.shots)
        if self.recipe.loss.scope == "full":
            return _full(example.tokens)
        start = example.prompt_tokens
        weights = weights_of(example.tokens[start:], answer, self.tokenizer.decode, self.recipe.loss)
        return Tokens(example.tokens, (*[0.0] * start, *weights))


def _full(tokens: tuple[int, ...]) -> Tokens:
    return Tokens(tokens, (0.0, *[1.0] * (len(tokens) - 1)))


def _sorted(sequences: Sequence[Tokens], recipe: ReaderRecipe, order: random.Random) -> Iterator[Tokens]:
    """Put sequences of about the same length beside each other, where a batch has several."""
    size = recipe.trainer.batch_size
    if size == 1:
        return iter(sequences)
    found: list[list[Tokens]] = []
    for at in range(0, len(sequences), size * _WINDOW):
        window = sorted(sequences[at : at + size * _WINDOW], key=lambda one: len(one.tokens))
        batches = [window[begin : begin + size] for begin in range(0, len(window), size)]
        # The last batch of all may be a smaller one; it stays the last.
        full = [batch for batch in batches if len(batch) == size]
        order.shuffle(full)
        found += [*full, *(batch for batch in batches if len(batch) < size)]
    return chain.from_iterable(found)


def _packed(sequences: Sequence[Tokens], longest: int) -> list[tuple[Tokens, ...]]:
    """Fill packs in order: a sequence goes into the first of the last few packs that has room for it.

    >>> one, two = Tokens((1, 2), (0.0, 1.0)), Tokens((1, 2, 3), (0.0, 1.0, 1.0))
    >>> [len(pack) for pack in _packed([two, two, one, two], 5)]
    [2, 1, 1]
    """
    packs: list[list[Tokens]] = []
    sizes: list[int] = []
    for one in sequences:
        for at in range(max(0, len(packs) - _WINDOW), len(packs)):
            if sizes[at] + len(one.tokens) <= longest:
                packs[at].append(one)
                sizes[at] += len(one.tokens)
                break
        else:
            packs.append([one])
            sizes.append(len(one.tokens))
    return [tuple(pack) for pack in packs]
