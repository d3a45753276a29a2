"""A server that carries out jobs with a fake `beleg`, and quickly.

Usage: jobs_server.py DATA DOCUMENTS MODULE DATABASE. Prints its URL.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import SecretStr

import serving.jobs.process
import serving.jobs.worker
import serving.run
from retriever.settings import Settings


class Idle:
    """A pipeline of which nothing is asked."""

    def check(self) -> None:
        pass

    def close(self) -> None:
        pass


def main() -> None:
    data, documents, module, database = sys.argv[1:]
    serving.jobs.process._GRACE_S = 1.0
    serving.jobs.worker._RESCUE_S = 0.5
    pipeline: Any = Idle()
    serving.run.run(
        Settings(data_dir=Path(data), documents=documents, port=0, jobs_database=SecretStr(database)),
        open_pipeline=lambda _: pipeline,
        make_worker=partial(serving.jobs.worker.JobWorker, module=module, pauses_s=(0.1, 0.2), poll_s=0.05),
        announce=lambda url: print(url, flush=True),  # noqa: T201
    )


if __name__ == "__main__":
    main()
