"""Several readers asked the same questions with the same passages, and what became of each. Draws no report.

Every answer is kept on the disk as soon as it is there, so that a run that was stopped or killed goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

from finetune.ability import Choice, choose
from finetune.data.fields import short_hash
from finetune.measures import TOTAL, WEIGHTS, per_question, weighted_total
from finetune.mistakes import mistake
from finetune.posed import Posed, Telling, quiet
from finetune.raft.checkpoint import Checkpoint
from finetune.reading import Asked, Outcome, answer_all
from finetune.systems import OpenedSystem, SystemSpec, open_system
from reader.answering import Given
from reader.errors import EngineUnavailable
from reader.schema import Answer, Quote, answer_json
from retriever.encode import Encoder
from retriever.errors import BelegError
from retriever.settings import Settings

__all__ = ["Chosen", "Result", "measure_systems", "plan_of"]

OpenSystem = Callable[[Settings, SystemSpec], AbstractContextManager[OpenedSystem]]
"""As `finetune.systems.open_system`."""

_PATIENCE = 3
"""Questions in a row that a server may be unreachable for, before the run ends."""


@dataclass(frozen=True)
class Result:
    """A system's answers and their measures.

    Attributes:
        name: the system's; with `closed`, one more word.
        facts: about the model, for people: name, fingerprint, release, how it is used.
        values: by measure (the weighted total among them, unless `closed`), then by question.
        kinds: of mistakes, by question; "" where there is none.
        chosen: the label that it chose in each question of the ability file.
    """

    name: str
    spec: SystemSpec
    closed: bool
    facts: Mapping[str, Any]
    outcomes: Sequence[Outcome]
    values: Mapping[str, Mapping[str, float]]
    kinds: Mapping[str, str]
    chosen: Sequence[Chosen] = field(default=())


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a system chose in a multiple-choice question; `failure` says why it could not."""

    id: str
    label: str
    right: bool
    failure: str = ""


def measure_systems(
    settings: Settings,
    specs: Sequence[SystemSpec],
    posed: Posed,
    *,
    closed_book: bool = False,
    choices: Sequence[Choice] = (),
    weights: Mapping[str, float] = WEIGHTS,
    kept: Checkpoint | None = None,
    tell: Telling = quiet,
    open_: OpenSystem = open_system,
) -> Iterator[Result]:
    """Ask each system every question; yield its result as soon as it is there, that without passages after it.

    Args:
        closed_book: ask every system without passages as well, what has an answer. Recorded answers are not asked again.
        choices: multiple-choice questions to ask as well.
        open_: opens a system.
        kept: takes every answer that is given, and has those of an earlier run; failures are tried again.

    Raises:
        BelegError: a system cannot be opened, or its server does not answer any more.
    """
    for spec in specs:
        with open_(settings, spec) as opened:
            release = Given((), posed.encoder).release(opened.reader)
            run = _Run(opened, posed.encoder, kept, release)
            facts = _facts(opened, release)
            outcomes = run.answers(posed.asked, closed=False, done=tell(f"Answering · {spec.name}", len(posed.asked)))
            chosen = run.choices(choices, tell(f"Choosing · {spec.name}", len(choices))) if choices else ()
            yield _result(spec.name, spec, facts, outcomes, posed.encoder, weights, closed=False, chosen=chosen)
            able = [one for one in posed.asked if one.answers]
            if closed_book and opened.recorded is None and able:
                outcomes = run.answers(able, closed=True, done=tell(f"Without passages · {spec.name}", len(able)))
                name = f"{spec.name} · closed book"
                yield _result(name, spec, facts, outcomes, posed.encoder, weights, closed=True, chosen=())


def plan_of(posed: Posed) -> str:
    """Return a hash of the questions and their passages: answers to others are no answers to these."""
    digest = hashlib.sha256()
    for one in posed.asked:
        texts = [one.id, one.question, *one.answers, *one.golden, *(hit.text for hit in one.hits)]
        digest.update(json.dumps([texts, one.kinds]).encode())
    return digest.hexdigest()


class _Run:
    """Asks one opened system, and keeps what it says."""

    def __init__(self, opened: OpenedSystem, encoder: Encoder, kept: Checkpoint | None, release: str) -> None:
        self._opened = opened
        self._encoder = encoder
        self._kept = kept
        self._release = release
        self._unavailable = 0
        self._done = 0

    def answers(self, asked: Sequence[Asked], *, closed: bool, done: Callable[[int], None]) -> list[Outcome]:
        outcomes = []
        for one in asked:
            outcomes.append(self._answer(one, closed=closed))
            self._done += 1
            done(1)
        return outcomes

    def choices(self, choices: Sequence[Choice], done: Callable[[int], None]) -> list[Chosen]:
        found: list[Chosen] = []
        if self._opened.recorded is not None:
            return found
        for one in choices:
            key = self._key("choice", f"{one.id} {short_hash(one.question, *chain.from_iterable(one.choices))}")
            label = self._kept.done.get(key) if self._kept else None
            failure = ""
            if label is None:
                try:
                    label = choose(self._opened.reader, one)
                    self._keep(key, label)
                    self._unavailable = 0
                except BelegError as error:
                    label, failure = "", str(error)
                    self._count(error)
            found.append(Chosen(one.id, label, label == one.right, failure))
            done(1)
        return found

    def _answer(self, one: Asked, *, closed: bool) -> Outcome:
        key = self._key("closed" if closed else "open", one.id)
        kept = self._kept.done.get(key) if self._kept else None
        if kept is not None:
            return _outcome(one, kept)
        errors: list[BelegError] = []
        try:
            reader = self._opened.reader_for(one)
        except BelegError as error:
            return Outcome(one, Answer("", False, None, (), (), "", (), ""), 0.0, closed=closed, failure=str(error))
        (outcome,) = answer_all(
            reader, [one], self._encoder, passages=not closed, on_failure=lambda _, error: errors.append(error)
        )
        if errors:
            self._count(errors[0])
        else:
            self._unavailable = 0
            self._keep(key, _kept(outcome))
        return outcome

    def _count(self, error: BelegError) -> None:
        """End the run if the server is gone: each further question would wait for it in vain."""
        self._unavailable = self._unavailable + 1 if isinstance(error, EngineUnavailable) else 0
        if self._unavailable >= _PATIENCE:
            kept = "the same command goes on where this one ended" if self._kept else "with `--out` a run can go on"
            raise EngineUnavailable(
                f"{self._opened.spec.name} did not answer {_PATIENCE} questions in a row. {error.message}",
                way_out=f"{error.way_out} Then run it again: {kept}.".strip(),
            ) from error

    def _keep(self, key: str, value: object) -> None:
        if self._kept:
            self._kept.add(key, value)

    def _key(self, kind: str, name: str) -> str:
        # With the release: another model, calibration or prompt under the same name gives other answers.
        return f"{self._opened.spec.name}\t{self._release}\t{kind}\t{name}"


def _kept(outcome: Outcome) -> dict[str, Any]:
    record = answer_json(outcome.answer)
    # Its passages are those of the question.
    del record["hits"]
    return {"answer": record, "seconds": outcome.seconds, "closed": outcome.closed}


def _outcome(asked: Asked, kept: Mapping[str, Any]) -> Outcome:
    record = kept["answer"]
    answer = Answer(
        answer=record["answer"],
        abstained=record["abstained"],
        reason=record["reason"],
        quotes=tuple(Quote(**quote) for quote in record["quotes"]),
        hits=() if kept["closed"] else asked.hits,
        reasoning=record["reasoning"],
        notes=tuple(record["notes"]),
        release=record["release"],
        timings=record["timings"],
    )
    return Outcome(asked, answer, kept["seconds"], closed=kept["closed"])


def _result(
    name: str,
    spec: SystemSpec,
    facts: Mapping[str, Any],
    outcomes: Sequence[Outcome],
    encoder: Encoder,
    weights: Mapping[str, float],
    *,
    closed: bool,
    chosen: Sequence[Chosen],
) -> Result:
    values = per_question(outcomes, encoder)
    if spec.what.startswith("recorded:"):
        values["seconds"] = {}
    if not closed:
        # Without passages half of the weights have nothing to weigh, and the rest would look like the same total.
        values = {TOTAL: weighted_total(values, weights), **values}
    kinds = {outcome.asked.id: mistake(outcome) for outcome in outcomes}
    return Result(name, spec, closed, facts, outcomes, values, kinds, chosen)


def _facts(opened: OpenedSystem, release: str) -> dict[str, Any]:
    engine, calibration = opened.reader.engine, opened.reader.calibration
    return {
        "engine": engine.name,
        "model": engine.model,
        "fingerprint": engine.fingerprint,
        "constrained": engine.constrained,
        "release": release,
        "calibration": asdict(calibration),
    }
