"""The service's part of the error tree.

BelegError
 ├─ ShuttingDown      the server stops, and takes or finishes no more questions
 ├─ HostRefused       the server does not go by the name that it was asked by
 ├─ JobMissing        there is no job of that id
 ├─ JobConflict       what is asked of a job does not go with what is running, or with what it is already
 ├─ JobRefused        a job asks for files that it may not read
 ├─ JobsUnavailable   the job database cannot be read or written
 ├─ DocumentMissing   there is no document of that id
 ├─ FileMissing       the file of a document is gone, or has no such page
 ├─ FileChanged       the file of a document is another one than was indexed
 ├─ UploadsOff        documents cannot be changed over HTTP here
 ├─ UploadRefused     a file cannot be kept under that name
 │   └─ KindUnknown   files of that kind are not read
 └─ UploadNotKept     the disk does not take an upload
"""

from __future__ import annotations

from retriever.errors import BelegError

__all__ = [
    "DocumentMissing",
    "FileChanged",
    "FileMissing",
    "HostRefused",
    "JobConflict",
    "JobMissing",
    "JobRefused",
    "JobsUnavailable",
    "KindUnknown",
    "ShuttingDown",
    "UploadNotKept",
    "UploadRefused",
    "UploadsOff",
]


class ShuttingDown(BelegError):
    """The server stops, and takes or finishes no more questions."""

    def __init__(self) -> None:
        super().__init__("The server is shutting down.", way_out="Ask again in a moment.")


class HostRefused(BelegError):
    """The server does not go by the name that it was asked by."""


class JobMissing(BelegError):
    """There is no job of that id."""


class JobConflict(BelegError):
    """What is asked of a job does not go with what is running, or with what it is already; the message names the job."""


class JobRefused(BelegError):
    """A job asks for files that it may not read; the message names the argument."""


class JobsUnavailable(BelegError):
    """The job database cannot be read or written: it is damaged, full, of a newer version, or does not answer."""


class DocumentMissing(BelegError):
    """There is no document of that id."""


class FileMissing(BelegError):
    """The file of a document is gone, or has no such page."""


class FileChanged(BelegError):
    """The file of a document is another one than was indexed."""


class UploadsOff(BelegError):
    """Documents cannot be changed over HTTP here."""


class UploadRefused(BelegError):
    """A file cannot be kept under that name, or at all."""


class KindUnknown(UploadRefused):
    """Files of that kind are not read."""


class UploadNotKept(BelegError):
    """The disk does not take an upload: it is full, or refuses."""
