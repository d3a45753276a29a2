"""`beleg serve`. Heavy imports happen inside the command."""

from __future__ import annotations

import click

from retriever.cli import open_settings

__all__ = ["serve"]


@click.command()
@click.option("--host", help="Address to listen on; the setting `host` otherwise.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one.")
def serve(*, host: str | None, port: int | None) -> None:
    """Answer questions over HTTP.

    POST /v1/ask and /v1/search; GET /openapi.json describes them. What `beleg index` changes
    meanwhile shows within a second.
    """
    from serving.run import run

    chosen = open_settings()
    changes = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    run(chosen.model_copy(update=changes))
