"""`beleg serve`. Heavy imports happen inside the command."""

from __future__ import annotations

import json

import click

from retriever.cli import json_option, open_settings

__all__ = ["serve"]


@click.command()
@click.option("--host", help="Address to listen on; the setting `host` otherwise.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one.")
@json_option
def serve(*, host: str | None, port: int | None, as_json: bool) -> None:
    """Answer questions over HTTP.

    POST /v1/ask and /v1/search; GET /openapi.json describes them. What `beleg index` changes
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
