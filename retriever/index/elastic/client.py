"""The connection to Elasticsearch: who is asked, how patiently, and what a refusal means to the person who runs Beleg.

Nothing above this module sees an exception of the client: `mapped_errors` turns each into one of `retriever.errors`.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from elastic_transport import (
    ApiError,
    ConnectionTimeout,
    TlsError,
    Transport,
    TransportApiResponse,
    TransportError,
)
from elastic_transport import ConnectionError as NoConnection
from elasticsearch import Elasticsearch, UnsupportedProductError

from retriever.errors import BelegError, IndexMissing, IndexUnavailable, SettingsError

__all__ = ["PAUSES", "VERSIONS", "connect", "is_busy", "mapped_errors", "refusal", "where"]

PAUSES = (0.1, 0.3, 1.0)
"""Seconds before each further try, where the server is overloaded or restarting."""

_log = logging.getLogger(__name__)

_BUSY = frozenset({429, 502, 503, 504})
VERSIONS = "Beleg needs Elasticsearch 8.19 or newer."
"""The way out where it is too old, or something else."""


class PatientTransport(Transport):
    """The client's transport goes to the next node at once; this one then pauses and asks again."""

    def perform_request(self, *args: Any, **kwargs: Any) -> TransportApiResponse:
        """Send a request; a busy or unreachable server is asked again after each of `PAUSES`."""
        for pause in PAUSES:
            try:
                response = super().perform_request(*args, **kwargs)
            except TlsError:
                raise
            except NoConnection:
                pass
            else:
                # A full disk answers 429 too, and no pause helps.
                if response.meta.status not in _BUSY or _is_blocked(response.body):
                    _warn(response.body)
                    return response
            time.sleep(pause)
        return super().perform_request(*args, **kwargs)


def connect(
    url: str, *, user: str = "", password: str = "", api_key: str = "", ca: Path | None = None, timeout_s: float = 30.0
) -> Elasticsearch:
    """Return a client; nothing is sent yet.

    Args:
        url: of one node or more, separated by commas.
        user: with `password`, or neither.
        api_key: takes their place.
        ca: certificates that sign the servers'; the system's if None.
        timeout_s: that a request may take.

    Raises:
        SettingsError: these do not make a connection.
    """
    urls = [part.strip() for part in url.split(",") if part.strip()]
    if api_key and (user or password):
        raise SettingsError("elasticsearch_api_key and elasticsearch_username are both set.", way_out="Set one of them.")
    if bool(user) != bool(password):
        raise SettingsError("elasticsearch_username and elasticsearch_password go together.", way_out="Set both or neither.")
    options: dict[str, Any] = {}
    try:
        if ca is not None and any(part.startswith("https:") for part in urls):
            options["ssl_context"] = ssl.create_default_context(cafile=ca)
        return Elasticsearch(
            urls,
            basic_auth=(user, password) if user else None,
            api_key=api_key or None,
            request_timeout=timeout_s,
            transport_class=PatientTransport,
            retry_on_status=(),
            retry_on_timeout=True,
            # Each node once; a single one twice, since it may have closed an idle connection.
            max_retries=max(1, len(urls) - 1),
            **options,
        )
    except (ValueError, OSError) as error:  # ssl.SSLError is an OSError
        raise SettingsError(
            f"elasticsearch_url or elasticsearch_ca does not work: {error}.",
            way_out="A URL needs its port: http://127.0.0.1:9200, https://search.example.org:443.",
        ) from error


def where(client: Elasticsearch) -> str:
    """Return the URLs of a client, for messages."""
    return ", ".join(sorted(node.base_url for node in client.transport.node_pool.all()))


@contextmanager
def mapped_errors(client: Elasticsearch) -> Iterator[None]:
    """Turn whatever the client raises within into one of Beleg's errors.

    Raises:
        IndexMissing: the index that was asked for is not there.
        IndexUnavailable: everything else.
    """
    try:
        yield
    except UnsupportedProductError as error:
        raise IndexUnavailable(f"What answers at {where(client)} is not Elasticsearch.", way_out=VERSIONS) from error
    except ApiError as error:
        raise refusal(client, error.meta.status, error.body) from error
    except TransportError as error:
        raise _no_answer(client, error) from error


def _is_blocked(body: object) -> bool:
    return "cluster_block_exception" in _types(body)


def _warn(body: object) -> None:
    """Log that writes are blocked: records of a bulk request are sent again for half a minute before that is an error."""
    if isinstance(body, Mapping) and body.get("errors") is True and _is_blocked(body):
        _log.warning("Elasticsearch refuses to write, because its disk is full or the index is read-only.")


def is_busy(status: int) -> bool:
    """Say whether asking again after a pause may help."""
    return status in _BUSY


def refusal(client: Elasticsearch, status: int, body: object) -> BelegError:
    """Return the error for a request, or a part of one, that the server refused.

    Args:
        body: what it answered; of a part, its `error` in a mapping.
    """
    types, reason, url = _types(body), _reason(body), where(client)
    error = body.get("error") if isinstance(body, Mapping) else None
    if "index_not_found_exception" in types:
        name = error.get("index", "") if isinstance(error, Mapping) else ""
        return IndexMissing(f"Elasticsearch at {url} has no index {name}.".replace(" .", "."), way_out="Run `beleg index`.")
    if reason.startswith(_NO_HANDLER):
        types.add(_NO_HANDLER)
    for sign, message, way_out in _REFUSALS:
        if sign == status or sign in types:
            return IndexUnavailable(f"Elasticsearch at {url} {message}: {reason}", way_out=way_out)
    return IndexUnavailable(f"Elasticsearch at {url} answered {status}: {reason}", way_out="Its log may say more.")


_FULL = (
    "Make room on its disk, or raise cluster.routing.allocation.disk.watermark.flood_stage. If the block then stays, lift it "
    'with PUT INDEX/_settings {"index.blocks.read_only_allow_delete": null}; a block that somebody set is lifted likewise.'
)
_NO_HANDLER = "no handler found"
_REFUSALS: Sequence[tuple[int | str, str, str]] = [
    (
        401,
        "does not accept the credentials",
        "Set elasticsearch_username and elasticsearch_password, or elasticsearch_api_key.",
    ),
    (_NO_HANDLER, "is not asked at its own address", "elasticsearch_url ends with its port, or with a proxy's path to it."),
    ("media_type_header_exception", "is of a version that cannot be used", VERSIONS),
    (406, "is of a version that cannot be used", VERSIONS),
    # Before 403 and 429: it comes with either.
    ("cluster_block_exception", "refuses to write, because its disk is full or the index is read-only", _FULL),
    (
        403,
        "refuses this user a privilege",
        "Searching needs `read` and `view_index_metadata` on the index and its aliases; indexing needs `all` on them and "
        "`monitor` on the cluster.",
    ),
    ("circuit_breaking_exception", "has too little memory for this request", "Try again later, or give it a larger heap."),
    (413, "takes no request of this size", "Raise http.max_content_length, and the limit of any proxy before it."),
    ("invalid_alias_name_exception", "cannot use the name", "Another index has it: set another elasticsearch_index."),
    (429, "is overloaded", "Try again later."),
    (502, "cannot be reached through the proxy before it", "Look whether it runs."),
    (503, "has lost, or not yet found, a part of the index or its master node", "See GET _cluster/health."),
    (504, "cannot be reached through the proxy before it", "Look whether it runs."),
]


def _no_answer(client: Elasticsearch, error: TransportError) -> IndexUnavailable:
    url, detail = where(client), str(error)
    if isinstance(error, TlsError):
        if "CERTIFICATE_VERIFY_FAILED" in detail:
            way_out = (
                "Set elasticsearch_ca to the certificate of the authority that signed it, and use the name it is made for."
            )
            return IndexUnavailable(f"The certificate of Elasticsearch at {url} is not trusted: {detail}.", way_out=way_out)
        return IndexUnavailable(
            f"Elasticsearch at {url} does not speak HTTPS as expected: {detail}.",
            way_out="Perhaps its URL begins with http://.",
        )
    if isinstance(error, ConnectionTimeout):
        return IndexUnavailable(
            f"Elasticsearch at {url} did not answer in time.", way_out="Look at its load, or raise elasticsearch_timeout_s."
        )
    if isinstance(error, NoConnection):
        way_out = "Look whether it runs and whether elasticsearch_url is right; a server with TLS needs https://."
        # What the layers below each say is the same, and the last one says it shortest.
        return IndexUnavailable(
            f"Elasticsearch at {url} cannot be reached: {detail.rsplit(': ', 1)[-1].rstrip(')')}.", way_out=way_out
        )
    return IndexUnavailable(
        f"What answers at {url} does not speak like Elasticsearch: {detail}.",
        way_out="Look whether elasticsearch_url is right.",
    )


def _types(body: object) -> set[str]:
    """Return the types of an error, of its causes and of its failed shards."""
    if isinstance(body, Mapping):
        own = {str(body["type"])} if isinstance(body.get("type"), str) else set()
        return own.union(*(_types(part) for part in body.values() if isinstance(part, Mapping | list)))
    return set().union(*(_types(part) for part in body)) if isinstance(body, list) else set()


def _reason(body: object) -> str:
    """Return the innermost reason that an error gives."""
    error = body.get("error", body) if isinstance(body, Mapping) else body
    while isinstance(error, Mapping):
        shards = error.get("failed_shards") or error.get("root_cause") or []
        inner = error.get("caused_by") or (shards[0].get("reason", shards[0]) if shards else None)
        if not isinstance(inner, Mapping) or inner == error:
            return str(error.get("reason") or error)
        error = inner
    return str(error)[:300]
