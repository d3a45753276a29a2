"""`beleg promote` and `beleg candidates`. Heavy imports happen inside the commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from retriever.cli import json_option, open_settings, print_json

if TYPE_CHECKING:
    from finetune.candidate import Candidate
    from finetune.promote import Outcome
    from retriever.settings import Settings

__all__ = ["candidates", "promote"]

_MARGIN = 0.02
"""How much lower the nDCG@10 on one's own questions may be, as for `beleg rebuild`."""


@click.command()
@click.argument("candidate")
@click.option(
    "--questions",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Questions about your own documents, as for `beleg rebuild`, on which it must not find less.",
)
@click.option("--override", metavar="REASON", help="Take it though the gate refuses it; the reason is kept.")
@click.option("--dry-run", is_flag=True, help="Only measure, and change and record nothing.")
@click.option("--journal", type=click.Path(path_type=Path), help="Append what happens to this file, as JSON lines.")
@json_option
def promote(
    candidate: str, *, questions: Path | None, override: str | None, dry_run: bool, journal: Path | None, as_json: bool
) -> None:
    """Have CANDIDATE served, if it is better than what is served now.

    CANDIDATE is a name that `beleg candidates` lists, or a folder. Both models are asked its held-out questions; it is refused
    unless it finds more, and not only by luck. Then an index is built beside the live one and swapped, as by `beleg rebuild`,
    and `beleg rollback` is the way back. A reranker is measured in the same way; to use it is a setting.

    What became of every attempt stands in releases.jsonl in the data folder.
    """
    from finetune.candidate import open_candidate
    from finetune.promote import Promotion
    from retriever.encode import open_encoder
    from retriever.encoders import Encoders
    from retriever.gate import Gate
    from retriever.index.engines import open_generations
    from retriever.releases import Releases
    from retriever.rerank import CrossEncoderReranker, open_reranker
    from retriever.store import Store
    from retriever.watched import watched

    if override is not None and not override.strip():
        raise click.BadParameter("say why", param_hint="--override")
    chosen = open_settings()
    with watched(journal, _PHASES, quiet=as_json) as seen:
        found = open_candidate(candidate, chosen.data_dir)
        gate = Gate.read(questions, margin=_MARGIN) if questions else None
        served = open_reranker(chosen.reranker) if chosen.reranker and found.manifest.kind == "reranker" else None
        with Store(chosen.data_dir) as store:
            outcome = Promotion(
                found,
                store,
                open_generations(chosen, store),
                Encoders(chosen.encoder, open_=open_encoder),
                Releases(chosen.data_dir),
                chosen.encoder,
                alpha=chosen.alpha,
                reranker=served,
                open_reranker=CrossEncoderReranker,
                questions=gate,
                override=override,
                dry=dry_run,
                on_phase=seen.on_phase,
                on_progress=seen.on_progress,
            ).run()
        seen.journal.tell("result", **_outcome_json(found, outcome))
    if as_json:
        print_json(_outcome_json(found, outcome))
    else:
        _say(found, outcome)


@click.command()
@json_option
def candidates(*, as_json: bool) -> None:
    """List what was trained, with what it brought, and what of it is served.

    A candidate that is live or previous must stay where it is: its folder is where the encoder is loaded from.
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

    table = Table("name", "kind", "created", "base", "nDCG@10", "state", box=None, pad_edge=False)
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

    states = {str(fact.get("to")): "refused" for fact in Releases(chosen.data_dir).read() if fact.get("outcome") == "refused"}
    try:
        with Store(chosen.data_dir) as store:
            generations = open_generations(chosen, store)
            for generation, state in ((generations.previous(), "previous"), (generations.live(), "live")):
                if generation:
                    states[generation.stamp.encoder] = state
    except BelegError as error:
        click.secho(f"What is live is not known: {error}", fg="yellow", err=True)
    set_ = Path(chosen.reranker).expanduser().resolve() if chosen.reranker else None
    return ["set" if item.model == set_ else states.get(item.manifest.fingerprint, "") for item in found]


def _outcome_json(candidate: Candidate, outcome: Outcome) -> dict[str, object]:
    from dataclasses import asdict

    report = outcome.report
    return {
        "candidate": candidate.name,
        "kind": candidate.manifest.kind,
        "status": outcome.status,
        "already": outcome.already,
        "verdict": asdict(outcome.verdict) if outcome.verdict else None,
        "questions": asdict(outcome.own) if outcome.own else None,
        "generation": report.generation.name if report else None,
        "replaced": report.replaced.name if report and report.replaced else None,
        "setting": {"reranker": str(candidate.model)} if candidate.manifest.kind == "reranker" else None,
    }


def _say(candidate: Candidate, outcome: Outcome) -> None:
    name = candidate.name
    if outcome.already:
        click.echo(f"{name} is served already.")
        return
    if outcome.verdict:
        click.echo(f"{outcome.verdict}.")
    if outcome.own:
        click.echo(f"On your own questions: nDCG@10 {outcome.own.new:.3f}, before {outcome.own.live:.3f}.")
    if outcome.status == "tried":
        click.echo(f"Nothing has changed. `beleg promote {name}` takes it.")
    elif outcome.status == "passed":
        click.echo(f'To use it, set this in beleg.toml and start the server again:\n\nreranker = "{candidate.model}"')
    else:
        click.echo(f"{name} is live. `beleg rollback` brings back what was before it; its folder must stay where it is.")


_PHASES = {
    "prepare": "Preparing",
    "measure": "Measuring",
    "encode": "Encoding",
    "build": "Building",
    "verify": "Verifying",
    "gate": "Comparing",
    "swap": "Swapping",
}
