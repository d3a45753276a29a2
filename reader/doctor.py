"""Looks at everything that answering needs and says what is wrong, without stopping at the first trouble."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from reader.opening import open_engine
from retriever.chunk import ChunkSize
from retriever.encode import open_encoder
from retriever.encoders import Encoders
from retriever.errors import BelegError
from retriever.fill import stamp_of
from retriever.index.engines import open_generations
from retriever.live import Live
from retriever.load.ocr import installed_languages, packages
from retriever.rerank import open_reranker
from retriever.settings import Settings
from retriever.store import Store

__all__ = ["Finding", "examine"]

_PACKAGES = (
    "bitsandbytes",
    "faiss-cpu",
    "llama-cpp-python",
    "llguidance",
    "peft",
    "sentence-transformers",
    "tantivy",
    "torch",
    "transformers",
)

# In a process of its own: a llama.cpp that was built for another processor does not raise, it kills.
_DECODE = """
import json, sys
from reader.engine.base import Message, Prompt, never
from reader.served import open_reader, promoted
from retriever.errors import BelegError
from retriever.settings import Settings
settings = Settings.model_validate_json(sys.stdin.read())
try:
    live = promoted(settings)
    engine = open_reader(settings, live).engine
    tokens = tuple(engine.tokenize("Hello")) if engine.chat_template else ()
    prompt = Prompt(tokens, (Message("user", "Hello"),))
    "".join(engine.generate(prompt, grammar=None, max_tokens=4, cancelled=never))
except BelegError as error:
    print(json.dumps([error.message, error.way_out]))
    sys.exit(3)
print(engine.name, engine.model, "constrained" if engine.constrained else "NOT constrained", engine.context_size, end="")
print(f", promoted from {live.candidate}" if live and live.candidate else "")
"""
_REFUSED = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str
    way_out: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Return what was found: packages, encoder, reranker if one is set, reader, store, search engine, index and scans."""
    return [
        _finding("packages", lambda: ", ".join(f"{name} {version(name)}" for name in _PACKAGES)),
        _finding("encoder", lambda: _encoder(settings)),
        *([_finding("reranker", lambda: _reranker(settings))] if settings.reranker else []),
        _reader(settings),
        _finding("store", lambda: _store(settings)),
        _finding("engine", lambda: _engine(settings)),
        _finding("index", lambda: _index(settings)),
        _scans(settings),
    ]


def _finding(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(name, ok=True, detail=look())
    except BelegError as error:
        return Finding(name, ok=False, detail=error.message, way_out=error.way_out)
    except PackageNotFoundError as error:
        return Finding(name, ok=False, detail=f"The package {error.name} is not installed.", way_out="Run `make install`.")


def _encoder(settings: Settings) -> str:
    encoder = open_encoder(settings.encoder, threads=1)
    encoder.encode_query("Hello")
    return f"{settings.encoder}, {encoder.dimensions} dimensions, {encoder.precision}, fingerprint {encoder.fingerprint[:12]}"


def _reranker(settings: Settings) -> str:
    reranker = open_reranker(settings.reranker)
    judges = f"weight {reranker.weight:g}, judges {reranker.depth} hits"
    return f"{settings.reranker}, {judges}, {reranker.precision}, fingerprint {reranker.fingerprint[:12]}"


def _reader(settings: Settings) -> Finding:
    name = "reader"
    if settings.reader_url:
        return _finding(name, lambda: _server(settings))
    secret = settings.model_dump_json()
    done = subprocess.run([sys.executable, "-c", _DECODE], input=secret, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return Finding(name, ok=True, detail=done.stdout.strip())
    if done.returncode == _REFUSED:
        detail, way_out = json.loads(done.stdout.splitlines()[-1])
        return Finding(name, ok=False, detail=detail, way_out=way_out or "Check the setting `reader`.")
    if done.returncode == -signal.SIGKILL:
        return Finding(
            name,
            ok=False,
            detail=f"The reader was killed by signal {-done.returncode}: it probably takes more memory than there is.",
            way_out="Take a smaller model, or one in fewer bits.",
        )
    if done.returncode < 0:
        return Finding(
            name,
            ok=False,
            detail=f"llama.cpp was killed by signal {-done.returncode} at its first decode; was it built for this processor?",
            way_out="Run `make llama` to build it again with flags that work on any x86-64 machine.",
        )
    last = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
    return Finding(name, ok=False, detail=last[0], way_out="Check the setting `reader`.")


def _server(settings: Settings) -> str:
    engine = open_engine(settings)
    try:
        return f"{settings.reader_url}, {engine.model}, {'constrained' if engine.constrained else 'NOT constrained'}"
    finally:
        engine.close()


def _store(settings: Settings) -> str:
    with Store(settings.data_dir) as store:
        return f"{store.path}, {len(store.known())} documents, revision {store.revision()}"


def _engine(settings: Settings) -> str:
    with Store(settings.data_dir) as store:
        return open_generations(settings, store).examine()


def _index(settings: Settings) -> str:
    with Store(settings.data_dir) as store:
        generations = open_generations(settings, store)
        encoders = Encoders(settings.encoder)
        searcher = Live(generations, encoders, alpha=settings.alpha).searcher()
        index = searcher.index
        live = generations.live()
        assert live is not None
        wanted = stamp_of(encoders.of(live), ChunkSize(settings.chunk_tokens, settings.chunk_overlap))
        stale = "" if index.stamp == wanted else "; the settings say other chunks, `beleg rebuild` makes them"
        # A query replica has no documents of its own.
        held = f" of {store.revision()}" if store.revision() else ""
        languages = ", ".join(index.languages)
        alpha = f"alpha {searcher.alpha:g}"
        return f"{settings.index} {live.name} shows revision {index.revision}{held}, languages {languages}, {alpha}{stale}"


def _scans(settings: Settings) -> Finding:
    # Never wrong: most companies' documents are text, and without Tesseract each scan is named when it is left out.
    name = "scans"
    if settings.ocr == "off":
        return Finding(name, ok=True, detail="scanned pages are not recognised, by the setting `ocr`")
    wanted, there = settings.ocr_languages, installed_languages()
    if not there:
        way_out = f"To have them recognised: `apt-get install {packages(wanted)}`."
        return Finding(name, ok=True, detail="Tesseract is not installed, scanned pages are left out", way_out=way_out)
    taken = ", ".join(language for language in wanted.split("+") if language in there)
    missing = "+".join(language for language in wanted.split("+") if language not in there)
    detail = f"recognised by Tesseract in {taken}" if taken else "Tesseract has none of the languages set"
    way_out = f"For {missing}: `apt-get install {packages(missing)}`." if missing else ""
    return Finding(name, ok=True, detail=detail, way_out=way_out)
