"""What was learnt about a reader on development questions: how much it may decide by itself, and when to abstain.

A calibration belongs to one reader. `beleg calibrate` writes one beside the index; the starter reader's ships with Beleg.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path

from retriever.errors import BelegError, SettingsError

__all__ = ["Calibration", "read_calibration", "write_calibration"]

_FILE = "calibration.json"


@dataclass(frozen=True, slots=True)
class Calibration:
    """How a reader is used. The defaults suit an instruct model of several billion parameters.

    Attributes:
        reader: fingerprint of the model that this was measured with; "" for any.
        least_strength: passages weaker than this are not shown to the reader; see `reader.support.strength`.
        quotable: how many sentences, chosen by `reader.evidence`, the reader may quote; 0 leaves it the choice among all.
        may_abstain: the reader may say that the passages do not tell.
        reasoning: the reader may write sentences of its own before it quotes.
        extractive: its answer must be words of the sentence that it quotes.
        quoting: it quotes before it answers; False suits a reader that was tuned to answer only: what proves the answer is then
            the likeliest sentence that holds it.
        shots: the prompt begins with worked examples; False suits a reader that was tuned without them.
    """

    reader: str = ""
    least_strength: float = 0.2
    quotable: int = 0
    may_abstain: bool = True
    reasoning: bool = True
    extractive: bool = False
    quoting: bool = True
    shots: bool = True


def read_calibration(data_dir: Path, reader: str, model: Path | None = None) -> Calibration:
    """Return the calibration for the reader with this fingerprint.

    It is the data folder's, else the one that came with the model, else the shipped one, else the defaults.

    Args:
        model: the model's folder; what training found out about it lies there.

    Raises:
        SettingsError: a file is damaged.
    """
    texts = [(files("reader").joinpath("starter.json").read_text(), "the shipped calibration")]
    for folder in (model, data_dir):
        own = folder / _FILE if folder else None
        if own and own.exists():
            texts.insert(0, (own.read_text(), str(own)))
    for text, name in texts:
        try:
            calibration = Calibration(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise SettingsError(f"{name} is damaged: {error}.", way_out="Run `beleg calibrate` again.") from error
        # What lies beside a model belongs to it, whatever it was quantized to.
        if calibration.reader == reader or (model and name == str(model / _FILE)):
            return replace(calibration, reader=reader)
    return Calibration(reader=reader)


def write_calibration(data_dir: Path, calibration: Calibration) -> Path:
    """Write the calibration for this data folder, in place of the one before, and return its path."""
    path = data_dir / _FILE
    partial = path.with_suffix(".partial")
    try:
        partial.write_text(json.dumps(asdict(calibration), indent=2) + "\n")
        partial.replace(path)
    except OSError as error:
        raise BelegError(f"{path} cannot be written: {error.strerror}.") from error
    return path
