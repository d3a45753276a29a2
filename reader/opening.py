"""Opens the reader that the settings name: a model server, or weights in this process."""

from __future__ import annotations

from reader.engine.base import Engine
from reader.engine.llamacpp import LlamaCpp
from reader.engine.remote import Remote
from retriever.models import file_hash, locate, weights_in
from retriever.settings import Settings

__all__ = ["open_engine"]


def open_engine(settings: Settings) -> Engine:
    """Open the reader that the settings name: a model server if there is a `reader_url`, else a GGUF in this process.

    Raises:
        ModelError: the model is missing or damaged.
        EngineUnavailable: the server does not answer.
    """
    if settings.reader_url:
        return Remote(
            settings.reader_url,
            model=settings.reader_model,
            api_key=settings.reader_api_key.get_secret_value(),
            timeout_s=settings.reader_timeout_s,
            context_size=settings.context_tokens,
        )
    path = weights_in(locate(settings.reader), "*.gguf")
    return LlamaCpp(
        path,
        model=settings.reader,
        fingerprint=file_hash(path),
        context_size=settings.context_tokens,
        threads=settings.threads or None,
    )
