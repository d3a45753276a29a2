"""`beleg serve` and `beleg jobs`. Heavy imports happen inside the commands."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retriever.cli import json_option, open_settings, print_json

if TYPE_CHECKING:
    from serving.jobs.jobs import Job, Jobs

__all__ = ["jobs", "serve"]

_LOOK_S = 0.3
_LATE_S = 3.0
"""After how long `wait` says that nobody carries the job out. A server that starts takes a moment."""

_COLOURS = {"done": "green", "failed": "red", "cancelled": "yellow", "running": "cyan"}


@click.command()
@click.option("--host", help="Address to listen on; the setting `host` otherwise.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one.")
@json_option
def serve(*, host: str | None, port: int | None, as_json: bool) -> None:
    """Answer questions over HTTP, and carry out jobs.

    POST /v1/ask, /v1/search and /v1/jobs; GET /openapi.json describes them. What `beleg index` changes
    meanwhile shows within a second.
    """
    from serving.run import run

    chosen = open_settings()
    changes = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    chosen = chosen.model_copy(update=changes)
    if as_json:
        run(chosen, announce=lambda url: click.echo(json.dumps({"url": url})))
    else:
        run(chosen)


@click.group()
def jobs() -> None:
    """Leave long work to a running `beleg serve`.

    A job outlives the terminal, and a restart of the server. The commands of the same names do the same at once.
    """


@jobs.command("list")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 200), help="At most so many jobs.")
@json_option
def list_(*, limit: int, as_json: bool) -> None:
    """List jobs, newest first."""
    with _opened() as opened:
        found = opened.newest(limit)
        if as_json:
            print_json({"jobs": [_json(job) for job in found]})
            return
        for job in found:
            click.echo(f"{job.id:32} {_styled(job)}{' ' * (10 - len(job.status))} {_summary(job)}".rstrip())
        if not found:
            click.echo("There are no jobs.")
        if any(not job.over for job in found):
            _warn_if_unattended(opened)


@jobs.command()
@click.argument("job", metavar="ID")
@click.option("--failed", is_flag=True, help="Also list the documents that were left out.")
@json_option
def show(job: str, *, failed: bool, as_json: bool) -> None:
    """Show a job."""
    with _opened() as opened:
        found = opened.get(job)
        left_out = opened.documents(job, status="failed") if failed else []
        if as_json:
            from serving.jobs.payloads import documents_payload

            listed = documents_payload(left_out, limit=len(left_out), offset=0).model_dump(mode="json")["documents"]
            print_json(_json(found) | ({"documents": listed} if failed else {}))
            return
        _describe(found)
        for item in left_out:
            click.secho(f"Left out: {item.source}: {item.reason}", fg="yellow")
            if item.way_out:
                click.echo(f"  {item.way_out}")
        if not found.over:
            _warn_if_unattended(opened)


@jobs.command()
@click.argument("job", metavar="ID")
@json_option
def wait(job: str, *, as_json: bool) -> None:
    """Watch a job until it ends. Exit code 0: done, 3: done but something was left out, 1: failed or cancelled.

    To stop watching does not stop the job.
    """
    with _opened() as opened:
        found = _watch(opened, job, quiet=as_json)
    if as_json:
        print_json(_json(found))
    else:
        _describe(found)
    sys.exit(1 if found.status != "done" else 3 if found.left_out else 0)


@jobs.command()
@click.argument("job", metavar="ID")
@json_option
def cancel(job: str, *, as_json: bool) -> None:
    """Cancel a queued or running job. What it has stored stays."""
    with _opened() as opened:
        _tell(opened, opened.cancel(job), as_json=as_json)


@jobs.command()
@click.argument("job", metavar="ID")
@json_option
def resume(job: str, *, as_json: bool) -> None:
    """Go on with a failed or cancelled job."""
    with _opened() as opened:
        _tell(opened, opened.resume(job), as_json=as_json)


@jobs.command("index")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, resolve_path=True))
@click.option("--prune", is_flag=True, help="Also remove documents from below PATHS that are gone.")
@json_option
def index_(paths: tuple[Path, ...], *, prune: bool, as_json: bool) -> None:
    """Have files and folders read and made searchable, as `beleg index` does."""
    _start("index", {"paths": [str(path) for path in paths], "prune": prune}, as_json=as_json)


@jobs.command()
@click.option("--encoder", metavar="MODEL", help="Encoder of the new index; the server's setting `encoder` otherwise.")
@click.option("--chunk-tokens", type=click.IntRange(16), help="Largest chunk, in tokens.")
@click.option("--chunk-overlap", type=click.IntRange(0), help="What a chunk repeats of the one before it, in tokens.")
@click.option(
    "--questions",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True),
    help="Questions with known answers, that the new index must not find less of.",
)
@click.option("--margin", type=click.FloatRange(0, 1), help="How much lower its nDCG@10 may be.")
@json_option
def rebuild(*, as_json: bool, **options: object) -> None:
    """Have a new index built beside the live one and swapped, as `beleg rebuild` does."""
    given = {name: value for name, value in options.items() if value is not None}
    encoder = given.get("encoder")
    # A folder is one seen from here; the server may have another working directory.
    if isinstance(encoder, str) and Path(encoder).expanduser().exists():
        given["encoder"] = str(Path(encoder).expanduser().resolve())
    _start("rebuild", given, as_json=as_json)


@jobs.command()
@click.option("--reader", "which", flag_value="reader", help="The reader, even if the index was changed after it.")
@click.option("--index", "which", flag_value="index", help="The index, even if a reader was promoted after it.")
@json_option
def rollback(*, which: str | None, as_json: bool) -> None:
    """Have the reader or the index before the last change brought back, as `beleg rollback` does."""
    _start("rollback", {"which": which} if which else {}, as_json=as_json)


@jobs.command()
@click.argument("model", type=click.Choice(["retriever", "reranker", "reader"]))
@click.argument("recipe")
@click.option("--set", "set_", multiple=True, metavar="KEY=VALUE", help="Set a key of the recipe. Repeatable.")
@click.option("--limit", type=click.IntRange(1), help="Train on the first so many rows only.")
@click.option("--name", help="Of the candidate.")
@json_option
def train(model: str, recipe: str, *, set_: tuple[str, ...], as_json: bool, **options: object) -> None:
    """Have a model trained, as `beleg train` does. RECIPE is a file or the name of a shipped one."""
    given = {name: value for name, value in options.items() if value is not None}
    _start("train", {"model": model, "recipe": _from_here(recipe), "set": [*set_], **given}, as_json=as_json)


@jobs.command()
@click.argument("candidate")
@click.option("--quantize", multiple=True, metavar="KIND", help="Instead of the kinds that its recipe names. Repeatable.")
@json_option
def export(candidate: str, *, quantize: tuple[str, ...], as_json: bool) -> None:
    """Have a reader's candidate exported to GGUF files, as `beleg export` does."""
    _start("export", {"candidate": _from_here(candidate), "quantize": [*quantize]}, as_json=as_json)


@jobs.command()
@click.argument("candidate")
@click.option("--questions", type=click.Path(exists=True, dir_okay=False, resolve_path=True), help="About your own documents.")
@click.option("--file", metavar="NAME", help="Of a reader: which GGUF of its export, where there are several.")
@click.option("--unmerged", is_flag=True, help="Of a reader: its adapter as it is, served by transformers; it needs no export.")
@click.option("--override", metavar="REASON", help="Take it though the gate refuses it; the reason is kept.")
@json_option
def promote(candidate: str, *, as_json: bool, **options: object) -> None:
    """Have a candidate served if it is better, as `beleg promote` does."""
    given = {name: value for name, value in options.items() if value is not None}
    _start("promote", {"candidate": _from_here(candidate), **given}, as_json=as_json)


def _from_here(path: str) -> str:
    """Return a path as the server sees it, which may have another working directory; names stay as they are."""
    found = Path(path).expanduser()
    return str(found.resolve()) if found.exists() and (found.name != path or found.is_file()) else path


@contextmanager
def _opened() -> Iterator[Jobs]:
    chosen = open_settings()
    from serving.jobs.jobs import Jobs

    opened = Jobs(chosen)
    try:
        yield opened
    finally:
        opened.close()


def _start(kind: str, arguments: dict[str, object], *, as_json: bool) -> None:
    from pydantic import ValidationError

    from serving.jobs.kinds import KINDS

    try:
        checked = KINDS[kind].arguments.model_validate(arguments)
    except ValidationError as error:
        first = error.errors()[0]
        raise click.UsageError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    with _opened() as opened:
        _tell(opened, opened.start(kind, checked), as_json=as_json)


def _tell(opened: Jobs, job: Job, *, as_json: bool) -> None:
    if as_json:
        print_json(_json(job))
        return
    click.echo(f"{job.id} {_styled(job)}")
    if not job.over and not _warn_if_unattended(opened):
        click.echo(f"`beleg jobs wait {job.id}` watches it.", err=True)


def _warn_if_unattended(opened: Jobs) -> bool:
    unattended = opened.attended() is False
    if unattended:
        click.secho("No server carries out jobs of this data folder. `beleg serve` does.", fg="yellow", err=True)
    return unattended


def _watch(opened: Jobs, job: str, *, quiet: bool) -> Job:
    """Draw a bar on stderr, where somebody can see it, until the job is over."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    late: float | None = time.monotonic() + _LATE_S
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as bar:
        task, phase = bar.add_task(job, total=None), None
        while True:
            found = opened.get(job)
            now = found.progress
            if now.phase != phase:  # the time that is left is guessed anew
                phase = now.phase
                bar.reset(task, total=now.total, description=f"{job} {phase}")
            bar.update(task, completed=now.done, total=now.total)
            if found.over:
                return found
            if late and time.monotonic() > late:
                late = None
                _warn_if_unattended(opened)
            time.sleep(_LOOK_S)


def _styled(job: Job) -> str:
    return click.style(job.status, fg=_COLOURS.get(job.status))


def _summary(job: Job) -> str:
    if job.error:
        return job.error["message"].splitlines()[0]
    counts = ", ".join(f"{number} {name}" for name, number in job.progress.documents.items() if number)
    if job.status == "running" and job.progress.phase:
        total = f" of {job.progress.total}" if job.progress.total else ""
        return f"{job.progress.phase} {job.progress.done}{total}" + (f" ({counts})" if counts else "")
    return counts


def _describe(job: Job) -> None:
    click.echo(f"{job.id} {_styled(job)}")
    for name, value in job.arguments.items():
        click.echo(f"  {name}: {', '.join(map(str, value)) if isinstance(value, list) else value}")
    for name, moment in (("created", job.created), ("started", job.started), ("ended", job.ended)):
        if moment:
            click.echo(f"  {name}: {moment.astimezone():%Y-%m-%d %H:%M:%S}")
    if summary := _summary(job):
        click.echo(f"  {summary}")
    if job.error and job.error["way_out"]:
        click.echo(f"  {job.error['way_out']}")
    if job.left_out:
        click.secho(f"  Something was left out: beleg jobs show {job.id} --failed", fg="yellow")


def _json(job: Job) -> dict[str, Any]:
    from serving.jobs.payloads import job_payload

    return job_payload(job).model_dump(mode="json")
