"""`beleg evaluate` and `beleg calibrate`. Heavy imports happen inside the commands."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from finetune.cli_reader import evaluate_reader
from retriever.cli import json_option, open_settings, print_json

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["calibrate", "evaluate"]

_questions = click.argument("questions", type=click.Path(path_type=Path, dir_okay=False))
_split = click.option("--split", help="Only questions of this split.")

_SPLIT_UP = (
    "`beleg evaluate reader QUESTIONS` measures answers, `beleg evaluate retriever QUESTIONS` search alone; options come after "
    "those words."
)


class _Evaluate(click.Group):
    """Says what became of `beleg evaluate QUESTIONS` to those who still type it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise click.UsageError(f"{error.message} {_SPLIT_UP}", ctx) from error

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands:
            raise click.UsageError(f"{args[0]!r} is neither `reader` nor `retriever`. {_SPLIT_UP}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_Evaluate)
def evaluate() -> None:
    """Measure search or answers on questions with known answers."""


evaluate.add_command(evaluate_reader)


@evaluate.command("retriever")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option(
    "--shape",
    type=click.Choice(["dpr", "qca", "squad", "beir", "feedback"]),
    help="Shape of training data; recognised from its first record if left out.",
)
@click.option(
    "--documents",
    multiple=True,
    metavar="PATH",
    type=click.Path(path_type=Path, exists=True),
    help="Search these files and folders as well. Repeatable.",
)
@click.option("--with-index", is_flag=True, help="Search the documents of the live index as well.")
@click.option(
    "--encoder",
    "encoders",
    multiple=True,
    metavar="MODEL",
    help="Compare encoders: folders, `package:NAME`, hub ids, or `served`, which is the default. The others are compared with "
    "the first. Repeatable.",
)
@click.option("--reranker", metavar="MODEL", help="Measure with this reranker; default: the setting.")
@click.option("--alpha", type=click.FloatRange(0, 1), help="Weight of the dense side; default: the encoder's own.")
@_split
@click.option(
    "--workspace",
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep vectors here, so that the next run encodes nothing again. What lies there already is searched as well.",
)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Write report.html and report.json to this folder."
)
@click.option("--limit", type=click.IntRange(min=1), help="At most so many questions, drawn at random.")
@click.option("--seed", default=0, show_default=True, help="Of draws: the limit's, and those of intervals and tests.")
@json_option
def evaluate_retriever(
    sources: tuple[str, ...],
    *,
    shape: str | None,
    documents: tuple[Path, ...],
    with_index: bool,
    encoders: tuple[str, ...],
    reranker: str | None,
    alpha: float | None,
    split: str | None,
    workspace: Path | None,
    out: Path | None,
    limit: int | None,
    seed: int,
    as_json: bool,
) -> None:
    """Measure search on SOURCE: dense, BM25, fused and reranked, with intervals and tests. No language model is asked.

    SOURCE is training data in any shape that `beleg data` reads, searched among its own contexts; or a question file such as
    examples/questions.jsonl, searched in the live index.

    \b
    beleg evaluate retriever examples/questions.jsonl --out report/
    beleg evaluate retriever test.jsonl --encoder served --encoder candidates/law/model --out report/
    beleg evaluate retriever beir/scifact --documents handbook/ --limit 500

    Exit code 3: measured, but a file of --documents could not be read.
    """
    from functools import partial
    from typing import cast

    from rich.markup import escape
    from rich.progress import Progress

    from finetune.data.read import Shape
    from finetune.evaluate_retriever import measure, systems_of, tune_alpha
    from finetune.report import summary, write_report
    from finetune.trial import open_trial, read_asked

    given = {"reranker": reranker, "alpha": alpha}
    settings = open_settings().model_copy(update={name: value for name, value in given.items() if value is not None})
    asked = read_asked(sources, shape=cast("Shape | None", shape), split=split)
    with Progress(console=_stderr(), transient=True) as bar:

        def tell(what: str, total: int | None = None) -> Callable[[int], None]:
            # Names of models may hold what looks like markup.
            task = bar.add_task(escape(what), total=total)
            return lambda done: bar.advance(task, done)

        with open_trial(
            settings, asked, documents=documents, with_index=with_index, encoders=encoders, workspace=workspace,
            limit=limit, seed=seed, tell=tell,
        ) as trial:  # fmt: skip
            several = len(trial.searchers) > 1
            systems, chunkings, tuned = [], set(), {}
            for name, searcher in trial.searchers.items():
                chunking = searcher.index.stamp.chunking
                systems += systems_of(searcher, encoder=name if several else "", keyword=chunking not in chunkings)
                chunkings.add(chunking)
            scores = []
            for system in systems:
                done = partial(tell(f"Searching · {system.name}", len(trial.labels)), 1)
                scores.append(measure(system, trial.rows, trial.labels, progress=done))
            for name, searcher in trial.searchers.items():
                done = partial(tell(f"Trying weights · {name}", len(trial.labels)), 1)
                tuned[name if several else ""] = tune_alpha(
                    searcher.index, searcher.encoder, trial.rows, trial.labels, progress=done
                )
            tell("Drawing samples")
            about = {
                "sources": list(sources),
                "documents": trial.documents,
                "chunks": trial.chunks,
                "unanswerable": trial.unanswerable,
                "unread": list(trial.unread),
            }
            data = summary(scores, trial.rows, about=about, tuned=tuned, seed=seed)
            page = write_report(out, data) if out else None
    if as_json:
        print_json({name: value for name, value in data.items() if name not in ("side_by_side", "per_question")})
    else:
        _show(data)
        if page:
            click.echo(f"Report: {page}")
    for reason in data["unread"]:
        click.secho(f"Left out: {reason}", fg="yellow", err=True)
    if data["unread"]:
        raise click.exceptions.Exit(3)


@click.command()
@_questions
@_split
@json_option
def calibrate(questions: Path, *, split: str | None, as_json: bool) -> None:
    """Learn from QUESTIONS how weak passages may be before Beleg abstains, and keep it beside the index.

    Questions without an answer (null) are needed: a dozen at least. Measure on other questions than these.
    """
    from finetune.calibrate import calibrated
    from reader.calibration import write_calibration
    from reader.pipeline import Pipeline
    from retriever.questions import read_questions

    chosen = open_settings()
    asked = read_questions(questions, split=split)
    with Pipeline.open(chosen) as pipeline:
        result = calibrated(pipeline, asked)
    path = write_calibration(chosen.data_dir, result.calibration)
    if as_json:
        click.echo(json.dumps({"path": str(path), "least_strength": result.calibration.least_strength,
                               "rightly": result.rightly, "wrongly": result.wrongly}))  # fmt: skip
    else:
        click.echo(
            f"Passages weaker than {result.calibration.least_strength:.3f} are left unanswered: that catches {result.rightly} "
            f"of the questions without an answer, and {result.wrongly} with one. Written to {path}."
        )


def _stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True)


def _show(data: Mapping[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    names = list(data["systems"][0]["measures"])
    table = Table(box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("system")
    for name in names:
        table.add_column(name, justify="right")
    for system in data["systems"]:
        cells = [
            f"{found['value']:.3f}\n{found['low']:.2f}–{found['high']:.2f}" if name == "nDCG@10" else f"{found['value']:.3f}"
            for name, found in system["measures"].items()
        ]
        table.add_row(Text(system["name"]), *cells)
    console.print(table)
    for found in data["comparisons"]:
        if found["measure"] == "nDCG@10":
            chance = f"p {found['p']:.3f}" if found["p"] >= 0.001 else "p < 0.001"
            click.echo(
                f"{found['new']} against {found['old']}: {found['verdict']}, {found['difference']:+.3f} "
                f"({found['low']:+.3f} to {found['high']:+.3f}, {chance}); {found['better']} better, {found['worse']} worse"
            )
    left = f" {data['unanswerable']} have no answer and were left out." if data["unanswerable"] else ""
    click.echo(
        f"{data['questions']} questions on {data['groups_of_questions']} documents, among {data['documents']} documents in "
        f"{data['chunks']} passages.{left}"
    )
