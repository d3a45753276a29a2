"""Stands in for `beleg` in a job's process: `index --journal FILE [--prune] -- PATHS…`, where a path's name says what happens.

What it has stored stands beside its journal, a line a document, written once for every time that it was stored; every run
leaves a line in `runs` there.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def main() -> None:
    try:
        code = work(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def work(arguments: list[str]) -> int:
    kind, _, journal, *rest = arguments
    journal_file = Path(journal)
    with journal_file.with_suffix(".runs").open("a") as runs:
        runs.write(f"{os.getpid()} {' '.join([kind, *rest])}\n")
    stored_file = journal_file.with_suffix(".stored")
    paths = rest[rest.index("--") + 1 :] if "--" in rest else []

    def tell(event: str, **facts: object) -> None:
        with journal_file.open("a") as out:
            out.write("\n" + json.dumps({"event": event, **facts}) + "\n")

    def first_time(name: str) -> bool:
        marker = journal_file.with_suffix(f".{name}")
        with suppress(FileExistsError):
            marker.touch(exist_ok=False)
            return True
        return False

    tell("total", documents=len(paths))
    stored = set(stored_file.read_text().splitlines()) if stored_file.exists() else set()
    failed = 0
    for path in paths:
        if path in stored:
            tell("outcome", source=path, status="unchanged")
            continue
        outcome = None
        for outcome in happen(Path(path).name, first_time, tell):
            if isinstance(outcome, int):
                return outcome
        if outcome == "failed":
            failed += 1
            tell("outcome", source=path, status="failed", chunks=0, reason="it is broken", way_out="Mend it.")
        else:
            with stored_file.open("a") as out:
                out.write(path + "\n")
            tell("outcome", source=path, status="added", chunks=3)
    tell("result", kind=kind, documents=len(paths) - failed)
    return 3 if failed else 0


def happen(name: str, first_time: object, tell: object) -> Iterator[str | int | None]:
    assert callable(first_time)
    assert callable(tell)
    what = name.partition("-")[0]
    if what == "slow":
        time.sleep(0.25)
    elif what == "hang":
        time.sleep(600)
    elif what == "once":  # hangs in the first run only
        if first_time(name):
            time.sleep(600)
    elif what == "deaf":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        time.sleep(600)
    elif what == "kill" and first_time(name):
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif what == "busy" and first_time(name):
        tell("error", message="Another process is writing.", way_out="Wait.", temporary=True)
        yield 1
    elif what == "wrong":
        tell("error", message="The model is damaged.", way_out="Fetch it again.", temporary=False)
        yield 1
    elif what == "usage":
        sys.stderr.write("No such option: --colour\n")
        yield 2
    elif what == "torn":
        if first_time(name):
            with Path(sys.argv[3]).open("a") as out:
                out.write('{"event": "outcome", "source": "half')
            os.kill(os.getpid(), signal.SIGKILL)
    elif what == "broken":
        raise ModuleNotFoundError("No module named 'torch'")
    elif what == "fail":
        yield "failed"
        return
    yield None
