"""From a reader's candidate to the reader that is served, if it answers better than that and than its untuned base.

All are asked the candidate's held-out questions with the same passages, one model open at a time. What becomes of every attempt
stands in `releases.jsonl`; a kill at any point leaves what is served as it is, or done. Knows neither training nor the service.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Literal

from finetune.candidate import Candidate
from finetune.measures import parse_weights, per_question, weighted_total
from finetune.merge import trained_bits
from finetune.raft.row import read_raft
from finetune.reading import Asked, answer_all, asked_of
from finetune.servable import Servable, base_of
from finetune.verdict import NOTHING_HELD_OUT, Verdict, compare, refuse
from reader.answering import Reader
from reader.calibration import Calibration
from reader.prompt import fingerprint
from reader.rollback import settle
from reader.served import Promoted, open_reader, promoted, read_promoted, write_promoted
from reader.swap import OpenReader
from retriever.encode import Encoder
from retriever.errors import BelegError, ModelError, SettingsError
from retriever.releases import Releases
from retriever.settings import Settings

__all__ = ["Judged", "ReaderOutcome", "ReaderPromotion"]


@dataclass(frozen=True, slots=True)
class Judged:
    """How a candidate answered, against what is served and against its untuned base.

    Attributes:
        served, base: on the weighted total of `finetune.measures`; `base` is None if that is what is served.
        abstention: the same on whether it abstained rightly, against each of them.
        wrong_quotes: answers that quote what does not stand in the passage, word for word.
        failed: questions that each model failed on, by `candidate`, `served` and `base`; they count as nothing.
    """

    served: Verdict
    base: Verdict | None
    abstention: tuple[Verdict, ...]
    wrong_quotes: int
    failed: Mapping[str, int]

    def reasons(self, name: str) -> list[str]:
        """Return why a candidate of this name does not pass; nothing if it does."""
        found = [verdict.why(name) for verdict in (self.served, self.base) if verdict and not verdict.passed]
        if self.wrong_quotes:
            found.append(f"{self.wrong_quotes} of its answers quote what does not stand in the passage.")
        # A failure scores nothing: whoever fails less would win by that alone.
        found += [
            f"The comparison is unfair: {who} failed on {count} questions."
            for who, count in self.failed.items()
            if count > self.failed.get("candidate", 0)
        ]
        found += [f"It abstains more wrongly: {verdict}." for verdict in self.abstention if verdict.worse_for_sure]
        return found


@dataclass(frozen=True, slots=True)
class ReaderOutcome:
    """What became of an attempt.

    Attributes:
        status: `live`, it is what the data folder says is served; `tried`, nothing changed.
        already: it was served before.
        judged: None if it was not measured.
    """

    status: Literal["live", "tried"]
    already: bool = False
    judged: Judged | None = None


@dataclass(frozen=True, slots=True)
class _Measured:
    """What a reader is, and its values by measure and question."""

    fingerprint: str
    calibration: Calibration
    total: Mapping[str, float]
    values: Mapping[str, Mapping[str, float]]
    failed: int


@dataclass
class ReaderPromotion:
    """One attempt to have a reader served.

    Args:
        servable: what of the candidate is to be served.
        settings: that the service runs with.
        encoder: compares questions with sentences, and answers with answers.
        open_: opens readers.
        override: why a candidate that does not pass shall be served all the same.
        dry: measure, and change and record nothing.
        on_phase: told of each model that is asked, with the number of questions.
        on_progress: told how many more are answered.
    """

    candidate: Candidate
    servable: Servable
    settings: Settings
    releases: Releases
    encoder: Callable[[], Encoder]
    open_: OpenReader = open_reader
    override: str | None = None
    dry: bool = False
    on_phase: Callable[[str, int | None], None] = field(default=lambda *_: None)
    on_progress: Callable[[int], None] = field(default=lambda _: None)

    def run(self) -> ReaderOutcome:
        """Measure, and have it served if it passes or is overridden.

        A running server opens it beside the reader before, and then lets it answer.

        Raises:
            SettingsError: a model server is set as the reader.
            StoreLocked: another promotion is running.
            GateFailed: it is not better than what is served, or than its base.
            ModelError: it cannot be served, or was trained with another prompt than is rendered now.
        """
        if self.settings.reader_url and not self.dry:
            raise SettingsError(
                "The setting `reader_url` makes a model server the reader, and a promoted one would not take its place.",
                way_out="Take that setting out first, or only measure: `--dry-run`.",
            )
        with self.releases.alone():
            now = promoted(self.settings)
            if not self.dry:
                settle(self.settings, self.releases)
            asked = self._asked()
            if asked:
                base_of(self.candidate)  # before anybody waits for answers
            attempt, answered = self._try(asked, now)
            if attempt.same(now):
                return ReaderOutcome("live", already=True)
            judged, before = self._judge(asked, answered, now) if answered else (None, now.fingerprint if now else "")
            facts = self._facts(attempt, before, judged)
            self._decide(judged, facts)
            if self.dry:
                return ReaderOutcome("tried", judged=judged)
            self.releases.add(**facts, outcome="begun")
            try:
                write_promoted(self.settings.data_dir, attempt.after(read_promoted(self.settings.data_dir)))
            except BelegError as error:
                self.releases.add(**facts, outcome="failed", reason=error.message)
                raise
            self.releases.add(**facts, outcome="promoted")
        return ReaderOutcome("live", judged=judged)

    def _asked(self) -> list[Asked]:
        test = self.candidate.test
        return [asked_of(row) for row in read_raft(test)] if test.is_file() and test.stat().st_size else []

    def _try(self, asked: Sequence[Asked], now: Promoted | None) -> tuple[Promoted, _Measured | None]:
        """Open the candidate as it would be served, and have it answer, unless it is served already."""
        found, name = self.servable, self.candidate.name
        with _opened(self._open(found.reader, found.base, found.bits)) as reader:
            prompt = fingerprint(reader.engine, shots=reader.calibration.shots)
            if prompt != self.candidate.manifest.prompt:
                raise ModelError(
                    f"{name} was trained with another prompt than this Beleg renders for it: its manifest has "
                    f"{self.candidate.manifest.prompt[:12] or 'none'}, and it would be {prompt[:12]}.",
                    way_out="Train it again with this version, or promote it with the version that it was trained with.",
                )
            attempt = Promoted(
                reader=found.reader,
                base=found.base,
                bits=found.bits,
                instead_of=self.settings.reader,
                candidate=name,
                id=secrets.token_hex(4),
                time=datetime.now(UTC),
                fingerprint=reader.engine.fingerprint,
                prompt=prompt,
            )
            wanted = asked and not attempt.same(now)
            return attempt, self._answers("candidate", reader, asked) if wanted else None

    def _judge(self, asked: Sequence[Asked], candidate: _Measured, now: Promoted | None) -> tuple[Judged, str]:
        """Return how the candidate did, and the fingerprint of what is served."""
        with _opened(self.open_(self.settings, now)) as reader:
            served = self._answers("served", reader, asked)
        with _opened(self._open_base()) as reader:
            same = (reader.engine.fingerprint, reader.calibration) == (served.fingerprint, served.calibration)
            # Twice the same would take twice the time.
            base = None if same and served.fingerprint else self._answers("base", reader, asked)
        groups = {one.id: one.document for one in asked}
        others = [("served", served), *([("its untuned base", base)] if base else [])]
        verdicts = [
            compare(candidate.total, other.total, groups=groups, measure="weighted total", against=against)
            for against, other in others
        ]
        abstention = tuple(
            compare(
                candidate.values["abstained_rightly"],
                other.values["abstained_rightly"],
                groups=groups,
                measure="rightly answered or abstained",
                against=against,
            )
            for against, other in others
        )
        wrong = sum(value < 1 for value in candidate.values["quote_valid"].values())
        failed = {"candidate": candidate.failed, "served": served.failed, **({"base": base.failed} if base else {})}
        return Judged(verdicts[0], verdicts[1] if base else None, abstention, wrong, failed), served.fingerprint

    def _answers(self, phase: str, reader: Reader, asked: Sequence[Asked]) -> _Measured:
        self.on_phase(phase, len(asked))
        failed: list[str] = []
        encoder = self.encoder()
        outcomes = answer_all(
            reader,
            asked,
            encoder,
            progress=lambda: self.on_progress(1),
            on_failure=lambda one, _: failed.append(one.id),
        )
        values = per_question(outcomes, encoder)
        weights = parse_weights(self.settings.answer_weights)
        return _Measured(reader.engine.fingerprint, reader.calibration, weighted_total(values, weights), values, len(failed))

    def _open(self, reader: str, base: str = "", bits: int = 0) -> Reader:
        update = {"reader": reader, "reader_url": "", "reader_base": base, "reader_bits": bits, "reader_adapter": ""}
        return self.open_(self.settings.model_copy(update=update), None)

    def _open_base(self) -> Reader:
        base = base_of(self.candidate)
        # As it was trained upon: the whole one may not fit the memory that the quantized one did.
        return self._open(base.reference, bits=0 if base.gguf else trained_bits(self.candidate.folder) or 0)

    def _decide(self, judged: Judged | None, facts: Mapping[str, object]) -> None:
        """Refuse what is not better, unless somebody answers for it."""
        name = self.candidate.name
        reasons = judged.reasons(name) if judged else [f"{name} {NOTHING_HELD_OUT}"]
        if reasons and not self.override:
            refuse("\n".join(reasons), self.releases, None if self.dry else facts)

    def _facts(self, attempt: Promoted, before: str, judged: Judged | None) -> dict[str, object]:
        """Return what is recorded of this attempt, whatever becomes of it."""
        return {
            "id": attempt.id,
            "kind": "reader",
            "candidate": self.candidate.name,
            "folder": str(self.candidate.folder),
            "reader": attempt.reader,
            "from": before,
            "to": attempt.fingerprint,
            "verdict": asdict(judged.served) if judged else None,
            "base": asdict(judged.base) if judged and judged.base else None,
            "wrong_quotes": judged.wrong_quotes if judged else None,
            "failed": dict(judged.failed) if judged else None,
            "override": self.override,
        }


@contextmanager
def _opened(reader: Reader) -> Iterator[Reader]:
    try:
        yield reader
    finally:
        reader.engine.close()
