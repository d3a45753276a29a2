"""Training of an encoder by Beleg against a plain sentence-transformers script: same model, texts, loss, batches; in one run.

Both take turns, and only `trainer.train()` is timed: Beleg's with its progress, its log and TensorBoard, neither with an
evaluation, both with one checkpoint at the end. Both draw the same batches, by Beleg's sampler; equal losses show that both did
the same work.

    python benchmarks/training.py examples/training/squad.json [--rows 320 --steps 30 --repeats 3 --variant both]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from record import DEFAULT_OUT, cores, record

from finetune.prepare import Prepared, prepare, read_parts
from finetune.recipe import Recipe
from finetune.recipe_files import read_recipe
from finetune.train_retriever import build_trainer, columns
from finetune.training import Watch, board, precision, shorten, stopping, watching
from finetune.workspace import Workspace
from retriever.chunk import ChunkSize
from retriever.encode import open_encoder
from retriever.models import locate

VARIANTS = {"both": ["negatives.easy=1", "negatives.hard=1"], "in-batch": ["negatives.easy=0", "negatives.hard=0"]}


def own(recipe: Recipe, prepared: Prepared, folder: Path) -> tuple[Any, float]:
    """Train as `finetune.train_retriever` does; return the trainer and the seconds."""
    with stopping() as asked:
        trainer = build_trainer(recipe, prepared, folder)
        shorten(trainer.model, recipe)
        trainer.add_callback(watching(Watch(), asked, [], folder / "log.json"))
        trainer.add_callback(board(folder))
        begin = time.perf_counter()
        trainer.train(resume_from_checkpoint=None)
        return trainer, time.perf_counter() - begin


def bare(recipe: Recipe, texts: dict[str, list[str]], sampler: Callable[..., Any], folder: Path) -> tuple[Any, float]:
    """Train as anybody would who knows sentence-transformers' documentation; return the trainer and the seconds.

    Args:
        sampler: what makes the batch sampler, as the trainer's `get_batch_sampler`.
    """
    import torch
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    gpu = torch.cuda.is_available()
    # A script of its own has all threads; here something before may have set fewer.
    torch.set_num_threads(cores())
    model = SentenceTransformer(str(locate(recipe.base_model)), device=None if gpu else "cpu")
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        max_steps=recipe.trainer.max_steps or -1,
        per_device_train_batch_size=recipe.trainer.batch_size,
        learning_rate=recipe.trainer.learning_rate,
        warmup_steps=recipe.trainer.warmup_steps,
        weight_decay=recipe.trainer.weight_decay,
        seed=recipe.trainer.seed,
        data_seed=recipe.trainer.seed,
        bf16=precision(recipe) == "bf16",
        fp16=precision(recipe) == "fp16",
        use_cpu=not gpu,
        dataloader_pin_memory=gpu,
        report_to="none",
        disable_tqdm=True,
    )

    class Trainer(SentenceTransformerTrainer):
        def get_batch_sampler(self, *args: Any, **kwargs: Any) -> Any:
            return sampler(*args, **kwargs)

    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict(texts),
        loss=MultipleNegativesRankingLoss(model, scale=recipe.loss.scale),
    )
    begin = time.perf_counter()
    trainer.train()
    return trainer, time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--rows", type=int, default=320)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--variant", choices=list(VARIANTS), default="both")
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="of the recipe, KEY=VALUE")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    options = parser.parse_args()

    def recipe_of(steps: int) -> Recipe:
        # Nothing is held out, so nothing is evaluated; what is left of `eval_steps` is one checkpoint, at the last step.
        fixed = ["data.split=none", "trainer.early_stopping=null", f"trainer.max_steps={steps}", f"trainer.eval_steps={steps}"]
        data = [f"data.train={json.dumps([str(path) for path in options.data])}", f"data.limit={options.rows}"]
        return read_recipe("retriever", [*data, *fixed, *VARIANTS[options.variant], *options.overrides])

    recipe = recipe_of(options.steps)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        parts = read_parts(recipe)
        with Workspace(scratch / "workspace", ChunkSize(recipe.chunk_tokens, recipe.chunk_overlap)) as workspace:
            workspace.add_rows(parts.train)
            prepared = prepare(recipe, parts, workspace, open_encoder(recipe.base_model), Watch())
        texts = columns(recipe, prepared, prepared.train.examples).to_dict()
        sampler = build_trainer(recipe, prepared, scratch / "sampler").get_batch_sampler
        rounds: list[dict[str, float]] = []
        for number in range(options.repeats + 1):
            # The first round is short and not counted: it loads libraries and compiles kernels.
            taken = recipe if number else recipe_of(2)
            numbers: dict[str, float] = {}
            for side in ("own", "bare"):
                folder = scratch / f"{side}-{number}"
                folder.mkdir()
                trainer, seconds = own(taken, prepared, folder) if side == "own" else bare(taken, texts, sampler, folder)
                numbers[f"{side}_s"] = seconds
                numbers[f"{side}_rows_per_s"] = trainer.state.epoch * len(texts["anchor"]) / seconds
                numbers[f"{side}_loss"] = next(
                    entry["train_loss"] for entry in reversed(trainer.state.log_history) if "train_loss" in entry
                )
            rounds.append(numbers)
        counted = rounds[1:]
        ratios = [one["own_rows_per_s"] / one["bare_rows_per_s"] for one in counted]
        line = record(
            "training", data=options.data, seed=recipe.trainer.seed, out=options.out, variant=options.variant,
            rows=len(texts["anchor"]), steps=options.steps, batch_size=recipe.trainer.batch_size, repeats=options.repeats,
            precision=precision(recipe), threads=_threads(),
            **{key: median(one[key] for one in counted) for key in counted[0]},
            ratio=median(ratios), ratio_low=min(ratios), ratio_high=max(ratios),
        )  # fmt: skip
    print(json.dumps(line, ensure_ascii=False))


def _threads() -> int:
    import torch

    return torch.get_num_threads()


if __name__ == "__main__":
    main()
