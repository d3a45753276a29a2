"""The database in which DBOS keeps the jobs: where it is, how it is opened, and what its errors mean.

Like the other modules of jobs, it imports dbos, SQLAlchemy and the driver only when a database is really opened.
"""

from __future__ import annotations

import logging
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from retriever.errors import SettingsError
from retriever.settings import Settings
from serving.errors import JobsUnavailable

if TYPE_CHECKING:
    from dbos import DBOSClient, DBOSConfig

__all__ = ["WORKFLOW", "config", "mapped_errors", "open_client"]

WORKFLOW = "beleg-job"
"""Name of the one workflow that carries out jobs of every kind."""

_APPLICATION = "beleg"
_PROTOCOL = "1"
"""The order of a workflow's steps. DBOS by default takes a hash of the code, and would leave running jobs behind at every
upgrade; this stays the same until the steps themselves change."""

_FORMAT = 1
"""Of the file, in its `user_version`. DBOS upgrades older files by itself."""

_CONNECT_TIMEOUT_S = 10


def open_client(settings: Settings) -> DBOSClient:
    """Connect to the job database, and make or upgrade it if need be.

    Raises:
        JobsUnavailable: it cannot be used.
        SettingsError: `jobs_database` is no address of a PostgreSQL database.
    """
    with mapped_errors(settings):
        url = _url(settings)
        if not _shared(settings):
            _prepare(_file(settings))
        elif settings.offline:
            _knock(url)
        from dbos import DBOS, DBOSClient, DBOSPortableJSONSerializer

        _quieten(logging.getLogger("dbos"))
        DBOS.migrate(url)
        # JSON, as whoever can write to the database must not be able to have code run, which pickles would let them.
        return DBOSClient(
            system_database_url=url,
            serializer=DBOSPortableJSONSerializer(),
            application_name=_APPLICATION,
            retry_connection_errors=False,
        )


def config(settings: Settings, *, executor: str) -> DBOSConfig:
    """Return what DBOS needs to carry out jobs and nothing else: no telemetry, no console, no server of its own."""
    from dbos import DBOSPortableJSONSerializer

    return {
        "name": _APPLICATION,
        "system_database_url": _url(settings),
        "serializer": DBOSPortableJSONSerializer(),
        "application_version": _PROTOCOL,
        "executor_id": executor,
        "log_level": "WARNING",
        "enable_otlp": False,
    }


@contextmanager
def mapped_errors(settings: Settings) -> Iterator[None]:
    """Turn what the database and its driver raise into `JobsUnavailable`."""
    where = "The job database" if _shared(settings) else f"The job database {_file(settings)}"
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise JobsUnavailable(f"{where} cannot be used: {error}.", way_out=_way_out(settings, str(error))) from error
    except Exception as error:
        from dbos import error as dbos_error
        from sqlalchemy.exc import DBAPIError, SQLAlchemyError

        if not isinstance(error, SQLAlchemyError | dbos_error.DBOSException):
            raise
        # The driver's own words: SQLAlchemy adds the statement and its values.
        said = str(error.orig if isinstance(error, DBAPIError) else error).strip()
        raise JobsUnavailable(f"{where} cannot be used: {said}", way_out=_way_out(settings, said)) from error


def _shared(settings: Settings) -> bool:
    return bool(settings.jobs_database.get_secret_value())


def _file(settings: Settings) -> Path:
    return settings.data_dir.absolute() / "jobs.sqlite"


def _url(settings: Settings) -> str:
    from sqlalchemy import URL, make_url
    from sqlalchemy.exc import ArgumentError

    if not _shared(settings):
        return URL.create("sqlite", database=str(_file(settings))).render_as_string()
    try:
        url = make_url(settings.jobs_database.get_secret_value())
    except (ArgumentError, ValueError):
        url = None
    # Its value is not repeated: it most likely holds a password.
    if url is None or url.get_backend_name() not in ("postgresql", "postgres") or not url.database:
        raise SettingsError(
            "jobs_database is no address of a PostgreSQL database.",
            way_out="Write it as postgresql://USER:PASSWORD@HOST:PORT/DATABASE, or leave it empty.",
        )
    url = url.set(drivername="postgresql").update_query_dict(
        {"connect_timeout": url.query.get("connect_timeout", str(_CONNECT_TIMEOUT_S))}
    )
    return url.render_as_string(hide_password=False)


def _prepare(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(file, timeout=30)) as database:
        found = database.execute("PRAGMA user_version").fetchone()[0]
        if found > _FORMAT:
            raise JobsUnavailable(
                f"The job database {file} was written by a newer version of Beleg.",
                way_out="Use that version, or move the file away: it holds only the list of jobs, no documents.",
            )
        if found < _FORMAT:
            # Readers then do not wait for the writer, and the file remembers it.
            database.execute("PRAGMA journal_mode=WAL")
            database.execute(f"PRAGMA user_version={_FORMAT}")


class _OnceAMinute(logging.Filter):
    """Drops what was said a moment ago: while a database server is down, every queue complains at every look."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        said = record.getMessage()[:40]
        if time.monotonic() - self._said.get(said, -60.0) < 60:
            return False
        self._said[said] = time.monotonic()
        return True


def _quieten(logger: logging.Logger) -> None:
    if not any(isinstance(known, _OnceAMinute) for known in logger.filters):
        # DBOS adds a handler of its own only where there is none; so its warnings go to the service's log instead.
        logger.addHandler(logging.NullHandler())
        logger.addFilter(_OnceAMinute())
        logger.setLevel(logging.WARNING)


def _knock(url: str) -> None:
    """Open and close a connection from Python: the driver's own are made in C, where the switch `offline` does not see them."""
    from sqlalchemy import make_url

    parsed = make_url(url)
    if parsed.host and not parsed.host.startswith("/"):
        with socket.create_connection((parsed.host, parsed.port or 5432), timeout=_CONNECT_TIMEOUT_S):
            pass


def _way_out(settings: Settings, said: str) -> str:
    if _shared(settings):
        return "Check the setting `jobs_database`, and that the database server runs."
    if "disk is full" in said or "No space left" in said:
        return "Make room on its disk; no job is lost, and what was indexed is kept."
    if "not a database" in said or "malformed" in said:
        return "It is damaged. Move it away: it holds only the list of jobs, no documents."
    return "Check that the folder can be written to and its disk is not full."
