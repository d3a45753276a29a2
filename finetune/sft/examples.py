"""From rows or paragraphs to tokens with weights, in the order in which they are trained on.

All epochs are laid out beforehand, each with its own draws: what a training sees depends on the seed alone, so that one that
was killed goes on with what it would have seen.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol, TypeVar

from finetune.raft.row import RaftRow, hits_of, target
from finetune.recipe_reader import ReaderRecipe
from finetune.sft.drawing import drawn, held, only, plain
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

    def tokenize_plain(self, text: str) -> list[int]:
        """Return the ids of a text in which no special token is recognised, whatever is written there."""


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
    order = random.Random(trainer.seed)
    whole, rest = divmod(trainer.epochs, 1)
    shares = [1.0] * int(whole) + ([rest] if rest else [])
    seen = [_share(parts.train, share, order) for share in shares]
    watch.on_phase("render", len(parts.paragraphs.train) + sum(map(len, seen)))
    pieces = making.paragraphs(parts.paragraphs.train, watch.on_progress)
    train = [piece for share in shares for piece in _share(pieces, share, order)]
    train += [example for epoch, some in enumerate(seen) for _, example in making.rows(some, epoch, watch.on_progress)]
    chosen = random.Random(0).sample(list(parts.dev), min(len(parts.dev), trainer.eval_rows))
    dev = making.rows(chosen, -1, lambda _: None)
    judged = [*(example for _, example in dev), *making.paragraphs(parts.paragraphs.dev, lambda _: None)[: trainer.eval_rows]]
    making.judge()
    if not train:
        raise BelegError("No example is short enough to be trained on.", way_out="Raise global_max_sequence_length.")
    return Laid(
        _packed(train, making.longest) if trainer.packing else [(one,) for one in _sorted(train, recipe, order)],
        _packed(judged, making.longest) if trainer.packing else [(one,) for one in judged],
        [row for row, _ in dev[: trainer.samples]],
        making.fewer,
        making.dropped,
    )


_T = TypeVar("_T")


def _share(things: Sequence[_T], share: float, order: random.Random) -> list[_T]:
    """Return a share of things, in another order each time; at least one if there is one."""
    return order.sample(things, max(min(1, len(things)), round(share * len(things))))


@dataclass
class _Making:
    recipe: ReaderRecipe
    tokenizer: Cuts
    fewer: int = 0
    dropped: int = 0
    too_long: set[str] = field(default_factory=set)

    @property
    def longest(self) -> int:
        return self.tokenizer.context_size

    def rows(self, rows: Sequence[RaftRow], epoch: int, on_progress: Callable[[int], None]) -> list[tuple[RaftRow, Tokens]]:
        """Return rows as they are shown in an epoch, and their tokens; development rows (-1) are always shown alike."""
        made = []
        for row in rows:
            draw = random.Random(f"{self.recipe.trainer.seed} {epoch} {row.id}")
            fitting = self._fitting(plain(drawn(row, self.recipe.passages, draw), self.recipe.prompt))
            if fitting:
                made.append(fitting)
            on_progress(1)
        return made

    def paragraphs(self, pieces: Sequence[Paragraph], on_progress: Callable[[int], None]) -> list[Tokens]:
        made = []
        begin = self.tokenizer.tokenize(self.tokenizer.bos)
        room = self.longest - len(begin)
        for piece in pieces:
            tokens = [*self.tokenizer.tokenize_plain(piece.text), *self.tokenizer.tokenize(self.tokenizer.eos)]
            made += [_full((*begin, *tokens[at : at + room])) for at in range(0, len(tokens), room)]
            on_progress(1)
        return made

    def judge(self) -> None:
        """Stop if something is too long and nobody said what to do with it."""
        if self.too_long and self.recipe.preprocessing.too_long == "fail":
            raise BelegError(
                f"{len(self.too_long)} rows make examples of more than {self.longest} tokens, such as {min(self.too_long)}.",
                way_out="Set preprocessing.too_long to fewer (passages) or drop, or raise global_max_sequence_length.",
            )

    def _fitting(self, row: RaftRow) -> tuple[RaftRow, Tokens] | None:
        while True:
            try:
                return row, self._sequence(row)
            except PromptTooLong:
                shown = range(1, len(row.passages) + 1)
                others = [number for number in shown if number not in held(row)]
                if self.recipe.preprocessing.too_long == "fewer" and len(shown) > 1 and others:
                    row = only(row, [number for number in shown if number != others[-1]])
                    self.fewer += 1
                    continue
                self.too_long.add(row.id)
                self.dropped += 1
                return None

    def _sequence(self, row: RaftRow) -> Tokens:
        shots = self.recipe.prompt.shots
        example = render_example(self.tokenizer, row.question, hits_of(row), target(row), shots=shots)
        start = example.prompt_tokens
        weights = weights_of(example.tokens[start:], self.tokenizer.decode, self.recipe.loss)
        prompt = _full(example.tokens[:start]).weights if self.recipe.loss.scope == "full" else (0.0,) * start
        return Tokens(example.tokens, (*prompt, *weights))


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
