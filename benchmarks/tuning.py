"""What each kind of negative brings: an encoder tuned in several ways, on the same rows and with the same held-out questions.

Everything that can be chosen is in the recipe, and chosen on development questions; test questions are only asked. Each run
appends a line with nDCG@10 of dense and fused search over all test questions and by file, and keeps the value of every question
in `--work`, for intervals.

    python benchmarks/tuning.py RECIPE.yaml --variants in-batch easy hard both --seeds 0 1 2 --work FOLDER
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from statistics import fmean, stdev

from record import DEFAULT_OUT, record

from finetune.evaluate_retriever import Remembering, measure, systems_of, tune_alpha
from finetune.prepare import Parts, prepare, read_parts
from finetune.recipe import Recipe
from finetune.recipe_files import read_recipe
from finetune.significance import paired
from finetune.train_retriever import train_retriever
from finetune.training import Point, Watch
from finetune.workspace import Workspace
from retriever.chunk import ChunkSize
from retriever.encode import Encoder, open_encoder
from retriever.search import Searcher

VARIANTS = {
    "untuned": None,
    "in-batch": ["negatives.easy=0", "negatives.hard=0"],
    "easy": ["negatives.easy=1", "negatives.hard=0"],
    "hard": ["negatives.easy=0", "negatives.hard=1"],
    "both": ["negatives.easy=1", "negatives.hard=1"],
    "twins": ["negatives.easy=1", "negatives.hard=2", "negatives.translations=true"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--dev-only", action="store_true", help="For choosing: ask development questions, never test ones.")
    parser.add_argument("--summary", action="store_true", help="Run nothing; compare what --work holds with BM25 and untuned.")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    options = parser.parse_args()
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - begun:7.0f} s  {text}", flush=True)

    base = read_recipe(options.recipe, options.overrides)
    parts = read_parts(base)
    if options.summary:
        summarise(options.work / "values", parts)
        return
    workspace = Workspace(options.work / "workspace", ChunkSize(base.chunk_tokens, base.chunk_overlap))
    workspace.add_rows([*parts.train, *parts.dev, *parts.test])
    workspace.add_files([Path(path) for path in base.data.documents])
    untuned = open_encoder(base.base_model)
    for variant in options.variants:
        for seed in options.seeds if VARIANTS[variant] is not None else [0]:
            say(f"{variant}, seed {seed}")
            if VARIANTS[variant] is None:
                run(options, base, "untuned", 0, parts, workspace, untuned, 0.0, [])
                continue
            recipe = read_recipe(options.recipe, [*options.overrides, *VARIANTS[variant], f"trainer.seed={seed}"])
            name = f"{variant}-{seed}-{recipe.digest()}"
            folder = options.work / name
            if (folder / "model").exists():
                say("is there already")
                continue
            folder.mkdir(parents=True, exist_ok=True)
            watch = Watch(on_note=say)
            prepared = prepare(recipe, parts, workspace, untuned, watch)
            say(json.dumps(prepared.train.report, ensure_ascii=False))
            (folder / "mined.json").write_text(json.dumps(prepared.train.report, ensure_ascii=False))
            start, points = time.monotonic(), []
            train_retriever(recipe, prepared, folder, watch, points)
            seconds = time.monotonic() - start
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
            run(options, recipe, variant, seed, parts, workspace, open_encoder(str(folder / "model")), seconds, points)


def run(
    options: argparse.Namespace, recipe: Recipe, variant: str, seed: int, parts: Parts, workspace: Workspace,
    encoder: Encoder, seconds: float, points: list[Point],
) -> None:  # fmt: skip
    remembering = Remembering(encoder)
    index = workspace.index(encoder)
    alpha = tune_alpha(index, remembering, parts.dev, workspace.labels(parts.dev)).alpha
    rows = parts.dev if options.dev_only else parts.test
    labels = workspace.labels(rows)
    numbers: dict[str, float] = {}
    every: dict[str, dict[str, float]] = {}
    for system in systems_of(Searcher(index, remembering, alpha=alpha)):
        values = measure(system, rows, labels).values["nDCG@10"]
        every[system.name] = values
        for file in sorted({row.origin.partition(",")[0] for row in rows}):
            some = [value for key, value in values.items() if rows[int(key)].origin.partition(",")[0] == file]
            numbers[f"{system.name}_{Path(file).name.partition('.train')[0]}"] = fmean(some)
        numbers[f"{system.name}_all"] = fmean(values.values())
    best = max((point.ndcg for point in points if point.ndcg is not None), default=0.0)
    line = record(
        "tuning-dev" if options.dev_only else "tuning",
        data=[Path(path) for path in recipe.data.train], seed=seed, out=options.out, variant=variant,
        questions=len(rows), passages=len(index), alpha=alpha, seconds=seconds, dev_ndcg=best,  # type: ignore[arg-type]
        steps=max((point.step for point in points), default=0), epochs=recipe.trainer.epochs,
        learning_rate=str(recipe.trainer.learning_rate), **numbers,
    )  # fmt: skip
    print(json.dumps(line, ensure_ascii=False), flush=True)
    folder = options.work / "values"
    folder.mkdir(exist_ok=True)
    part = "dev" if options.dev_only else "test"
    name = f"{variant}-{seed}-{part}-{recipe.trainer.learning_rate}-{recipe.trainer.epochs}.json"
    (folder / name).write_text(json.dumps(every))


def summarise(folder: Path, parts: Parts) -> None:
    """Print nDCG@10 of each variant, mean and deviation over seeds, and paired differences of the seeds' mean by question."""
    documents = {str(at): row.document for at, row in enumerate(parts.test)}
    runs: dict[str, list[dict[str, dict[str, float]]]] = {}
    for file in sorted(folder.glob("*-test-*.json")):
        runs.setdefault(file.name.rpartition("-test-")[0].rpartition("-")[0], []).append(json.loads(file.read_text()))
    (untuned,) = runs["untuned"]
    print("| variant | seeds | dense | fused | fused − BM25 | fused − untuned fused |\n| --- | --- | --- | --- | --- | --- |")
    for variant in ("untuned", *(name for name in VARIANTS if name in runs and name != "untuned"), "reranked"):
        found = runs.get(variant, [])
        cells = []
        for side in ("dense", "fused"):
            means = [fmean(run[side].values()) for run in found if side in run]
            spread = f" ± {stdev(means):.3f}" if len(means) > 1 else ""
            cells.append(f"{fmean(means):.3f}{spread}" if means else "")
        for other in (untuned["BM25"], untuned["fused"]):
            if not found or (variant == "untuned" and other is untuned["fused"]):
                cells.append("")
                continue
            mean = {key: fmean(run["fused"][key] for run in found) for key in other}
            result = paired(mean, other, groups=documents)
            cells.append(f"{result.difference:+.3f} ({result.low:+.3f} to {result.high:+.3f}, p {result.p:.3f})")
        if found:
            print(f"| {variant} | {len(found)} | {' | '.join(cells)} |")
    mean = fmean(untuned["BM25"].values())
    print(f"\nBM25: {mean:.3f}; {len(documents)} questions about {len(set(documents.values()))} documents.")


if __name__ == "__main__":
    main()
