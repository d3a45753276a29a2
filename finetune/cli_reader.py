"""`beleg evaluate reader`. Heavy imports happen inside the command."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retriever.cli import json_option, open_settings, print_json

if TYPE_CHECKING:
    from finetune.evaluate_reader import Result
    from finetune.posed import Posed
    from finetune.systems import SystemSpec

__all__ = ["evaluate_reader"]

_KEPT = "answers.jsonl"
_NOT_PRINTED = ("per_question", "worst")


@click.command("reader")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option(
    "--system",
    "systems",
    multiple=True,
    metavar="NAME=WHAT",
    help="Compare readers: `served`, which is the default; a model as the setting `reader` takes it, or a candidate by name, "
    "with `,bits=4`, `,base=MODEL`, `,calibration=FILE` or `,shots=no` behind it; a server, http://…#MODEL; or "
    "`recorded:FILE` with lines of id and text. The others are compared with the first. Repeatable.",
)
@click.option("--closed-book", is_flag=True, help="Ask every system without passages as well, to see what it knows by itself.")
@click.option("--passages", type=click.IntRange(1, 50), help="Passages to show; default: the setting.")
@click.option("--split", help="Only questions of this split, of question files.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many questions, drawn at random; as many of --ability.")
@click.option("--seed", default=0, show_default=True, help="Of draws: the limit's, and those of intervals and tests.")
@click.option(
    "--ability",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Ask these multiple-choice questions as well, an object a line as in ARC, to see what training made a model forget.",
)
@click.option(
    "--before",
    metavar="REPORT.json",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Compare with an earlier report of the same questions.",
)
@click.option("--weights", metavar="MEASURE=WEIGHT,…", help="What the total is made of, instead of the setting answer_weights.")
@click.option(
    "--answers",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write every answer to this file, an object a line.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write report.html and report.json to this folder. Every answer is kept there at once, so that a run that was stopped "
    "goes on.",
)
@json_option
def evaluate_reader(
    sources: tuple[str, ...],
    *,
    systems: tuple[str, ...],
    closed_book: bool,
    passages: int | None,
    split: str | None,
    limit: int | None,
    seed: int,
    ability: Path | None,
    before: Path | None,
    weights: str | None,
    answers: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure answers on SOURCE, of one reader or of several with the same passages.

    SOURCE is a question file such as examples/questions.jsonl, searched in the live index; training data in any shape that
    `beleg data` reads, searched among its own contexts; or examples that `beleg raft build` made, which bring their passages.

    \b
    beleg evaluate reader examples/questions.jsonl --split measure --out report/
    beleg evaluate reader test.raft.jsonl --system served --system law --closed-book --out report/
    beleg evaluate reader test.jsonl --system served --system big=https://host/v1#big --limit 200 --out report/

    Exit code 3: measured, but a system failed on some of the questions.
    """
    from rich.markup import escape
    from rich.progress import Progress

    from finetune.ability import read_choices
    from finetune.evaluate_reader import measure_systems, plan_of
    from finetune.measures import parse_weights
    from finetune.page_reader import write_report
    from finetune.posed import pose
    from finetune.raft.checkpoint import Checkpoint
    from finetune.report_reader import read_report, summary

    settings = open_settings()
    specs = _systems(systems)
    used = parse_weights(settings.answer_weights) if weights is None else _weights(weights)
    choices = read_choices(ability, limit=limit, seed=seed) if ability else []
    earlier = read_report(before) if before else None
    with Progress(console=_stderr(), transient=True) as bar:

        def tell(what: str, total: int | None = None) -> Callable[[int], None]:
            # Names of systems may hold what looks like markup.
            task = bar.add_task(escape(what), total=total)
            return lambda done: bar.advance(task, done)

        posed = pose(settings, sources, passages=passages, split=split, limit=limit, seed=seed, tell=tell)
        with Checkpoint(out / _KEPT, plan_of(posed)) if out else nullcontext() as kept:
            try:
                results = list(
                    measure_systems(
                        settings, specs, posed, closed_book=closed_book, choices=choices, weights=used, kept=kept, tell=tell
                    )
                )
            except KeyboardInterrupt:
                where = f"What was answered is kept in {out}: the same command goes on." if out else "Nothing was kept."
                click.echo(f"Stopped. {where}", err=True)
                raise
        tell("Drawing samples")
        shown = [len(one.hits) for one in posed.asked]
        about = {"sources": list(sources), "passages": f"{min(shown)} to {max(shown)} for each question"}
        if ability:
            about["choices"] = str(ability)
        data = _tables(posed, results) | summary(results, posed, about=about, weights=used, before=earlier, seed=seed)
        page = write_report(out, data) if out else None
    if answers:
        _write_answers(answers, posed, results)
    if as_json:
        systems_shown = [{key: value for key, value in one.items() if key != "cosines"} for one in data["systems"]]
        print_json({**{key: value for key, value in data.items() if key not in _NOT_PRINTED}, "systems": systems_shown})
    else:
        _show(data)
        if page:
            click.echo(f"Report: {page}")
    _tell_failures(data)


def _systems(typed: Sequence[str]) -> list[SystemSpec]:
    from finetune.systems import parse_systems
    from retriever.errors import BelegError

    try:
        return parse_systems(typed)
    except BelegError as error:
        raise click.BadParameter(str(error), param_hint="--system") from error


def _weights(typed: str) -> dict[str, float]:
    from finetune.measures import parse_weights
    from retriever.errors import BelegError

    try:
        return parse_weights(typed)
    except BelegError as error:
        raise click.BadParameter(str(error), param_hint="--weights") from error


def _tables(posed: Posed, results: Sequence[Result]) -> dict[str, Any]:
    """Return the tables that a question file has beside the others: its search, and the first system's answers by language."""
    from finetune.evaluate import score_answers

    if posed.search is None:
        return {}
    return {"search": posed.search, "answers": score_answers(results[0].outcomes, posed.labels, posed.searching)}


def _write_answers(path: Path, posed: Posed, results: Sequence[Result]) -> None:
    from finetune.evaluate import golden_span, verbatim
    from finetune.raft.row import write_lines
    from reader.schema import answer_json

    write_lines(
        path,
        (
            {
                "id": one.asked.id,
                "system": item.name,
                "question": one.asked.question,
                "gold": one.asked.answers,
                "verbatim": verbatim(one),
                "golden": golden_span(one, posed.labels[one.asked.id]) if one.asked.id in posed.labels else None,
                "mistake": item.kinds[one.asked.id],
                "failure": one.failure,
                **answer_json(one.answer),
            }
            for item in results
            for one in item.outcomes
        ),
    )


def _stderr() -> Any:
    from rich.console import Console

    return Console(stderr=True)


def _show(data: Mapping[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("measure")
    for system in data["systems"]:
        table.add_column(Text(system["name"]), justify="right")
    for name in dict.fromkeys(name for system in data["systems"] for name in system["measures"]):
        found = [system["measures"].get(name) for system in data["systems"]]
        table.add_row(name, *(f"{one['value']:.3f}  {one['low']:.2f}–{one['high']:.2f}" if one else "" for one in found))
    Console().print(table)
    for system in data["systems"]:
        kinds = ", ".join(f"{count} {kind}" for kind, count in system["mistakes"].items())
        click.echo(f"{system['name']}: {system['answered']} of {system['asked']} answered. Mistakes: {kinds or 'none'}.")
    compared = [*data["comparisons"], *(data["before"] or {}).get("comparisons", ())]
    for found in compared:
        if found["measure"] == "total":
            chance = f"p {found['p']:.3f}" if found["p"] >= 0.001 else "p < 0.001"
            click.echo(
                f"{found['new']} against {found['old']}: {found['verdict']}, {found['difference']:+.3f} total "
                f"({found['low']:+.3f} to {found['high']:+.3f}, {chance}); {found['better']} better, {found['worse']} worse"
            )
    for name, found in data["ability"].items():
        click.echo(
            f"{name} chose rightly in {found['right']} of {found['asked']} questions "
            f"({found['value']:.2f}, {found['low']:.2f} to {found['high']:.2f})."
        )
    for found in (data["before"] or {}).get("ability", ()):
        click.echo(
            f"{found['new']} against {found['old']}, by itself: {found['verdict']}, {found['difference']:+.3f}; "
            f"{found['worse']} forgotten, {found['better']} gained"
        )
    for reason, count in data["left_out"].items():
        click.echo(f"{count} questions were left out: {reason}.")
    click.echo(
        f"{data['questions']} questions on {data['groups_of_questions']} documents, {data['unanswerable']} without an answer."
    )


def _tell_failures(data: Mapping[str, Any]) -> None:
    failed = {system["name"]: system["failures"] for system in data["systems"] if system["failures"]}
    for name, found in data["ability"].items():
        failed.setdefault(name, []).extend(found["failures"])
    for name, failures in failed.items():
        for one in failures[:5]:
            click.secho(f"{name} failed on {one['id']}: {one['reason']}", fg="yellow", err=True)
        if len(failures) > 5:
            click.secho(f"{name} failed on {len(failures) - 5} more.", fg="yellow", err=True)
    if any(failed.values()):
        raise click.exceptions.Exit(3)
