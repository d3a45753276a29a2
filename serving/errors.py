"""The service's part of the error tree.

BelegError
 ├─ ShuttingDown     the server stops, and takes or finishes no more questions
 ├─ JobMissing       there is no job of that id
 ├─ JobConflict      what is asked of a job does not go with what is running, or with what it is already
 ├─ JobRefused       a job asks for files that it may not read
 └─ JobsUnavailable  the job database cannot be read or written
"""

from __future__ import annotations

from retriever.errors import BelegError

__all__ = ["JobConflict", "JobMissing", "JobRefused", "JobsUnavailable", "ShuttingDown"]


class ShuttingDown(BelegError):
    """The server stops, and takes or finishes no more questions."""

    def __init__(self) -> None:
        super().__init__("The server is shutting down.", way_out="Ask again in a moment.")


class JobMissing(BelegError):
    """There is no job of that id."""


class JobConflict(BelegError):
    """What is asked of a job does not go with what is running, or with what it is already; the message names the job."""


class JobRefused(BelegError):
    """A job asks for files that it may not read; the message names the argument."""


class JobsUnavailable(BelegError):
    """The job database cannot be read or written: it is damaged, full, of a newer version, or does not answer."""
