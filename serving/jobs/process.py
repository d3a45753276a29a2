"""One process of a job: started, watched, ended, and what its end means. Knows neither DBOS nor journals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from serving.jobs.jobs import JobFolder

__all__ = ["Ended", "run_process"]

_LOOK_S = 0.1
_CHECK_S = 0.5

_GRACE_S = 15.0
"""How long a process may take to notice that it shall stop."""

_INTERRUPTED = 130
_LONGEST_REASON = 2000


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended.

    Attributes:
        code: its exit code; negative if a signal ended it.
        reason: of an end that was no success, as far as exit code and output tell.
        killed: it did not end by itself, so another one may fare better.
    """

    code: int
    reason: str
    way_out: str
    killed: bool


def run_process(folder: JobFolder, job: str, module: str, command: Sequence[str], *, check: Callable[[], None]) -> Ended:
    """Run `module` with a command line to its end, its output going to the job's log.

    Args:
        check: called about twice a second, and once more at the end; if it raises, the process is ended first.

    Raises:
        OSError: it cannot be started.
    """
    printed = folder.file(job, ".log")
    with printed.open("ab") as log:
        start = log.tell()
        child = subprocess.Popen(
            # -P: a folder that happens to be the working one must not be searched for modules.
            [sys.executable, "-P", "-m", "serving.jobs.child", str(folder.file(job, ".lock")), module, *command],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={**os.environ, "BELEG_DATA_DIR": str(folder.data_dir)},
            # Ctrl-C in a terminal is for the server, which then ends it.
            start_new_session=True,
        )
        try:
            code = _wait(child, check)
        finally:
            _end(child)
    if code in (_INTERRUPTED, -signal.SIGINT):
        return Ended(code, "Its process was interrupted, though not by the server.", "", killed=True)
    if code == -signal.SIGKILL:
        return Ended(code, "Its process was killed by SIGKILL.", "Most likely the machine ran out of memory.", killed=True)
    if code < 0:
        return Ended(code, f"Its process crashed with {signal.Signals(-code).name}.", f"{printed} may say more.", killed=True)
    reason = _tail(printed, start) or f"`{module} {command[0]}` ended with exit code {code}."
    return Ended(code, reason, f"All that it printed is in {printed}.", killed=False)


def _wait(child: subprocess.Popen[bytes], check: Callable[[], None]) -> int:
    checked = time.monotonic()
    while True:
        with suppress(subprocess.TimeoutExpired):
            code = child.wait(_LOOK_S)
            # Whoever stops the server may have sent the same signal to this process.
            check()
            return code
        if time.monotonic() - checked > _CHECK_S:
            check()
            checked = time.monotonic()


def _end(child: subprocess.Popen[bytes]) -> None:
    """Have a process stop, kill it and all that it started if it does not, and forget it."""
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE_S)
    if child.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    if child.stdin:
        child.stdin.close()
    child.wait()


def _tail(file: Path, start: int) -> str:
    """Return the end of what was printed from `start` on; of a traceback, only what was raised."""
    with file.open("rb") as printed:
        printed.seek(max(start, printed.seek(0, os.SEEK_END) - _LONGEST_REASON))
        lines = [line for line in printed.read().decode(errors="replace").splitlines() if line.strip()]
    return "\n".join(lines[-1:] if any(line.startswith("Traceback") for line in lines) else lines[-5:])
