"""Each token of an answer counts by what it decides, whatever a tokenizer makes of umlauts and emoji."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

import pytest

from finetune.raft.row import RaftRow, hits_of, target
from finetune.recipe_reader import ReaderLoss, Weights
from finetune.sft.model import Learner
from finetune.sft.weighing import kinds_of_text, weights_of
from reader.prompt import Example, render, render_example
from reader.quotes import Span

SEVEN = ReaderLoss(weights=Weights(reasoning=2, choice=3, copied=5, marks=7, answer=11), quote_start=2)
REASON, CHOICE, COPIED, MARKS, ANSWER = 2.0, 3.0, 5.0, 7.0, 11.0


def runs(text: str) -> list[tuple[str, str]]:
    at = 0
    found = []
    for kind, group in groupby(kinds_of_text(text)):
        length = len(list(group))
        found.append((str(kind), text[at : at + length]))
        at += length
    return found


def test_kinds() -> None:
    text = "Größe zählt.\nPassage 12: ##begin_quote##Die Tür 🚪 steht.##end_quote##\n<ANSWER>: Halle 9</s>"
    assert runs(text) == [
        ("reasoning", "Größe zählt.\n"),
        ("marks", "Passage "),
        ("choice", "12"),
        ("marks", ": ##begin_quote##"),
        ("quote", "Die Tür 🚪 steht."),
        ("marks", "##end_quote##\n<ANSWER>: "),
        ("answer", "Halle 9</s>"),
    ]
    assert runs("<ANSWER>: NOT FOUND</s>") == [("marks", "<ANSWER>: "), ("choice", "NOT FOUND"), ("answer", "</s>")]
    assert runs("<ANSWER>: NOT") == [("marks", "<ANSWER>: "), ("answer", "NOT")]
    assert runs("") == []


@pytest.mark.parametrize(
    "text", ["<ANSWER>:", "Passage x: ##begin_quote##", "Passage 1: ##begin_quote##a", "<ANSWER>: <ANSWER>: a"]
)
def test_every_character_has_a_kind(text: str) -> None:
    assert len(kinds_of_text(text)) == len(text)


def example(learner: Learner, row: RaftRow) -> tuple[Example, list[tuple[str, float]], list[float]]:
    """Return the example, and runs of its answer that weigh the same."""
    made = render_example(learner, row.question, hits_of(row), target(row), shots=False)
    tokens = made.tokens[made.prompt_tokens :]
    weights = weights_of(tokens, learner.decode, SEVEN)
    assert len(weights) == len(tokens)
    found, begin = [], 0
    for weight, group in groupby(range(len(tokens)), key=lambda at: weights[at]):
        last = max(group)
        whole = learner.decode(tokens[: last + 1]).rstrip("\N{REPLACEMENT CHARACTER}")
        found.append((whole[begin:], weight))
        begin = len(whole)
    return made, found, weights


def test_weights_of_a_quote(learner: Learner, rows: list[RaftRow]) -> None:
    for row in rows:
        if row.abstains:
            continue
        _, found, _ = example(learner, row)
        # What stands at a border belongs to the token that holds it, so runs may differ by the ends of tokens.
        heavy = "".join(text for text, weight in found if weight == ANSWER)
        assert heavy.startswith(row.answer[1:3]) or row.answer in heavy
        assert heavy.endswith(learner.eos)
        copied = "".join(text for text, weight in found if weight == COPIED)
        assert len(copied) > 5
        assert copied in row.quoted()[0]
        begin = row.quoted()[0][: -len(copied)].rstrip()
        assert any(weight == CHOICE and begin[:2].strip() in text for text, weight in found[1:])
        assert (REASON in {weight for _, weight in found[1:]}) == bool(row.reasoning)
        assert found[0][1] == CHOICE  # the first token of all


def test_number_and_first_tokens_count_fully(bytes_learner: Learner, rows: list[RaftRow]) -> None:
    row = next(row for row in rows if "Tür" in row.question and not row.abstains)
    made, found, weights = example(bytes_learner, replace(row, reasoning=""))
    tokens = made.tokens[made.prompt_tokens :]
    assert (" 2", CHOICE) in found
    start = bytes_learner.decode(tokens).index("##begin_quote##") + len("##begin_quote##")
    first = next(at for at in range(len(tokens)) if len(bytes_learner.decode(tokens[:at])) == start)
    assert weights[first : first + 3] == [CHOICE, CHOICE, COPIED]


def test_an_abstention(learner: Learner, rows: list[RaftRow]) -> None:
    row = next(row for row in rows if row.abstains)
    _, found, _ = example(learner, row)
    assert "".join(text for text, weight in found if weight == CHOICE).endswith("FOUND")
    assert found[-1] == (learner.eos, ANSWER)
    assert COPIED not in {weight for _, weight in found}


def test_characters_that_are_cut_in_two(learner: Learner, rows: list[RaftRow]) -> None:
    """An emoji that no tokenizer knows is several tokens, none of which is one too many."""
    text = "Gut 🦭🧾𝔸é́."
    one = replace(rows[0].passages[1], text=text, end=len(text))
    row = replace(rows[0], passages=(one,), golden=1, quotes=(Span(1, 0, len(text)),), reasoning="🦭.", answer="🦭")
    _, found, _ = example(learner, row)
    answered = "".join(text for text, weight in found if weight == ANSWER)
    assert answered.strip() == f"🦭{learner.eos}"
    assert "".join(text for text, _ in found) == target(row) + learner.eos
    copied = "".join(text for text, weight in found if weight == COPIED)
    assert copied
    assert set(copied) <= set(text)
    assert found[0][1] == CHOICE


def test_what_is_learnt_begins_with_what_is_served(learner: Learner, rows: list[RaftRow]) -> None:
    for row in (*rows[:8], replace(rows[0], question="Was heißt <|im_end|> [/INST] </s> ##begin_quote##?")):
        for shots in (False, True):
            served = render(learner, row.question, hits_of(row), answer_tokens=1, shots=shots)
            learnt = render_example(learner, row.question, hits_of(row), target(row), shots=shots)
            assert served.dropped == 0
            assert learnt.tokens[: len(served.prompt.tokens)] == served.prompt.tokens
            assert learnt.prompt_tokens == len(served.prompt.tokens)


def test_template_marks_in_a_quote_move_nothing(bytes_learner: Learner, rows: list[RaftRow]) -> None:
    text = "Die Marke <|im_end|> endet. Sie steht in Halle 9."
    one = replace(rows[0].passages[1], text=text, end=len(text))
    row = replace(rows[0], passages=(one,), golden=1, quotes=(Span(1, 0, len(text)),), reasoning="")
    made, found, _ = example(bytes_learner, row)
    assert list(made.tokens[made.prompt_tokens :]).count(bytes_learner.tokenizer.eos_token_id) == 1
    assert found[-1] == (f" {row.answer}{bytes_learner.eos}", ANSWER)
