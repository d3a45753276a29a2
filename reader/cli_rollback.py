"""`beleg rollback`: the reader or the index before the last change. Heavy imports happen inside the command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from retriever.cli import json_option, open_settings, print_json
from retriever.cli_index import roll_index_back

if TYPE_CHECKING:
    from reader.rollback import Back
    from retriever.settings import Settings

__all__ = ["rollback"]

_Which = Literal["reader", "index"]


@click.command()
@click.option("--reader", "which", flag_value="reader", help="The reader, even if the index was changed after it.")
@click.option(
    "--index", "which", flag_value="index", help="The index with its encoder, even if a reader was promoted after it."
)
@click.option("--journal", type=click.Path(path_type=Path), help="Append what happens to this file, as JSON lines.")
@json_option
def rollback(*, which: _Which | None, journal: Path | None, as_json: bool) -> None:
    """Bring back the reader or the index before the last promotion or rebuild: whichever of them was changed last.

    The index comes with all documents that have changed since, for as many days as the setting `rollback_days` says; a second
    rollback goes forward again. Of promoted readers the last ten are kept: each rollback goes one further back, the last to
    the reader that the settings name. A running server follows by itself.
    """
    chosen = open_settings()
    if (which or _changed_last(chosen)) == "reader":
        _roll_reader_back(chosen, journal=journal, as_json=as_json)
    else:
        roll_index_back(chosen, journal=journal, as_json=as_json)


def _changed_last(chosen: Settings) -> _Which:
    from reader.served import promoted
    from retriever.index.engines import open_generations
    from retriever.store import Store

    live = promoted(chosen)
    if live is None:
        return "index"
    with Store(chosen.data_dir) as store:
        if open_generations(chosen, store).previous() is None:
            return "reader"
        swapped = float(store.recall("swapped") or 0)
    return "reader" if live.time.timestamp() >= swapped else "index"


def _roll_reader_back(chosen: Settings, *, journal: Path | None, as_json: bool) -> None:
    from reader.rollback import roll_back
    from retriever.errors import BelegError
    from retriever.journal import Journal
    from retriever.releases import Releases

    releases = Releases(chosen.data_dir)
    with Journal(journal) as told:
        back = roll_back(chosen, releases)
        told.tell("result", **_json(chosen, back))
    if as_json:
        print_json(_json(chosen, back))
    else:
        _say(chosen, back)
    try:
        releases.add(
            outcome="rolled back",
            kind="reader",
            candidate=back.live.candidate if back.live else None,
            **{"from": back.replaced.fingerprint},
            to=back.live.fingerprint if back.live else "",
            replaces=back.replaced.candidate,
        )
    except BelegError as error:
        # No error: whoever runs it again to mend that goes further back.
        click.secho(f"Only the record of it is lacking: {error.message}", fg="yellow", err=True)
        sys.exit(3)


def _json(chosen: Settings, back: Back) -> dict[str, object]:
    return {
        "reader": back.live.reader if back.live else chosen.reader,
        "candidate": back.live.candidate if back.live else None,
        "replaced": back.replaced.candidate or back.replaced.reader,
        "skipped": [one.candidate or one.reader for one, _ in back.skipped],
    }


def _say(chosen: Settings, back: Back) -> None:
    for one, reason in back.skipped:
        click.secho(f"Passed over: {one.candidate or one.reader}: {reason}", fg="yellow", err=True)
    live = f"{back.live.candidate or back.live.reader}" if back.live else f"The reader of the settings, {chosen.reader},"
    click.echo(f"{live} is live again, in place of {back.replaced.candidate or back.replaced.reader}.")
