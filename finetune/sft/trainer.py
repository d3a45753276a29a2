"""TRL's trainer with what a reader needs: weighted tokens, packs, adapters that move ranks. Knows no data files."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.recipe_reader import ReaderRecipe
from finetune.sft import adalora
from finetune.sft.batches import collate, columns, mean_weight
from finetune.sft.examples import Laid
from finetune.sft.model import Learner, adapter_config, load_learner
from finetune.sft.sampling import sampling
from finetune.training import Watch, arguments
from reader.engine.weights import first_line, quietly
from retriever.encode import cores
from retriever.errors import SettingsError

if TYPE_CHECKING:
    from transformers import TrainerCallback
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

__all__ = ["build_reader_trainer", "steps_of"]

_METRIC = "eval_loss"


def steps_of(recipe: ReaderRecipe, laid: Laid) -> int:
    """Return how many steps a training takes at most."""
    trainer = recipe.trainer
    batches = -(-len(laid.train) // trainer.batch_size)
    return trainer.max_steps or -(-batches // trainer.gradient_accumulation_steps)


def build_reader_trainer(recipe: ReaderRecipe, laid: Laid, learner: Learner, folder: Path, watch: Watch) -> SFTTrainer:
    """Return TRL's trainer with everything a recipe says.

    The loss is the cross-entropy of the tokens that count, times their weights, over the mean weight of a sequence; logits are
    made of those tokens only.

    Raises:
        ModelError: the base cannot be loaded.
        SettingsError: the adapter cannot be put onto it.
    """
    import torch
    from transformers import EarlyStoppingCallback, PrinterCallback

    with quietly():  # bitsandbytes, which peft imports, misses optional kernels aloud
        trainer_class = _trainer_class(recipe, laid)
    dev = bool(laid.dev)
    torch.set_num_threads(cores())
    model = load_learner(recipe)
    stopping: list[TrainerCallback] = []
    if dev and recipe.trainer.early_stopping:
        stopping.append(EarlyStoppingCallback(recipe.trainer.early_stopping))
    try:
        with _unwarned():
            trainer: SFTTrainer = trainer_class(
                model=model,
                args=_arguments(recipe, folder, dev=dev),
                train_dataset=columns(laid.train),
                eval_dataset=columns(laid.dev) if dev else None,
                processing_class=learner.tokenizer,
                data_collator=collate(packed=recipe.trainer.packing, pad=learner.tokenizer.pad_token_id or 0),
                peft_config=adapter_config(recipe, steps=steps_of(recipe, laid)),
                callbacks=stopping,
            )
    except ValueError as error:  # peft's, of layers that are not there
        raise SettingsError(
            f"The adapter cannot be put onto {recipe.base_model}: {first_line(error)}",
            way_out="Change adapter.target_modules or adapter.layers.",
        ) from error
    # TRL rounds what is trained over a quantized base to bfloat16, in which small steps are lost, and fp16 cannot scale it.
    for weights in trainer.model.parameters():  # type: ignore[union-attr]
        if weights.requires_grad:
            weights.data = weights.data.float()
    # The loss does not divide by what a step holds in all, so the trainer shall.
    trainer.model_accepts_loss_kwargs = False
    trainer.remove_callback(PrinterCallback)  # it writes to stdout, where results go
    if recipe.adapter.type == "adalora":
        trainer.add_callback(adalora.allocating())
    if laid.shown:
        # Before all others, which look at what it measures.
        shown = sampling(laid.shown, learner, folder / "samples.jsonl", watch, recipe)
        trainer.callback_handler.callbacks.insert(0, shown)
    return trainer


def _arguments(recipe: ReaderRecipe, folder: Path, *, dev: bool) -> SFTConfig:
    from trl.trainer.sft_config import SFTConfig

    wanted = recipe.trainer
    made = SFTConfig(
        **{
            **arguments(recipe, folder, dev=dev, metric=_METRIC, greater=False),
            "num_train_epochs": 1,  # all epochs are laid out one after the other
            "gradient_accumulation_steps": wanted.gradient_accumulation_steps,
            "lr_scheduler_type": "cosine",
            "max_grad_norm": wanted.max_grad_norm,
            "optim": "paged_adamw_8bit" if wanted.optimizer == "paged_adamw_8bit" else "adamw_torch_fused",
            "gradient_checkpointing": wanted.gradient_checkpointing,
            "remove_unused_columns": False,
            "dataset_kwargs": {"skip_prepare_dataset": True},
            "max_length": None,
        }
    )
    # The loss calls the model's own parts, which DataParallel hides: one GPU is used, however many there are.
    made._n_gpu = min(made.n_gpu, 1)
    return made


@contextmanager
def _unwarned() -> Iterator[None]:
    """Silence what libraries say of each other, and nobody can do anything about."""
    with warnings.catch_warnings():
        # TRL 1.16 and peft 0.21 ask transformers 5 by old names.
        warnings.filterwarnings("ignore", "`(is_)?gradient_checkpointing`", FutureWarning)
        # A base that is a GGUF has no config file, and no vocabulary is changed here.
        warnings.filterwarnings("ignore", "Could not find a config file", UserWarning)
        yield


def _trainer_class(recipe: ReaderRecipe, laid: Laid) -> type[SFTTrainer]:
    from torch.nn.functional import cross_entropy
    from torch.utils.data import SequentialSampler
    from trl.trainer.sft_trainer import SFTTrainer

    mean = {True: mean_weight(laid.train), False: mean_weight(laid.dev)}
    moves = recipe.adapter.type == "adalora"

    class Trainer(SFTTrainer):
        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            return SequentialSampler(laid.train)

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
            if model.training and moves:
                loss = loss + adalora.orthogonality(model)
            return (loss, {}) if return_outputs else loss

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            with _unwarned(), self._ranks():
                super()._save(output_dir, state_dict)
            if moves:
                adalora.keep_allocator(self.model, Path(output_dir or self.args.output_dir or ""))

        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            with _unwarned(), self._ranks():
                super()._load_from_checkpoint(resume_from_checkpoint, model)
            if moves:
                adalora.restore_allocator(self.model, Path(resume_from_checkpoint))

        def _load_best_model(self) -> None:
            with _unwarned(), self._ranks():
                super()._load_best_model()

        def _ranks(self) -> Any:
            return adalora.unpruned(self.model) if moves else nullcontext()

    return Trainer
