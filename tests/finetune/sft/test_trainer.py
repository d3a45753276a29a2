"""The loss is what a recipe says, however examples are packed, padded or accumulated; every kind of adapter learns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.raft.row import RaftRow
from finetune.recipe_reader import ReaderRecipe
from finetune.sft.batches import collate, columns, mean_weight
from finetune.sft.examples import Laid, Tokens, lay_out
from finetune.sft.model import load_learner, tokenizer_of
from finetune.sft.parts import ReaderParts, _Divided
from finetune.sft.trainer import build_reader_trainer, steps_of
from finetune.training import Watch
from retriever.errors import SettingsError

Make = Callable[..., ReaderRecipe]


def laid(recipe: ReaderRecipe, rows: Sequence[RaftRow], dev: Sequence[RaftRow] = ()) -> Laid:
    parts = ReaderParts(rows, dev, [], _Divided(), {}, [])
    return lay_out(recipe, parts, tokenizer_of(recipe), Watch())


def trainer_of(recipe: ReaderRecipe, made: Laid, folder: Path) -> Any:
    return build_reader_trainer(recipe, made, tokenizer_of(recipe), folder, Watch())


def logits_of(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(**{name: batch[name] for name in batch if name not in ("weights", "rows")}).logits
    return found


@pytest.mark.parametrize("base", ["llama", "mistral"])
def test_packed_sequences_do_not_see_each_other(
    recipe: Make, rows: list[RaftRow], base: str, request: pytest.FixtureRequest
) -> None:
    one = recipe(base_model=str(request.getfixturevalue(base)), trainer={"packing": True})
    packs = laid(one, rows[:8]).train
    pack = next(pack for pack in packs if len(pack) > 2)
    model = load_learner(one).eval()
    (row,) = logits_of(model, collate(packed=True, pad=0)(columns([pack])))
    at = 0
    for sequence in pack:
        (alone,) = logits_of(model, collate(packed=False, pad=0)(columns([[sequence]])))
        torch.testing.assert_close(row[at : at + len(sequence.tokens)], alone, atol=1e-4, rtol=1e-4)
        at += len(sequence.tokens)
    # And they would, without the positions that tell them apart.
    blind = {"input_ids": torch.tensor([[token for one in pack for token in one.tokens]])}
    last = len(pack[-1].tokens)
    assert not torch.allclose(logits_of(model, blind)[0, -last:], row[-last:], atol=1e-2)


def losses_by_hand(model: Any, sequences: Sequence[Tokens]) -> list[float]:
    """Return for each sequence the sum of what each token costs, times its weight."""
    found = []
    for one in sequences:
        logits = logits_of(model, {"input_ids": torch.tensor([one.tokens])})[0].log_softmax(-1)
        costs = [-float(logits[at - 1, token]) * one.weights[at] for at, token in enumerate(one.tokens) if at]
        found.append(sum(costs))
    return found


@pytest.mark.parametrize("scope", ["completion", "full"])
@pytest.mark.parametrize(("size", "packing"), [(1, False), (4, False), (1, True), (2, True)])
def test_the_loss(recipe: Make, rows: list[RaftRow], tmp_path: Path, scope: str, size: int, packing: bool) -> None:
    one = recipe(loss={"scope": scope, "weights": {"copied": 0.1, "marks": 0.5}}, adapter={"type": "none"},
                 trainer={"batch_size": size, "packing": packing, "samples": 0},
                 preprocessing={"global_max_sequence_length": 1024})  # fmt: skip
    made = laid(one, rows[:12], rows[12:20])
    trainer = trainer_of(one, made, tmp_path)
    mean = sum(sum(sequence.weights[1:]) for pack in made.train for sequence in pack) / len(made.train)
    for at in range(0, len(made.train), size):
        packs = made.train[at : at + size]
        batch = trainer.data_collator(list(columns(packs)))
        trainer.model.train()
        loss = float(trainer.compute_loss(trainer.model, batch).detach())
        wanted = sum(losses_by_hand(trainer.model, [one for pack in packs for one in pack])) / (mean * len(packs))
        assert loss == pytest.approx(wanted, rel=1e-4)
    assert mean_weight(made.train) == pytest.approx(mean)
    whole = sum(losses_by_hand(trainer.model.eval(), [one for pack in made.dev for one in pack]))
    if size == 1:
        assert trainer.evaluate()["eval_loss"] == pytest.approx(whole / len(made.dev) / mean_weight(made.dev), rel=1e-4)


def weights_after(recipe: ReaderRecipe, made: Laid, folder: Path) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    trainer = trainer_of(recipe, made, folder)
    trainer.train()
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters() if value.requires_grad}


def test_accumulated_batches_are_one_large_batch(recipe: Make, rows: list[RaftRow], tmp_path: Path) -> None:
    shared = {"early_stopping": None, "samples": 0}
    both = [
        recipe(adapter={"type": "none"}, trainer={**shared, "batch_size": size, "gradient_accumulation_steps": 4 // size})
        for size in (1, 2, 4)
    ]
    made = laid(both[0], rows[:16])
    one, two, four = (weights_after(recipe, made, tmp_path / str(at)) for at, recipe in enumerate(both))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=2e-4, rtol=1e-3)
        torch.testing.assert_close(four[name], value, atol=2e-4, rtol=1e-3)


def test_order_is_the_one_that_was_laid_out(recipe: Make, rows: list[RaftRow], tmp_path: Path) -> None:
    one = recipe(trainer={"batch_size": 2, "early_stopping": None})
    made = laid(one, rows[:9])
    trainer = trainer_of(one, made, tmp_path)
    seen = [tuple(row[:5].tolist()) for batch in trainer.get_train_dataloader() for row in batch["input_ids"]]
    assert seen == [pack[0].tokens[:5] for pack in made.train]
    assert len(trainer.get_train_dataloader()) == 5
    assert steps_of(one, made) == 3


def test_a_batch_in_which_nothing_counts(recipe: Make, rows: list[RaftRow], tmp_path: Path) -> None:
    one = recipe(adapter={"type": "none"})
    made = laid(one, rows[:2])
    trainer = trainer_of(one, made, tmp_path)
    silent = [(replace(pack[0], weights=(0.0,) * len(pack[0].tokens)),) for pack in made.train]
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(list(columns(silent))))
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(torch.isfinite(value.grad).all() for value in trainer.model.parameters() if value.grad is not None)


@pytest.mark.parametrize(
    "adapter",
    [
        {"target_modules": ["no_such_layer"]},
        {"type": "adaption_prompt", "layers": 9},
        {"type": "adalora", "target_modules": ["x"]},
    ],
    ids=str,
)
def test_an_adapter_that_does_not_fit(recipe: Make, rows: list[RaftRow], tmp_path: Path, adapter: dict[str, Any]) -> None:
    one = recipe(adapter=adapter)
    with pytest.raises(SettingsError, match="adapter cannot be put onto"):
        trainer_of(one, laid(one, rows[:2]), tmp_path)


def test_longer_than_the_model_sees(recipe: Make) -> None:
    with pytest.raises(SettingsError, match="sees 4096 tokens"):
        load_learner(recipe(preprocessing={"global_max_sequence_length": 5000}))


@pytest.mark.parametrize(
    "more",
    [
        {"adapter": {"type": "lora"}, "quantization": {"bits": 4}},
        {"adapter": {"type": "lora"}, "trainer": {"precision": "bf16"}},
        {"adapter": {"type": "adaption_prompt"}, "trainer": {"precision": "bf16"}},
        {"adapter": {"type": "none"}, "trainer": {"precision": "bf16"}},
    ],
    ids=str,
)
def test_what_learns_is_held_in_float32(recipe: Make, rows: list[RaftRow], tmp_path: Path, more: dict[str, Any]) -> None:
    one = recipe(**more)
    trainer = trainer_of(one, laid(one, rows[:2]), tmp_path)
    learning = [value for value in trainer.model.parameters() if value.requires_grad]
    assert learning
    assert {value.dtype for value in learning} == {torch.float32}


@pytest.mark.parametrize("bits", [None, 4])
def test_gradient_checkpointing_learns_the_same(recipe: Make, rows: list[RaftRow], tmp_path: Path, bits: int | None) -> None:
    shared = {"early_stopping": None, "samples": 0, "max_steps": 2}
    made = laid(recipe(), rows[:4])
    plain, computed = (
        weights_after(
            recipe(trainer={**shared, "gradient_checkpointing": again}, quantization={"bits": bits}),
            made,
            tmp_path / str(again),
        )
        for again in (False, True)
    )
    assert any(value.abs().max() > 0 for name, value in plain.items() if "lora_B" in name)
    for name, value in plain.items():
        torch.testing.assert_close(computed[name], value, atol=1e-5, rtol=1e-4)
