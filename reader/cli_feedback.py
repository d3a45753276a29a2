"""`beleg feedback`: what people said of answers. Heavy imports happen inside the commands."""

from __future__ import annotations

import json
from typing import IO, TYPE_CHECKING, Literal, cast

import click

from retriever.cli import json_option, open_settings, print_json

if TYPE_CHECKING:
    from reader.schema import Quote

__all__ = ["feedback"]


@click.group()
def feedback() -> None:
    """Keep what people say of answers, to train with.

    \b
    beleg ask "Who approves travel?" --json > answer.json
    beleg feedback add --question "Who approves travel?" --verdict good --answer answer.json
    """


@feedback.command("list")
@json_option
def list_(*, as_json: bool) -> None:
    """List what was said, oldest first."""
    from dataclasses import asdict

    from reader.feedback import read_feedback

    said = list(read_feedback(open_settings().data_dir))
    if as_json:
        print_json({"feedback": [asdict(item) for item in said]})
        return
    for item in said:
        corrected = f"  corrected by {item.correction.source}" if item.correction else ""
        verdict = click.style(f"{item.verdict:4}", fg="green" if item.verdict == "good" else "red")
        click.echo(f"{item.time}  {verdict}  {' '.join(item.question.split())}{corrected}")
        if item.comment:
            click.echo(f"  {' '.join(item.comment.split())}")
    good = sum(item.verdict == "good" for item in said)
    click.echo(f"{good} good, {len(said) - good} bad." if said else "Nobody has said anything yet.")


@feedback.command()
@click.option("--question", required=True, help="What was asked.")
@click.option("--verdict", required=True, type=click.Choice(["good", "bad"]), help="What you think of the answer.")
@click.option(
    "--answer", type=click.File(encoding="utf-8"), help="What `beleg ask --json` printed: a file, or - for standard input."
)
@click.option("--comment", default="", help="In your own words.")
@click.option("--correct-source", metavar="SOURCE", help="Path or name of the document that has the answer.")
@click.option("--correct-text", metavar="TEXT", help="Its words that answer the question.")
@json_option
def add(
    *,
    question: str,
    verdict: str,
    answer: IO[str] | None,
    comment: str,
    correct_source: str | None,
    correct_text: str | None,
    as_json: bool,
) -> None:
    """Say what you think of an answer.

    Training learns from a good answer with its quotes and passages, so give `--answer`; and from a bad one if you say where the
    right one stands.
    """
    from dataclasses import asdict

    from reader.feedback import Correction, Feedback, keep

    if not question.strip():
        raise click.BadParameter("it is empty", param_hint="--question")
    if bool((correct_source or "").strip()) != bool((correct_text or "").strip()):
        raise click.UsageError("--correct-source and --correct-text go together.")
    given = _given(answer)
    kept = keep(
        open_settings().data_dir,
        Feedback(
            question=question,
            verdict=cast("Literal['good', 'bad']", verdict),
            answer=str(given.get("answer") or ""),
            release=str(given.get("release") or ""),
            comment=comment,
            correction=Correction(correct_source, correct_text) if correct_source and correct_text else None,
            quotes=_places(given, "quotes"),
            hits=_places(given, "hits"),
        ),
    )
    if as_json:
        print_json(asdict(kept))
    else:
        click.echo("Kept.")


def _given(answer: IO[str] | None) -> dict[str, object]:
    if answer is None:
        return {}
    try:
        found = json.load(answer)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"not valid JSON: {error}", param_hint="--answer") from error
    if not isinstance(found, dict):
        raise click.BadParameter("not an answer: `beleg ask --json` prints an object", param_hint="--answer")
    return found


def _places(given: dict[str, object], field: str) -> tuple[Quote, ...]:
    from pydantic import TypeAdapter, ValidationError

    from reader.schema import Quote

    try:
        return TypeAdapter(tuple[Quote, ...]).validate_python(given.get(field) or ())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join((field, *map(str, first["loc"])))
        raise click.BadParameter(f"{where}: {first['msg']}", param_hint="--answer") from error
