"""`beleg data`: reads and checks training data, and writes it in other shapes. Heavy imports happen inside the commands."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from finetune.cli_curate import balance, clean, split, stats
from retriever.cli import json_option, open_settings, print_json

if TYPE_CHECKING:
    from finetune.data.read import Problem, Shape
    from finetune.data.schema import Row
    from finetune.data.write import WriteShape

__all__ = ["data"]

# As `finetune.data.read.Shape` and `finetune.data.write.WriteShape`, which would cost an import.
_SHAPES = ("dpr", "qca", "squad", "beir", "feedback")
_WRITTEN = ("dpr", "qca", "squad", "beir")

_sources = click.argument("sources", nargs=-1, required=True)
_shape = click.option("--shape", type=click.Choice(_SHAPES), help="Shape of the sources; seen by their fields otherwise.")
_show = click.option("--show", default=3, show_default=True, type=click.IntRange(0), help="Examples of each kind of problem.")


@click.group()
def data() -> None:
    """Read, check, clean and split questions with known answers, for training.

    A SOURCE is a .json or .jsonl file, a BEIR folder, or a data set of the hub (name/name or name/name:split).
    """


@data.command()
@_sources
@_shape
@_show
@json_option
def check(sources: tuple[str, ...], *, shape: Shape | None, show: int, as_json: bool) -> None:
    """Count what is in SOURCES, and name what is wrong with it by file, line and field.

    Every answer is looked up in its context; wrong places are mended where that is sure. Nothing is written. Exit code 3 says
    that some records cannot be used.
    """
    open_settings()
    seen = _Seen(show)
    with _bar("Checking", quiet=as_json) as advance:
        for _ in seen.rows(sources, shape):
            advance()
    if as_json:
        print_json(seen.json())
    else:
        seen.say()
    sys.exit(3 if seen.left_out else 0)


@data.command()
@_sources
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--to", "to", required=True, type=click.Choice(_WRITTEN), help="Shape to write; beir is a folder, the others files."
)
@_shape
@_show
@json_option
def convert(sources: tuple[str, ...], out: Path, *, to: WriteShape, shape: Shape | None, show: int, as_json: bool) -> None:
    """Write SOURCES to OUT in another shape, checked and mended.

    dpr keeps all that Beleg knows of a question; of the others it is said what they lose. Exit code 3 says that some records
    were left out.
    """
    from finetune.data.write import write_rows
    from retriever.errors import BelegError

    open_settings()
    seen = _Seen(show)
    with _bar("Converting", quiet=as_json) as advance:

        def rows() -> Iterator[Row]:
            for row in seen.rows(sources, shape):
                advance()
                yield row
            if not seen.count:
                # Raised while writing, so that nothing takes the place of what is there.
                raise BelegError(f"No question to be had from {', '.join(sources)}.", way_out="`beleg data check` says why.")

        written = write_rows(out, rows(), to)
    if as_json:
        print_json({**seen.json(), "written": written.rows, "out": str(out), "lost": written.lost})
    else:
        seen.say()
        click.echo(f"{written.rows} rows written to {out} ({to}).")
        for what, number in written.lost.items():
            click.secho(f"Lost, since {to} cannot hold it: {number} {what}", fg="yellow", err=True)
    sys.exit(3 if seen.left_out or written.lost.get("rows") else 0)


@dataclass(slots=True)
class _Seen:
    """What was read: rows by shape and language, and problems by kind, `show` of each in full."""

    show: int
    shapes: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Problem]] = field(default_factory=dict)
    left_out: int = 0

    @property
    def count(self) -> int:
        """How many rows there are."""
        return self.shapes.total()

    def rows(self, sources: tuple[str, ...], shape: Shape | None) -> Iterator[Row]:
        """Read the sources, one after the other, and count."""
        from finetune.data.read import read_rows, shape_of

        for source in sources:
            known = shape or shape_of(source)
            for row in read_rows(source, shape=known, on_problem=self.add):
                self.shapes[known] += 1
                self.languages[row.language] += 1
                yield row

    def add(self, problem: Problem) -> None:
        """Count a problem."""
        self.problems[problem.kind] += 1
        self.left_out += problem.left_out
        examples = self.examples.setdefault(problem.kind, [])
        if len(examples) < self.show:
            examples.append(problem)

    def json(self) -> dict[str, Any]:
        """Return it all for other programs."""
        return {
            "rows": self.count,
            "left_out": self.left_out,
            "shapes": dict(self.shapes),
            "languages": dict(self.languages),
            "problems": {
                kind: {"count": count, "examples": [asdict(problem) for problem in self.examples[kind]]}
                for kind, count in self.problems.items()
            },
        }

    def say(self) -> None:
        """Print it for people: counts to stdout, what is wrong to stderr."""
        click.echo(f"{self.count} rows{_listed(self.shapes)}{_listed(self.languages)}, {self.left_out} records left out.")
        for kind, count in self.problems.most_common():
            examples = self.examples[kind]
            click.secho(f"{count} {kind}: {_MEANINGS[kind]}", fg="yellow", err=True)
            for problem in examples:
                place = f"{problem.origin}, {problem.field}" if problem.field else problem.origin
                click.echo(f"  {place}: {problem.message}", err=True)
            if len(examples) < count:
                click.echo(f"  … and {count - len(examples)} more (--show)", err=True)


_MEANINGS = {
    "malformed": "left out",
    "unused": "left out, nothing can be learnt from it",
    "repaired": "the place of an answer was wrong and is right now",
    "trimmed": "white space around an answer was taken off",
    "ambiguous": "an answer stands in several places; it is kept without a place",
    "not found": "an answer is not in its context; it is kept without a place",
    "dropped": "something empty or missing was left out of a row that is kept",
}


def _listed(counts: Counter[str]) -> str:
    return f" ({', '.join(f'{count} {name}' for name, count in counts.most_common())})" if counts else ""


@contextmanager
def _bar(title: str, *, quiet: bool) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda: progress.advance(task)


for _command in (clean, split, balance, stats):
    data.add_command(_command)
