"""Where a candidate comes from: the files of its rows, the commit of Beleg, the machine. Knows neither rows nor models."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

from finetune.candidate import Source

__all__ = ["commit", "machine", "sources"]


def sources(origins: Iterable[str]) -> list[Source]:
    """Return the files that rows came from, with their hashes.

    Args:
        origins: of each row, such as `rows.jsonl, line 3`.
    """
    counts: dict[str, int] = {}
    for origin in origins:
        name = origin.partition(", line ")[0]
        counts[name] = counts.get(name, 0) + 1
    return [Source(name=Path(name).name, sha256=_hash(Path(name)), rows=rows) for name, rows in counts.items()]


def commit() -> str | None:
    """Return the commit of the checkout that this runs from, with `+` if it was changed; None outside a checkout."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        return (commit + "+" if git("status", "--porcelain") else commit) or None
    except OSError:
        return None


def machine() -> str:
    """Return what this machine is, in words."""
    return f"{platform.machine()}, {platform.system()} {platform.release()}"


def _hash(path: Path) -> str:
    if not path.is_file():
        return ""  # a folder or a hub id: the hash over the rows says what they were
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
