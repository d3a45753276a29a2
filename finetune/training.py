"""What all trainings share: arguments of the trainer, checkpoints to go on from, progress, the learning curve."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from finetune.recipe import AnyRecipe, Recipe
from retriever.errors import BelegError, SettingsError

if TYPE_CHECKING:
    from transformers import TrainerCallback

__all__ = [
    "Point",
    "Stopping",
    "Watch",
    "arguments",
    "board",
    "curve",
    "drawn",
    "fit",
    "fit_shortened",
    "keep",
    "last_checkpoint",
    "precision",
    "shorten",
    "stopping",
    "watching",
]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Point:
    """An entry of a training log; what was not measured at that step is None.

    Attributes:
        score: of development rows, higher is better: nDCG@10 of a retriever, F1 of a reader's samples.
    """

    step: int
    loss: float | None = None
    dev_loss: float | None = None
    score: float | None = None


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


def precision(recipe: AnyRecipe) -> Literal["fp32", "bf16", "fp16"]:
    """Return the numbers to train in: on a GPU without bf16, such as a T4, `auto` is fp16."""
    import torch

    from retriever.encode import best_precision

    if recipe.trainer.precision != "auto":
        return recipe.trainer.precision
    if best_precision() == "bf16":
        return "bf16"
    return "fp16" if torch.cuda.is_available() else "fp32"


def arguments(recipe: AnyRecipe, folder: Path, *, dev: bool, metric: str, greater: bool = True) -> dict[str, Any]:
    """Return the trainer's arguments that do not depend on what is trained.

    Args:
        folder: checkpoints go to `checkpoints` in it.
        dev: whether there are development rows.
        metric: by which the best checkpoint is chosen.
        greater: whether more of it is better.
    """
    import torch

    trainer = recipe.trainer
    numbers = precision(recipe)
    evaluated = {
        "eval_strategy": "steps",
        "eval_steps": trainer.eval_steps,
        "load_best_model_at_end": True,
        "metric_for_best_model": metric,
        "greater_is_better": greater,
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
        "report_to": [],
        "disable_tqdm": True,
        **(evaluated if dev else {}),
    }


def drawn(recipe: Recipe, examples: Sequence[_T]) -> list[_T]:
    """Return the development examples that are looked at while training, always the same ones."""
    return random.Random(0).sample(list(examples), min(len(examples), recipe.trainer.eval_rows))


class Stopping:
    """Whether somebody asked for an end: the step that runs is finished and saved first, unless they ask again."""

    asked = False

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        del number, frame
        if self.asked:
            raise KeyboardInterrupt
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


def watching(watch: Watch, asked: Stopping, points: list[Point], log: Path, *, measure: str = "nDCG@10") -> TrainerCallback:
    """Return a callback that tells of steps, keeps the points of the curve in a file, and stops when asked to.

    Args:
        measure: name of what development rows are scored by.
    """
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
            # The last step saves by itself, after it has been evaluated.
            if asked.asked and state.global_step < state.max_steps:
                control.should_save = control.should_training_stop = True

        def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
            del args, control
            points[:] = _points(state.log_history)
            log.write_text(json.dumps(state.log_history, indent=1), encoding="utf-8")

        def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
            del args, control
            points[:] = _points(state.log_history)
            last = points[-1] if points else None
            if last and (last.score is not None or last.dev_loss is not None):
                score = "" if last.score is None else f" {measure} {last.score:.3f}"
                loss = "" if last.dev_loss is None else f" loss {last.dev_loss:.3f}"
                watch.on_note(f"step {last.step}: development{score}{',' if score and loss else ''}{loss}")

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
            elif key.startswith("eval_") and key.endswith(("ndcg@10", "_f1")):
                point["score"] = float(value)
    return [Point(step, **values) for step, values in sorted(found.items()) if values]


def last_checkpoint(folder: Path) -> str | None:
    """Return the last checkpoint that is whole; a killed run may have left half of one."""
    found = [path for path in (folder / "checkpoints").glob("checkpoint-*") if path.name.rpartition("-")[2].isdecimal()]
    found.sort(key=lambda path: int(path.name.rpartition("-")[2]))
    return next((str(path) for path in reversed(found) if _whole(path)), None)


def _whole(checkpoint: Path) -> bool:
    """Say whether everything can be read that training goes on with: a machine that lost power leaves empty files."""
    from safetensors import SafetensorError, safe_open

    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        weights = list(checkpoint.rglob("*.safetensors"))
        for file in weights:
            with safe_open(file, framework="numpy"):
                pass
        saved = all(zipfile.is_zipfile(checkpoint / name) for name in ("optimizer.pt", "scheduler.pt"))
    except (OSError, ValueError, SafetensorError):
        return False
    return bool(weights) and saved and isinstance(state, dict)


def shorten(model: Any, recipe: Recipe) -> int | None:
    """Let a model see only as many tokens of a text as the recipe says; return how many it sees by itself.

    Raises:
        SettingsError: that is fewer.
    """
    own: int | None = model.max_seq_length
    wanted = recipe.preprocessing.global_max_sequence_length
    if wanted and own and wanted > own:
        raise SettingsError(
            f"preprocessing.global_max_sequence_length is {wanted}, but {recipe.base_model} sees {own} tokens.",
            way_out=f"Set it to {own} or less, or leave it out.",
        )
    model.max_seq_length = wanted or own
    return own


def keep(save: Callable[[Path], object], folder: Path) -> None:
    """Have a trained model written to a folder, which is there only once it is whole.

    Args:
        save: writes it to the folder that it is given.

    Raises:
        BelegError: the disk refuses.
    """
    from safetensors import SafetensorError

    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        save(partial)
        for file in partial.rglob("*"):
            if file.is_file():
                with file.open("rb") as written:
                    os.fsync(written.fileno())
        partial.rename(folder)
    except (OSError, SafetensorError) as error:
        raise BelegError(f"{folder} cannot be written: {error}.", way_out="Make room, and run this again.") from error


def fit(
    build: Callable[[], Any],
    folder: Path,
    watch: Watch,
    points: list[Point],
    *,
    finish: Callable[[Any], None],
    measure: str = "nDCG@10",
) -> int:
    """Train; a stopped or killed run goes on at its last checkpoint.

    Args:
        build: makes the trainer.
        folder: the candidate's.
        points: filled with the learning curve as training goes.
        finish: keeps the best checkpoint's model, which the trainer holds when it has ended.
        measure: name of what development rows are scored by.

    Returns:
        The number of steps.

    Raises:
        KeyboardInterrupt: somebody asked for an end; what was trained is saved.
    """
    with stopping() as asked:
        trainer = build()
        trainer.add_callback(watching(watch, asked, points, folder / "log.json", measure=measure))
        trainer.add_callback(board(folder))
        checkpoint = last_checkpoint(folder)
        if checkpoint:
            watch.on_note(f"going on at step {checkpoint.rpartition('-')[2]}")
        trainer.train(resume_from_checkpoint=checkpoint)
        if asked.asked:
            raise KeyboardInterrupt
    finish(trainer)
    return int(trainer.state.global_step)


def fit_shortened(build: Callable[[], Any], recipe: Recipe, folder: Path, watch: Watch, points: list[Point]) -> int:
    """Train a model of sentence-transformers on texts as short as the recipe says, and leave it in `model/`; see `fit`."""
    window: int | None = None

    def made() -> Any:
        nonlocal window
        trainer = build()
        window = shorten(trainer.model, recipe)
        return trainer

    def finish(trainer: Any) -> None:
        # What is served sees whole passages, however much of them training has seen.
        trainer.model.max_seq_length = window
        keep(lambda to: trainer.model.save_pretrained(str(to), create_model_card=False), folder / "model")

    return fit(made, folder, watch, points, finish=finish)


def board(folder: Path) -> TrainerCallback:
    """Return what writes the log for TensorBoard."""
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations.integration_utils import TensorBoardCallback

    return TensorBoardCallback(SummaryWriter(str(folder / "logs")))  # type: ignore[no-untyped-call]


def curve(points: Sequence[Point], path: Path, *, title: str, measure: str = "nDCG@10") -> None:
    """Draw training and development loss, and below them what development rows scored, as an SVG.

    A development loss that rises while the training loss falls is overfitting. The best score is marked.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    measured = [point for point in points if point.score is not None]
    figure = Figure(figsize=(7, 5 if measured else 3.4), layout="constrained")
    FigureCanvasSVG(figure)
    rows = (3, 2) if measured else (1,)
    axes = figure.subplots(len(rows), 1, sharex=True, squeeze=False, height_ratios=rows)[:, 0]
    for name, label, color in (("loss", "training", "#0072B2"), ("dev_loss", "development", "#D55E00")):
        line = [(point.step, value) for point in points if (value := getattr(point, name)) is not None]
        if line:
            steps, values = zip(*line, strict=True)
            axes[0].plot(
                steps, values, color=color, marker="o", markersize=3, label=f"{label}, {values[-1]:.3f}", gid=f"line-{label}"
            )
    # A legend finds a place that the lines leave free; labels at their ends lie on each other where they meet.
    axes[0].legend(frameon=False, fontsize=9)
    axes[0].set_title(title, loc="left", fontsize=10, parse_math=False)
    axes[0].set_ylabel("loss")
    if measured:
        best = max(measured, key=lambda point: (point.score or 0.0, -point.step))
        steps, values = zip(*((point.step, point.score) for point in measured), strict=True)
        axes[1].plot(steps, values, color="#D55E00", marker="o", markersize=3, gid="line-score")
        axes[1].plot([best.step], [best.score], "o", markersize=9, markerfacecolor="none", markeredgecolor="#D55E00")
        axes[1].set_title(f"best {best.score:.3f} at step {best.step}", loc="right", fontsize=9, color="#D55E00")
        axes[1].set_ylabel(f"development\n{measure}")
        axes[1].set_ylim(bottom=0, top=1.02)
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(alpha=0.3)
    axes[0].set_ylim(bottom=0)
    axes[-1].set_xlabel("step")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    with rc_context({"svg.fonttype": "none"}), warnings.catch_warnings():
        # The reader's own fonts draw the text, and they know more letters than the one that it is measured with.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure.savefig(path, format="svg", metadata={"Date": None})
