"""What both trainings share: arguments of the trainer, checkpoints to go on from, progress, the learning curve."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from finetune.recipe import Recipe

if TYPE_CHECKING:
    from transformers import TrainerCallback

__all__ = ["Point", "Stopping", "Watch", "arguments", "curve", "drawn", "last_checkpoint", "precision", "stopping", "watching"]


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Point:
    """An entry of a training log; what was not measured at that step is None."""

    step: int
    loss: float | None = None
    dev_loss: float | None = None
    ndcg: float | None = None


@dataclass(frozen=True)
class Watch:
    """Whoever watches a training.

    Args:
        on_phase: told of each phase as it begins, with the number of things to do if that is known.
        on_progress: told how many more are done.
        on_note: told something in words.
    """

    on_phase: Callable[[str, int | None], None] = lambda *_: None
    on_progress: Callable[[int], None] = lambda _: None
    on_note: Callable[[str], None] = lambda _: None


def precision(recipe: Recipe) -> Literal["fp32", "bf16", "fp16"]:
    """Return the numbers to train in: on a GPU without bf16, such as a T4, `auto` is fp16."""
    import torch

    from retriever.encode import best_precision

    if recipe.trainer.precision != "auto":
        return recipe.trainer.precision
    if best_precision() == "bf16":
        return "bf16"
    return "fp16" if torch.cuda.is_available() else "fp32"


def arguments(recipe: Recipe, folder: Path, *, dev: bool, metric: str) -> dict[str, Any]:
    """Return the trainer's arguments, the same ones for encoder and cross-encoder.

    Args:
        folder: checkpoints go to `checkpoints` in it, TensorBoard logs to `logs`.
        dev: whether there are development rows.
        metric: by which the best checkpoint is chosen.
    """
    import torch

    trainer = recipe.trainer
    numbers = precision(recipe)
    evaluated = {
        "eval_strategy": "steps",
        "eval_steps": trainer.eval_steps,
        "load_best_model_at_end": True,
        "metric_for_best_model": metric,
        "greater_is_better": True,
    }
    return {
        "output_dir": str(folder / "checkpoints"),
        "num_train_epochs": trainer.epochs,
        "max_steps": trainer.max_steps or -1,
        "per_device_train_batch_size": trainer.batch_size,
        "per_device_eval_batch_size": trainer.batch_size,
        "learning_rate": trainer.learning_rate,
        "warmup_steps": trainer.warmup_steps,
        "weight_decay": trainer.weight_decay,
        "seed": trainer.seed,
        "data_seed": trainer.seed,
        "bf16": numbers == "bf16",
        "fp16": numbers == "fp16",
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        "logging_steps": trainer.logging_steps,
        "save_strategy": "steps",
        "save_steps": trainer.eval_steps,
        "save_total_limit": 2,
        "report_to": ["tensorboard"],
        "disable_tqdm": True,
        **(evaluated if dev else {}),
    }


def drawn(recipe: Recipe, examples: Sequence[_T]) -> list[_T]:
    """Return the development examples that are looked at while training, always the same ones."""
    return random.Random(0).sample(list(examples), min(len(examples), recipe.trainer.eval_rows))


class Stopping:
    """Whether somebody asked for an end: the step that runs is finished and saved first."""

    asked = False

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        del number, frame
        self.asked = True


@contextmanager
def stopping() -> Iterator[Stopping]:
    """Catch Ctrl-C and a polite kill while training."""
    asked = Stopping()
    before = {number: signal.signal(number, asked.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def watching(watch: Watch, asked: Stopping, points: list[Point], log: Path) -> TrainerCallback:
    """Return a callback that tells of steps, keeps the points of the curve in a file, and stops when asked to."""
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

    class Told(TrainerCallback):
        seen = 0

        def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
            del args, control
            watch.on_phase("train", state.max_steps)
            watch.on_progress(state.global_step)
            self.seen = state.global_step
            points[:] = _points(state.log_history)

        def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
            del args
            watch.on_progress(state.global_step - self.seen)
            self.seen = state.global_step
            if asked.asked:
                control.should_save = control.should_training_stop = True

        def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
            del args, control
            points[:] = _points(state.log_history)
            log.write_text(json.dumps(state.log_history, indent=1), encoding="utf-8")

        def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
            del args, control
            points[:] = _points(state.log_history)
            last = points[-1] if points else None
            if last and last.ndcg is not None:
                loss = "" if last.dev_loss is None else f", loss {last.dev_loss:.3f}"
                watch.on_note(f"step {last.step}: development nDCG@10 {last.ndcg:.3f}{loss}")

    return Told()


def _points(history: Sequence[dict[str, Any]]) -> list[Point]:
    found: dict[int, dict[str, float]] = {}
    for entry in history:
        point = found.setdefault(int(entry["step"]), {})
        for key, value in entry.items():
            if key == "loss":
                point["loss"] = float(value)
            elif key == "eval_loss":
                point["dev_loss"] = float(value)
            elif key.startswith("eval_") and key.endswith("ndcg@10"):
                point["ndcg"] = float(value)
    return [Point(step, **values) for step, values in sorted(found.items()) if values]


def last_checkpoint(folder: Path) -> str | None:
    """Return the last checkpoint that is whole; a killed run may have left half of one."""
    found = [path for path in (folder / "checkpoints").glob("checkpoint-*") if (path / "trainer_state.json").exists()]
    whole = []
    for path in found:
        try:
            json.loads((path / "trainer_state.json").read_text())
        except (OSError, ValueError):
            continue
        whole.append(path)
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None


def curve(points: Sequence[Point], path: Path, *, title: str) -> None:
    """Draw training and development loss, and below them the development nDCG@10, as an SVG.

    A development loss that rises while the training loss falls is overfitting.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    FigureCanvasSVG(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    lines = (
        (above, "loss", "training", "#0072B2"),
        (above, "dev_loss", "development", "#D55E00"),
        (below, "ndcg", "development", "#D55E00"),
    )
    for axes, name, label, color in lines:
        drawn = [(point.step, value) for point in points if (value := getattr(point, name)) is not None]
        if drawn:
            steps, values = zip(*drawn, strict=True)
            axes.plot(steps, values, color=color, marker="o", markersize=3, label=label)
            axes.annotate(f" {label} {values[-1]:.3f}", (steps[-1], values[-1]), color=color, fontsize=9)
    above.set_title(title, loc="left", fontsize=10)
    above.set_ylabel("loss")
    below.set_ylabel("nDCG@10")
    below.set_xlabel("step")
    for axes in (above, below):
        axes.margins(x=0.12)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    figure.savefig(path, format="svg")
