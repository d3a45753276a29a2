"""What became of every attempt to have another model served, and of every way back: `releases.jsonl` in the data folder.

Knows neither what is measured nor how anything is served.
"""

from __future__ import annotations

import getpass
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from retriever.errors import BelegError, StoreLocked
from retriever.ledger import append, lines

__all__ = ["RELEASES", "Releases"]

RELEASES = "releases.jsonl"


class Releases:
    """The file of what was promoted, refused, overridden, and taken back.

    Raises (every method does):
        BelegError: the disk refuses.
    """

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / RELEASES

    def add(self, **facts: object) -> None:
        """Keep facts, with the time and who is at the keyboard."""
        try:
            append(self.path, {"time": datetime.now(UTC).isoformat(timespec="seconds"), "who": _who(), **facts})
        except OSError as error:
            raise BelegError(
                f"{self.path} cannot be written: {error.strerror or error}.", way_out="Make room on the disk, and run it again."
            ) from error

    def read(self) -> list[dict[str, Any]]:
        """Return all facts, oldest first."""
        try:
            return list(lines(self.path))
        except OSError as error:
            raise BelegError(f"{self.path} cannot be read: {error.strerror}.") from error

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other promotions of this data folder out.

        Raises:
            StoreLocked: another one is running.
        """
        try:
            with FileLock(f"{self.path}.running", timeout=1):
                yield
        except Timeout as error:
            raise StoreLocked(
                f"Another promotion in {self.path.parent} is running.", way_out="Wait until it has ended."
            ) from error

    def settle(self, kinds: Container[str], became: Callable[[Mapping[str, Any]], Mapping[str, object] | None]) -> None:
        """Record what became of attempts that were killed; the caller is `alone`.

        Args:
            kinds: of what was to be promoted; others are left to those who know about them.
            became: returns of an attempt's facts what else to record if its swap was done, or None if it was not.
        """
        begun: dict[str, dict[str, Any]] = {}
        for fact in self.read():
            if fact.get("outcome") == "begun" and fact.get("kind") in kinds:
                begun[str(fact.get("id"))] = fact
            else:
                begun.pop(str(fact.get("id")), None)
        for fact in begun.values():
            kept = {key: value for key, value in fact.items() if key not in ("time", "who", "outcome")}
            more = became(fact)
            if more is None:
                self.add(**kept, outcome="interrupted", late=True)
            else:
                self.add(**{**kept, **more}, outcome="promoted", late=True)


def _who() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # no such user, as in a container
        return None
