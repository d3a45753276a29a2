"""What each token of an answer counts in the loss: those that decide against those that only copy.

Most tokens of a quote follow from its first few. They are many and easy, and in a plain mean they hide the few that matter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal

from finetune.recipe_reader import ReaderLoss
from reader.quotes import ABSTAIN, ANSWER, CLOSE, OPEN

__all__ = ["Kind", "kinds_of_text", "weights_of"]

Kind = Literal["reasoning", "choice", "quote", "marks", "answer"]

_PART = "\N{REPLACEMENT CHARACTER}"
_STEP = re.compile(rf"(Passage )(\d{{1,9}})(: {OPEN})(.*?)({CLOSE}\n?)", re.DOTALL)


def kinds_of_text(text: str) -> list[Kind]:
    """Return the kind of each character of an answer to learn; the mark that ends its turn belongs to the answer.

    >>> kinds_of_text("<ANSWER>: 9")[-3:]
    ['marks', 'marks', 'answer']
    """
    before, mark, after = text.rpartition(ANSWER)
    kinds: list[Kind] = ["reasoning"] * len(before)
    for step in _STEP.finditer(before):
        for group, kind in enumerate(("marks", "choice", "marks", "quote", "marks"), start=1):
            start, end = step.span(group)
            kinds[start:end] = [kind] * (end - start)  # type: ignore[list-item]
    gap = len(after) - len(after.lstrip())
    kinds += ["marks"] * (len(mark) + gap)
    abstention = len(ABSTAIN) if after[gap:].startswith(ABSTAIN) else 0
    return kinds + ["choice"] * abstention + ["answer"] * (len(after) - gap - abstention)


def weights_of(tokens: Sequence[int], decode: Callable[[Sequence[int]], str], loss: ReaderLoss) -> list[float]:
    """Return the weight of each token of an answer.

    Args:
        tokens: of the answer, with those that end the turn.
        decode: returns the text of tokens.
    """
    kinds = kinds_of_text(decode(tokens))
    of_kind = {**loss.weights.model_dump(), "quote": loss.weights.copied}
    found = []
    begin = quoted = 0
    for at in range(len(tokens)):
        # Of the beginning as a whole: a token by itself may lose its blank, or be a part of a character, which shows as U+FFFD.
        end = max(begin, len(decode(tokens[: at + 1]).rstrip(_PART)))
        middle = (begin + end) // 2  # of " 2" it is the digit that decides, not the blank
        kind: Kind = kinds[middle] if middle < len(kinds) else "answer"
        quoted = quoted + 1 if kind == "quote" else 0
        if at == 0 or 0 < quoted <= loss.quote_start:
            # The first token of all says whether it quotes at all.
            kind = "choice"
        found.append(of_kind[kind])
        begin = end
    return found
