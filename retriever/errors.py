"""Every error that Beleg raises on purpose, as one tree.

BelegError
 ├─ SettingsError      a setting is unknown, malformed or contradicts another
 ├─ LoadError          one file cannot become a document; the other files go on
 ├─ ModelError         a model is missing, damaged, or not what a manifest names
 ├─ StoreError         the store cannot be opened, read or written
 │   └─ StoreLocked    another process is writing
 ├─ IndexMissing       nothing has been indexed yet
 ├─ IndexMismatch      an index was built by another encoder, chunker or analyser
 ├─ IndexUnavailable   the search engine does not answer, or refuses
 ├─ IndexDamaged       a generation does not hold what the store does
 ├─ SwapLost           another generation has become live meanwhile
 ├─ GateFailed         a new generation finds less than the live one
 ├─ QueryError         a question or search asks for something that cannot be
 └─ ReaderError        see `reader.errors`

A message says what failed and why; `way_out` says what to do about it.
"""

from __future__ import annotations

__all__ = [
    "BelegError",
    "GateFailed",
    "IndexDamaged",
    "IndexMismatch",
    "IndexMissing",
    "IndexUnavailable",
    "LoadError",
    "ModelError",
    "QueryError",
    "SettingsError",
    "StoreError",
    "StoreLocked",
    "SwapLost",
]


class BelegError(Exception):
    """Base of all errors that a user can do something about."""

    def __init__(self, message: str, *, way_out: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.way_out = way_out

    def __str__(self) -> str:
        return f"{self.message} {self.way_out}".strip()


class SettingsError(BelegError):
    """A setting is unknown, malformed or contradicts another."""


class LoadError(BelegError):
    """One file cannot become a document.

    Args:
        source: path or name of the file.
        reason: why, in words for the person who owns the file.
    """

    def __init__(self, source: str, reason: str, *, way_out: str = "") -> None:
        super().__init__(f"{source}: {reason}", way_out=way_out)
        self.source = source
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        # Loading happens in a worker process; the default would replay only `args`.
        return _rebuild_load_error, (self.source, self.reason, self.way_out)


def _rebuild_load_error(source: str, reason: str, way_out: str) -> LoadError:
    return LoadError(source, reason, way_out=way_out)


class ModelError(BelegError):
    """A model is missing, damaged, or not what a manifest names."""


class StoreError(BelegError):
    """The store cannot be opened, read or written."""


class StoreLocked(StoreError):
    """Another process is writing to the store."""


class IndexMissing(BelegError):
    """Nothing has been indexed yet."""


class IndexMismatch(BelegError):
    """An index was built by another encoder, chunker or analyser than the one at hand."""


class IndexUnavailable(BelegError):
    """The search engine does not answer, or refuses: it is down, full, protected, or of another version."""


class IndexDamaged(BelegError):
    """A generation does not hold what the store does."""


class SwapLost(BelegError):
    """Another generation has become live since this one was begun."""


class GateFailed(BelegError):
    """A new generation finds less than the live one does, by more than the margin."""


class QueryError(BelegError):
    """A question or search asks for something that cannot be: an unknown filter, an empty text."""
