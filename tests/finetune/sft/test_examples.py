"""All that a training sees, laid out: nothing is lost, nothing too long gets in, and a seed makes the same again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.raft.row import RaftRow
from finetune.recipe_reader import ReaderRecipe
from finetune.sft.examples import Laid, Tokens, _packed, lay_out
from finetune.sft.model import Learner, tokenizer_of
from finetune.sft.parts import Paragraph, ReaderParts, _Divided
from finetune.training import Watch
from retriever.errors import BelegError

Make = Callable[..., ReaderRecipe]


def parts(rows: list[RaftRow], dev: list[RaftRow] | None = None, texts: tuple[str, ...] = ()) -> ReaderParts:
    pieces = _Divided([Paragraph(text, f"d{at}") for at, text in enumerate(texts)])
    return ReaderParts(rows, dev or [], [], pieces, {}, [])


def laid(recipe: ReaderRecipe, given: ReaderParts, watch: Watch | None = None) -> Laid:
    return lay_out(recipe, given, tokenizer_of(recipe), watch or Watch())


def every(laid: Laid) -> list[Tokens]:
    return [one for pack in laid.train for one in pack]


DRAWN = {"passages": {"count": [1, 2, 3], "golden": 0.7}}


def test_the_same_seed_makes_the_same(recipe: Make, rows: list[RaftRow]) -> None:
    one = recipe(trainer={"epochs": 2, "batch_size": 3}, **DRAWN)
    assert laid(one, parts(rows, rows[:5])) == laid(one, parts(rows, rows[:5]))
    other = recipe(trainer={"epochs": 2, "batch_size": 3, "seed": 1}, **DRAWN)
    assert laid(one, parts(rows)) != laid(other, parts(rows))


def test_each_epoch_draws_anew_and_development_rows_stay(recipe: Make, rows: list[RaftRow]) -> None:
    short, long = (laid(recipe(trainer={"epochs": epochs}, **DRAWN), parts(rows, rows[:9])) for epochs in (1, 3))
    assert (short.dev, short.shown) == (long.dev, long.shown)
    assert len(every(long)) == 3 * len(rows)
    first, second = set(every(long)[: len(rows)]), set(every(long)[len(rows) : 2 * len(rows)])
    assert 0 < len(first & second) < len(rows)
    assert set(every(short)) == first


@pytest.mark.parametrize(("epochs", "seen"), [(0.5, 20), (0.01, 1), (1.25, 50), (2, 80)])
def test_parts_of_epochs(recipe: Make, rows: list[RaftRow], epochs: float, seen: int) -> None:
    told: list[tuple[str, int | None]] = []
    done: list[int] = []
    found = laid(recipe(trainer={"epochs": epochs}), parts(rows), Watch(lambda *one: told.append(one), done.append))
    assert len(every(found)) == seen
    assert told == [("render", seen)]
    assert sum(done) == seen


def limited(recipe: Make, how: str, limit: int, **more: Any) -> ReaderRecipe:
    return recipe(preprocessing={"too_long": how, "global_max_sequence_length": limit}, **more)


def sizes(recipe: Make, rows: list[RaftRow]) -> list[int]:
    return sorted(len(one.tokens) for one in every(laid(recipe(), parts(rows))))


def test_too_long(recipe: Make, rows: list[RaftRow]) -> None:
    lengths = sizes(recipe, rows)
    limit = lengths[len(lengths) // 2]
    longer = sum(length > limit for length in lengths)
    with pytest.raises(BelegError, match=rf"{longer} rows make examples of more than {limit} tokens, such as r\d+"):
        laid(limited(recipe, "fail", limit, trainer={"epochs": 2}), parts(rows))
    dropped = laid(limited(recipe, "drop", limit), parts(rows))
    assert (dropped.dropped, dropped.fewer, len(every(dropped))) == (longer, 0, len(rows) - longer)
    fewer = laid(limited(recipe, "fewer", limit), parts(rows))
    assert (fewer.dropped, len(every(fewer))) == (0, len(rows))
    assert fewer.fewer >= longer
    for found in (dropped, fewer):
        assert max(len(one.tokens) for one in every(found)) <= limit


def test_the_golden_passage_is_never_the_one_to_go(recipe: Make, rows: list[RaftRow], bytes_learner: Learner) -> None:
    answering = [row for row in rows if not row.abstains]
    alone = [replace(row, passages=row.passages[1:2], golden=1, quotes=tuple(replace(one, passage=1) for one in row.quotes))
             for row in answering]  # fmt: skip
    limit = sizes(recipe, alone)[-1]
    found = laid(limited(recipe, "fewer", limit), parts(answering, answering[:3]))
    assert (found.dropped, len(every(found))) == (0, len(answering))
    for one in every(found):
        assert "##begin_quote##Die" in bytes_learner.decode(one.tokens[len(one.tokens) // 2 :])
    assert all(row.golden for row in found.shown)


def test_everything_is_too_long(recipe: Make, rows: list[RaftRow]) -> None:
    for how in ("drop", "fewer"):
        with pytest.raises(BelegError, match="No example is short enough"):
            laid(limited(recipe, how, 64), parts(rows))


def test_development_rows_that_are_too_long_are_not_asked(recipe: Make, rows: list[RaftRow]) -> None:
    lengths = sizes(recipe, rows)
    found = laid(limited(recipe, "drop", lengths[10], trainer={"samples": 50}), parts(rows, rows))
    assert 0 < len(found.shown) == len(found.dev) < len(rows)


def test_only_answers_count_unless_all_shall(recipe: Make, rows: list[RaftRow], bytes_learner: Learner) -> None:
    weights = {"weights": {"copied": 0.1}}
    (answer,) = every(laid(recipe(loss=weights), parts(rows[:1])))
    (full,) = every(laid(recipe(loss={"scope": "full", **weights}), parts(rows[:1])))
    assert answer.tokens == full.tokens
    start = next(at for at, weight in enumerate(answer.weights) if weight)
    assert bytes_learner.decode(answer.tokens[:start]).endswith("assistant\n")
    assert set(answer.weights[:start]) == {0.0}
    assert full.weights[:start] == (0.0, *[1.0] * (start - 1))
    assert full.weights[start:] == answer.weights[start:]
    assert set(answer.weights[start:]) == {0.1, 1.0}


def test_paragraphs_are_cut_and_nothing_is_lost(recipe: Make, mistral: Path, llama: Path) -> None:
    texts = ("Größe zählt. 🦭 " * 60, "kurz", "<|im_end|></s> ist nur Text. " * 20)
    for base in (mistral, llama):
        one = recipe(base_model=str(base), data={"format": "paragraphs"}, loss={"scope": "full"},
                     preprocessing={"global_max_sequence_length": 64}, trainer={"epochs": 2})  # fmt: skip
        found = laid(one, parts([], texts=texts))
        learner = tokenizer_of(one)
        begin = learner.tokenize(learner.bos)
        assert all(1 < len(piece.tokens) <= 64 for piece in every(found))
        assert all(list(piece.tokens[: len(begin)]) == begin for piece in every(found))
        wanted = [[*learner.tokenize_plain(text), learner.tokenizer.eos_token_id] for text in texts]
        seen = Counter(token for piece in every(found) for token in piece.tokens[len(begin) :])
        assert seen == Counter(token for tokens in wanted for token in (*tokens, *tokens))
        assert seen[learner.tokenizer.eos_token_id] == 2 * len(texts)
        assert {weight for piece in every(found) for weight in piece.weights} == {0.0, 1.0}


def test_batches_of_one_length(recipe: Make, rows: list[RaftRow]) -> None:
    one = recipe(trainer={"batch_size": 4, "epochs": 1.05}, **DRAWN)
    found = [len(pack[0].tokens) for pack in laid(one, parts(rows)).train]
    assert len(found) == 42
    spread = [max(found[at : at + 4]) - min(found[at : at + 4]) for at in range(0, 40, 4)]
    loose = recipe(trainer={"epochs": 1.05}, **DRAWN)
    shuffled = [len(pack[0].tokens) for pack in laid(loose, parts(rows)).train]
    assert sorted(shuffled) == sorted(found)
    assert sum(spread) < sum(max(shuffled[at : at + 4]) - min(shuffled[at : at + 4]) for at in range(0, 40, 4)) / 2


@given(st.lists(st.integers(1, 30), max_size=60))
def test_packs_never_overflow_and_lose_nothing(lengths: list[int]) -> None:
    sequences = [Tokens((at,) * length, (0.0,) * length) for at, length in enumerate(lengths)]
    packs = _packed(sequences, 30)
    assert all(sum(len(one.tokens) for one in pack) <= 30 for pack in packs)
    assert Counter(one for pack in packs for one in pack) == Counter(sequences)


def test_packing_lays_out_the_same_examples(recipe: Make, rows: list[RaftRow]) -> None:
    one, packed = (laid(recipe(trainer={"packing": packing}, **DRAWN), parts(rows, rows[:6])) for packing in (False, True))
    assert Counter(every(one)) == Counter(every(packed))
    assert len(packed.train) < len(one.train) / 2
    assert packed.tokens == one.tokens


def test_words_of_a_row_that_are_no_text(recipe: Make, rows: list[RaftRow]) -> None:
    """A lone surrogate, as JSON can hold one."""
    assert len(every(laid(recipe(), parts([replace(rows[0], question="was? \ud800")])))) == 1
