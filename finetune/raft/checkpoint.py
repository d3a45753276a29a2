"""What a long run has finished, an object a line, so that a killed one goes on. Knows nothing of what is finished."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from retriever.errors import BelegError

__all__ = ["Checkpoint"]


class Checkpoint:
    """Appends each finished piece at once; a line that a kill cut off is taken away when it is opened again.

    Args:
        path: of the file; it is deleted by `finished`.
        plan: what the run is about: options, inputs. A file of another plan is refused.

    Attributes:
        done: what was finished, by key.

    Raises:
        BelegError: the file cannot be read or written, or is of another plan.
    """

    def __init__(self, path: Path, plan: str) -> None:
        self._path = path
        self._writing = threading.Lock()
        self.done: dict[str, Any] = {}
        try:
            kept = path.read_bytes() if path.exists() else b""
            kept = kept[: kept.rfind(b"\n") + 1]
            lines = [json.loads(line) for line in kept.split(b"\n") if line]
            if lines and lines[0].get("plan") != plan:
                raise BelegError(
                    f"{path} is of a run with other rows or options.",
                    way_out="Give the options of that run to go on with it, or delete the file to begin anew.",
                )
            self.done = {line["key"]: line["value"] for line in lines[1:]}
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            os.ftruncate(self._file, len(kept))
            os.lseek(self._file, 0, os.SEEK_END)
            if not lines:
                self._append({"plan": plan})
        except OSError as error:
            raise BelegError(f"{path} cannot be written: {error.strerror}.", way_out="Name another place.") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BelegError(f"{path} is damaged: {error}.", way_out="Delete it; the run begins anew then.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._file)

    def add(self, key: str, value: object) -> None:
        """Keep a finished piece; it is on the disk when this returns.

        Raises:
            BelegError: it cannot be written.
        """
        with self._writing:
            try:
                self._append({"key": key, "value": value})
            except OSError as error:
                raise BelegError(f"{self._path} cannot be written: {error.strerror}.", way_out="Make room for it.") from error
            # As a run that goes on would read it.
            self.done[key] = json.loads(json.dumps(value))

    def finished(self) -> None:
        """Delete the file: all is done, and stands elsewhere."""
        self._path.unlink(missing_ok=True)

    def _append(self, record: object) -> None:
        data = (json.dumps(record, ensure_ascii=False) + "\n").encode()
        while data:
            data = data[os.write(self._file, data) :]
        os.fsync(self._file)
