"""TRL's trainer with what a reader needs: weighted tokens, packs, adapters that move ranks, samples. Knows no data files."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.measures import f1
from finetune.raft.row import RaftRow, hits_of, target
from finetune.recipe_reader import ReaderRecipe
from finetune.sft.examples import Laid, Tokens
from finetune.sft.model import Learner, adapter_config, load_learner
from finetune.training import Watch, arguments
from reader.engine.base import never
from reader.prompt import render
from reader.quotes import parse
from retriever.encode import cores

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl.trainer.sft_trainer import SFTTrainer

__all__ = ["build_reader_trainer", "collate", "steps_of"]

_METRIC = "eval_loss"
_SAMPLE_TOKENS = 160


def steps_of(recipe: ReaderRecipe, laid: Laid) -> int:
    """Return how many steps a training takes at most."""
    trainer = recipe.trainer
    batches = -(-len(laid.train) // trainer.batch_size)
    return trainer.max_steps or -(-batches // trainer.gradient_accumulation_steps)


def build_reader_trainer(recipe: ReaderRecipe, laid: Laid, learner: Learner, folder: Path, watch: Watch) -> SFTTrainer:
    """Return TRL's trainer with everything a recipe says.

    The loss is the cross-entropy of the tokens that count, times their weights, over the mean weight of a sequence; logits are
    made of those tokens only.
    """
    import torch
    from torch.nn.functional import cross_entropy
    from torch.utils.data import SequentialSampler
    from transformers import EarlyStoppingCallback, PrinterCallback
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    wanted = recipe.trainer
    dev = bool(laid.dev)
    given = arguments(recipe, folder, dev=dev, metric=_METRIC, greater=False)
    given |= {
        # All epochs are laid out one after the other.
        "num_train_epochs": 1,
        "gradient_accumulation_steps": wanted.gradient_accumulation_steps,
        "lr_scheduler_type": "cosine",
        "max_grad_norm": wanted.max_grad_norm,
        "optim": "paged_adamw_8bit" if wanted.optimizer == "paged_adamw_8bit" else "adamw_torch_fused",
        "gradient_checkpointing": wanted.gradient_checkpointing,
        "remove_unused_columns": False,
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "max_length": None,
        "save_only_model": False,
    }
    torch.set_num_threads(cores())
    model = load_learner(recipe)
    with warnings.catch_warnings():
        # TRL 1.16 calls it by a name that transformers 5.23 has replaced.
        warnings.filterwarnings("ignore", "`gradient_checkpointing`", FutureWarning)
        config = SFTConfig(**given)
    train, chosen_by = _columns(laid.train), _columns(laid.dev)
    mean = {True: _mean_weight(laid.train), False: _mean_weight(laid.dev)}

    class Trainer(SFTTrainer):
        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            return SequentialSampler(train)

        def compute_loss(
            self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            del num_items_in_batch  # weights are not counts
            weights = inputs.pop("weights")[:, 1:]
            rows = int(inputs.pop("rows"))
            counted = weights > 0
            core = model.get_base_model() if hasattr(model, "get_base_model") else model
            with self.accelerator.autocast():
                hidden = core.model(**inputs, use_cache=False).last_hidden_state
                logits = core.lm_head(hidden[:, :-1][counted])  # (tokens that count, vocabulary)
            losses = cross_entropy(logits.float(), inputs["input_ids"][:, 1:][counted], reduction="none")
            loss = (losses * weights[counted]).sum() / (mean[model.training] * rows)
            if model.training and recipe.adapter.type == "adalora":
                loss = loss + _orthogonality(model)
            return (loss, {"logits": None}) if return_outputs else loss

    if wanted.early_stopping and dev:
        callbacks: list[TrainerCallback] = [EarlyStoppingCallback(wanted.early_stopping)]
    else:
        callbacks = []
    trainer = Trainer(
        model=model,
        args=config,
        train_dataset=train,
        eval_dataset=chosen_by if dev else None,
        processing_class=learner.tokenizer,
        data_collator=collate(packed=wanted.packing, pad=learner.tokenizer.pad_token_id or 0),
        peft_config=adapter_config(recipe, steps=steps_of(recipe, laid)),
        callbacks=callbacks,
    )
    # The loss does not divide by what a step holds in all, so the trainer shall.
    trainer.model_accepts_loss_kwargs = False
    trainer.remove_callback(PrinterCallback)  # it writes to stdout, where results go
    if recipe.adapter.type == "adalora":
        trainer.add_callback(_allocating())
    if laid.shown:
        # Before all others, which look at what it measures.
        sampling = _sampling(laid.shown, learner, folder / "samples.jsonl", watch, recipe)
        trainer.callback_handler.callbacks.insert(0, sampling)
    return trainer


def collate(*, packed: bool, pad: int) -> Callable[[Sequence[dict[str, list[Any]]]], dict[str, Any]]:
    """Return what makes tensors of packs.

    Packed, they become one row in which positions start anew with each sequence: from that transformers tells them apart, so
    that they do not see each other. Else each is padded to the longest.
    """
    import torch

    def make(packs: Sequence[dict[str, list[Any]]]) -> dict[str, Any]:
        tokens, weights = [pack["tokens"] for pack in packs], [pack["weights"] for pack in packs]
        if packed:
            positions = [at for pack in packs for length in pack["lengths"] for at in range(length)]
            return {
                "input_ids": torch.tensor([list(chain.from_iterable(tokens))]),
                "position_ids": torch.tensor([positions]),
                "weights": torch.tensor([list(chain.from_iterable(weights))]),
                "rows": len(packs),
            }
        longest = max(map(len, tokens))
        lacking = [longest - len(one) for one in tokens]
        return {
            "input_ids": torch.tensor([[*one, *[pad] * more] for one, more in zip(tokens, lacking, strict=True)]),
            "attention_mask": torch.tensor([[1] * (longest - more) + [0] * more for more in lacking]),
            "weights": torch.tensor([[*one, *[0.0] * more] for one, more in zip(weights, lacking, strict=True)]),
            "rows": len(packs),
        }

    return make


def _columns(packs: Sequence[Sequence[Tokens]]) -> Dataset:
    """Return packs as a data set: their tokens, the weights of these, and how many belong to each sequence."""
    from datasets import Dataset

    return Dataset.from_dict(
        {
            "tokens": [[token for one in pack for token in one.tokens] for pack in packs],
            # The first token of a sequence is nothing that the one before it could know.
            "weights": [[weight if at else 0.0 for one in pack for at, weight in enumerate(one.weights)] for pack in packs],
            "lengths": [[len(one.tokens) for one in pack] for pack in packs],
        }
    )


def _mean_weight(packs: Sequence[Sequence[Tokens]]) -> float:
    return sum(sum(one.weights[1:]) for pack in packs for one in pack) / max(1, len(packs)) or 1.0


def _orthogonality(model: Any) -> Any:
    """Return AdaLoRA's penalty, which peft adds only to losses that it has computed itself: P and Q shall be orthogonal."""
    import torch

    weight = model.peft_config["default"].orth_reg_weight
    terms = []
    for name, matrix in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            product = matrix @ matrix.T if "lora_A" in name else matrix.T @ matrix
            terms.append(torch.norm(product - torch.eye(len(product), device=product.device), p="fro"))
    return weight * sum(terms) / max(1, len(terms))


def _allocating() -> TrainerCallback:
    """Return what has AdaLoRA move its ranks: no trainer calls that by itself."""
    from transformers import TrainerCallback

    class Allocating(TrainerCallback):
        # After the step, while its gradients are still there: by them it sees what matters.
        def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            del args, control
            model.base_model.update_and_allocate(state.global_step)

    return Allocating()


def _sampling(rows: Sequence[RaftRow], learner: Learner, path: Path, watch: Watch, recipe: ReaderRecipe) -> TrainerCallback:
    """Return what has development rows answered at each evaluation, freely, and keeps what was written."""
    from transformers import TrainerCallback

    class Sampling(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, model: Any = None, metrics: Any = None, **_: Any) -> None:
            del args, control
            found = _answered(rows, learner, model, recipe)
            score = sum(float(one["f1"]) for one in found) / len(found)
            # The trainer has put down what it measured, and everybody looks there.
            metrics["eval_samples_f1"] = score
            state.log_history[-1]["eval_samples_f1"] = score
            with path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps({"step": state.global_step, **one}, ensure_ascii=False) + "\n" for one in found)
            first = found[(state.global_step // max(1, state.eval_steps or 1)) % len(found)]
            watch.on_note(f"{first['question']} → {' '.join(str(first['wrote']).split())}")

    return Sampling()


def _answered(rows: Sequence[RaftRow], learner: Learner, model: Any, recipe: ReaderRecipe) -> list[dict[str, Any]]:
    import torch

    from finetune.training import precision

    was_training, model_cache = model.training, model.config.use_cache
    model.eval()
    model.config.use_cache = True
    learner.weights = model
    numbers = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision(recipe))
    found = []
    try:
        for row in rows:
            prompt = render(learner, row.question, hits_of(row), answer_tokens=1, shots=recipe.prompt.shots).prompt
            with torch.autocast(model.device.type, dtype=numbers or torch.bfloat16, enabled=numbers is not None):
                wrote = "".join(learner.generate(prompt, grammar=None, max_tokens=_SAMPLE_TOKENS, cancelled=never))
            parsed = parse(wrote)
            right = parsed.abstained if row.abstains else not parsed.abstained
            score = float(right) if row.abstains or not right else f1(parsed.answer or "", [row.answer])
            found.append({"id": row.id, "question": row.question, "wanted": target(row), "wrote": wrote, "f1": score})
    finally:
        learner.weights = None
        model.config.use_cache = model_cache
        model.train(was_training)
    return found
