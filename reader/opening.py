"""Opens the reader that the settings name: a model server, or weights in this process."""

from __future__ import annotations

import hashlib
from pathlib import Path

from reader.engine.base import Engine
from reader.engine.hf import ADAPTER, Transformers, open_source
from reader.engine.llamacpp import LlamaCpp
from reader.engine.remote import Remote
from retriever.errors import ModelError, SettingsError
from retriever.models import file_hash, locate, weights_in
from retriever.settings import Settings

__all__ = ["beside", "open_engine"]


def open_engine(settings: Settings) -> Engine:
    """Open the reader that the settings name: a model server if there is a `reader_url`, else a model in this process.

    A GGUF is opened by llama.cpp, with an adapter's GGUF over it if there is a `reader_adapter`; a folder of safetensors or of
    an adapter by transformers. Of a folder that holds both, the GGUF is taken, as it is faster, unless `reader_bits` asks for
    what only transformers does.

    Raises:
        ModelError: the model is missing, damaged or too large, or its adapter is.
        EngineUnavailable: the server does not answer.
        SettingsError: the settings ask for what such a reader does not do.
    """
    if settings.reader_url:
        _refuse("the model server at `reader_url`", settings, "reader_bits", "reader_base", "reader_adapter")
        return Remote(
            settings.reader_url,
            model=settings.reader_model,
            api_key=settings.reader_api_key.get_secret_value(),
            timeout_s=settings.reader_timeout_s,
            context_size=settings.context_tokens,
        )
    path = locate(settings.reader)
    if _is_adapter(path) or _is_plain(path, settings):
        _refuse(f"{settings.reader}, which is no GGUF", settings, "reader_adapter")
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
    if not settings.reader_adapter:
        return _gguf(settings, path, None, settings.reader)
    return _gguf(settings, path, _adapter(settings), f"{settings.reader} with {settings.reader_adapter}")


def beside(settings: Settings) -> Path | None:
    """Return the folder where a calibration of the settings' reader may lie: beside its weights, and beside an adapter's.

    What was learnt about a base says nothing about the adapter over it, so the base's folder does not count then.

    Raises:
        ModelError: the model is not on this machine.
    """
    if settings.reader_url:
        return None
    path = _adapter(settings) if settings.reader_adapter else locate(settings.reader)
    return path if path.is_dir() else path.parent


def _gguf(settings: Settings, model: Path, adapter: Path | None, name: str) -> LlamaCpp:
    path = weights_in(model, "*.gguf")
    fingerprint = file_hash(path)
    if adapter and adapter.is_file():  # one that is not there is refused where it is loaded
        fingerprint = hashlib.sha256(f"{fingerprint}\n{file_hash(adapter)}".encode()).hexdigest()
    return LlamaCpp(
        path,
        model=name,
        fingerprint=fingerprint,
        context_size=settings.context_tokens,
        threads=settings.threads or None,
        adapter=adapter,
    )


def _adapter(settings: Settings) -> Path:
    return Path(settings.reader_adapter).expanduser().resolve()


def _is_adapter(path: Path) -> bool:
    return (path / ADAPTER).is_file()


def _is_plain(path: Path, settings: Settings) -> bool:
    """Say whether a whole model is to be opened by transformers."""
    if not (path / "config.json").is_file() or not any(path.glob("*.safetensors")):
        return False
    return settings.reader_bits != 0 or not any(path.rglob("*.gguf"))


_INSTEAD = {
    "reader_bits": ", or set `reader` to a folder of safetensors or of an adapter",
    "reader_adapter": ", or set `reader` to the adapter's base as GGUF, in this process",
}


def _refuse(reader: str, settings: Settings, *names: str) -> None:
    for name in names:
        if value := getattr(settings, name):
            raise SettingsError(
                f"`{name}` is {value}, but it means nothing to {reader}.",
                way_out=f"Remove `{name}`{_INSTEAD.get(name, '')}.",
            )
