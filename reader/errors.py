"""The reader's part of the error tree.

BelegError
 └─ ReaderError
     ├─ EngineError         a language model failed while answering
     │   └─ EngineUnavailable  a model server does not answer, or refuses us
     ├─ FeedbackError       what somebody said of an answer cannot be kept or read
     ├─ PromptTooLong       not even one passage fits the model's context
     └─ Overloaded          too much waits already
"""

from __future__ import annotations

from retriever.errors import BelegError

__all__ = ["EngineError", "EngineUnavailable", "FeedbackError", "Overloaded", "PromptTooLong", "ReaderError"]


class ReaderError(BelegError):
    """An answer could not be made."""


class EngineError(ReaderError):
    """A language model failed while answering."""


class EngineUnavailable(EngineError):
    """A model server does not answer, or refuses us."""


class FeedbackError(ReaderError):
    """What somebody said of an answer cannot be kept or read."""


class PromptTooLong(ReaderError):
    """Not even one passage fits the model's context."""


class Overloaded(ReaderError):
    """Too much waits already.

    Args:
        retry_after_s: when a place is likely to be free, in seconds.
    """

    def __init__(self, message: str, *, retry_after_s: int, way_out: str = "") -> None:
        super().__init__(message, way_out=way_out)
        self.retry_after_s = retry_after_s
