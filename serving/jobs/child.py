"""The process that does a job's work: `python -m serving.jobs.child LOCK MODULE ARGUMENTS…` runs `MODULE.main()`.

It never works beside another one of the same job, and does not outlive the server that started it: its standard input is a pipe
of which nothing ever comes, and which the system closes when the server ends, however it does.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading

from filelock import FileLock

__all__ = ["main"]

_GRACE_S = 10.0
"""How long what is being encoded or written may take to notice that it is time to stop."""


def main() -> None:
    """Do the work."""
    lock, module, *arguments = sys.argv[1:]
    # A server that was started in the background of a shell script ignores SIGINT, and its children inherit that.
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, signal.default_int_handler)
    threading.Thread(target=_end_with_the_server, name="end-with-the-server", daemon=True).start()
    # The process that a killed server has left may still be ending.
    with FileLock(lock):
        sys.argv = [module, *arguments]
        importlib.import_module(module).main()


def _end_with_the_server() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait(_GRACE_S)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
