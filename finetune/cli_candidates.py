"""`beleg candidates`. Heavy imports happen inside the command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from retriever.cli import json_option, open_settings, print_json

if TYPE_CHECKING:
    from finetune.candidate import Candidate
    from retriever.settings import Settings

__all__ = ["candidates"]


@click.command()
@json_option
def candidates(*, as_json: bool) -> None:
    """List what was trained, with what it brought, and what of it is served.

    A candidate that is live or previous must stay where it is: its folder is where the model is loaded from.
    """
    from finetune.candidate import list_candidates

    chosen = open_settings()
    found, problems = list_candidates(chosen.data_dir)
    states = _states(chosen, found)
    if as_json:
        rows = [
            {
                "name": item.name,
                "kind": item.manifest.kind,
                "created": item.manifest.created,
                "base": item.manifest.base.reference,
                "measure": item.manifest.measure,
                "before": item.manifest.measured("before"),
                "after": item.manifest.measured("after"),
                "state": state,
                "folder": str(item.folder),
            }
            for item, state in zip(found, states, strict=True)
        ]
        print_json({"candidates": rows, "damaged": [str(problem) for problem in problems]})
        return
    if found:
        _table(found, states)
    elif not problems:
        click.echo("There are no candidates. `beleg train` makes one.")
    for problem in problems:
        click.secho(str(problem), fg="yellow", err=True)


def _table(found: list[Candidate], states: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "kind", "created", "base", "nDCG@10 / f1", "state", box=None, pad_edge=False)
    for item, state in zip(found, states, strict=True):
        manifest = item.manifest
        measured = manifest.measured("before"), manifest.measured("after")
        before, after = ("?" if value is None else f"{value:.3f}" for value in measured)
        created = manifest.created[:16].replace("T", " ")
        table.add_row(item.name, manifest.kind, created, manifest.base.reference, f"{before} → {after}", state)
    Console(soft_wrap=True).print(table)


def _states(chosen: Settings, found: list[Candidate]) -> list[str]:
    """Return of each candidate whether it is `live`, `previous`, `set`, `refused`, or nothing of that."""
    from retriever.errors import BelegError
    from retriever.index.engines import open_generations
    from retriever.releases import Releases
    from retriever.store import Store

    refused = [fact for fact in Releases(chosen.data_dir).read() if fact.get("outcome") == "refused"]
    states = {str(fact.get("to")): "refused" for fact in refused}
    try:
        with Store(chosen.data_dir) as store:
            generations = open_generations(chosen, store)
            for generation, state in ((generations.previous(), "previous"), (generations.live(), "live")):
                if generation:
                    states[generation.stamp.encoder] = state
    except BelegError as error:
        click.secho(f"What is live is not known: {error}", fg="yellow", err=True)
    readers = {str(fact.get("folder")): "refused" for fact in refused} | _reader_states(chosen, found)
    set_ = Path(chosen.reranker).expanduser().resolve() if chosen.reranker else None

    def state_of(item: Candidate) -> str:
        if item.manifest.kind == "reader":
            return readers.get(str(item.folder), "")
        return "set" if item.model == set_ else states.get(item.manifest.fingerprint, "")

    return [state_of(item) for item in found]


def _reader_states(chosen: Settings, found: list[Candidate]) -> dict[str, str]:
    """Return which candidates are the live reader, or one that `beleg rollback` leads to, by folder."""
    from reader.served import promoted
    from retriever.errors import BelegError

    try:
        live = promoted(chosen)
    except BelegError as error:
        click.secho(f"What reader is live is not known: {error}", fg="yellow", err=True)
        return {}
    states: dict[str, str] = {}
    for one in live.chain() if live else []:
        for item in found:
            if Path(one.reader).is_relative_to(item.folder):
                states.setdefault(str(item.folder), "live" if one is live else "previous")
    return states
