"""Opens the reader that the settings name: a model server, or weights in this process."""

from __future__ import annotations

from pathlib import Path

from reader.engine.base import Engine
from reader.engine.hf import ADAPTER, Transformers, open_source
from reader.engine.llamacpp import LlamaCpp
from reader.engine.remote import Remote
from retriever.errors import ModelError, SettingsError
from retriever.models import file_hash, locate, weights_in
from retriever.settings import Settings

__all__ = ["open_engine"]


def open_engine(settings: Settings) -> Engine:
    """Open the reader that the settings name: a model server if there is a `reader_url`, else a model in this process.

    A GGUF is opened by llama.cpp, a folder of safetensors or of an adapter by transformers. Of a folder that holds both, the
    GGUF is taken, as it is faster, unless `reader_bits` asks for what only transformers does.

    Raises:
        ModelError: the model is missing, damaged or too large.
        EngineUnavailable: the server does not answer.
        SettingsError: the settings ask for what such a reader does not do.
    """
    if settings.reader_url:
        _refuse("the model server at `reader_url`", settings, "reader_bits", "reader_base")
        return Remote(
            settings.reader_url,
            model=settings.reader_model,
            api_key=settings.reader_api_key.get_secret_value(),
            timeout_s=settings.reader_timeout_s,
            context_size=settings.context_tokens,
        )
    path = locate(settings.reader)
    if _is_adapter(path) or _is_plain(path, settings):
        if not _is_adapter(path):
            _refuse(f"{settings.reader}, which is no adapter", settings, "reader_base")
        source = open_source(path, base=settings.reader_base, bits=settings.reader_bits)
        return Transformers(
            source,
            model=settings.reader,
            fingerprint=source.fingerprint,
            context_size=settings.context_tokens,
            threads=settings.threads or None,
        )
    if (path / "config.json").is_file() and not any(path.rglob("*.gguf")):
        raise ModelError(
            f"{path} holds no weights: neither safetensors nor a GGUF.",
            way_out="Fetch the model again, or save it as safetensors.",
        )
    _refuse(f"{settings.reader}, which is a GGUF", settings, "reader_bits", "reader_base")
    path = weights_in(path, "*.gguf")
    return LlamaCpp(
        path,
        model=settings.reader,
        fingerprint=file_hash(path),
        context_size=settings.context_tokens,
        threads=settings.threads or None,
    )


def _is_adapter(path: Path) -> bool:
    return (path / ADAPTER).is_file()


def _is_plain(path: Path, settings: Settings) -> bool:
    """Say whether a whole model is to be opened by transformers."""
    if not (path / "config.json").is_file() or not any(path.glob("*.safetensors")):
        return False
    return settings.reader_bits != 0 or not any(path.rglob("*.gguf"))


def _refuse(reader: str, settings: Settings, *names: str) -> None:
    for name in names:
        if value := getattr(settings, name):
            raise SettingsError(
                f"`{name}` is {value}, but it means nothing to {reader}.",
                way_out=f"Remove `{name}`"
                + (", or set `reader` to a folder of safetensors or of an adapter." if name == "reader_bits" else "."),
            )
