"""`beleg ask` and `beleg doctor`. Heavy imports happen inside the commands."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from retriever.cli import filter_option, json_option, open_settings, parse_filters

if TYPE_CHECKING:
    from reader.schema import Answer

__all__ = ["ask", "doctor"]


@click.command()
@click.argument("question")
@filter_option
@json_option
def ask(question: str, *, filters: tuple[str, ...], as_json: bool) -> None:
    """Answer a question, with quotes that prove the answer.

    Every quote is verbatim: it is read again from the stored document by its offsets before it is shown. If the documents do
    not say, Beleg says so.
    """
    from reader.pipeline import Pipeline
    from reader.schema import answer_json

    wanted = parse_filters(filters)
    with Pipeline.open(open_settings()) as pipeline:
        answer = pipeline.answer(question, filters=wanted)
    if as_json:
        click.echo(json.dumps(answer_json(answer), ensure_ascii=False))
    else:
        _show(answer)


@click.command()
@json_option
def doctor(*, as_json: bool) -> None:
    """Check models, store and index, and say how to mend what is wrong. Exit code 1 if anything is."""
    from reader.doctor import examine

    findings = examine(open_settings())
    if as_json:
        rows = [{"name": item.name, "ok": item.ok, "detail": item.detail, "way_out": item.way_out} for item in findings]
        click.echo(json.dumps(rows, ensure_ascii=False))
    else:
        for item in findings:
            click.secho(f"{'ok   ' if item.ok else 'WRONG'} {item.name}: {item.detail}", fg=None if item.ok else "red")
            if item.way_out:
                click.echo(f"      {item.way_out}")
    sys.exit(0 if all(item.ok for item in findings) else 1)


def _show(answer: Answer) -> None:
    click.secho(answer.answer, bold=True)
    for quote in answer.quotes:
        place = f", page {quote.page}" if quote.page else ""
        click.echo(f"\n  “{quote.text}”")
        click.secho(f"  {quote.title}{place}, characters {quote.start}–{quote.end}\n  {quote.source}", dim=True)
    for note in answer.notes:
        click.secho(f"\n{note}", dim=True)
    if answer.abstained and answer.hits:
        click.echo("\nClosest passages:")
        for hit in answer.hits[:3]:
            click.echo(f"  {' > '.join(dict.fromkeys((hit.title, *hit.headings)))}  ({hit.source})")
