"""`beleg promote`. Heavy imports happen inside the command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from retriever.cli import json_option, open_settings, print_json

if TYPE_CHECKING:
    from finetune.candidate import Candidate
    from finetune.promote import Outcome
    from finetune.promote_reader import ReaderOutcome
    from finetune.servable import Servable
    from retriever.settings import Settings
    from retriever.watched import Watched

__all__ = ["promote"]

_MARGIN = 0.02
"""How much lower the nDCG@10 on one's own questions may be, as for `beleg rebuild`."""


@click.command()
@click.argument("candidate")
@click.option(
    "--questions",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Questions about your own documents, as for `beleg rebuild`, on which it must not find less.",
)
@click.option("--file", metavar="NAME", help="Of a reader: which GGUF of its export, where there are several.")
@click.option("--unmerged", is_flag=True, help="Of a reader: its adapter as it is, served by transformers; it needs no export.")
@click.option("--override", metavar="REASON", help="Take it though the gate refuses it; the reason is kept.")
@click.option("--dry-run", is_flag=True, help="Only measure, and change and record nothing.")
@click.option("--journal", type=click.Path(path_type=Path), help="Append what happens to this file, as JSON lines.")
@json_option
def promote(
    candidate: str,
    *,
    questions: Path | None,
    file: str | None,
    unmerged: bool,
    override: str | None,
    dry_run: bool,
    journal: Path | None,
    as_json: bool,
) -> None:
    """Have CANDIDATE served, if it is better than what is served now.

    CANDIDATE is a name that `beleg candidates` lists, or a folder. Both models are asked its held-out questions; it is refused
    unless it finds more, and not only by luck. Then an index is built beside the live one and swapped, as by `beleg rebuild`,
    and `beleg rollback` is the way back. A reranker is measured in the same way; to use it is a setting.

    A reader must have been exported, and must answer better than what is served and than its own base untuned, with the same
    passages. A running server opens it beside the reader before it, and no question is lost.

    What became of every attempt stands in releases.jsonl in the data folder.
    """
    import os

    from finetune.candidate import open_candidate
    from retriever.watched import watched

    if override is not None and not override.strip():
        raise click.BadParameter("say why", param_hint="--override")
    chosen = open_settings()
    with watched(journal, _PHASES, quiet=as_json) as seen:
        found = open_candidate(candidate, chosen.data_dir)
        if found.manifest.kind == "reader":
            if questions:
                raise click.UsageError(
                    "--questions goes with a retriever or reranker: a reader is asked its held-out questions."
                )
            servable = _servable(found, file, unmerged=unmerged)
            if journal:
                os.nice(10)  # a job of a server: questions come first
            taken = _promote_reader(chosen, found, servable, seen, override=override, dry=dry_run)
            result = _reader_json(found, servable, taken)
        else:
            if file or unmerged:
                raise click.UsageError("--file and --unmerged go with a reader.")
            outcome = _promote_retriever(chosen, found, seen, questions=questions, override=override, dry=dry_run)
            result = _outcome_json(found, outcome)
        seen.journal.tell("result", **result)
    if as_json:
        print_json(result)
    elif found.manifest.kind == "reader":
        _say_reader(found, servable, taken)
    else:
        _say(found, outcome)


def _promote_retriever(
    chosen: Settings, found: Candidate, seen: Watched, *, questions: Path | None, override: str | None, dry: bool
) -> Outcome:
    from finetune.promote import Promotion
    from retriever.encode import open_encoder
    from retriever.encoders import Encoders
    from retriever.gate import Gate
    from retriever.index.engines import open_generations
    from retriever.releases import Releases
    from retriever.rerank import CrossEncoderReranker, open_reranker
    from retriever.store import Store

    gate = Gate.read(questions, margin=_MARGIN) if questions else None
    served = open_reranker(chosen.reranker) if chosen.reranker and found.manifest.kind == "reranker" else None
    with Store(chosen.data_dir) as store:
        return Promotion(
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
            dry=dry,
            on_phase=seen.on_phase,
            on_progress=seen.on_progress,
        ).run()


def _servable(found: Candidate, file: str | None, *, unmerged: bool) -> Servable:
    from finetune import servable

    if file and unmerged:
        raise click.UsageError("--file goes with an export, not with --unmerged.")
    return servable.unmerged(found) if unmerged else servable.exported(found, file)


def _promote_reader(
    chosen: Settings, found: Candidate, servable: Servable, seen: Watched, *, override: str | None, dry: bool
) -> ReaderOutcome:
    from functools import lru_cache

    from finetune.promote_reader import ReaderPromotion
    from finetune.served import open_served
    from retriever.releases import Releases

    if servable.about:
        seen.on_note(f"{servable.about}.")
    with open_served(chosen) as live:
        encoder = lru_cache(maxsize=1)(lambda: live.encoder(None))
        return ReaderPromotion(
            found,
            servable,
            chosen,
            Releases(chosen.data_dir),
            encoder,
            override=override,
            dry=dry,
            on_phase=seen.on_phase,
            on_progress=seen.on_progress,
        ).run()


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


def _reader_json(candidate: Candidate, servable: Servable, outcome: ReaderOutcome) -> dict[str, object]:
    from dataclasses import asdict

    judged = outcome.judged
    return {
        "candidate": candidate.name,
        "kind": "reader",
        "status": outcome.status,
        "already": outcome.already,
        "reader": servable.reader,
        "verdict": asdict(judged.served) if judged else None,
        "base": asdict(judged.base) if judged and judged.base else None,
        "wrong_quotes": judged.wrong_quotes if judged else None,
        "failed": dict(judged.failed) if judged else None,
    }


def _say_reader(candidate: Candidate, servable: Servable, outcome: ReaderOutcome) -> None:
    name = candidate.name
    if outcome.already:
        click.echo(f"{name} is served already.")
        return
    if outcome.judged:
        for verdict in filter(None, (outcome.judged.served, outcome.judged.base)):
            click.echo(f"{verdict}.")
        for which, count in outcome.judged.failed.items():
            if count:
                click.secho(f"{which} failed on {count} questions, which count as nothing.", fg="yellow", err=True)
    if outcome.status == "tried":
        click.echo(f"Nothing has changed. `beleg promote {name}` takes it.")
    else:
        click.echo(
            f"{name} is live: {servable.reader}, which must stay where it is. `beleg rollback` brings back what was before."
        )


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
    "candidate": "Asking the candidate",
    "served": "Asking what is served",
    "base": "Asking its untuned base",
    "measure": "Measuring",
    "encode": "Encoding",
    "build": "Building",
    "verify": "Verifying",
    "gate": "Comparing",
    "swap": "Swapping",
}
