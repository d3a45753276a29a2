"""`beleg index` and `rebuild`, and the way back: what changes the index. Heavy imports happen inside the commands."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from retriever.cli import json_option, open_settings, print_json

if TYPE_CHECKING:
    from retriever.fill import Maker
    from retriever.index.base import Generation, Generations
    from retriever.ingest import Outcome
    from retriever.rebuild import Report
    from retriever.settings import Settings
    from retriever.store import Store

__all__ = ["index", "rebuild", "roll_index_back"]

_WAIT_S = 30.0
"""How long `beleg index` waits for the end of another run, such as the short one in which a rebuild swaps."""

_journal = click.option("--journal", type=click.Path(path_type=Path), help="Append what happens to this file, as JSON lines.")


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--prune", is_flag=True, help="Also remove documents from below PATHS that are gone.")
@_journal
@json_option
def index(paths: tuple[Path, ...], *, prune: bool, journal: Path | None, as_json: bool) -> None:
    """Read files and folders and make them searchable.

    PDF, Word, Excel, PowerPoint, OpenDocument text, RTF, CSV, e-mail, HTML, Markdown and plain text; scans where Tesseract is
    installed. Files that have not changed are skipped; only new passages are encoded. Stop it whenever
    you like: the next run goes on. Exit code 3 says that some files were left out; each is named with the reason.

    An index keeps its encoder and the size of its chunks, whatever the settings say by now, until `beleg rebuild`.
    """
    from retriever.errors import IndexMismatch
    from retriever.index.engines import open_generations
    from retriever.ingest import Ingest
    from retriever.journal import Journal
    from retriever.store import Store

    chosen = open_settings()
    outcomes: list[Outcome] = []
    with Journal(journal) as told, _bar("Indexing", quiet=as_json) as bar, Store(chosen.data_dir) as store:

        def on_found(sources: Sequence[str]) -> None:
            bar.begin("Indexing", len(sources))
            told.tell("total", documents=len(sources))
            for source in sources:
                told.tell("queued", source=source)

        def on_outcome(outcome: Outcome) -> None:
            outcomes.append(outcome)
            bar.advance(1, Path(outcome.source).name)
            told.tell("outcome", **asdict(outcome))

        written = 0

        def on_written(chunks: int) -> None:
            nonlocal written
            if not written:
                bar.begin("Writing passages", None)
            written += chunks
            bar.advance(chunks, "")
            told.tell("progress", phase="build", done=written, total=None)

        generations = open_generations(chosen, store)

        def run() -> tuple[bool, Maker]:
            maker, reference = _maker_of_live(store, generations, chosen)
            ingest = Ingest(
                store,
                generations,
                maker,
                reference,
                max_bytes=chosen.max_file_mb << 20,
                timeout_s=chosen.load_timeout_s,
                ocr=chosen.ocr_languages if chosen.ocr == "auto" else "",
                prune=prune,
                keep_s=chosen.rollback_days * 86400,
                wait_s=_WAIT_S,
                on_outcome=on_outcome,
                on_found=on_found,
                on_written=on_written,
            )
            return ingest.run(paths), maker

        try:
            published, maker = run()
        except IndexMismatch:
            # A rebuild may have ended while this run waited for it. If it was something else, it will be again.
            published, maker = run()
        documents, chunks = store.count(store.revision(), maker.stamp.chunking)
        counts = Counter(outcome.status for outcome in outcomes)
        totals = {
            **{status: counts[status] for status in ("added", "changed", "unchanged", "removed", "failed")},
            "documents": documents,
            "chunks": chunks,
            "published": published,
        }
        told.tell("result", **totals)
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if as_json:
        left_out = [{"source": item.source, "reason": item.reason, "way_out": item.way_out} for item in failed]
        print_json({**totals, "left_out": left_out})
    else:
        done = ", ".join(f"{number} {status}" for status, number in counts.items() if status != "failed") or "nothing to do"
        click.echo(f"{done}. The index holds {documents} documents in {chunks} chunks.")
        for item in failed:
            click.secho(f"Left out: {item.source}: {item.reason}", fg="yellow", err=True)
            if item.way_out:
                click.echo(f"  {item.way_out}", err=True)
    sys.exit(3 if failed else 0)


@click.command()
@click.option(
    "--encoder", metavar="MODEL", help="Encoder of the new index; otherwise the promoted one, or the setting `encoder`."
)
@click.option("--chunk-tokens", type=click.IntRange(16), help="Largest chunk; the setting `chunk_tokens` otherwise.")
@click.option("--chunk-overlap", type=click.IntRange(0), help="Repeated between chunks; the setting `chunk_overlap` otherwise.")
@click.option(
    "--questions",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Questions with known answers, as for `beleg evaluate`, that the new index must not find less of.",
)
@click.option(
    "--margin", default=0.02, show_default=True, type=click.FloatRange(0, 1), help="How much lower its nDCG@10 may be."
)
@_journal
@json_option
def rebuild(
    *,
    encoder: str | None,
    chunk_tokens: int | None,
    chunk_overlap: int | None,
    questions: Path | None,
    margin: float,
    journal: Path | None,
    as_json: bool,
) -> None:
    """Build a new index beside the live one, and swap them.

    With another encoder, other chunks, or just afresh. Questions are answered and documents may change as before meanwhile;
    the swap is one step that nobody notices. Kill it whenever you like: the next run goes on. `beleg rollback` brings the old
    one back.
    """
    from retriever.chunk import ChunkSize
    from retriever.encode import open_encoder
    from retriever.encoders import Encoders
    from retriever.errors import ModelError
    from retriever.fill import Maker
    from retriever.gate import Gate
    from retriever.index.engines import open_generations
    from retriever.rebuild import Rebuild
    from retriever.store import Store
    from retriever.watched import watched

    chosen = open_settings()
    size = ChunkSize(
        chosen.chunk_tokens if chunk_tokens is None else chunk_tokens,
        chosen.chunk_overlap if chunk_overlap is None else chunk_overlap,
    )
    gate = Gate.read(questions, margin=margin) if questions else None
    with watched(journal, _PHASES, quiet=as_json) as seen, Store(chosen.data_dir) as store:
        generations = open_generations(chosen, store)
        reference = encoder or _wanted_encoder(store, generations.live(), chosen)
        try:
            maker = Maker(open_encoder(reference), size)
        except ModelError as error:
            if reference in (encoder, chosen.encoder):
                raise
            way_out = f"Bring its folder back, or name another one: `beleg rebuild --encoder {chosen.encoder}`."
            raise ModelError(f"The promoted encoder does not open. {error.message}", way_out=way_out) from error
        report = Rebuild(
            store,
            generations,
            maker,
            reference,
            Encoders(chosen.encoder),
            chosen.alpha,
            gate,
            on_phase=seen.on_phase,
            on_progress=seen.on_progress,
        ).run()
        seen.journal.tell("result", **_report_json(report))
    _say(report, "New", as_json=as_json)


def roll_index_back(chosen: Settings, *, journal: Path | None, as_json: bool) -> None:
    """Bring back the index before the last rebuild for `beleg rollback`, and say so.

    Raises:
        BelegError: what `retriever.rebuild.rollback` raises.
    """
    from retriever.encode import open_encoder
    from retriever.encoders import Encoders
    from retriever.errors import BelegError
    from retriever.index.engines import open_generations
    from retriever.rebuild import rollback as go_back
    from retriever.releases import Releases
    from retriever.store import Store
    from retriever.watched import watched

    with watched(journal, _PHASES, quiet=as_json) as seen, Store(chosen.data_dir) as store:
        report = go_back(
            store,
            open_generations(chosen, store),
            Encoders(chosen.encoder, open_=open_encoder),
            alpha=chosen.alpha,
            on_phase=seen.on_phase,
            on_progress=seen.on_progress,
        )
        seen.journal.tell("result", **_report_json(report))
    _say(report, "Earlier", as_json=as_json)
    new, old = report.generation, report.replaced
    try:
        Releases(chosen.data_dir).add(
            outcome="rolled back",
            **{"from": old.stamp.encoder if old else None},
            to=new.stamp.encoder,
            replaces=old.name if old else None,
            generation=new.name,
        )
    except BelegError as error:
        # No error: whoever runs it again to mend that goes forward again.
        click.secho(f"Only the record of it is lacking: {error.message}", fg="yellow", err=True)
        sys.exit(3)


def _wanted_encoder(store: Store, live: Generation | None, chosen: Settings) -> str:
    """Return the model reference of the promoted encoder while it stands for the setting, else the setting."""
    from retriever.promoted import stands_for

    return live.encoder if live and stands_for(store, live, chosen.encoder) else chosen.encoder


def _maker_of_live(store: Store, generations: Generations, chosen: Settings) -> tuple[Maker, str]:
    """Return what makes chunks and vectors for the live generation, or as the settings say if there is none yet."""
    from retriever.chunk import ChunkSize
    from retriever.encode import open_encoder
    from retriever.encoders import Encoders
    from retriever.fill import Maker, size_of

    wanted = ChunkSize(chosen.chunk_tokens, chosen.chunk_overlap)
    live = generations.live()
    if live is None:
        return Maker(open_encoder(chosen.encoder), wanted), chosen.encoder
    maker = Maker(Encoders(chosen.encoder, open_=open_encoder).of(live), size_of(live))
    keeps = []
    if live.encoder not in ("", _wanted_encoder(store, live, chosen)):
        keeps.append(f"its encoder ({live.encoder})")
    if maker.size != wanted:
        keeps.append(f"chunks of {maker.size.tokens} tokens, overlapping by {maker.size.overlap}")
    if keeps:
        told = f"The index keeps {' and '.join(keeps)}. The settings say otherwise: `beleg rebuild` follows them."
        click.secho(told, fg="yellow", err=True)
    return maker, live.encoder or chosen.encoder


def _report_json(report: Report) -> dict[str, object]:
    return {
        "generation": report.generation.name,
        "encoder": report.generation.encoder,
        "replaced": report.replaced.name if report.replaced else None,
        "documents": report.documents,
        "chunks": report.chunks,
        "gate": asdict(report.verdict) if report.verdict else None,
    }


def _say(report: Report, which: str, *, as_json: bool) -> None:
    if as_json:
        print_json(_report_json(report))
        return
    verdict = report.verdict
    found = f" nDCG@10 {verdict.new:.3f}, before {verdict.live:.3f}." if verdict else ""
    click.echo(f"{which} index is live: {report.documents} documents in {report.chunks} chunks.{found}")
    if report.replaced:
        click.echo("`beleg rollback` brings back the one before it.")


class _Bar:
    """A progress bar on stderr, where somebody can see it."""

    def __init__(self, begin: Callable[[str, int | None], None], advance: Callable[[int, str], None]) -> None:
        self.begin = begin
        self.advance = advance


@contextmanager
def _bar(title: str, *, quiet: bool) -> Iterator[_Bar]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as progress:
        task = progress.add_task(title, total=None)

        def begin(text: str, total: int | None) -> None:
            progress.reset(task, total=total, description=text)

        def advance(done: int, text: str) -> None:
            progress.update(task, advance=done, description=text[:40] or None)

        yield _Bar(begin, advance)


_PHASES = {"encode": "Encoding", "build": "Building", "verify": "Verifying", "gate": "Comparing", "swap": "Swapping"}
