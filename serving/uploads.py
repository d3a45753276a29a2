"""Files that people hand to Beleg, in a folder of its own below the data folder.

A file is written under a hidden name, synced, and renamed: under its own name there is always a whole file, the newest one.
Knows neither HTTP nor the store.
"""

from __future__ import annotations

import errno
import os
import secrets
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from retriever.load import KINDS, source_of
from retriever.schema import document_id
from serving.errors import KindUnknown, UploadNotKept, UploadRefused

__all__ = ["Kept", "Upload", "Uploads", "checked_name"]

_LONGEST_PART = 200
_LONGEST_NAME = 1000
_UNPRINTED = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories of control characters, halves of characters, and what breaks lines."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_IN_THE_WAY = (FileExistsError, NotADirectoryError, IsADirectoryError)


@dataclass(frozen=True, slots=True)
class Kept:
    """A file that was handed over.

    Attributes:
        name: below the folder of uploads, with `/` between its parts.
        replaced: whether there was one of that name.
    """

    name: str
    path: Path
    size: int
    replaced: bool


class Uploads:
    """The files that were handed over. Safe to use from many threads and processes."""

    def __init__(self, data_dir: Path) -> None:
        self.folder = Path(os.path.realpath(data_dir), "uploads")
        self._incoming = self.folder / ".incoming"
        self._replacing = threading.Lock()

    def clean(self) -> None:
        """Delete what was half written when a process was killed; of another one that is writing now, the upload fails."""
        with _mapped(".incoming"):
            for file in self._incoming.glob("*"):
                file.unlink(missing_ok=True)

    def begin(self, name: str) -> Upload:
        """Return what takes the bytes of a file; close it.

        Args:
            name: such as `hr/leave.pdf`.

        Raises:
            UploadRefused, KindUnknown: there may be no such file.
            UploadNotKept: the disk refuses.
        """
        name = checked_name(name)
        with _mapped(name):
            self._incoming.mkdir(parents=True, exist_ok=True)
            return Upload(name, self.folder, self._incoming / secrets.token_hex(8), self._replacing)

    def holds(self, source: str) -> bool:
        """Say whether a document's file is one that was handed over."""
        return Path(source).is_relative_to(self.folder)

    def find(self, document: str) -> str | None:
        """Return the source of a file that was handed over, whether it has become a document or not; None if there is none."""
        files = (Path(folder, name) for folder, _, names in os.walk(self.folder) for name in names)
        return next((str(file) for file in files if document_id(source_of(file)) == document), None)

    def delete(self, source: str) -> bool:
        """Delete the file of a document if it was handed over, and return whether it was.

        Raises:
            UploadNotKept: the disk refuses.
        """
        if not self.holds(source):
            return False
        path = Path(source)
        with _mapped(path.name):
            path.unlink(missing_ok=True)
            if path.parent.exists():
                _sync(path.parent)
        return True


class Upload:
    """A file that is being handed over. Nothing is left of it unless it is kept."""

    def __init__(self, name: str, folder: Path, written: Path, replacing: threading.Lock) -> None:
        self._name = name
        self._folder = folder
        self._written = written
        self._replacing = replacing
        self._file = written.open("xb")
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, piece: bytes) -> None:
        """Take the next bytes.

        Raises:
            UploadNotKept: the disk is full, or refuses.
        """
        with _mapped(self._name):
            self._file.write(piece)
            self._size += len(piece)

    def keep(self) -> Kept:
        """Give the file its name, in place of an earlier one; when this returns, it survives whatever happens.

        Raises:
            UploadRefused: it is empty, or a folder or file stands in its way.
            UploadNotKept: the disk is full, or refuses.
        """
        if not self._size:
            raise UploadRefused(f"{self._name} is empty.", way_out="Send the file's bytes as the body.")
        path = self._folder / self._name
        with _mapped(self._name):
            self._file.flush()
            os.fsync(self._file.fileno())
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._replacing:
                replaced = path.exists()
                self._written.replace(path)
            # Up to the data folder: the folders in between may be new.
            for folder in path.parents[: len(Path(self._name).parts) + 1]:
                _sync(folder)
        return Kept(self._name, path, self._size, replaced)

    def close(self) -> None:
        """Forget it, unless it was kept."""
        with suppress(OSError):  # of a full disk: what is still in the buffer is not wanted any more
            self._file.close()
        self._written.unlink(missing_ok=True)


def checked_name(name: str) -> str:
    r"""Return a file's name as it is kept, with accents composed.

    >>> checked_name("Personal/Urlaub u\u0308ber Ostern.pdf") == "Personal/Urlaub über Ostern.pdf"
    True

    Raises:
        UploadRefused: it could lead elsewhere, is hidden, too long, or cannot be shown.
        KindUnknown: its suffix is none of a kind that is read.
    """
    name = unicodedata.normalize("NFC", name)
    parts = name.split("/")
    # What a name's bytes that are no UTF-8 have become stands for itself nowhere.
    if "\\" in name or "\ufffd" in name or any(unicodedata.category(character) in _UNPRINTED for character in name):
        raise _refused("it holds a backslash or characters that cannot be shown")
    if any(not part.strip() or part.startswith(".") for part in parts):
        raise _refused("a part of it is empty, or begins with a dot")
    if len(name.encode()) > _LONGEST_NAME or any(len(part.encode()) > _LONGEST_PART for part in parts):
        raise _refused(f"it is longer than {_LONGEST_NAME} bytes, or a part of it than {_LONGEST_PART}")
    suffix = Path(name).suffix
    if suffix.lower() not in KINDS:
        raise KindUnknown(
            f"Files of the kind {suffix or '(none)'} are not read.", way_out=f"Known kinds: {', '.join(sorted(KINDS))}."
        )
    return name


def _refused(reason: str) -> UploadRefused:
    return UploadRefused(
        f"A file cannot be kept under that name: {reason}.", way_out="Name it as in `hr/leave.pdf`, relative, with `/` between."
    )


def _sync(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


@contextmanager
def _mapped(name: str) -> Iterator[None]:
    try:
        yield
    except _IN_THE_WAY as error:
        raise UploadRefused(
            f"{name} cannot be kept: a file or folder of another kind has a part of its name.", way_out="Name it otherwise."
        ) from error
    except OSError as error:
        full = error.errno in _FULL
        reason = "the disk is full" if full else error.strerror or str(error)
        raise UploadNotKept(
            f"{name} cannot be kept: {reason}.",
            way_out="Make room on the disk, then try again." if full else "Check the folder `uploads` in `data_dir`.",
        ) from error
