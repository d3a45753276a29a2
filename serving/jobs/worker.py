"""Carries jobs out, in processes of their own: the server stays responsive, and survives whatever becomes of them.

One process of a data folder at a time does this, the one that holds its lock; others wait for the lock. What a job must not
lose is checkpointed by DBOS after every attempt; all else is in the store and the index, whose commands go on where they were.
"""

from __future__ import annotations

import itertools
import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypedDict

from filelock import FileLock, Timeout

from retriever.errors import BelegError
from retriever.settings import Settings
from serving.jobs.database import WORKFLOW, config, mapped_errors
from serving.jobs.jobs import Claim, JobFolder, Jobs
from serving.jobs.kinds import KINDS
from serving.jobs.process import run_process

__all__ = ["JobWorker"]

_log = logging.getLogger(__name__)

_DONE, _LEFT_OUT = 0, 3

_ASK_S = 0.5
"""How often a job that waits for its next attempt asks whether it was cancelled."""

_STOP_S = 20.0
_RESCUE_S = 30.0
"""How often to look for jobs that nobody carries out."""


class _Outcome(TypedDict):
    """What became of one attempt; checkpointed, so JSON.

    Attributes:
        temporary: whether another attempt may end better.
        stored: how many documents the job has stored by now.
    """

    error: dict[str, str] | None
    temporary: bool
    left_out: bool
    stored: int
    documents: dict[str, int]
    result: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class _Start:
    """One of the times that a job is begun. The claim holds no more when the job is cancelled, or begun again elsewhere; the
    number tells starts in this process apart, as the database counts in seconds."""

    job: str
    claim: Claim | None
    number: int


class _LeftOff(BaseException):  # no error, and no `Exception` either: DBOS would take that for the job's outcome
    """This process does not carry the job out any more: the server stops, or the job was cancelled."""


class JobWorker:
    """Takes jobs from their queues, one of each queue at a time. Make only one in a process: DBOS can be there only once.

    Args:
        jobs: of the same settings; stays the caller's to close.
        module: whose `main` does the work, given the command line of `beleg`.
        pauses_s: how long to wait after each failed attempt; there is one attempt more than pauses.
        poll_s: how often to look for jobs.
    """

    def __init__(
        self,
        settings: Settings,
        jobs: Jobs,
        *,
        module: str = "beleg",
        pauses_s: Sequence[float] = (5, 20, 80, 320),
        poll_s: float = 0.5,
    ) -> None:
        self._settings = settings
        self._jobs = jobs
        self._module = module
        self._pauses_s = pauses_s
        self._poll_s = poll_s
        self._folder = JobFolder(settings.data_dir.absolute())
        self._stopping = threading.Event()
        self._carried_out: set[str] = set()
        self._newest: dict[str, int] = {}
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        # A daemon: a process that cannot start its worker must be able to end.
        self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)

    def start(self) -> None:
        """Begin as soon as no other process of the data folder carries jobs out."""
        self._thread.start()

    def stop(self) -> None:
        """Have running processes stop, leave their jobs to the next worker, and return when they have ended."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread.ident:
            self._thread.join()

    # -- holding the lock -------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        lock = FileLock(self._folder.lock)
        while not self._stopping.is_set():
            try:
                with lock.acquire(timeout=0):
                    self._serve()
            except Timeout:
                pass
            except Exception as error:  # noqa: BLE001 - whatever it is, questions must still be answered
                # Such as a full disk. What is queued stays queued.
                _log.error("Jobs cannot be carried out: %s", error, exc_info=not isinstance(error, BelegError))
                self._stopping.wait(_RESCUE_S)
            self._stopping.wait(1)

    def _serve(self) -> None:
        from dbos import DBOS

        executor = self._executor()
        with mapped_errors(self._settings):
            self._jobs.check()
            DBOS(config=config(self._settings, executor=executor))
            try:
                DBOS.workflow(name=WORKFLOW)(self._workflow())
                DBOS.launch()
                for queue in sorted({kind.queue for kind in KINDS.values()}):
                    # Where machines share the database, one that is gone for good must not block the others with its last job.
                    everywhere = None if self._settings.jobs_database.get_secret_value() else 1
                    DBOS.register_queue(
                        queue, global_concurrency=everywhere, worker_concurrency=1, polling_interval_sec=self._poll_s
                    )
                while not self._stopping.wait(_RESCUE_S):
                    self._rescue(executor)
            finally:
                with self._changed:
                    self._changed.wait_for(lambda: not self._carried_out, _STOP_S)
                DBOS.destroy(destroy_registry=True)

    def _executor(self) -> str:
        """Return by what name this data folder's running jobs are found again; of the folder, not of the machine or process."""
        file = self._folder.file("worker", ".id")
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists() or not file.stat().st_size:
            file.write_text(secrets.token_hex(8), encoding="ascii")
        return file.read_text(encoding="ascii")

    def _rescue(self, executor: str) -> None:
        # A checkpoint that could not be written, as on a full disk, ends a job's thread but not the job.
        try:
            for job in self._jobs.rescue(executor, self._carried_out.__contains__, older_than_s=_RESCUE_S):
                _log.warning("%s was lost, and is queued again.", job)
        except BelegError as error:
            _log.warning("%s", error)

    # -- carrying a job out ---------------------------------------------------------------------------------------------

    def _workflow(self) -> Callable[[str, dict[str, Any]], dict[str, Any]]:
        from dbos import DBOS
        from sqlalchemy.exc import SQLAlchemyError

        def carry_out(kind: str, arguments: dict[str, Any]) -> dict[str, Any]:
            """Try until it is done or failed. Runs again from its start after a kill; attempts that ended are not repeated."""
            job = str(DBOS.workflow_id)
            try:
                with self._turn(job) as start:
                    outcome = self._try(start, kind, arguments)
            except (SQLAlchemyError, BelegError) as error:
                # The database refuses, not the job: it is rescued when the database is well again.
                _log.warning("%s is interrupted: %s", job, getattr(error, "orig", None) or error)
                raise _LeftOff from error
            ended = "failed" if outcome["error"] else "done"
            _log.info("%s", json.dumps({"event": "job", "job": job, "outcome": ended, **outcome["documents"]}))
            return dict(outcome)

        return carry_out

    def _try(self, start: _Start, kind: str, arguments: Mapping[str, Any]) -> _Outcome:
        from dbos import DBOS

        failures, stored = 0, 0
        while True:
            outcome = DBOS.run_step({"name": "attempt"}, self._attempt, start, kind, arguments)
            # Whoever stores documents between one crash and the next gets on, if slowly.
            failures = 1 if outcome["stored"] > stored else failures + 1
            stored = outcome["stored"]
            if not outcome["temporary"] or failures > len(self._pauses_s):
                return outcome
            self._wait(start, DBOS.run_step({"name": "pause"}, _later, self._pauses_s[failures - 1]))

    @contextmanager
    def _turn(self, job: str) -> Iterator[_Start]:
        """Wait until an earlier start of the same job, cancelled and resumed in one moment, has let go of it."""
        start = _Start(job, self._jobs.claim(job), next(self._numbers))
        with self._changed:
            self._newest[job] = start.number
            self._changed.wait_for(lambda: self._stopping.is_set() or job not in self._carried_out)
            if self._stopping.is_set():
                raise _LeftOff
            self._carried_out.add(job)
        try:
            self._check(start)
            yield start
        finally:
            with self._changed:
                self._carried_out.discard(job)
                self._changed.notify_all()

    def _check(self, start: _Start) -> None:
        if self._stopping.is_set() or self._newest[start.job] != start.number:
            raise _LeftOff
        with suppress(BelegError):  # a database that does not answer just now is no reason to stop
            if self._jobs.claim(start.job) != start.claim:
                raise _LeftOff

    def _wait(self, start: _Start, until: float) -> None:
        while (left := until - time.time()) > 0:
            self._stopping.wait(min(left, _ASK_S))
            self._check(start)

    def _attempt(self, start: _Start, kind: str, arguments: Mapping[str, Any]) -> _Outcome:
        """Run the job's command once."""
        job = start.job
        try:
            wanted = KINDS[kind].arguments.model_validate(arguments)
        except (KeyError, ValueError):
            return self._outcome(job, f"This version of Beleg cannot carry out {kind} {json.dumps(arguments)}.", "Upgrade it.")
        so_far = self._jobs.progress(job)
        if so_far.result is not None:
            # All was done, only not checkpointed any more. Again would be wrong: a second rollback undoes the first.
            return self._outcome(job, left_out=so_far.documents["failed"] > 0)
        journal = str(self._folder.file(job, ".jsonl"))
        command = [*(KINDS[kind].command or (kind,)), "--journal", journal, *wanted.command()]
        try:
            ended = run_process(self._folder, job, self._module, command, check=lambda: self._check(start))
        except OSError as error:
            return self._outcome(job, f"Its process could not be started: {error}.", temporary=True)
        if ended.code in (_DONE, _LEFT_OUT):
            return self._outcome(job, left_out=ended.code == _LEFT_OUT)
        said = self._jobs.progress(job).error
        if ended.code >= 0 and said:
            return self._outcome(job, said["message"], said["way_out"], temporary=said["temporary"])
        return self._outcome(job, ended.reason, ended.way_out, temporary=ended.killed)

    def _outcome(
        self, job: str, reason: str = "", way_out: str = "", *, temporary: bool = False, left_out: bool = False
    ) -> _Outcome:
        progress = self._jobs.progress(job)
        return _Outcome(
            error={"message": reason, "way_out": way_out} if reason else None,
            temporary=temporary,
            left_out=left_out,
            stored=progress.documents["done"],
            documents=dict(progress.documents),
            result=dict(progress.result) if progress.result else None,
        )


def _later(seconds: float) -> float:
    return time.time() + seconds
