"""`beleg raft`: what the reader learns from. Heavy imports happen inside the commands."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retriever.cli import json_option, open_settings, print_json

if TYPE_CHECKING:
    from finetune.data.lines import Problem
    from finetune.data.read import Shape
    from finetune.data.schema import Row
    from finetune.raft.build import Built, ChunkTask, Plan, RowTask
    from finetune.raft.export import Form
    from finetune.raft.row import RaftRow
    from finetune.raft.sources import Where
    from finetune.raft.teacher import Teacher
    from retriever.settings import Settings
    from retriever.watched import Watched

__all__ = ["raft"]

# As `finetune.data.read.Shape` and `finetune.raft.export.Form`, which would cost an import.
_SHAPES = ("dpr", "qca", "squad", "beir", "feedback")
_FORMS = ("llama2", "mistral", "chatml", "openai", "completion")
_PHASES = {"read": "Reading", "encode": "Encoding passages", "build": "Building rows"}

_file = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
_path = click.Path(path_type=Path, dir_okay=False)


@click.group()
def raft() -> None:
    """Make, check and review what the reader learns from: questions, passages, and answers with quotes.

    \b
    beleg raft build train.jsonl --out raft.jsonl
    beleg raft check raft.jsonl --clean clean.jsonl --noisy noisy.jsonl
    beleg raft review clean.jsonl
    """


class _Counts(click.ParamType[tuple[int, ...]]):
    """Numbers of passages: `1-4` or `1,1,2,3`."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            if "-" in value:
                low, high = map(int, value.split("-"))
                counts = tuple(range(low, high + 1))
            else:
                counts = tuple(map(int, value.split(",")))
        except ValueError:
            self.fail(f"{value!r} is neither a range, such as 1-4, nor numbers, such as 1,1,2,3", param, ctx)
        if not counts or not all(1 <= count <= 50 for count in counts):
            self.fail(f"{value!r} has no number from 1 to 50, or one beyond", param, ctx)
        return counts


@raft.command()
@click.argument("sources", metavar="[SOURCE]...", nargs=-1)
@click.option("--out", required=True, type=_path, help="File to write.")
@click.option("--shape", type=click.Choice(_SHAPES), help="Shape of the sources; seen by their fields otherwise.")
@click.option(
    "--passages",
    "counts",
    type=_Counts(),
    help="Passages of a row: a range, or numbers to draw from (1,1,2,3).  [default: 1-4]",
)
@click.option("--distractors", type=click.IntRange(0, 49), help="So many beside the golden passage, instead of --passages.")
@click.option(
    "--golden",
    default=0.9,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Share of rows with their golden passage.",
)
@click.option("--own-passages", "own", is_flag=True, help="Show the contexts that rows bring along; nothing is searched.")
@click.option(
    "--documents",
    multiple=True,
    metavar="PATH",
    type=click.Path(path_type=Path, exists=True),
    help="Search these files and folders as well. Repeatable.",
)
@click.option("--with-index", is_flag=True, help="Search the documents of the live index as well.")
@click.option(
    "--from-documents",
    multiple=True,
    metavar="PATH",
    type=click.Path(path_type=Path, exists=True),
    help="Have the model write questions about these files and folders. Repeatable.",
)
@click.option(
    "--questions", default=1, show_default=True, type=click.IntRange(1, 10), help="That the model writes about a chunk."
)
@click.option("--model-url", metavar="URL", help="OpenAI-compatible server whose model writes quotes and answers.")
@click.option("--model", default="", metavar="NAME", help="Which of its models; the first otherwise.")
@click.option("--no-reasoning", is_flag=True, help="Leave out the model's sentence before the quote.")
@click.option("--budget", type=click.IntRange(min=1), help="Requests that may be sent to the model in this run.")
@click.option("--parallel", default=1, show_default=True, type=click.IntRange(1, 64), help="Requests at a time.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many questions, or chunks, drawn at random.")
@click.option("--seed", default=0, show_default=True, help="Of all draws.")
@click.option(
    "--workspace",
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep vectors here, so that the next run encodes nothing again. What lies there already is searched as well.",
)
@click.option("--journal", type=click.Path(path_type=Path), help="Append what happens to this file, as JSON lines.")
@json_option
def build(
    sources: tuple[str, ...],
    *,
    out: Path,
    shape: Shape | None,
    counts: tuple[int, ...] | None,
    distractors: int | None,
    golden: float,
    own: bool,
    documents: tuple[Path, ...],
    with_index: bool,
    from_documents: tuple[Path, ...],
    questions: int,
    model_url: str | None,
    model: str,
    no_reasoning: bool,
    budget: int | None,
    parallel: int,
    limit: int | None,
    seed: int,
    workspace: Path | None,
    journal: Path | None,
    as_json: bool,
) -> None:
    """Make rows of questions with answers (SOURCE, see `beleg data`; or PubMedQA's own file), or of documents alone.

    A row has the passage that answers its question, beside others that search finds and that do not; some rows lack it, and
    teach to abstain. Answers whose place is known become quotes of whole sentences by rule. With --model-url a model writes
    them, and the rule helps where nothing it writes can be proven. BELEG_READER_API_KEY is the server's key.

    A run with a model that was stopped goes on with the same command. Exit code 3 says that some rows could not be built.
    """
    from finetune.raft.build import Plan
    from finetune.raft.sources import Where, read_sources
    from retriever.watched import watched

    if not sources and not from_documents:
        raise click.UsageError("Give a SOURCE, or --from-documents.")
    if sources and from_documents:
        raise click.UsageError("Give SOURCES or --from-documents, not both; --documents names what is searched as well.")
    if from_documents and not model_url:
        raise click.UsageError("--from-documents needs --model-url: somebody has to write the questions.")
    if counts and distractors is not None:
        raise click.UsageError("--passages and --distractors both say how many passages to show.")
    if own and (documents or with_index or from_documents or counts or distractors is not None):
        raise click.UsageError("--own-passages shows what the rows bring along: nothing is searched and nothing drawn.")
    if not model_url and (budget or model):
        raise click.UsageError("--budget and --model are about the model: give --model-url.")
    drawn = (distractors + 1,) if distractors is not None else counts or (1, 2, 3, 4)
    plan = Plan(drawn, golden, seed, own, not no_reasoning, questions)
    chosen = open_settings()
    problems: list[Problem] = []
    with watched(journal, _PHASES, quiet=as_json) as seen:
        seen.on_phase("read", None)
        rows = read_sources(sources, shape, problems.append)
        teacher = _teacher(chosen, model_url, model, budget) if model_url else None
        where = Where(documents, with_index, from_documents, workspace)
        built = _build(chosen, rows, where, plan, out, teacher, parallel, limit, seen)
        told = _told(built, out, problems)
        seen.journal.tell("result", **told)
    if as_json:
        print_json(told)
    else:
        _say_built(told)
    sys.exit(3 if built.left_out or built.open or any(problem.left_out for problem in problems) else 0)


def _build(
    settings: Settings,
    rows: Sequence[tuple[Row, tuple[int, int] | None]],
    where: Where,
    plan: Plan,
    out: Path,
    teacher: Teacher | None,
    parallel: int,
    limit: int | None,
    seen: Watched,
) -> Built:
    from finetune.raft.build import build as build_rows
    from finetune.raft.build import draw_chunks, row_tasks
    from finetune.raft.sources import open_finding

    tasks: Sequence[RowTask | ChunkTask] = row_tasks(rows, limit=limit, seed=plan.seed)
    if plan.own:
        seen.on_phase("build", len(tasks))
        return build_rows(tasks, plan, out, teacher=teacher, parallel=parallel, progress=seen.on_progress)
    with open_finding(settings, rows, where, tell=seen) as (finding, about):
        if where.about:
            tasks = draw_chunks(finding, about, limit=limit, seed=plan.seed)
        seen.on_phase("build", len(tasks))
        return build_rows(tasks, plan, out, finding=finding, teacher=teacher, parallel=parallel, progress=seen.on_progress)


def _teacher(settings: Settings, url: str, model: str, budget: int | None) -> Teacher:
    from finetune.raft.teacher import Teacher

    return Teacher(
        url,
        model=model,
        api_key=settings.reader_api_key.get_secret_value(),
        timeout_s=settings.reader_timeout_s,
        budget=budget,
        max_tokens=settings.answer_tokens,
    )


def _told(built: Built, out: Path, problems: Sequence[Problem]) -> dict[str, Any]:
    rows = built.rows
    shown = Counter(len(row.passages) for row in rows)
    return {
        "rows": len(rows),
        "out": str(out),
        "abstaining": sum(row.abstains for row in rows),
        "by": dict(Counter(row.by for row in rows)),
        "languages": dict(Counter(row.language for row in rows)),
        "passages": {str(count): shown[count] for count in sorted(shown)},
        "kinds": dict(Counter(one.kind for row in rows for one in row.passages)),
        "flagged": _flagged(rows),
        "left_out": dict(built.left_out.most_common()),
        "unread": sum(problem.left_out for problem in problems),
        "no_distractors": dict(built.dropped.most_common()),
        "open": built.open,
        "requests": built.requests,
    }


def _say_built(told: dict[str, Any]) -> None:
    click.echo(f"{told['rows']} rows written to {told['out']}, {told['abstaining']} of them abstain.")
    click.echo(f"Passages of a row: {_counted(told['passages'], ' with {}')}. Kinds: {_counted(told['kinds'])}.")
    if len(told["by"]) > 1:
        click.echo(f"Written by: {_counted(told['by'])}.")
    if told["no_distractors"]:
        click.echo(f"Hits that are no distractors: {_counted(told['no_distractors'])}.")
    if told["flagged"]:
        click.secho(f"Flagged: {_counted(told['flagged'])}; `beleg raft check` says more.", fg="yellow", err=True)
    if told["left_out"]:
        click.secho(f"Left out: {_counted(told['left_out'])}.", fg="yellow", err=True)
    if told["unread"]:
        click.secho(f"{told['unread']} records could not be read or used; `beleg data check` says why.", fg="yellow", err=True)
    if told["open"]:
        click.secho(f"{told['open']} are open still: the budget is used up. The same command goes on.", fg="yellow", err=True)


@raft.command()
@_file
@click.option("--clean", "clean", type=_path, help="Write the rows without any problem here.")
@click.option("--noisy", type=_path, help="Write all rows here, each with its problems.")
@click.option("--show", default=3, show_default=True, type=click.IntRange(0), help="Examples of each kind of problem.")
@json_option
def check(file: Path, *, clean: Path | None, noisy: Path | None, show: int, as_json: bool) -> None:
    """Say what is wrong with the rows of FILE, each with its reasons.

    --clean and --noisy keep both versions, so that both can be trained and compared. Exit code 3 says that something is wrong.
    """
    from finetune.raft.checks import KINDS, check_rows, kind_of
    from finetune.raft.row import read_raft, write_raft
    from retriever.errors import BelegError

    malformed: list[Problem] = []
    rows = check_rows(read_raft(file, on_problem=malformed.append))
    good = [row for row in rows if not row.problems]
    if clean:
        if not good:
            raise BelegError("No row is without a problem.", way_out="Look at them first, without --clean.")
        write_raft(clean, good)
    if noisy:
        write_raft(noisy, rows)
    told: dict[str, Any] = {
        "rows": len(rows),
        "clean": len(good),
        "malformed": [f"{one.origin}: {one.field}: {one.message}" for one in malformed],
        "kinds": _flagged(rows),
        "problems": {row.id: list(row.problems) for row in rows if row.problems},
    }
    if as_json:
        print_json(told)
    else:
        click.echo(f"{len(rows)} rows, {len(good)} of them without a problem; {len(malformed)} lines could not be read.")
        for line in told["malformed"]:
            click.secho(f"  {line}", fg="yellow", err=True)
        for kind, count in _flagged(rows).items():
            click.secho(f"{count} {kind}: {KINDS[kind]}", fg="yellow", err=True)
            hit = [(row, one) for row in rows for one in row.problems if kind_of(one) == kind]
            for row, one in hit[:show]:
                click.echo(f"  {row.id}: {_short(row.question)} ({one.partition(': ')[2] or kind})", err=True)
            if len(hit) > show:
                click.echo(f"  … and {len(hit) - show} more (--show)", err=True)
    sys.exit(3 if malformed or len(good) < len(rows) else 0)


@raft.command()
@_file
@click.option("--port", default=0, type=click.IntRange(0, 65535), help="Of this machine only; a free one otherwise.")
@click.option("--no-browser", is_flag=True, help="Print the address, and open nothing.")
def review(file: Path, *, port: int, no_browser: bool) -> None:
    """Open a page on which a person accepts (a), edits (e) or rejects (r) the rows of FILE, one by one.

    Every decision is kept at once, in FILE.review.jsonl; the next review goes on where this one ended. Ctrl-C ends it.
    """
    import webbrowser

    from finetune.raft.review import Review
    from finetune.raft.web import serve

    open_settings()
    opened = Review(file)
    if opened.stale:
        click.secho(
            f"{opened.stale} decisions are about rows that have changed since; they do not count.", fg="yellow", err=True
        )

    def announce(url: str) -> None:
        click.echo(f"Review {file.name} at {url}")
        if not no_browser:
            webbrowser.open(url)

    serve(opened, port=port, announce=announce)
    counts = opened.counts()
    click.echo(f"{_decided(counts)}. `beleg raft apply {file}` writes what is left.")


@raft.command()
@_file
@click.option("--out", type=_path, help="File to write.  [default: FILE, with .reviewed before its ending]")
@click.option("--undecided", is_flag=True, help="Keep the rows of which nothing was decided, too.")
@json_option
def apply(file: Path, *, out: Path | None, undecided: bool, as_json: bool) -> None:
    """Write the rows of FILE that were accepted or edited in a review.

    Exit code 3 says that rows were left out of which nothing was decided.
    """
    from finetune.raft.review import Review, reviewed
    from finetune.raft.row import write_raft
    from retriever.errors import BelegError

    opened = Review(file)
    rows = reviewed(opened, undecided=undecided)
    if not rows:
        raise BelegError("Nothing was accepted.", way_out=f"`beleg raft review {file}` first, or keep rows with --undecided.")
    target = out or file.with_name(f"{file.stem}.reviewed{file.suffix}")
    write_raft(target, rows)
    counts = opened.counts()
    left = counts["rows"] - sum(counts[name] for name in ("accept", "edit", "reject"))
    told: dict[str, Any] = {
        **counts,
        "undecided": left,
        "stale": opened.stale,
        "written": len(rows),
        "out": str(target),
        "flagged": _flagged(rows),
    }
    if as_json:
        print_json(told)
    else:
        click.echo(f"{len(rows)} of {counts['rows']} rows written to {target}: {_decided(counts)}, {left} undecided.")
        if told["flagged"]:
            click.secho(f"Flagged still: {_counted(told['flagged'])}.", fg="yellow", err=True)
    sys.exit(3 if left and not undecided else 0)


@raft.command()
@_file
@click.argument("out", type=_path)
@click.option("--to", "to", required=True, type=click.Choice(_FORMS), help="Form to write.")
@json_option
def export(file: Path, out: Path, *, to: Form, as_json: bool) -> None:
    """Write FILE to OUT as other programs train on it, an object a line.

    llama2, mistral and chatml give prompt and completion with the marks of those models in them; openai gives messages, as
    hosted models are tuned with; completion gives prompt and completion without marks.
    """
    from finetune.raft.export import export as export_rows
    from finetune.raft.row import read_raft

    count = export_rows(read_raft(file), to, out)
    if as_json:
        print_json({"rows": count, "out": str(out), "to": to})
    else:
        click.echo(f"{count} rows written to {out} ({to}).")


@raft.command()
@_file
@click.argument("row")
@click.option("--reader", metavar="MODEL", help="GGUF file or its folder, package:NAME or hub id; default: the setting.")
@json_option
def show(file: Path, row: str, *, reader: str | None, as_json: bool) -> None:
    """Print the tokens of a ROW of FILE (its number from 1, or its id): green where the loss counts them, grey elsewhere."""
    from rich.console import Console

    from finetune.raft.row import read_raft
    from finetune.raft.show import Vocabulary, coloured, pieces
    from retriever.models import locate, weights_in

    chosen = open_settings()
    found = _row(read_raft(file), row)
    name = reader or chosen.reader
    engine = Vocabulary(weights_in(locate(name), "*.gguf"), model=name, context_size=chosen.context_tokens)
    try:
        tokens = pieces(engine, found)
    finally:
        engine.close()
    if as_json:
        print_json({"id": found.id, "tokens": [{"text": text, "counts": counts} for text, counts in tokens]})
        return
    Console(highlight=False, soft_wrap=True).print(coloured(tokens))
    click.echo(f"{len(tokens)} tokens, {sum(counts for _, counts in tokens)} of them count.")


def _row(rows: Sequence[RaftRow], wanted: str) -> RaftRow:
    for row in rows:
        if row.id == wanted:
            return row
    if wanted.isdecimal() and 1 <= int(wanted) <= len(rows):
        return rows[int(wanted) - 1]
    raise click.BadParameter(f"there is no row {wanted!r}; there are {len(rows)}", param_hint="ROW")


def _flagged(rows: Sequence[RaftRow]) -> dict[str, int]:
    from finetune.raft.checks import kind_of

    return dict(Counter(kind for row in rows for kind in {kind_of(one) for one in row.problems}).most_common())


def _decided(counts: dict[str, int]) -> str:
    return f"{counts['accept']} accepted, {counts['edit']} edited, {counts['reject']} rejected"


def _counted(counts: dict[str, int], name: str = " {}") -> str:
    return ", ".join(f"{count}{name.format(what)}" for what, count in counts.items())


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 100 else line[:99] + "…"
