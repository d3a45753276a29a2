"""From questions with answers, or from documents, to rows for the reader: the story of `beleg raft build`.

Each row depends on itself and the seed alone, never on the others, so that a run that was killed goes on and ends the same.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from finetune.data.schema import Row
from finetune.raft.checkpoint import Checkpoint
from finetune.raft.checks import check_rows, in_form, kind_of, row_problems
from finetune.raft.finding import Finding, Golden, given_passages
from finetune.raft.row import Passage, RaftRow, raft_json, raft_row, whole, write_raft
from finetune.raft.teacher import BudgetSpent, Teacher
from finetune.raft.written import Written, write_answer, write_question
from reader.quotes import Span
from retriever.errors import BelegError

__all__ = ["Built", "ChunkTask", "Plan", "RowTask", "build", "draw_chunks", "row_tasks"]

_NEVER = frozenset({"quote not proven", "quote missing", "quote cut", "form", "empty", "holds the answer"})
"""Problems that a row is not built with; with the others it is, and says so."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What rows shall look like.

    Attributes:
        counts: numbers of passages, one of which is drawn for each row; a number that stands twice is drawn twice as often.
        golden: share of rows that are shown their golden passage. The others teach abstention.
        own: rows keep their own contexts, and nothing is searched.
        reasoning: keep a model's sentence before the quote.
        questions: that a model writes about a chunk.
    """

    counts: tuple[int, ...] = (1, 2, 3, 4)
    golden: float = 0.9
    seed: int = 0
    own: bool = False
    reasoning: bool = True
    questions: int = 1


@dataclass(frozen=True, slots=True)
class RowTask:
    """A question to make a row of.

    Attributes:
        key: its id in the result.
        evidence: what proves the answer, in the row's first positive; None takes the place of its first answer.
    """

    key: str
    row: Row
    evidence: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class ChunkTask:
    """A chunk that a model writes questions about."""

    key: str
    number: int


Task = RowTask | ChunkTask


@dataclass(frozen=True, slots=True)
class _Done:
    """What became of a task: rows, and why others did not come of it."""

    rows: tuple[RaftRow, ...]
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Built:
    """Rows, and what was left out.

    Attributes:
        left_out: reason and count of rows that could not be built.
        dropped: passages that are no distractors, by reason.
        open: tasks that the budget did not reach.
        requests: sent to the model.
    """

    rows: Sequence[RaftRow]
    left_out: Counter[str]
    dropped: Counter[str]
    open: int = 0
    requests: int = 0


def row_tasks(rows: Sequence[tuple[Row, tuple[int, int] | None]], *, limit: int | None = None, seed: int = 0) -> list[RowTask]:
    """Return a task for each row, with ids that no two share; `limit` of them, drawn by the seed, in their order."""
    taken: set[str] = set()
    tasks = []
    for row, evidence in rows:
        key, again = row.id, 1
        while key in taken:
            again += 1
            key = f"{row.id}#{again}"
        taken.add(key)
        tasks.append(RowTask(key, row, evidence))
    if limit is not None and limit < len(tasks):
        tasks = [tasks[at] for at in sorted(random.Random(seed).sample(range(len(tasks)), limit))]
    return tasks


def draw_chunks(finding: Finding, documents: frozenset[str], *, limit: int | None, seed: int) -> list[ChunkTask]:
    """Return a task for each chunk of some documents, or for `limit` of them, drawn by the seed."""
    passages = finding.passages
    numbers = [number for number, document in enumerate(passages.documents) if document in documents]
    if limit is not None and limit < len(numbers):
        numbers = sorted(random.Random(seed).sample(numbers, limit))
    return [
        ChunkTask(f"{passages.documents[number]}-{passages.spans[number][0]}-{passages.spans[number][1]}", number)
        for number in numbers
    ]


def build(
    tasks: Sequence[Task],
    plan: Plan,
    out: Path,
    *,
    finding: Finding | None = None,
    teacher: Teacher | None = None,
    parallel: int = 1,
    progress: Callable[[int], None] = lambda _: None,
) -> Built:
    """Make rows and write them to a file, in the tasks' order.

    With a model each finished task is kept in `OUT.unfinished` at once; the same call goes on after a kill, a spent budget or
    a server's end. When the budget is spent, what is there is written to the file as well.

    Args:
        finding: None only with `plan.own`.
        teacher: writes quotes and answers; without one they come by rule.
        parallel: requests at a time.

    Raises:
        BelegError: nothing could be built, or the file cannot be written.
        EngineError: the model failed for good; what was finished is kept.
    """
    worker = _Worker(plan, finding, teacher)
    open_ = 0
    if teacher is None:
        done: dict[str, _Done] = {}
        for task in tasks:
            done[task.key] = worker.work(task)
            progress(1)
        built = _built(tasks, done, worker, out)
    else:
        unfinished = out.with_name(f"{out.name}.unfinished")
        with Checkpoint(unfinished, _digest(tasks, plan, teacher)) as kept:
            spent = _ask_all([task for task in tasks if task.key not in kept.done], worker, kept, parallel, progress)
            done = {task.key: _done(kept.done[task.key]) for task in tasks if task.key in kept.done}
            open_ = len(tasks) - len(done)
            if spent and not any(one.rows for one in done.values()):
                raise spent
            built = _built(tasks, done, worker, out)
            if not open_:
                kept.finished()
    return replace(built, open=open_, requests=teacher.requests if teacher else 0)


def _built(tasks: Sequence[Task], done: dict[str, _Done], worker: _Worker, out: Path) -> Built:
    finished = [done[task.key] for task in tasks if task.key in done]
    rows = check_rows([row for one in finished for row in one.rows])
    left_out = Counter(reason for one in finished for reason in one.reasons)
    if not rows:
        why = ", ".join(f"{count} {reason}" for reason, count in left_out.most_common(5)) or "there was nothing to build from"
        raise BelegError(f"No row could be built: {why}.", way_out="Give questions whose answers stand in their contexts.")
    write_raft(out, rows)
    return Built(rows, left_out, worker.dropped)


def _ask_all(
    tasks: Sequence[Task], worker: _Worker, kept: Checkpoint, parallel: int, progress: Callable[[int], None]
) -> BudgetSpent | None:
    """Carry tasks out, some at a time; return the end of the budget, if it came."""
    failure: BaseException | None = None
    left: Iterator[Task] = iter(tasks)
    running: dict[Future[_Done], Task] = {}
    with ThreadPoolExecutor(max_workers=parallel) as pool:
        while True:
            while failure is None and len(running) < parallel:
                task = next(left, None)
                if task is None:
                    break
                running[pool.submit(worker.work, task)] = task
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task = running.pop(future)
                try:
                    result = future.result()
                except BelegError as error:
                    # What is under way still ends, and is kept.
                    failure = failure or error
                    continue
                kept.add(task.key, {"rows": [raft_json(row) for row in result.rows], "reasons": list(result.reasons)})
                progress(1)
    if failure is None or isinstance(failure, BudgetSpent):
        return failure
    raise failure


@dataclass
class _Worker:
    """Carries out one task after the other; safe to use from many threads."""

    plan: Plan
    finding: Finding | None
    teacher: Teacher | None

    def __post_init__(self) -> None:
        self._own_dropped: Counter[str] = Counter()

    @property
    def dropped(self) -> Counter[str]:
        """What is no distractor, by reason."""
        return self._own_dropped + (self.finding.dropped if self.finding else Counter())

    def work(self, task: Task) -> _Done:
        """Make the rows of a task."""
        if isinstance(task, ChunkTask):
            return self._from_chunk(task)
        made = self._from_row(task)
        return _Done((made,)) if isinstance(made, RaftRow) else _Done((), (made,))

    def _from_row(self, task: RowTask) -> RaftRow | str:
        row, draw = task.row, self._draw(task.key)
        count, present = draw.choice(self.plan.counts), draw.random() < self.plan.golden and bool(row.positives)
        answers = tuple(" ".join(answer.text.split()) for answer in row.answers)
        base = RaftRow(task.key, row.question, (), None, (), "", answers[0] if answers else "", True, row.language,
                       row.document, row.origin)  # fmt: skip
        if self.plan.own:
            shown, others, dropped = given_passages(row, True)
            self._own_dropped.update(dropped)
            placed = next((one for one in row.answers if one.start is not None), None)
            span = task.evidence or ((placed.start or 0, (placed.start or 0) + len(placed.text)) if placed else None)
            golden = Golden(shown, span, 0, frozenset()) if shown else None
            if placed and not task.evidence:
                base = replace(base, answer=" ".join(placed.text.split()))
        else:
            assert self.finding is not None
            hits = self.finding.hits(row.question)
            golden = self.finding.golden(row, task.evidence, hits) if row.positives else None
            if row.positives and golden is None:
                return "the answer is cut by a border between chunks"
            titles = {context.title for context in (*row.hard_negatives, *row.negatives) if context.title}
            given = [] if row.positives else given_passages(row, False)[1][: max(1, count)]
            found = self.finding.distractors(row.question, hits, count, answers=answers, golden=golden, titles=titles)
            others = [*given, *(one for one in found if one.text not in {known.text for known in given})]
            if golden and golden.span and not task.evidence:
                base = replace(base, answer=" ".join(golden.passage.text[slice(*golden.span)].split()))
        return self._made(base, golden, others, count, present, answers, draw)

    def _made(
        self,
        base: RaftRow,
        golden: Golden | None,
        others: Sequence[Passage],
        count: int,
        present: bool,
        answers: Sequence[str],
        draw: random.Random,
    ) -> RaftRow | str:
        # Where there is nothing else to show, the golden passage is: a row less would teach nothing at all.
        if golden is None or (others and not present):
            shown = list(others if self.plan.own else others[:count])
            if not shown:
                return "nothing is found that does not answer it"
            draw.shuffle(shown)
            return _sound(replace(base, passages=tuple(shown)))
        shown = [golden.passage, *(others if self.plan.own else others[: count - 1])]
        draw.shuffle(shown)
        number = shown.index(golden.passage) + 1
        base = replace(base, passages=tuple(shown), golden=number, abstains=False)
        why = ""
        if self.teacher:
            written = write_answer(self.teacher, base.question, golden.passage, answers, reasoning=self.plan.reasoning)
            if isinstance(written, Written):
                made = _sound(_with(base, written))
                if isinstance(made, RaftRow):
                    return made
                why = made
            else:
                why = f"the model gives {written}"
        ruled = _by_rule(base, golden)
        return f"{why}; {ruled}" if why and not isinstance(ruled, RaftRow) else ruled

    def _from_chunk(self, task: ChunkTask) -> _Done:
        assert self.teacher is not None
        assert self.finding is not None
        golden = self.finding.chunk(task.number)
        rows: list[RaftRow] = []
        reasons = []
        for at in range(self.plan.questions):
            key = f"{task.key}-{at + 1}"
            draw = self._draw(key)
            count, present = draw.choice(self.plan.counts), draw.random() < self.plan.golden
            written = write_question(self.teacher, golden.passage, before=[row.question for row in rows])
            if not isinstance(written, Written):
                reasons.append(f"the model gives {written}")
                continue
            one = golden.passage
            base = RaftRow(key, written.question, (), None, (), "", written.answer, True, one.language, one.source,
                           f"{one.source}, {one.start}–{one.end}", by="model")  # fmt: skip
            hits = self.finding.hits(written.question)
            others = self.finding.distractors(written.question, hits, count, answers=[written.answer], golden=golden)
            made: RaftRow | str
            if present:
                shown = [one, *others[: count - 1]]
                draw.shuffle(shown)
                number = shown.index(one) + 1
                made = _sound(_with(replace(base, passages=tuple(shown), golden=number, abstains=False), written))
            else:
                made = self._made(base, golden, others, count, False, [written.answer], draw)
            if isinstance(made, RaftRow):
                rows.append(made)
            else:
                reasons.append(made)
        return _Done(tuple(rows), tuple(reasons))

    def _draw(self, key: str) -> random.Random:
        return random.Random(f"{self.plan.seed} {key}")


def _by_rule(base: RaftRow, golden: Golden) -> RaftRow | str:
    """Turn a span into a quote of the whole sentences around it."""
    if not base.answer:
        return "there is no answer in words"
    if golden.span is None:
        return "where the answer stands is not known"
    span = whole(golden.passage, *golden.span)
    if span is None:
        return "no sentence holds the answer"
    if not in_form(base.answer):
        return "the answer has a form that cannot be written"
    assert base.golden is not None
    return _sound(replace(base, quotes=(Span(base.golden, *span),)))


def _with(base: RaftRow, written: Written) -> RaftRow:
    assert base.golden is not None
    quotes = tuple(Span(base.golden, *span) for span in written.spans)
    return replace(base, quotes=quotes, reasoning=written.reasoning, answer=written.answer, by="model")


def _sound(row: RaftRow) -> RaftRow | str:
    return next((problem for problem in map(kind_of, row_problems(row)) if problem in _NEVER), row)


def _done(value: Any) -> _Done:
    return _Done(tuple(map(raft_row, value["rows"])), tuple(value["reasons"]))


def _digest(tasks: Sequence[Task], plan: Plan, teacher: Teacher) -> str:
    """Return a hash of what determines the rows, but for the passages that are searched."""
    digest = hashlib.sha256(json.dumps([asdict(plan), teacher.model]).encode())
    for task in tasks:
        about: list[object] = []
        if isinstance(task, RowTask):
            row = task.row
            about = [row.question, [one.text for one in row.answers], [one.text for one in row.positives]]
        digest.update(json.dumps([task.key, about]).encode())
    return digest.hexdigest()
