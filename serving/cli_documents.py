"""`beleg documents`: what is indexed, and how files come and go. Heavy imports happen inside the commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from retriever.cli import json_option, open_settings, print_json

if TYPE_CHECKING:
    from retriever.ingest import Outcome
    from retriever.journal import Journal
    from retriever.settings import Settings
    from serving.documents import Documents

__all__ = ["documents"]

_WAIT_S = 30.0
"""How long `remove` waits for the end of a run of `beleg index`."""

_BLOCK = 1 << 20


@click.group()
def documents() -> None:
    """List what is indexed, look into it, add files and remove documents.

    Files that are added are copied into Beleg's own folder. `beleg index` reads files where they are instead, and its
    documents are listed here too.
    """


@documents.command("list")
@click.option("--query", default="", metavar="WORDS", help="Only those whose title, name or folder holds these words.")
@click.option("--kind", help="Only of this kind, such as pdf.")
@click.option("--language", help="Only in this language, such as de.")
@click.option("--folder", help="Only from a folder of this name.")
@click.option(
    "--sort",
    default="title",
    show_default=True,
    type=click.Choice(["title", "date", "-date", "pages"]),
    help="-date begins with the newest.",
)
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1), help="At most so many documents.")
@json_option
def list_(
    *, query: str, kind: str | None, language: str | None, folder: str | None, sort: str, limit: int, as_json: bool
) -> None:
    """List documents."""
    from typing import cast

    from serving.document_payloads import documents_payload
    from serving.documents import Sort

    only = {"kind": kind, "language": language, "folder": folder}
    with _opened(open_settings()) as opened:
        page = opened.page(limit=limit, query=query, sort=cast("Sort", sort), only=only)
    if as_json:
        print_json(documents_payload(page).model_dump(mode="json"))
        return
    for entry in page.documents:
        extent = f"{entry.pages} p." if entry.pages else ""
        click.echo(f"{entry.document}  {entry.date or '':10}  {entry.kind:8}  {extent:>8}  {entry.title}")
    if len(page.documents) < page.total:
        click.echo(f"These are {len(page.documents)} of {page.total}: --limit shows more, --query fewer.", err=True)
    if not page.documents:
        click.echo("There are none." if page.facets["kind"] else "Nothing has been indexed yet. Run `beleg index FOLDER`.")


@documents.command()
@click.argument("document", metavar="ID")
@click.option("--text", "whole", is_flag=True, help="Print its text, and nothing else.")
@click.option("--start", type=click.IntRange(0), help="Print the text from this offset on, counted in code points.")
@click.option("--end", type=click.IntRange(0), help="Print the text up to this offset.")
@json_option
def show(document: str, *, whole: bool, start: int | None, end: int | None, as_json: bool) -> None:
    """Show a document: where it came from, its headings, and what its file says of itself."""
    from serving.document_payloads import document_payload

    with _opened(open_settings()) as opened:
        found, entry = opened.get(document), opened.entry(document)
    part = found.text[start or 0 : end] if whole or start is not None or end is not None else None
    if as_json:
        shown = document_payload(entry, found).model_dump(mode="json")
        print_json(shown if part is None else {**shown, "text": part})
        return
    if part is not None:
        click.echo(part)
        return
    click.secho(entry.title, bold=True)
    for name, value in asdict(entry).items():
        if name != "title" and value is not None:
            click.echo(f"  {name}: {value}")
    # What is left of the metadata: the list has its own words for the rest.
    for name, value in sorted(found.metadata.items()):
        if name not in asdict(entry):
            click.echo(f"  {name}: {value}")
    for heading in found.headings:
        page = found.page_at(heading.start)
        click.echo("  " * heading.level + heading.text + (f"  (page {page})" if page else ""))


@documents.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--folder", default="", metavar="NAME", help="Folder among Beleg's own that they go to, such as hr/rules.")
@json_option
@click.pass_context
def add(context: click.Context, files: tuple[Path, ...], *, folder: str, as_json: bool) -> None:
    """Copy files into Beleg's own folder, and make them searchable.

    A file of the same name and folder is replaced. This does what an upload over HTTP does; exit codes and what is printed
    are those of `beleg index`.
    """
    from retriever.cli_index import index
    from serving.errors import UploadRefused
    from serving.uploads import Uploads, checked_name

    uploads = Uploads(open_settings().data_dir)
    # All of them before the first is copied.
    names = [checked_name("/".join(filter(None, (folder.strip("/"), file.name)))) for file in files]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UploadRefused(f"Two of these files would be {twice}.", way_out="Add them one by one, each with its --folder.")
    paths = []
    for file, name in zip(files, names, strict=True):
        with file.open("rb") as source, uploads.begin(name) as upload:
            while block := source.read(_BLOCK):
                upload.write(block)
            paths.append(upload.keep().path)
    context.invoke(index, paths=tuple(paths), as_json=as_json)


@documents.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID…")
@click.option("--yes", is_flag=True, help="Do not ask first.")
@click.option("--keep-files", is_flag=True, help="Leave files that were uploaded where they are.")
@click.option("--missing-ok", is_flag=True, help="Do not mind documents that are not there.")
@click.option("--journal", type=click.Path(path_type=Path), help="Append what happens to this file, as JSON lines.")
@json_option
def remove(ids: tuple[str, ...], *, yes: bool, keep_files: bool, missing_ok: bool, journal: Path | None, as_json: bool) -> None:
    """Remove documents from what is searched, and the files of those that were uploaded.

    Other files stay where they are: the next `beleg index` of their folder brings the documents back.
    """
    from retriever.journal import Journal
    from serving.errors import DocumentMissing

    chosen = open_settings()
    with Journal(journal) as told, _opened(chosen) as opened:
        sources: dict[str, str] = {}
        for document in ids:
            try:
                sources[document] = opened.source(document)
            except DocumentMissing:
                if not missing_ok:
                    raise
        if not yes:
            for source in sources.values():
                click.echo(f"{source}{' (with its file)' if opened.uploads.holds(source) and not keep_files else ''}", err=True)
            click.confirm(f"Remove {len(sources)} of your documents?", abort=True, err=True)
        # Files first: killed now, the documents are still listed, to be removed again.
        deleted = [source for source in sources.values() if not keep_files and opened.uploads.delete(source)]
        outcomes = _forget(chosen, ids, told)
        removed = [outcome.source for outcome in outcomes if outcome.status == "removed"]
        told.tell("result", removed=len(removed), deleted=len(deleted))
    if as_json:
        print_json({"removed": removed, "deleted": deleted})
        return
    for source in dict.fromkeys(removed + deleted):
        click.echo(f"Removed: {source}" + ("" if source in deleted else " (its file stays)"))


def _forget(chosen: Settings, ids: tuple[str, ...], told: Journal) -> list[Outcome]:
    from retriever.index.engines import open_generations
    from retriever.removing import remove as forget
    from retriever.store import Store

    outcomes: list[Outcome] = []

    def on_outcome(outcome: Outcome) -> None:
        outcomes.append(outcome)
        told.tell("outcome", **asdict(outcome))

    with Store(chosen.data_dir) as store:
        forget(
            store,
            open_generations(chosen, store),
            ids,
            keep_s=chosen.rollback_days * 86400,
            wait_s=_WAIT_S,
            on_outcome=on_outcome,
        )
    return outcomes


@contextmanager
def _opened(chosen: Settings) -> Iterator[Documents]:
    from contextlib import closing

    from serving.documents import Documents

    with closing(Documents(chosen)) as opened:
        yield opened
