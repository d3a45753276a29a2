"""From a recipe to a retriever's or reranker's candidate: read, split, mine, train, tune, measure, write it down.

The weight is tuned on development rows, and what the training brought is measured on test rows.

A training that was stopped or killed goes on where it was when the same recipe is trained on the same data again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from finetune.candidate import Base, Candidate, Chunks, Data, Manifest, read_manifest, write_manifest
from finetune.claim import check_name, claimed, write_whole
from finetune.data.schema import Row
from finetune.data.write import write_rows
from finetune.evaluate_retriever import Remembering, measure, systems_of, tune_alpha, tune_weight
from finetune.prepare import Parts, Prepared, data_hash, prepare, read_parts
from finetune.provenance import commit, machine, sources
from finetune.recipe import Recipe
from finetune.report import summary, write_report
from finetune.train_reranker import train_reranker
from finetune.train_retriever import train_retriever
from finetune.training import Point, Watch, curve
from finetune.workspace import Workspace
from retriever.chunk import ChunkSize
from retriever.encode import Encoder, open_encoder
from retriever.models import folder_fingerprint, locate
from retriever.rerank import CrossEncoderReranker
from retriever.schema import Document
from retriever.search import Searcher
from retriever.store import Store
from retriever.tuned import TUNED_FILE

__all__ = ["Training", "sample"]

_SHOWN = 10
"""Negatives of each kind that are shown to the person."""


@dataclass
class Training:
    """One training.

    Args:
        candidates: the folder that holds all candidates.
        name: of the candidate; None makes one of the task and a hash of recipe and data.
        served: model reference of the encoder that is served; a reranker's passages are found by it.
        documents: of the live index, read only if the recipe asks for them.

    Attributes:
        left_out: what could not be read, each with the reason.
    """

    recipe: Recipe
    candidates: Path
    name: str | None = None
    served: str = ""
    documents: Callable[[], Iterable[Document]] = field(default=lambda: ())
    watch: Watch = field(default_factory=Watch)
    left_out: list[str] = field(default_factory=list, init=False)

    def run(self) -> Candidate:
        """Train, and return the candidate; one that is there already by the same recipe and data is returned as it is.

        Raises:
            BelegError: data cannot be read, or the name belongs to another training.
            KeyboardInterrupt: somebody asked for an end; the next run goes on.
        """
        check_name(self.name)
        # What cannot be opened is said before anything is made.
        finding = "" if self.recipe.task == "retriever" else self.recipe.encoder or self.served
        models = [locate(name) for name in (self.recipe.base_model, finding, self.recipe.negatives.cross_encoder) if name]
        self.watch.on_phase("read", None)
        parts = read_parts(self.recipe)
        self._tell(parts)
        digest = data_hash(parts)
        # The rows count, not by what names they were found.
        named = self.recipe.data.model_copy(update={"train": (), "dev": (), "test": ()})
        recipe = self.recipe.model_copy(update={"data": named})
        known = [recipe.digest(), digest, *map(folder_fingerprint, models)]
        together = hashlib.sha256(" ".join(known).encode()).hexdigest()[:8]
        folder = self.candidates / (self.name or f"{self.recipe.task}-{together}")
        with claimed(folder, together) as open_:
            if not open_:
                self.watch.on_note(f"{folder.name} was trained before, by the same recipe on the same rows")
                return Candidate(folder, read_manifest(folder))
            return self._train(folder, parts, digest)

    def _tell(self, parts: Parts) -> None:
        rows = ", ".join(
            f"{len(part)} {name}"
            for name, part in (("training", parts.train), ("development", parts.dev), ("test", parts.test))
        )
        fatal = [problem for problem in parts.problems if problem.fatal]
        self.left_out += [f"{problem.origin}, {problem.field}: {problem.message}" for problem in fatal]
        left_out = f"; {len(fatal)} rows left out, see `beleg data check`" if fatal else ""
        self.watch.on_note(f"rows: {rows}{left_out}")
        learnt = {text for row in parts.train for text in row.positives}
        shared = sum(1 for row in (*parts.dev, *parts.test) if learnt.intersection(row.positives))
        if shared:
            self.watch.on_note(
                f"{shared} development or test rows ask about contexts that are trained on: what is measured will flatter"
            )
        if not parts.dev:
            self.watch.on_note("no development rows: the last step's model is kept, and its weight is not tuned")
        if not parts.test:
            self.watch.on_note("no test rows: the gate will not let this candidate pass by itself")

    def _train(self, folder: Path, parts: Parts, digest: str) -> Candidate:
        begun = time.monotonic()
        recipe, watch = self.recipe, self.watch
        write_rows(folder / "test.jsonl", parts.test)
        with Workspace(folder / "workspace", ChunkSize(recipe.chunk_tokens, recipe.chunk_overlap)) as workspace:
            workspace.add_rows([*parts.train, *parts.dev, *parts.test])
            for problem in workspace.add_files([Path(path) for path in recipe.data.documents]):
                watch.on_note(f"left out: {problem}")
                self.left_out.append(str(problem))
            if recipe.data.with_index:
                workspace.add_documents(self.documents())
            finding = recipe.base_model if recipe.task == "retriever" else recipe.encoder or self.served
            encoder = open_encoder(finding)
            if not (folder / "model").exists():
                prepared = prepare(recipe, parts, workspace, encoder, watch)
                _write_negatives(folder, prepared)
                self._learn(folder, prepared)
            watch.on_phase("tune", None)
            measured = self._measure(folder, parts, workspace, encoder)
        model = folder / "model"
        manifest = Manifest(
            kind=recipe.task,
            name=folder.name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            base=Base(reference=recipe.base_model, fingerprint=folder_fingerprint(locate(recipe.base_model))),
            fingerprint=folder_fingerprint(model),
            tokenizer=encoder.tokenizer,
            data=Data(
                sources=sources(row.origin for row in (*parts.train, *parts.dev, *parts.test)),
                hash=digest,
                split={"shares": parts.report.get("shares"), "seed": parts.report.get("seed")},
                train=len(parts.train),
                dev=len(parts.dev),
                test=len(parts.test),
            ),
            recipe=recipe.model_dump(mode="json"),
            metrics=measured.metrics,
            alpha=measured.alpha,
            weight=measured.weight,
            chunk=Chunks(tokens=recipe.chunk_tokens, overlap=recipe.chunk_overlap),
            commit=commit(),
            version=version("beleg"),
            seconds=round(time.monotonic() - begun, 1),
            machine=machine(),
        )
        write_manifest(folder, manifest)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        return Candidate(folder, manifest)

    def _learn(self, folder: Path, prepared: Prepared) -> None:
        points: list[Point] = []
        learn = train_retriever if self.recipe.task == "retriever" else train_reranker
        try:
            learn(self.recipe, prepared, folder, self.watch, points)
        finally:
            if points:
                curve(points, folder / "curve.svg", title=folder.name)

    def _measure(self, folder: Path, parts: Parts, workspace: Workspace, before: Encoder) -> _Measured:
        """Tune the weight on development rows, store it with the model, and compare with the base on test rows."""
        watch, model = self.watch, folder / "model"
        dev, test = workspace.labels(parts.dev), workspace.labels(parts.test)
        alpha = weight = None
        old = Remembering(before)
        if self.recipe.task == "retriever":
            watch.on_phase("measure", None)
            new = Remembering(open_encoder(str(model)))
            index = workspace.index(new, progress=watch.on_progress)
            if dev:
                alpha = tune_alpha(index, new, parts.dev, dev).alpha
                _write_tuned(model, {"alpha": alpha})
            searchers = {"base": Searcher(workspace.index(old), old), "tuned": Searcher(index, new, alpha=alpha)}
        else:
            reranker = CrossEncoderReranker(model)
            index = workspace.index(old)
            if dev:
                weight = tune_weight(index, old, reranker, parts.dev, dev).weight
                _write_tuned(model, {"weight": weight, "depth": reranker.depth})
                reranker = CrossEncoderReranker(model)
            searchers = {"": Searcher(index, old, reranker=reranker)}
        metrics: dict[str, Any] = {}
        if test:
            metrics = self._compare(folder, parts.test, test, searchers, workspace.store)
        return _Measured(alpha, weight, metrics)

    def _compare(
        self, folder: Path, rows: Sequence[Row], labels: Mapping[str, Any], searchers: Mapping[str, Searcher], store: Store
    ) -> dict[str, Any]:
        systems = [
            system
            for place, (name, searcher) in enumerate(searchers.items())
            for system in systems_of(searcher, encoder=name, keyword=place == 0)
        ]
        self.watch.on_phase("measure", len(systems) * len(labels))
        scores = [measure(system, rows, labels, progress=lambda: self.watch.on_progress(1)) for system in systems]
        first = next(iter(searchers.values())).index
        documents, chunks = store.count(first.revision, first.stamp.chunking)
        about = {
            "sources": list(self.recipe.data.train),
            "documents": documents,
            "chunks": chunks,
            "unanswerable": 0,
            "unread": [],
        }
        found = summary(scores, rows, about=about)
        write_report(folder, found)
        means = {item["name"]: item["measures"] for item in found["systems"]}
        kinds = {system.name: system.kind for system in systems}
        before = next(name for name, kind in kinds.items() if kind == "fused")
        after = [name for name, kind in kinds.items() if kind == ("fused" if self.recipe.task == "retriever" else "reranked")][
            -1
        ]
        values = {name: {key: value["value"] for key, value in measures.items()} for name, measures in means.items()}
        return {"before": values[before], "after": values[after], "systems": values}


@dataclass(frozen=True)
class _Measured:
    alpha: float | None
    weight: float | None
    metrics: dict[str, Any]


def sample(prepared: Prepared, kind: Literal["easy", "hard"]) -> list[dict[str, str]]:
    """Return ten negatives of a kind, each beside its question and what answers it, spread over all rows."""
    mined, inputs = prepared.train, prepared.passages.inputs
    chosen = mined.easy if kind == "easy" else mined.hard
    places = [place for place in range(len(chosen)) if chosen[place]]
    step = max(1, len(places) // _SHOWN)
    return [
        {
            "question": mined.examples[place].question,
            "positive": inputs[mined.examples[place].positive],
            "negative": inputs[chosen[place][0]],
        }
        for place in places[::step][:_SHOWN]
    ]


def _write_negatives(folder: Path, prepared: Prepared) -> None:
    found = {"report": prepared.train.report, "easy": sample(prepared, "easy"), "hard": sample(prepared, "hard")}
    (folder / "negatives.json").write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _write_tuned(model: Path, values: Mapping[str, float]) -> None:
    write_whole(model / TUNED_FILE, json.dumps(dict(values)) + "\n")
