"""`beleg index`, `search`, `settings` and `fetch`. Heavy imports happen inside the commands."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from retriever.ingest import Outcome
    from retriever.settings import Settings

__all__ = ["fetch", "filter_option", "index", "json_option", "open_settings", "parse_filters", "search", "settings"]

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
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--prune", is_flag=True, help="Also remove documents from below PATHS that are gone.")
@json_option
def index(paths: tuple[Path, ...], *, prune: bool, as_json: bool) -> None:
    """Read files and folders and make them searchable.

    PDF, HTML, Markdown and plain text. Files that have not changed are skipped; only new passages are encoded. Stop it whenever
    you like: the next run goes on. Exit code 3 says that some files were left out; each is named with the reason.
    """
    from retriever.chunk import ChunkSize
    from retriever.encode import open_encoder
    from retriever.ingest import Ingest
    from retriever.store import Store

    chosen = open_settings()
    outcomes: list[Outcome] = []

    def note(outcome: Outcome) -> None:
        outcomes.append(outcome)
        on_outcome(outcome)

    with _progress(quiet=as_json) as (on_total, on_outcome), Store(chosen.data_dir) as store:
        run = Ingest(
            store,
            chosen.data_dir / "generations",
            open_encoder(chosen.encoder),
            ChunkSize(chosen.chunk_tokens, chosen.chunk_overlap),
            max_bytes=chosen.max_file_mb << 20,
            timeout_s=chosen.load_timeout_s,
            prune=prune,
            on_outcome=note,
            on_total=on_total,
        )
        published = run.run(paths)
        totals = store.counts()
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    counts = Counter(outcome.status for outcome in outcomes)
    if as_json:
        _print_json(
            {
                **{status: counts[status] for status in ("added", "changed", "unchanged", "removed", "failed")},
                **totals,
                "published": published,
                "left_out": [{"source": item.source, "reason": item.reason, "way_out": item.way_out} for item in failed],
            }
        )
    else:
        done = ", ".join(f"{number} {status}" for status, number in counts.items() if status != "failed") or "nothing to do"
        click.echo(f"{done}. The index holds {totals['documents']} documents in {totals['chunks']} chunks.")
        for item in failed:
            click.secho(f"Left out: {item.source}: {item.reason}", fg="yellow", err=True)
            if item.way_out:
                click.echo(f"  {item.way_out}", err=True)
    sys.exit(3 if failed else 0)


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
@filter_option
@json_option
def search(query: str, *, limit: int, mode: str, filters: tuple[str, ...], as_json: bool) -> None:
    """Find passages; no language model is asked."""
    from typing import cast

    from retriever.encode import open_encoder
    from retriever.live import Live
    from retriever.schema import hit_json
    from retriever.search import Mode
    from retriever.store import Store

    wanted = parse_filters(filters)
    chosen = open_settings()
    with Store(chosen.data_dir) as store:
        encoder = open_encoder(chosen.encoder, threads=1)
        live = Live(store, chosen.data_dir / "generations", encoder, alpha=chosen.alpha)
        live.catch_up()
        hits = live.searcher().search(query, limit=limit, mode=cast("Mode", mode), filters=wanted)
    if as_json:
        _print_json({"hits": [hit_json(hit) for hit in hits]})
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
        _print_json(rows)
    else:
        for name, value in values.items():
            click.echo(f"{name:20} {value!s:45} {found.sources.get(name, 'default')}")
    for variable in found.unknown_variables:
        click.secho(f"{variable} is set, but there is no such setting.", fg="yellow", err=True)


@click.command()
@json_option
def fetch(*, as_json: bool) -> None:
    """Download the models that the settings name by hub id. Nothing else ever downloads anything."""
    from retriever.models import fetch as fetch_model

    chosen = open_settings()
    wanted = [chosen.encoder] if chosen.reader_url else [chosen.encoder, chosen.reader]
    found = {reference: str(fetch_model(reference)) for reference in wanted}
    if as_json:
        _print_json(found)
    else:
        for reference, path in found.items():
            click.echo(f"{reference}: {path}")


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, ensure_ascii=False))


@contextmanager
def _progress(*, quiet: bool) -> Iterator[tuple[Callable[[int], None], Callable[[Outcome], None]]]:
    """Draw a bar on stderr, where somebody can see it; yields what to tell of the total and of each file."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("Indexing", total=None)

        def on_total(total: int) -> None:
            bar.update(task, total=total)

        def on_outcome(outcome: Outcome) -> None:
            bar.update(task, advance=1, description=Path(outcome.source).name[:40])

        yield on_total, on_outcome
