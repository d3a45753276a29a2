"""From a candidate to what is served, if it is better: measured against the served model on the candidate's held-out questions.

What becomes of every attempt stands in `releases.jsonl` of the data folder. Killed at any point, what is served stays right,
and the next attempt goes on and records what the killed one could not. Knows neither training nor the service.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from finetune.candidate import Candidate
from finetune.data.read import read_all
from finetune.data.schema import Row
from finetune.evaluate_retriever import System, rank
from finetune.verdict import NOTHING_HELD_OUT, WAY_OUT, Verdict, compare, refuse
from finetune.workspace import Workspace
from retriever.chunk import ChunkSize
from retriever.encode import Encoder
from retriever.encoders import Encoders
from retriever.errors import BelegError, GateFailed, IndexMissing
from retriever.fill import Maker, size_of
from retriever.gate import Gate
from retriever.gate import Verdict as OwnVerdict
from retriever.index.base import Generation, Generations, Index
from retriever.metrics import evaluate
from retriever.promoted import remember_promoted
from retriever.rebuild import Rebuild, Report, swapped_already
from retriever.releases import Releases
from retriever.rerank import Reranker
from retriever.search import Searcher
from retriever.store import Store

__all__ = ["Outcome", "Promotion", "judge"]

_MEASURE = "nDCG@10"
_Status = Literal["live", "passed", "tried"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an attempt.

    Attributes:
        status: `live`, it is served now; `passed`, a reranker for which only the setting is lacking; `tried`, nothing changed.
        already: it was served before.
        verdict: None if it was not measured.
        own: how it did on the questions about one's own documents.
        report: of the rebuild.
    """

    status: _Status
    already: bool = False
    verdict: Verdict | None = None
    own: OwnVerdict | None = None
    report: Report | None = None


@dataclass
class Promotion:
    """One attempt to have a candidate served.

    Args:
        encoders: open the served encoder and the candidate's.
        setting: what the settings name as the encoder; a promoted one takes its place until it is changed.
        alpha: weight of the dense side if the settings say one; None takes each encoder's own.
        reranker: what is served at present.
        open_reranker: opens the candidate's model if it is one.
        questions: about one's own documents, that must be answered as well as before.
        override: why a candidate that does not pass shall be served all the same.
        dry: measure, and change and record nothing.
        on_phase, on_progress: as for `Rebuild`, with the phases `prepare` and `measure` before its own.
    """

    candidate: Candidate
    store: Store
    generations: Generations
    encoders: Encoders
    releases: Releases
    setting: str
    alpha: float | None = None
    reranker: Reranker | None = None
    open_reranker: Callable[[Path], Reranker] | None = None
    questions: Gate | None = None
    override: str | None = None
    dry: bool = False
    on_phase: Callable[[str, int | None], None] = field(default=lambda *_: None)
    on_progress: Callable[[int], None] = field(default=lambda _: None)

    def run(self) -> Outcome:
        """Measure, and have it served if it passes or is overridden.

        Raises:
            IndexMissing: nothing has been indexed.
            StoreLocked: another promotion or rebuild is running.
            GateFailed: it is not better than what is served.
            BelegError: what `Rebuild.run` raises, and what keeps it from being measured.
        """
        with self.releases.alone():
            live = self.generations.live(fresh=True)
            if live is None:
                raise IndexMissing("Nothing has been indexed, so nothing is served yet.", way_out="Run `beleg index FOLDER`.")
            if self.questions:
                self.questions.place(self.store)  # better now than after an hour
            if not self.dry:
                self._settle(live)
            return self._rerank(live) if self.candidate.manifest.kind == "reranker" else self._retrieve(live)

    # -- an encoder -------------------------------------------------------------------------------------------------------

    def _retrieve(self, live: Generation) -> Outcome:
        fingerprint = self.candidate.manifest.fingerprint
        if live.stamp.encoder == fingerprint:
            return Outcome("live", already=True)
        served, encoder = self.encoders.of(live), self.encoders.open(str(self.candidate.model))
        maker = Maker(encoder, size_of(live))
        sides = (served, encoder)
        verdict = self._measure(
            lambda workspace: [Searcher(self._index(workspace, side), side, alpha=self.alpha) for side in sides], maker.size
        )
        facts = self._facts(served.fingerprint, live, verdict)
        self._decide(verdict, facts)
        if self.dry:
            return Outcome("tried", verdict=verdict)
        self.releases.add(**facts, outcome="begun")
        remember_promoted(self.store, str(self.candidate.model), instead_of=self.setting)
        try:
            report = self._rebuild(maker).run()
        except BelegError as error:
            outcome = "refused" if isinstance(error, GateFailed) else "failed"
            self.releases.add(**facts, outcome=outcome, reason=error.message)
            if isinstance(error, GateFailed):
                raise GateFailed(f"On your own questions: {error.message}", way_out=WAY_OUT) from error
            raise
        own = asdict(report.verdict) if report.verdict else None
        self.releases.add(**facts, outcome="promoted", generation=report.generation.name, own=own)
        return Outcome("live", verdict=verdict, own=report.verdict, report=report)

    def _index(self, workspace: Workspace, encoder: Encoder) -> Index:
        self.on_phase("prepare", None)
        return workspace.index(encoder, progress=self.on_progress)

    def _rebuild(self, maker: Maker) -> Rebuild:
        # Whoever overrides still wants to know, and accepts whatever it is.
        gate = replace(self.questions, margin=1.0) if self.questions and self.override else self.questions
        return Rebuild(
            self.store,
            self.generations,
            maker,
            str(self.candidate.model),
            self.encoders,
            self.alpha,
            gate,
            on_phase=self.on_phase,
            on_progress=self.on_progress,
        )

    def _settle(self, live: Generation) -> None:
        """Finish and record what a killed attempt has left after its swap."""
        swapped = swapped_already(self.store, self.generations, live.stamp, back=False)
        if swapped and live.stamp.encoder == self.candidate.manifest.fingerprint:
            # It finds that there is nothing left to do but to tidy up.
            self._rebuild(Maker(self.encoders.of(live), size_of(live))).run()
        done = {"generation": live.name}
        self.releases.settle(("retriever",), lambda fact: done if fact.get("to") == live.stamp.encoder else None)

    # -- a reranker -------------------------------------------------------------------------------------------------------

    def _rerank(self, live: Generation) -> Outcome:
        fingerprint = self.candidate.manifest.fingerprint
        if self.reranker and self.reranker.fingerprint == fingerprint:
            return Outcome("live", already=True)
        assert self.open_reranker is not None
        encoder, reranker = self.encoders.of(live), self.open_reranker(self.candidate.model)
        sides = (self.reranker, reranker)

        def searchers(workspace: Workspace) -> list[Searcher]:
            index = self._index(workspace, encoder)
            return [Searcher(index, encoder, alpha=self.alpha, reranker=side) for side in sides]

        verdict = self._measure(searchers, size_of(live))
        facts = self._facts(self.reranker.fingerprint if self.reranker else "", live, verdict)
        self._decide(verdict, facts)
        own = self._own(live, encoder, sides, facts)
        if self.dry:
            return Outcome("tried", verdict=verdict, own=own)
        self.releases.add(**facts, outcome="passed", own=asdict(own) if own else None)
        return Outcome("passed", verdict=verdict, own=own)

    def _own(
        self, live: Generation, encoder: Encoder, sides: tuple[Reranker | None, Reranker], facts: Mapping[str, object]
    ) -> OwnVerdict | None:
        if not self.questions:
            return None
        gate = replace(self.questions, margin=1.0) if self.override else self.questions
        self.on_phase("gate", 2 * len(gate.questions))
        index = self.generations.open(live)
        before, after = (Searcher(index, encoder, alpha=self.alpha, reranker=side) for side in sides)
        try:
            return gate.check(before, after, self.store)
        except GateFailed as error:
            if not self.dry:
                self.releases.add(**facts, outcome="refused", reason=error.message)
            raise GateFailed(f"On your own questions: {error.message}", way_out=WAY_OUT) from error

    # -- the gate ---------------------------------------------------------------------------------------------------------

    def _measure(self, searchers: Callable[[Workspace], list[Searcher]], size: ChunkSize) -> Verdict | None:
        """Measure both sides on the held-out rows; None if there are none.

        The chunks are as large as those that are served, whatever the candidate was trained with.
        """
        test = self.candidate.test
        rows = read_all([test], shape="dpr") if test.is_file() and test.stat().st_size else []
        if not any(row.positives for row in rows):
            return None
        with Workspace(self.candidate.workspace, size) as workspace:
            workspace.add_rows(rows)
            sides = searchers(workspace)
            self.on_phase("measure", 2 * sum(bool(row.positives) for row in rows))
            served, candidate = sides
            return judge(rows, workspace, served, candidate, progress=self.on_progress)

    def _decide(self, verdict: Verdict | None, facts: Mapping[str, object]) -> None:
        """Refuse what is not better, unless somebody answers for it."""
        if (verdict and verdict.passed) or self.override:
            return
        reason = verdict.why(self.candidate.name) if verdict else f"{self.candidate.name} {NOTHING_HELD_OUT}"
        refuse(reason, self.releases, None if self.dry else facts)

    def _facts(self, before: str, live: Generation, verdict: Verdict | None) -> dict[str, object]:
        """Return what is recorded of this attempt, whatever becomes of it."""
        return {
            "id": secrets.token_hex(4),
            "kind": self.candidate.manifest.kind,
            "candidate": self.candidate.name,
            "folder": str(self.candidate.folder),
            "from": before,
            "to": self.candidate.manifest.fingerprint,
            "replaces": live.name,
            "verdict": asdict(verdict) if verdict else None,
            "override": self.override,
        }


def judge(
    rows: list[Row],
    workspace: Workspace,
    served: Searcher,
    candidate: Searcher,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> Verdict:
    """Ask both searchers every question that has an answer, and compare what they find, document by document.

    Raises:
        BelegError: no row has an answer.
    """
    labels = workspace.labels(rows)
    groups = {key: rows[int(key)].document or key for key in labels}
    values = []
    for searcher in (served, candidate):
        system = System("", searcher, "fused", rerank=searcher.reranker is not None)
        rankings = rank(system, rows, labels, progress=lambda: progress(1))
        values.append(evaluate(labels, rankings, measures=[_MEASURE])[_MEASURE])
    before, after = values
    return compare(after, before, groups=groups, measure=_MEASURE)
