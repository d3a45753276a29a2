"""Which reader is served: the one that the settings name, or the one that `beleg promote` has put in its place.

The latter stands in `reader.json` of the data folder, with those that were promoted before it. It counts only while the
settings name the reader that it took the place of. Knows neither what a promotion measures nor how a running server changes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from reader.answering import Reader
from reader.calibration import Calibration, read_calibration
from reader.engine.base import Engine
from reader.opening import beside, open_engine
from reader.prompt import fingerprint
from retriever.errors import BelegError, ModelError
from retriever.settings import Settings

__all__ = ["DEPTH", "SERVED", "Promoted", "open_reader", "promoted", "read_promoted", "served", "write_promoted"]

SERVED = "reader.json"

DEPTH = 10
"""How many promoted readers are kept, the live one among them."""


class Promoted(BaseModel):
    """A reader that took the place of the one in the settings.

    Attributes:
        reader: model reference.
        base, bits: settings `reader_base` and `reader_bits` that go with it.
        instead_of: the setting `reader` at that time; it counts only as long as that is unchanged.
        candidate: name of what it was promoted from.
        id: of the attempt in releases.jsonl.
        time: of the promotion.
        fingerprint: of the model that was measured.
        prompt: fingerprint of the prompt that it was trained and measured with.
        previous: what was promoted before it in place of the same setting; None if the setting's own reader was live.
    """

    # Unknown keys are those of a newer version that writes the same format.
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    format: Literal[1] = 1
    reader: str
    base: str = ""
    bits: int = 0
    instead_of: str
    candidate: str = ""
    id: str
    time: AwareDatetime
    fingerprint: str
    prompt: str
    previous: Promoted | None = None

    def chain(self) -> list[Promoted]:
        """Return it and those before it, newest first."""
        return [self, *(self.previous.chain() if self.previous else [])]

    def after(self, before: Promoted | None) -> Promoted:
        """Return the same as what followed another one; of the oldest, those beyond `DEPTH` are forgotten."""
        kept = [one for one in (before.chain() if before else []) if one.instead_of == self.instead_of][: DEPTH - 1]
        tail: Promoted | None = None
        for one in reversed(kept):
            tail = one.model_copy(update={"previous": tail})
        return self.model_copy(update={"previous": tail})

    def same(self, other: Promoted | None) -> bool:
        """Whether the other one is the same model, used in the same way."""
        return other is not None and all(getattr(self, name) == getattr(other, name) for name in _OF_THE_MODEL)


_OF_THE_MODEL = ("reader", "base", "bits", "fingerprint", "prompt")


def read_promoted(data_dir: Path) -> Promoted | None:
    """Read what was promoted last, whether it counts or not; None if nothing was.

    Raises:
        ModelError: the file is damaged, of a newer format, or cannot be read.
    """
    path = data_dir / SERVED
    try:
        return Promoted.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        if field == "format":
            raise ModelError(f"{path} has a format that this version does not know.", way_out="Upgrade Beleg.") from error
        raise ModelError(
            f"{path}, which says what reader was promoted, is damaged: {f'{field}: ' if field else ''}{first['msg']}.",
            way_out="Delete it, and the reader of the settings answers; then promote your candidate again.",
        ) from error


def promoted(settings: Settings) -> Promoted | None:
    """Return the promoted reader that is served by these settings; None if the settings' own is.

    Raises:
        ModelError: as for `read_promoted`.
    """
    found = None if settings.reader_url else read_promoted(settings.data_dir)
    return found if found and found.instead_of == settings.reader else None


def served(settings: Settings, one: Promoted | None) -> Settings:
    """Return the settings by which a promoted reader is opened; the same ones for None."""
    if one is None:
        return settings
    chosen = {"reader": one.reader, "reader_base": one.base, "reader_bits": one.bits, "reader_adapter": ""}
    return settings.model_copy(update=chosen)


def write_promoted(data_dir: Path, one: Promoted | None) -> None:
    """Make a reader the promoted one, for good once this returns; None makes it the settings' own again.

    Raises:
        BelegError: the disk refuses; what was live stays so.
    """
    path = data_dir / SERVED
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        if one is None:
            path.unlink(missing_ok=True)
        else:
            with partial.open("w", encoding="utf-8") as file:
                file.write(one.model_dump_json(indent=2) + "\n")
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        descriptor = os.open(data_dir, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise BelegError(f"{path} cannot be written: {error.strerror}.", way_out="Make room on the disk.") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def open_reader(
    settings: Settings, one: Promoted | None = None, *, open_: Callable[[Settings], Engine] = open_engine
) -> Reader:
    """Open the settings' reader, or the promoted one, with the calibration that belongs to it.

    Args:
        open_: opens what the settings name.

    Raises:
        ModelError: the model is missing or damaged; or, promoted, not the one that was measured.
        SettingsError: a calibration is damaged.
        EngineUnavailable: the model server does not answer.
    """
    chosen = served(settings, one)
    engine = open_(chosen)
    try:
        calibration = read_calibration(settings.data_dir, engine.fingerprint, model=beside(chosen))
        if one:
            _check(one, engine, calibration)
    except BaseException:
        engine.close()
        raise
    return Reader(engine, calibration, settings.answer_tokens)


def _check(one: Promoted, engine: Engine, calibration: Calibration) -> None:
    name = one.candidate or one.reader
    if engine.fingerprint != one.fingerprint:
        raise ModelError(
            f"The weights at {one.reader} are not those of {name} that were measured: they have another fingerprint.",
            way_out="Bring them back, promote them anew, or go back: `beleg rollback --reader`.",
        )
    if fingerprint(engine, shots=calibration.shots) != one.prompt:
        raise ModelError(
            f"{name} was trained and measured with another prompt than this Beleg renders.",
            way_out="Train it again, run the Beleg that it was trained with, or go back: `beleg rollback --reader`.",
        )
