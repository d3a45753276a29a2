"""`beleg train`. Heavy imports happen inside the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from retriever.cli import json_option, open_settings, print_json

if TYPE_CHECKING:
    from finetune.candidate import Candidate
    from finetune.recipe import Recipe
    from finetune.recipe_reader import ReaderRecipe
    from finetune.training import Watch
    from retriever.watched import Watched

__all__ = ["train"]

_PHASES = {
    "read": "Reading rows",
    "render": "Rendering examples",
    "encode": "Encoding passages",
    "mine": "Looking for negatives",
    "train": "Training",
    "tune": "Tuning the weight",
    "measure": "Measuring",
}

_WIDTH = 140
"""Characters of a text that are shown in a line."""


def _list_recipes(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from finetune.recipe_files import shipped

        for name, text in shipped().items():
            click.echo(f"{name:26} {text}")
        ctx.exit()


@click.command()
@click.argument("task", type=click.Choice(["retriever", "reranker", "reader"]))
@click.argument("recipe")
@click.option(
    "--data", multiple=True, metavar="SOURCE", help="Rows to train on, in place of the recipe's data.train. Repeatable."
)
@click.option(
    "--documents", multiple=True, metavar="PATH", help="Files that passages are mined and searched among. Repeatable."
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Such as trainer.epochs=3. Repeatable.")
@click.option("--limit", type=click.IntRange(min=1), help="Train on the first so many rows only, to start small.")
@click.option("--name", help="Of the candidate; otherwise made of the task and a hash of recipe and rows.")
@click.option("--dry-run", is_flag=True, help="Make a few steps, say how long it would take and how much memory, and stop.")
@click.option(
    "--list", is_flag=True, is_eager=True, expose_value=False, callback=_list_recipes, help="List the shipped recipes."
)
@click.option("--journal", type=click.Path(path_type=Path), help="Append what happens to this file, as JSON lines.")
@json_option
def train(
    *,
    task: Literal["retriever", "reranker", "reader"],
    recipe: str,
    data: tuple[str, ...],
    documents: tuple[str, ...],
    overrides: tuple[str, ...],
    limit: int | None,
    name: str | None,
    dry_run: bool,
    journal: Path | None,
    as_json: bool,
) -> None:
    """Train a retriever, reranker or reader by RECIPE: a YAML file, or the name of a shipped one (--list).

    \b
    beleg train retriever retriever --data train.jsonl --dry-run
    beleg train retriever retriever --data train.jsonl --set trainer.epochs=3
    beleg candidates
    beleg promote retriever-1a2b3c4d
    beleg train reader reader-raft-smollm2 --data raft.jsonl --dry-run

    It leaves a candidate: the model, its learning curve, and what it brought on held-out rows. Nothing that is served
    changes before `beleg promote`. Ctrl-C finishes the step and saves; the same command goes on from there.

    Exit code 3: trained, but a row or a document could not be read.
    """
    import os

    from finetune.candidate import candidates_folder
    from finetune.recipe_files import read_recipe
    from finetune.recipe_reader import ReaderRecipe
    from finetune.served import open_served
    from finetune.sft.measuring import Measuring
    from finetune.sft.run import ReaderTraining
    from finetune.train import Training
    from finetune.training import Watch
    from retriever.errors import SettingsError
    from retriever.watched import watched

    chosen = open_settings()
    given = [
        f"data.{key}=[{', '.join(json.dumps(value, ensure_ascii=False) for value in values)}]"
        for key, values in (("train", data), ("documents", documents))
        if values
    ]
    if limit:
        given.append(f"data.limit={limit}")
    with open_served(chosen) as served, watched(journal, _PHASES, quiet=as_json) as seen:
        size = served.size()
        # Passages of training are cut like those of the index, unless the recipe says otherwise.
        cut = {"chunk_tokens": size.tokens, "chunk_overlap": size.overlap}
        read = read_recipe(recipe, [*given, *overrides], defaults=cut)
        if read.task != task:
            raise SettingsError(f"{recipe} is for a {read.task}.", way_out=f"Run `beleg train {read.task} {recipe}`.")
        watch = Watch(seen.on_phase, seen.on_progress, seen.on_note)
        if dry_run:
            if isinstance(read, ReaderRecipe):
                _dry_reader(read, watch, seen, as_json=as_json)
            else:
                _dry(read, served.reference(), seen, as_json=as_json)
            return
        if journal:
            os.nice(10)  # a job of a server: questions come first
        folder = candidates_folder(chosen.data_dir)
        training: Training | ReaderTraining
        if isinstance(read, ReaderRecipe):
            measuring = Measuring(chosen, served.reference(), rows=read.trainer.test_rows)
            training = ReaderTraining(read, folder, name, watch, measuring)
        else:
            training = Training(read, folder, name, served.reference(), served.documents, watch)
        candidate = training.run()
        told = {"candidate": candidate.name, "folder": str(candidate.folder), **candidate.manifest.model_dump(mode="json")}
        seen.journal.tell("result", candidate=candidate.name, before=candidate.manifest.measured("before"),
                          after=candidate.manifest.measured("after"))  # fmt: skip
    if as_json:
        print_json({**told, "left_out": training.left_out})
    else:
        _say(candidate)
    if training.left_out:
        raise click.exceptions.Exit(3)


def _dry(recipe: Recipe, served: str, seen: Watched, *, as_json: bool) -> None:
    from dataclasses import asdict

    from finetune.forecast import forecast
    from finetune.prepare import read_parts

    parts = read_parts(recipe)
    seen.on_phase("train", None)
    found = forecast(recipe, parts, served=served)
    seen.journal.tell("result", **asdict(found))
    if as_json:
        print_json({**asdict(found), "recipe": recipe.model_dump(mode="json")})
        return
    click.echo(
        f"Rows: {found.train} to train on, {found.dev} for development, {found.test} for the test; {found.texts} contexts.\n"
        f"{found.parameters / 1e6:.1f} million parameters, trained in {found.precision}.\n"
        f"{found.steps} steps of {found.step_s:.2f} s: {_span(found.training_s)}. "
        f"Encoding the contexts: {_span(found.encoding_s)}.\n"
        f"{found.memory_mb} MiB of memory.\n"
        "Measured on a few steps, which are gone. Evaluations and the recipe's documents come on top."
    )


def _dry_reader(recipe: ReaderRecipe, watch: Watch, seen: Watched, *, as_json: bool) -> None:
    from dataclasses import asdict

    from finetune.sft.forecast import forecast_reader
    from finetune.sft.parts import read_reader_parts

    found = forecast_reader(recipe, read_reader_parts(recipe), watch)
    seen.journal.tell("result", **asdict(found))
    if as_json:
        print_json({**asdict(found), "recipe": recipe.model_dump(mode="json")})
        return
    lost = f" {found.fewer} distractors are not shown, and {found.dropped} examples left out: they would be too long."
    click.echo(
        f"{found.train} to train on, {found.dev} for development, {found.test} for the test.\n"
        f"{found.examples} examples of {found.tokens} tokens, {found.longest} in the longest."
        f"{lost if found.fewer or found.dropped else ''}\n"
        f"{found.parameters / 1e6:.1f} million parameters; {found.trained / 1e6:.2f} million learn, in {found.precision}.\n"
        f"{found.steps} steps of {found.step_s:.1f} s: {_span(found.training_s)}.\n"
        f"{found.memory_mb} MiB of memory.\n"
        "Measured on a few steps, which are gone. Evaluations come on top."
    )


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _say(candidate: Candidate) -> None:
    """Show ten negatives of each kind, what the training brought, and what to do next."""
    manifest = candidate.manifest
    negatives = candidate.folder / "negatives.json"
    if negatives.exists():
        found = json.loads(negatives.read_text(encoding="utf-8"))
        for kind, title in (("easy", "Easy negatives"), ("hard", "Hard negatives")):
            facts = found["report"].get(kind)
            if facts:
                click.secho(f"{title}: {_facts(facts)}", bold=True)
            for item in found[kind]:
                click.echo(f"  {_short(item['question'])}\n    + {_short(item['positive'])}\n    − {_short(item['negative'])}")
    before, after = manifest.measured("before"), manifest.measured("after")
    if before is not None and after is not None:
        rows = manifest.metrics.get("rows", manifest.data.test)
        click.echo(f"{manifest.measure} on {rows} test questions: {after:.3f}, before {before:.3f}.")
    if manifest.kind == "reader":
        click.echo(f"Learning curve: {candidate.folder / 'curve.svg'}, samples: {candidate.folder / 'samples.html'}")
        click.echo(f"`beleg export {candidate.name}` makes a GGUF of it, which `beleg promote {candidate.name}` has served.")
        return
    click.echo(f"Report: {candidate.folder / 'report.html'}, learning curve: {candidate.folder / 'curve.svg'}")
    click.echo(f"`beleg promote {candidate.name}` makes it the served one, if it is better.")


def _facts(facts: dict[str, object]) -> str:
    parts = []
    for name, value in facts.items():
        inner = value if isinstance(value, dict) else {}
        parts.append(
            f"{name} ({', '.join(f'{count} {reason}' for reason, count in inner.items())})" if inner else f"{value} {name}"
        )
    return ", ".join(parts)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…"
