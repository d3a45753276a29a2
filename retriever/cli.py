"""`beleg search`, `settings` and `fetch`, and what all commands share. Heavy imports happen inside the commands."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from retriever.settings import Settings

__all__ = ["fetch", "filter_option", "json_option", "open_settings", "parse_filters", "print_json", "search", "settings"]

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for other programs.")
filter_option = click.option(
    "--filter", "filters", multiple=True, metavar="KEY=VALUE", help="Only documents with this, such as language=de. Repeatable."
)


def open_settings() -> Settings:
    """Read the settings, and go offline if they say so."""
    from retriever.offline import go_offline
    from retriever.settings import read_settings

    found = read_settings().settings
    if found.offline:
        go_offline()
    return found


def parse_filters(filters: tuple[str, ...]) -> dict[str, list[str]]:
    """Return `KEY=VALUE` options by key; a key that is given twice accepts either value."""
    parsed: dict[str, list[str]] = {}
    for text in filters:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--filter")
        parsed.setdefault(key, []).append(value)
    return parsed


@click.command()
@click.argument("query")
@click.option("--limit", default=10, show_default=True, type=click.IntRange(1, 100), help="At most so many passages.")
@click.option(
    "--mode",
    default="fused",
    show_default=True,
    type=click.Choice(["fused", "dense", "keyword", "rrf"]),
    help="Both sides fused, one of them alone, or reciprocal rank fusion.",
)
@click.option("--no-rerank", is_flag=True, help="Leave out the model that the setting `reranker` names.")
@filter_option
@json_option
def search(query: str, *, limit: int, mode: str, no_rerank: bool, filters: tuple[str, ...], as_json: bool) -> None:
    """Find passages; no language model is asked."""
    from typing import cast

    from retriever.encoders import Encoders
    from retriever.index.engines import open_generations
    from retriever.live import Live
    from retriever.publish import catch_up
    from retriever.rerank import open_reranker
    from retriever.schema import hit_json
    from retriever.search import RERANKED_MODES, Mode
    from retriever.store import Store

    wanted = parse_filters(filters)
    chosen = open_settings()
    with Store(chosen.data_dir) as store:
        generations = open_generations(chosen, store)
        catch_up(store, generations)
        # Loading takes a second or two: not for nothing.
        again = chosen.reranker and mode in RERANKED_MODES and not no_rerank
        reranker = open_reranker(chosen.reranker) if again else None
        live = Live(generations, Encoders(chosen.encoder), alpha=chosen.alpha, reranker=reranker)
        hits = live.searcher().search(query, limit=limit, mode=cast("Mode", mode), filters=wanted)
    if as_json:
        print_json({"hits": [hit_json(hit) for hit in hits]})
        return
    for number, hit in enumerate(hits, start=1):
        place = f", page {hit.page}" if hit.page else ""
        click.secho(f"{number}. {' > '.join(dict.fromkeys((hit.title, *hit.headings)))}", bold=True)
        click.echo(f"   {hit.source}{place}, {hit.start}–{hit.end}, score {hit.score:.3f}")
        click.echo("   " + " ".join(hit.text.split())[:300])
    if not hits:
        click.echo("Nothing found.")


@click.command()
@json_option
def settings(*, as_json: bool) -> None:
    """Show all settings and where each one comes from.

    A setting comes from the environment (BELEG_PORT), else from beleg.toml (port = 8080), else it has its default.
    """
    from retriever.settings import read_settings

    found = read_settings()
    values = found.settings.model_dump(mode="json")
    if as_json:
        rows = {name: {"value": value, "source": found.sources.get(name, "default")} for name, value in values.items()}
        print_json(rows)
    else:
        for name, value in values.items():
            shown = "" if value is None else str(value)
            click.echo(f"{name:20} {shown:45} {found.sources.get(name, 'default')}")
    for variable in found.unknown_variables:
        click.secho(f"{variable} is set, but there is no such setting.", fg="yellow", err=True)


@click.command()
@json_option
def fetch(*, as_json: bool) -> None:
    """Download the models that the settings name by hub id. Nothing else ever downloads anything."""
    from retriever.models import fetch as fetch_model

    chosen = open_settings()
    readers = () if chosen.reader_url else (chosen.reader, chosen.reader_base)
    wanted = filter(None, (chosen.encoder, chosen.reranker, *readers))
    found = {reference: str(fetch_model(reference)) for reference in wanted}
    if as_json:
        print_json(found)
    else:
        for reference, path in found.items():
            click.echo(f"{reference}: {path}")


def print_json(value: object) -> None:
    """Print a value for other programs."""
    click.echo(json.dumps(value, ensure_ascii=False))
