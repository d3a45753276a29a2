"""Append one JSON line per benchmark run: what was measured, on which code, machine and data.

It knows nothing about what is measured. Tables in the docs are made from these lines.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

__all__ = ["DEFAULT_OUT", "cores", "record"]

_ROOT = Path(__file__).resolve().parent.parent
DEFAULT_OUT = _ROOT / "benchmarks" / "results.jsonl"


def record(
    name: str, *, data: bytes | Iterable[Path], seed: int, out: Path = DEFAULT_OUT, **numbers: float | int | str
) -> dict[str, object]:
    """Append one line to `out` and return it.

    Args:
        name: which benchmark.
        data: what was measured on, as bytes or as files; only its hash is kept.
        seed: 0 where nothing is random.
        numbers: the results, with their units in their names.
    """
    line: dict[str, object] = {
        "name": name,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": {"cpu": _processor(), "cores": cores()},
        "seed": seed,
        "data": _hash(data),
        **{key: round(value, 4) if isinstance(value, float) else value for key, value in numbers.items()},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return line


def _commit() -> str:
    """Return the commit, with `+` if the working tree differs from it, or "" outside a repository."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "--short=12", "HEAD")
    return commit + "+" if commit and git("status", "--porcelain") else commit


def _processor() -> str:
    """Return the processor's name; some virtual machines tell only family and model, so these are added."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    fields = {key.strip(): value.strip() for key, _, value in (row.partition(":") for row in text.splitlines())}
    return f"{fields.get('model name', platform.machine())} (family {fields.get('cpu family')}, model {fields.get('model')})"


def cores() -> int:
    """Return how many processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _hash(data: bytes | Iterable[Path]) -> str:
    digest = hashlib.sha256()
    if isinstance(data, bytes):
        digest.update(data)
    else:
        for path in data:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
