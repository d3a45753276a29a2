"""From a recipe to a reader's candidate: read, split, render, train, measure on test rows, write it down.

A training that was stopped or killed goes on where it was when the same recipe is trained on the same data again. Knows nothing
about GGUF: `beleg export` makes it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from finetune.candidate import Base, Candidate, Data, Manifest, read_manifest, write_manifest
from finetune.claim import check_name, claimed, write_whole
from finetune.provenance import commit, machine, sources
from finetune.raft.row import write_raft
from finetune.recipe_reader import ReaderData, ReaderRecipe
from finetune.sft.adalora import unpruned
from finetune.sft.examples import Laid, lay_out
from finetune.sft.measuring import Measured, Measuring, usage_of
from finetune.sft.model import Learner, tokenizer_of
from finetune.sft.parts import ReaderParts, parts_hash, read_reader_parts
from finetune.sft.samples import write_samples
from finetune.sft.trainer import build_reader_trainer
from finetune.training import Point, Watch, curve, fit, keep
from reader.calibration import write_calibration
from reader.engine.weights import open_base
from reader.prompt import fingerprint
from retriever.models import folder_fingerprint

__all__ = ["ReaderTraining"]


@dataclass
class ReaderTraining:
    """One training of a reader.

    Args:
        candidates: the folder that holds all candidates.
        name: of the candidate; None makes one of the task and a hash of recipe and data.
        measuring: finds out how the model is best used, and what it brought; None does not.

    Attributes:
        left_out: what could not be read, each with the reason.
    """

    recipe: ReaderRecipe
    candidates: Path
    name: str | None = None
    watch: Watch = field(default_factory=Watch)
    measuring: Measuring | None = None
    left_out: list[str] = field(default_factory=list, init=False)

    def run(self) -> Candidate:
        """Train, and return the candidate; one that is there already by the same recipe and data is returned as it is.

        Raises:
            BelegError: data cannot be read, examples are too long, or the name belongs to another training.
            KeyboardInterrupt: somebody asked for an end; the next run goes on.
        """
        check_name(self.name)
        base = open_base(self.recipe.base_model)  # what cannot be opened is said before anything is made
        self.watch.on_phase("read", None)
        parts = read_reader_parts(self.recipe)
        self._tell(parts)
        digest = parts_hash(parts)
        # The rows count, not by what names they were found.
        named = self.recipe.data.model_copy(update={"train": (), "dev": (), "test": ()})
        recipe = self.recipe.model_copy(update={"data": named})
        # A newer Beleg may ask in other words: what was begun with the old ones is another training.
        learner = tokenizer_of(recipe)
        asked = fingerprint(learner, shots=usage_of(recipe).shots)
        together = hashlib.sha256(f"{recipe.digest()} {digest} {base.fingerprint} {asked}".encode()).hexdigest()[:8]
        folder = self.candidates / (self.name or f"reader-{together}")
        with claimed(folder, together) as open_:
            if not open_:
                self.watch.on_note(f"{folder.name} was trained before, by the same recipe on the same rows")
                return Candidate(folder, read_manifest(folder))
            return self._train(folder, parts, learner, digest)

    def _tell(self, parts: ReaderParts) -> None:
        self.left_out += parts.problems
        pieces = parts.paragraphs
        counts = {
            "training": len(parts.train) + len(pieces.train),
            "development": len(parts.dev) + len(pieces.dev),
            "test": len(parts.test) + len(pieces.test),
        }
        what = "documents" if pieces.train else "rows"
        lost = f"; {len(parts.problems)} could not be read" if parts.problems else ""
        self.watch.on_note(f"{what}: {', '.join(f'{count} {name}' for name, count in counts.items())}{lost}")
        flagged = sum(bool(row.problems) for row in parts.train)
        if flagged:
            self.watch.on_note(f"{flagged} training rows are flagged by `beleg raft check`, and are trained on all the same")
        if not counts["development"]:
            self.watch.on_note("no development rows: the last step's model is kept")
        if not parts.test:
            self.watch.on_note("no test rows: the gate will not let this candidate pass by itself")

    def _train(self, folder: Path, parts: ReaderParts, learner: Learner, digest: str) -> Candidate:
        begun = time.monotonic()
        recipe, watch = self.recipe, self.watch
        # Without the paths that they came from: a candidate may be passed on.
        write_raft(folder / "test.jsonl", [replace(row, origin="") for row in parts.test])
        if not (folder / "model").exists():
            laid = lay_out(recipe, parts, learner, watch)
            self._tell_laid(laid)
            self._learn(folder, laid, learner)
            _free_memory()
        found = Measured(usage_of(recipe, parts.train), {})
        if self.measuring:
            found = self.measuring.run(recipe, found.usage, folder / "model", parts.dev, parts.test, watch)
        write_calibration(folder / "model", found.usage)
        manifest = Manifest(
            kind="reader",
            name=folder.name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            base=Base(reference=recipe.base_model, fingerprint=open_base(recipe.base_model).fingerprint),
            fingerprint=folder_fingerprint(folder / "model"),
            data=Data(
                sources=sources(parts.origins),
                hash=digest,
                split={"shares": parts.report.get("shares"), "seed": parts.report.get("seed")},
                train=len(parts.train) + len(parts.paragraphs.train),
                dev=len(parts.dev) + len(parts.paragraphs.dev),
                test=len(parts.test) + len(parts.paragraphs.test),
            ),
            recipe=recipe.model_copy(update={"data": _only_names(recipe.data)}).model_dump(mode="json"),
            metrics=found.metrics,
            prompt=fingerprint(learner, shots=found.usage.shots),
            commit=commit(),
            version=version("beleg"),
            seconds=round(time.monotonic() - begun, 1),
            machine=machine(),
        )
        write_manifest(folder, manifest)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        return Candidate(folder, manifest)

    def _tell_laid(self, laid: Laid) -> None:
        self.watch.on_note(f"{laid.tokens} tokens to train on")
        if laid.fewer:
            self.watch.on_note(f"{laid.fewer} distractors are not shown, as their examples would be too long")
        if laid.dropped:
            self.watch.on_note(f"{laid.dropped} examples are left out, as they are too long")

    def _learn(self, folder: Path, laid: Laid, learner: Learner) -> None:
        points: list[Point] = []
        recipe = self.recipe

        def finish(trainer: Any) -> None:
            keep(lambda to: _save(recipe, trainer.model, learner, to), folder / "model")

        try:
            fit(
                lambda: build_reader_trainer(recipe, laid, learner, folder, self.watch),
                folder,
                self.watch,
                points,
                finish=finish,
                measure="F1 of samples",
            )
        finally:
            if points:
                curve(points, folder / "curve.svg", title=folder.name, measure="F1 of samples")
                write_whole(folder / "curve.json", json.dumps([asdict(point) for point in points]) + "\n")
            write_samples(folder / "samples.jsonl", folder.name)


def _only_names(data: ReaderData) -> ReaderData:
    """Return where data came from without the folders; hashes tell what it was."""
    return data.model_copy(
        update={part: tuple(Path(name).name for name in getattr(data, part)) for part in ("train", "dev", "test")}
    )


def _free_memory() -> None:
    """Let go of what training held: the next model may not fit beside it."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _save(recipe: ReaderRecipe, model: Any, learner: Learner, to: Path) -> None:
    """Write an adapter, or a whole model with the tokenizer that it was trained with."""
    if recipe.adapter.type == "none":
        learner.tokenizer.save_pretrained(str(to))
        model.save_pretrained(str(to))
        return
    # By the reference that it was found by, not by where that lies on this machine. Its vocabulary is not changed here.
    model.peft_config["default"].base_model_name_or_path = recipe.base_model
    with unpruned(model) if recipe.adapter.type == "adalora" else nullcontext():
        model.save_pretrained(str(to), save_embedding_layers=False)
    (to / "README.md").unlink()  # an empty card that names that place
