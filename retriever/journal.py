"""What a long run tells as it goes, a JSON object a line, for whoever watches it from another process.

Appended, never rewritten: a killed run leaves what it told, and at worst a last line that is cut off.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from retriever.errors import BelegError, IndexUnavailable, StoreLocked

__all__ = ["Journal"]


class Journal:
    """Writes events; each is one line, and reaches the file at once.

    An error that ends the `with` block is told too, with `temporary` if running again may help.

    Args:
        path: appended to; None writes nothing.

    Raises:
        BelegError: the file cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        with self._mapped():
            self._file = path.open("a", encoding="utf-8") if path else None
            if self._file and self._file.tell():
                self._file.write("\n")  # ends a line that a killed run may have left

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(BelegError, OSError):  # what happened before matters more
            if isinstance(error, BelegError):
                temporary = isinstance(error, IndexUnavailable | StoreLocked)
                self.tell("error", message=error.message, way_out=error.way_out, temporary=temporary)
            if self._file:
                self._file.close()

    def tell(self, event: str, **facts: object) -> None:
        """Write one event."""
        if self._file:
            with self._mapped():
                self._file.write(json.dumps({"event": event, **facts}, ensure_ascii=False) + "\n")
                self._file.flush()

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BelegError(
                f"{self._path} cannot be written: {error.strerror}.", way_out="Name another file, or make room for it."
            ) from error
