"""Long work as durable jobs: start, list, look at, cancel, resume. Works on the job database, whoever carries the jobs out.

A job is a DBOS workflow, and what it did stands in a journal that its process writes. `serving.jobs.worker` carries jobs out.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout

from retriever.settings import Settings
from serving.errors import JobConflict, JobMissing
from serving.jobs.database import WORKFLOW, mapped_errors, open_client
from serving.jobs.journal import Document, Journals, Progress
from serving.jobs.kinds import KINDS, Arguments

if TYPE_CHECKING:
    from dbos import DBOSClient, WorkflowStatus

__all__ = ["Claim", "Job", "JobFolder", "JobStatus", "Jobs"]

JobStatus = Literal["queued", "running", "done", "failed", "cancelled"]

_ACTIVE = ("ENQUEUED", "DELAYED", "PENDING")
_STATUSES: dict[str, JobStatus] = {
    "ENQUEUED": "queued",
    "DELAYED": "queued",
    "PENDING": "running",
    "SUCCESS": "done",
    "ERROR": "failed",
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": "failed",
    "CANCELLED": "cancelled",
}

_ID = re.compile("[a-z]{1,30}-[0-9]{8}-[0-9]{6}-[0-9a-f]{4}")

Claim = tuple[int, int]
"""Which start of a job this is. Whoever carries a job out under a claim that holds no more must stop."""


@dataclass(frozen=True, slots=True)
class JobFolder:
    """Where the files of jobs are."""

    data_dir: Path

    @property
    def lock(self) -> Path:
        """The file whose lock the one process holds that carries jobs out."""
        return self.data_dir / "jobs.lock"

    def file(self, job: str, suffix: str) -> Path:
        """Return a file of one job: `.jsonl` is its journal, `.log` what its process printed, `.lock` held while one runs."""
        return self.data_dir / "jobs" / f"{job}{suffix}"


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it is now.

    Attributes:
        left_out: it is done, but something was left out; `beleg KIND` itself would have ended with exit code 3.
        error: `message` and `way_out`, of a job that has failed.
    """

    id: str
    kind: str
    arguments: dict[str, Any]
    status: JobStatus
    created: datetime
    started: datetime | None
    ended: datetime | None
    left_out: bool
    progress: Progress = field(default_factory=Progress)
    result: dict[str, Any] | None = None
    error: dict[str, str] | None = None

    @property
    def over(self) -> bool:
        """Whether nothing will happen any more unless it is resumed."""
        return self.status not in ("queued", "running")


class Jobs:
    """The jobs of one job database. Connects when first used. Safe to use from many threads.

    All methods raise `JobsUnavailable` if the database cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = JobFolder(settings.data_dir)
        self._journals = Journals()
        self._connected: DBOSClient | None = None
        self._connecting = threading.Lock()

    def close(self) -> None:
        """Disconnect."""
        with self._connecting:
            if self._connected:
                self._connected.destroy()
            self._connected = None

    def check(self) -> None:
        """Raise what would keep jobs from being used."""
        with mapped_errors(self._settings):
            self._client().check_connection()

    def start(self, kind: str, arguments: Arguments) -> Job:
        """Put a job of a known kind into its queue.

        Raises:
            JobConflict: there may be only one of its kind, and there is one.
        """
        wanted = KINDS[kind]
        from dbos import EnqueueOptions
        from dbos import error as dbos_error

        given = arguments.model_dump(mode="json", exclude_none=True)
        with mapped_errors(self._settings):
            while True:
                # DBOS keeps out a second one by itself, but loses sight of one that was resumed.
                self._refuse_second(kind)
                job = _new_id(kind)
                options = EnqueueOptions(
                    workflow_name=WORKFLOW, queue_name=wanted.queue, workflow_id=job, workflow_id_reuse_policy="reject"
                )
                if wanted.single:
                    options["deduplication_id"] = kind
                with suppress(dbos_error.DBOSQueueDeduplicatedError, dbos_error.DBOSWorkflowIDInUseError):
                    self._client().enqueue(options, kind, given)
                    return self.get(job)
                time.sleep(0.001)

    def newest(self, limit: int) -> Sequence[Job]:
        """Return the newest jobs, newest first."""
        with mapped_errors(self._settings):
            found = self._client().list_workflows(name=WORKFLOW, limit=limit, sort_desc=True)
        # The database counts in seconds, the ids more finely.
        return sorted(map(self._job, found), key=lambda job: (job.created, job.id.partition("-")[2]), reverse=True)

    def get(self, job: str) -> Job:
        """Return a job.

        Raises:
            JobMissing: there is none.
        """
        return self._job(self._find(job))

    def documents(self, job: str, *, status: str | None = None) -> list[Document]:
        """Return what became of each document, or of those with a status.

        Raises:
            JobMissing: there is no such job.
        """
        self._find(job)
        found = self._journals.documents(self._folder.file(job, ".jsonl"))
        return [document for document in found if status in (None, document.status)]

    def cancel(self, job: str) -> Job:
        """Take a job from its queue, or have its process ended; what it has stored stays. A cancelled one stays cancelled.

        Raises:
            JobMissing: there is no such job.
            JobConflict: it is over.
        """
        found = self.get(job)
        with mapped_errors(self._settings):
            if not found.over:
                self._client().cancel_workflow(job)
                found = self.get(job)
        if found.status != "cancelled":
            raise JobConflict(f"{job} is {found.status} already.", way_out="Only a queued or running job can be cancelled.")
        return found

    def resume(self, job: str) -> Job:
        """Put a failed or cancelled job back into its queue; it goes on with what it has not done yet.

        Raises:
            JobMissing: there is no such job.
            JobConflict: it is neither; or there may be only one of its kind, and there is another one.
        """
        found = self.get(job)
        if found.status not in ("failed", "cancelled"):
            raise JobConflict(f"{job} is {found.status}.", way_out="Only a failed or cancelled job can be resumed.")
        if found.kind not in KINDS:
            raise JobConflict(f"{job} is of the kind {found.kind}, which this version does not know.", way_out="Upgrade Beleg.")
        from dbos import error as dbos_error

        with mapped_errors(self._settings):
            self._refuse_second(found.kind)
            try:
                self._client().rewind_workflow(job, start_step=1, queue_name=KINDS[found.kind].queue)
            except dbos_error.DBOSException as error:  # somebody else was faster
                raise JobConflict(f"{job} is being resumed already.") from error
        return self.get(job)

    def attended(self) -> bool | None:
        """Say whether a server that uses this data folder carries jobs out; None if one elsewhere may do so as well."""
        if self._settings.jobs_database.get_secret_value():
            return None
        if not self._folder.lock.exists():
            return False
        try:
            with FileLock(self._folder.lock, timeout=0):
                return False
        except Timeout:
            return True

    def claim(self, job: str) -> Claim | None:
        """Return which start of the job is the current one; None if it is not running."""
        with mapped_errors(self._settings):
            found = self._client().list_workflows(workflow_ids=[job], load_input=False, load_output=False)
        if not found or found[0].status != "PENDING":
            return None
        return found[0].dequeued_at or 0, found[0].recovery_attempts or 0

    def rescue(self, executor: str, carried_out: Callable[[str], bool], *, older_than_s: float) -> Sequence[str]:
        """Put jobs back into their queues that count as running in a process which does not carry them out, and return them."""
        with mapped_errors(self._settings):
            running = self._client().list_workflows(name=WORKFLOW, status="PENDING", executor_id=executor, load_output=False)
            # One that has been dispatched this moment may not have begun yet.
            left = [
                item
                for item in running
                if not carried_out(item.workflow_id) and time.time() - (item.dequeued_at or 0) / 1000 > older_than_s
            ]
            for item in left:
                self._client().resume_workflow(item.workflow_id, queue_name=item.queue_name)
        return [item.workflow_id for item in left]

    def progress(self, job: str) -> Progress:
        """Return what the job's journal says."""
        return self._journals.progress(self._folder.file(job, ".jsonl"))

    def _client(self) -> DBOSClient:
        with self._connecting:
            if self._connected is None:
                self._connected = open_client(self._settings)
            return self._connected

    def _find(self, job: str) -> WorkflowStatus:
        found = []
        if _ID.fullmatch(job):  # it becomes part of file names
            with mapped_errors(self._settings):
                found = self._client().list_workflows(workflow_ids=[job], name=WORKFLOW)
        if not found:
            raise JobMissing(f"There is no job {job}.", way_out="`beleg jobs list` and GET /v1/jobs show all of them.")
        return found[0]

    def _refuse_second(self, kind: str) -> None:
        if not KINDS[kind].single:
            return
        queued = self._client().list_workflows(
            name=WORKFLOW, status=list(_ACTIVE), workflow_id_prefix=f"{kind}-", load_input=False, load_output=False
        )
        if queued:
            other = queued[0].workflow_id
            raise JobConflict(
                f"{other} is {_STATUSES[queued[0].status]}, and there may be only one {kind} at a time.",
                way_out=f"Wait for {other}, or cancel it.",
            )

    def _job(self, found: WorkflowStatus) -> Job:
        positional = found.input["args"] if isinstance(found.input, dict) else ()
        kind, arguments = positional if len(positional) == 2 else (found.workflow_id.partition("-")[0], {})
        outcome = found.output if isinstance(found.output, dict) else {}
        status = _STATUSES.get(found.status, "failed")
        error = None
        if status == "done" and outcome.get("error"):
            status, error = "failed", dict(outcome["error"])
        elif status == "failed":
            error = {"message": str(found.error or "It was begun too many times."), "way_out": "Resume it to try again."}
        progress = self.progress(found.workflow_id)
        result = progress.result or outcome.get("result")
        if status == "done" and not any(progress.documents.values()) and outcome.get("documents"):
            progress = replace(progress, documents=outcome["documents"])  # its journal is on another machine
        return Job(
            id=found.workflow_id,
            kind=str(kind),
            arguments=dict(arguments),
            status=status,
            created=_time(found.created_at) or datetime.fromtimestamp(0, UTC),
            started=_time(found.dequeued_at),
            ended=_time(found.completed_at),
            left_out=status == "done" and bool(outcome.get("left_out")),
            progress=progress,
            result=dict(result) if status == "done" and result else None,
            error=error,
        )


def _new_id(kind: str) -> str:
    now = time.time()
    # The end is the fraction of the second: ids sort by time, and it is short enough to be typed.
    return f"{kind}-{datetime.fromtimestamp(now, UTC):%Y%m%d-%H%M%S}-{int(now % 1 * 0x10000):04x}"


def _time(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)
