"""What people said of answers: kept in `feedback.jsonl` of the data folder, a line each, as `finetune.data` reads it.

Knows neither who said it nor what will be learnt from it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from reader.errors import FeedbackError
from reader.schema import Quote
from retriever.ledger import append, lines

__all__ = ["FILE", "Correction", "Feedback", "Verdict", "keep", "read_feedback"]

FILE = "feedback.jsonl"

_log = logging.getLogger(__name__)

Verdict = Literal["good", "bad"]


@dataclass(frozen=True, slots=True)
class Correction:
    """What would have been right: words of a document, and its path or name."""

    source: str
    text: str


@dataclass(frozen=True, slots=True)
class Feedback:
    """What somebody said of an answer.

    Attributes:
        answer: what was answered; empty if it is not known any more.
        release: what gave that answer; see `reader.schema.Answer`.
        quotes: of the answer.
        hits: the passages that were looked at; a passage is words of a document, as a quote is.
        time: when it was said, UTC, ISO 8601; set by `keep` if empty.
    """

    question: str
    verdict: Verdict
    answer: str = ""
    release: str = ""
    comment: str = ""
    correction: Correction | None = None
    quotes: tuple[Quote, ...] = ()
    hits: tuple[Quote, ...] = ()
    time: str = ""


def keep(data_dir: Path, feedback: Feedback) -> Feedback:
    """Append to the file, safely from several processes; on the disk once this returns. Return it with its time.

    Raises:
        FeedbackError: the disk is full or refuses.
    """
    kept = replace(feedback, time=feedback.time or datetime.now(UTC).isoformat(timespec="seconds"))
    file = data_dir / FILE
    try:
        append(file, asdict(kept))
    except OSError as error:
        raise FeedbackError(
            f"{file} cannot be written: {error.strerror or error}.", way_out="Make room on the disk, and say it again."
        ) from error
    return kept


def read_feedback(data_dir: Path) -> Iterator[Feedback]:
    """Yield everything that was said, oldest first. Lines that say nothing, such as a torn one, are passed over.

    Raises:
        FeedbackError: the file cannot be read.
    """
    from pydantic import TypeAdapter, ValidationError

    shape, file = TypeAdapter(Feedback), data_dir / FILE
    try:
        for said in lines(file):
            try:
                yield shape.validate_python(said)
            except ValidationError as error:
                first = error.errors()[0]
                _log.warning("%s: a line is left out: %s: %s", file, ".".join(map(str, first["loc"])), first["msg"])
    except OSError as error:
        raise FeedbackError(f"{file} cannot be read: {error.strerror}.") from error
