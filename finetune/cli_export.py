"""`beleg export`. Heavy imports happen inside the command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from retriever.cli import json_option, open_settings, print_json

if TYPE_CHECKING:
    from finetune.export import Choice, Exported
    from finetune.parity.result import Link

__all__ = ["export"]

_PHASES = {
    "merge": "Merging",
    "convert": "Converting",
    "quantize": "Quantizing",
    "tokens": "Comparing tokens",
    "trained": "Asking base and adapter",
    "merged": "Asking the merged model",
    "answers": "Answering as trained",
    "f16": "Asking the GGUF in f16",
    "adapter": "Asking the GGUFs",
    "served": "Answering as served",
}


@click.command()
@click.argument("candidate")
@click.option(
    "--base", metavar="MODEL", help="What it was trained on: a folder, package:NAME, or a hub id. A candidate says it itself."
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder to write; must not exist yet. Of a candidate, its own `export`."
)
@click.option(
    "--quantize",
    "kinds",
    multiple=True,
    metavar="KIND",
    help="f16, q8_0, q6_k, q5_k_m, q4_k_m, … Repeatable.  [default: what its recipe says, or q8_0]",
)
@click.option(
    "--merge",
    "merging",
    type=click.Choice(["original", "dequantized", "best"]),
    help="Onto the base as published, or as training over a quantized base saw it, or whichever is nearer to what was trained."
    "  [default: what its recipe says, or best]",
)
@click.option("--bits", type=click.Choice(["4", "8"]), help="Trained over a base of so many bits; else its manifest says.")
@click.option("--adapter-only", is_flag=True, help="Do not merge: write the adapter as a GGUF that goes over the base's.")
@click.option(
    "--prompts",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Other questions with passages to compare on, a JSON object a line. A candidate brings held-out ones.",
)
@click.option(
    "--context", default=4096, show_default=True, type=click.IntRange(512), help="Tokens of prompt and answer when served."
)
@click.option("--journal", type=click.Path(path_type=Path), help="Append what happens to this file, as JSON lines.")
@json_option
def export(
    candidate: str,
    *,
    base: str | None,
    out: Path | None,
    kinds: tuple[str, ...],
    merging: str | None,
    bits: str | None,
    adapter_only: bool,
    prompts: Path | None,
    context: int,
    journal: Path | None,
    as_json: bool,
) -> None:
    """Turn CANDIDATE into GGUF files that are proven to be the model that was trained.

    CANDIDATE is a reader that `beleg candidates` lists; or a folder with an adapter or a whole tuned model, with --base and
    --out. It is merged, converted, quantized, and compared link by link with base and adapter. If a link fails, nothing is
    exported, and the report says which one and the likely cause.

    \b
    beleg export reader-1a2b3c4d
    beleg export models/adapter --base mistralai/Mistral-7B-Instruct-v0.3 --out models/reader --quantize q4_k_m
    """
    import os

    from finetune.export import Export
    from finetune.exportable import exportable
    from finetune.parity.cases import read_cases
    from finetune.parity.limits import Effort
    from retriever.watched import watched

    if adapter_only and kinds:
        raise click.UsageError("--quantize goes with a merged export, not with --adapter-only.")
    found = exportable(candidate, open_settings().data_dir, base=base, out=out, bits=int(bits) if bits else None)
    cases = read_cases(prompts) if prompts else found.cases
    wanted = tuple(dict.fromkeys(kind.lower() for kind in kinds or found.kinds))
    with watched(journal, {**_PHASES, **{kind: f"Asking {kind}" for kind in wanted}}, quiet=as_json) as seen:
        if journal:
            os.nice(10)  # a job of a server: questions come first
        exported = Export(
            found.base,
            found.adapter,
            found.out,
            kinds=wanted,
            merging=cast("Choice", merging or found.merging),
            adapter_only=adapter_only,
            cases=cases,
            effort=Effort(context=context),
            on_phase=seen.on_phase,
            on_progress=seen.on_progress,
            on_note=seen.on_note,
        ).run()
        seen.journal.tell("result", folder=str(exported.folder), files=exported.files)
    if as_json:
        print_json(
            {"folder": str(exported.folder), "files": exported.files, "merged": exported.way, **exported.parity.as_json()}
        )
    else:
        _say(exported)


def _say(exported: Exported) -> None:
    for link in exported.parity.links:
        click.echo(f"{link.title}: holds{_figures(link)}")
    for name, hash_ in exported.files.items():
        click.echo(f"{exported.folder / name}  SHA-256 {hash_}")
    click.echo(f"Report: {exported.folder / 'parity.html'}")


def _figures(link: Link) -> str:
    if "mean_kl" not in link.measured:
        return ""
    return f" (mean KL {link.measured['mean_kl']:.2g}, 99% {link.measured['p99_kl']:.2g}, top 1 {link.measured['top1']:.1%})"
