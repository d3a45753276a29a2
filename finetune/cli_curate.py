"""`beleg data clean`, `split`, `balance` and `stats`. Heavy imports happen inside the commands."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from retriever.cli import json_option, open_settings, print_json

if TYPE_CHECKING:
    from finetune.data.read import Problem, Shape
    from finetune.data.schema import Row
    from finetune.data.split import Splits

__all__ = ["balance", "clean", "split", "stats"]

_EXAMPLES = 3
# As `finetune.data.read.Shape`, which would cost an import.
_SHAPES = ("dpr", "qca", "squad", "beir", "feedback")

_sources = click.argument("sources", nargs=-1, required=True)
_shape = click.option("--shape", type=click.Choice(_SHAPES), help="Shape of the sources; seen by their fields otherwise.")
_file = click.Path(path_type=Path, dir_okay=False)


class _WithRules(click.Command):
    """Lists the rules below the options, as they are in the code."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click names the arguments
        from finetune.data.clean import RULES

        with formatter.section("Rules"):
            formatter.write_dl([(name, rule.description + ("" if rule.on else " Off.")) for name, rule in RULES.items()])


@click.command(cls=_WithRules)
@_sources
@click.option("--out", required=True, type=_file, help="File to write, in Beleg's own shape (dpr).")
@click.option("--without", multiple=True, metavar="RULE", help="Switch a rule off. Repeatable.")
@click.option("--with", "more", multiple=True, metavar="RULE", help="Switch a rule on. Repeatable.")
@click.option("--changes", type=_file, help="Write every change to this file, one JSON object a line.")
@click.option("--suggestions", type=_file, help="With the rule typos: write what it suggests here, one JSON object a line.")
@click.option("--apply-typos", is_flag=True, help="Carry out what the rule typos suggests. Read the suggestions first.")
@_shape
@json_option
def clean(
    sources: tuple[str, ...],
    *,
    out: Path,
    without: tuple[str, ...],
    more: tuple[str, ...],
    changes: Path | None,
    suggestions: Path | None,
    apply_typos: bool,
    shape: Shape | None,
    as_json: bool,
) -> None:
    """Clean SOURCES by rules, and say rule by rule what they did.

    Starts of answers follow every change of a text. Cleaning twice changes nothing more. Exit code 3 says that some records
    could not be read.
    """
    from finetune.data.clean import DEFAULTS, RULES
    from finetune.data.clean import clean as clean_rows
    from finetune.data.write import write_rows

    for name in (*without, *more):
        if name not in RULES:
            raise click.BadParameter(f"there is no rule {name!r}; the rules are {', '.join(RULES)}")
    both = sorted(set(without) & set(more))
    if both:
        raise click.UsageError(f"--with and --without both name {', '.join(both)}.")
    rules = (DEFAULTS | set(more) | ({"typos"} if apply_typos or suggestions else set())) - set(without)
    if (apply_typos or suggestions) and "typos" not in rules:
        raise click.UsageError("--apply-typos and --suggestions need the rule typos.")
    rows, left_out = _read(sources, shape)
    cleaned = clean_rows(rows, rules=rules, apply_typos=apply_typos)
    if not cleaned.rows:
        _nothing_left()
    write_rows(out, cleaned.rows)
    if changes:
        _write_lines(changes, map(asdict, cleaned.changes))
    if suggestions:
        _write_lines(suggestions, map(asdict, cleaned.suggestions))
    counts = cleaned.counts()
    told = {"rows": len(rows), "kept": len(cleaned.rows), "rules": {name: counts.get(name, {"changed": 0, "dropped": 0})
            for name in RULES if name in rules}, "suggestions": len(cleaned.suggestions), "out": str(out)}  # fmt: skip
    if as_json:
        print_json({**told, "left_out": left_out})
    else:
        table = [
            [name, *(str(counts[name][what]) if name in counts else "0" for what in ("changed", "dropped")), rule.description]
            if name in rules
            else [name, "off", "", rule.description]
            for name, rule in RULES.items()
        ]
        _table(["rule", ">rows changed", ">rows dropped", "what it does"], table)
        click.echo(f"{len(cleaned.rows)} of {len(rows)} rows written to {out}.")
        if cleaned.suggestions and not apply_typos and not suggestions:
            for item in cleaned.suggestions[:10]:
                click.echo(f"  {item.word} → {item.instead}?  {item.question}")
            click.echo(f"{len(cleaned.suggestions)} suggestions; --suggestions FILE writes them all.")
    sys.exit(3 if left_out else 0)


@click.command()
@_sources
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder to write to.")
@click.option("--shares", metavar="TRAIN,DEV,TEST", default=".7,.1,.2", show_default=True, help="They add up to 1.")
@click.option("--none", "undivided", is_flag=True, help="Everything is for training; nothing can be measured then.")
@click.option("--seed", default=0, show_default=True, help="Another seed gives another split.")
@_shape
@json_option
def split(
    sources: tuple[str, ...], *, out: Path, shares: str, undivided: bool, seed: int, shape: Shape | None, as_json: bool
) -> None:
    """Divide SOURCES into train.jsonl, dev.jsonl and test.jsonl, so that nothing leaks.

    Rows that share a document, an id, a positive context or nearly a question stay together. Without a dev share training
    cannot stop early. split.json keeps shares, seed, counts, and the SHA-256 of each file.
    """
    from finetune.data.split import split as split_rows

    if undivided and click.get_current_context().get_parameter_source("shares") is not click.core.ParameterSource.DEFAULT:
        raise click.UsageError("Give --shares or --none, not both.")
    wanted = [1.0, 0.0, 0.0] if undivided else _numbers(shares)
    rows, left_out = _read(sources, shape)
    parts = split_rows(rows, shares=wanted, seed=seed)
    report = _write_split(parts, out)
    if as_json:
        print_json({**report, "left_out": left_out})
    else:
        counts = {name: report["parts"][name] for name in parts.parts()}
        _table(
            ["part", ">rows", ">share", ">groups", ">documents", "languages"],
            [
                [name, str(part["rows"]), f"{part['rows'] / len(rows):.1%}", str(part["groups"]), str(part["documents"]),
                 ", ".join(f"{language} {number}" for language, number in part["languages"].items())]
                for name, part in counts.items()
            ],
        )  # fmt: skip
        click.echo(f"The largest group has {parts.largest} rows. Written to {out}.")
        _warn(parts.warnings)
    sys.exit(3 if left_out else 0)


@click.command()
@_sources
@click.option("--out", type=_file, help="File to write, in Beleg's own shape (dpr).")
@click.option("--encoder", metavar="MODEL", help="Encoder that is to be trained; the setting `encoder` otherwise.")
@click.option("--shares", metavar="CLASS=N,…", default="easy=1,medium=1,hard=1", show_default=True, help="Wanted ratio.")
@click.option("--repeat", is_flag=True, help="Repeat rows of the rarer classes instead of leaving others out.")
@click.option("--report-only", is_flag=True, help="Measure and say; write nothing.")
@click.option("--easy", default=3, show_default=True, type=click.IntRange(1, 50), help="Easy: both sides find it by this rank.")
@click.option("--hard", default=10, show_default=True, type=click.IntRange(1, 50), help="Hard: neither finds it by this rank.")
@click.option("--workspace", type=click.Path(path_type=Path, file_okay=False), help="Keep vectors here for the next run.")
@click.option("--seed", default=0, show_default=True, help="Another seed leaves out other rows.")
@_shape
@json_option
def balance(
    sources: tuple[str, ...],
    *,
    out: Path | None,
    encoder: str | None,
    shares: str,
    repeat: bool,
    report_only: bool,
    easy: int,
    hard: int,
    workspace: Path | None,
    seed: int,
    shape: Shape | None,
    as_json: bool,
) -> None:
    """Measure how hard the rows of SOURCES are for search today, and balance easy, medium and hard ones.

    Every question is asked among all contexts of the sources, by keywords (BM25) and by the encoder. Balance what is trained
    on, never what is measured with.
    """
    from tempfile import TemporaryDirectory

    from finetune.data.balance import balance as balance_rows
    from finetune.data.balance import difficulty
    from finetune.data.stats import NOT_MEASURED
    from finetune.data.write import write_rows
    from finetune.ranks import ranks
    from finetune.workspace import Workspace
    from retriever.chunk import ChunkSize
    from retriever.encode import open_encoder

    if (out is None) is not report_only:
        raise click.UsageError("Give either --out FILE or --report-only.")
    if hard < easy:
        raise click.UsageError("--hard is a better rank than --easy.")
    wanted = _classes(shares)
    chosen = open_settings()
    rows, left_out = _read(sources, shape)
    with ExitStack() as stack:
        folder = workspace or Path(stack.enter_context(TemporaryDirectory()))
        place = stack.enter_context(Workspace(folder, ChunkSize(chosen.chunk_tokens, chosen.chunk_overlap)))
        encoded, searched = stack.enter_context(_progress(len(rows), quiet=as_json))
        found = ranks(rows, place, open_encoder(encoder or chosen.encoder), on_encoded=encoded, on_searched=searched)
    by_row = {side: dict(zip(map(id, rows), places, strict=True)) for side, places in found.items()}
    judged = difficulty(
        rows, lambda row: by_row["keyword"][id(row)], lambda row: by_row["dense"][id(row)], easy=easy, hard=hard
    )
    balanced = balance_rows(judged, shares=wanted, seed=seed, repeat=repeat)
    if out:
        write_rows(out, balanced.rows)
    if as_json:
        print_json({"before": balanced.before, "after": balanced.after, "written": len(balanced.rows) if out else 0,
                    "out": str(out) if out else None, "warnings": balanced.warnings, "left_out": left_out})  # fmt: skip
    else:
        names = {"": NOT_MEASURED}
        table = [
            [names.get(name, name), str(number), f"{number / len(rows):.1%}", str(balanced.after.get(name, 0))]
            for name, number in balanced.before.items()
        ]
        _table(["class", ">rows", ">share", ">rows balanced"], table)
        click.echo(f"{len(balanced.rows)} rows written to {out}." if out else "Nothing was written.")
        _warn(balanced.warnings)
    sys.exit(3 if left_out else 0)


@click.command()
@_sources
@click.option("--out", type=_file, help="Write a page with pictures (.html), which needs nothing else.")
@_shape
@json_option
def stats(sources: tuple[str, ...], *, out: Path | None, shape: Shape | None, as_json: bool) -> None:
    """Count and measure SOURCES: languages, documents, lengths, answers, how much a question gives away."""
    from finetune.data.stats import LENGTHS, measure
    from finetune.data.stats import stats as measured_stats

    rows, left_out = _read(sources, shape)
    found = measured_stats(rows)
    if out:
        from finetune.data.plots import page

        names = ", ".join(Path(source).name for source in sources)
        _write(out, page(found, measure(rows), title=f"Training data: {names}"))
    if as_json:
        print_json({**found, "left_out": left_out})
    else:
        languages = ", ".join(f"{name} {number}" for name, number in found["languages"].items())
        answers = found["answers"]
        click.echo(
            f"{found['rows']} rows ({languages}), {found['documents']} documents, {found['contexts']} distinct contexts."
        )
        click.echo(
            f"{answers['with_start']} answers with a place, {answers['without_start']} without, {answers['rows_without']} rows "
            f"without answer, {found['unanswerable']} rows without positive."
        )
        click.echo("Difficulty: " + ", ".join(f"{number} {name}" for name, number in found["difficulty"].items()) + ".")
        _table(
            ["", *(f">{name}" for name in found["overlap"])],
            [[text, *(f"{value:.4g}" for value in found[name].values())] for name, text in LENGTHS.items()],
        )
        if found["most_repeated"]:
            most = found["most_repeated"][0]
            click.echo(f"Most questions on one context: {most['rows']}, “{most['text']}”")
        if out:
            click.echo(f"Pictures are in {out}.")
    sys.exit(3 if left_out else 0)


def _read(sources: tuple[str, ...], shape: Shape | None) -> tuple[list[Row], int]:
    """Return all rows, and how many records were left out; some of these are named."""
    from rich.console import Console

    from finetune.data.read import read_all

    problems: list[Problem] = []
    with Console(stderr=True).status("Reading"):
        rows = read_all(sources, shape=shape, on_problem=problems.append)
    left_out = [problem for problem in problems if problem.left_out]
    for problem in left_out[:_EXAMPLES]:
        place = ", ".join(filter(None, (problem.origin, problem.field)))
        click.secho(f"Left out: {place}: {problem.message}", fg="yellow", err=True)
    if len(left_out) > _EXAMPLES:
        click.secho(f"… and {len(left_out) - _EXAMPLES} more: `beleg data check` names them.", fg="yellow", err=True)
    return rows, len(left_out)


@contextmanager
def _progress(rows: int, *, quiet: bool) -> Iterator[tuple[Callable[[int], None], Callable[[], None]]]:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as progress:
        encoding, searching = progress.add_task("Encoding", total=None), progress.add_task("Searching", total=rows)
        yield lambda chunks: progress.advance(encoding, chunks), lambda: progress.advance(searching)


def _write_split(parts: Splits, out: Path) -> dict[str, Any]:
    """Write three files, empty ones too, or what an earlier split left there would leak; the report comes last."""
    from finetune.data.write import write_rows

    report: dict[str, Any] = parts.report()
    manifest = out / "split.json"
    try:
        manifest.unlink(missing_ok=True)
    except OSError as error:
        _unwritable(manifest, error)
    for name, rows in parts.parts().items():
        path = out / f"{name}.jsonl"
        write_rows(path, rows)
        report["parts"][name]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    _write(manifest, json.dumps(report, ensure_ascii=False, indent=2) + "\n")
    return report


def _write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    _write(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def _write(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    beside = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
        beside.replace(path)
    except OSError as error:
        _unwritable(path, error)


def _unwritable(path: Path, error: OSError) -> NoReturn:
    from retriever.errors import BelegError

    raise BelegError(f"{path} cannot be written: {error.strerror}.", way_out="Name another place, or make room.") from error


def _nothing_left() -> NoReturn:
    from retriever.errors import BelegError

    raise BelegError("No row is left after cleaning; nothing was written.", way_out="Switch rules off with --without RULE.")


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not three numbers with commas between them", param_hint="--shares") from error


def _classes(text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in text.split(","):
        name, equals, number = part.partition("=")
        try:
            found[name.strip()] = float(number if equals else "none")
        except ValueError as error:
            raise click.BadParameter(f"{part!r} is not CLASS=NUMBER, such as easy=1", param_hint="--shares") from error
    return found


def _table(columns: list[str], rows: list[list[str]]) -> None:
    """Print a table; a column whose name begins with `>` has numbers."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name.lstrip(">"), justify="right" if name.startswith(">") else "left", overflow="fold")
    for row in rows:
        # As text: what comes from data is no markup.
        table.add_row(*map(Text, row))
    Console().print(table)


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        click.secho(f"Note: {warning}", fg="yellow", err=True)
