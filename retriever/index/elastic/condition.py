"""The state of the server: what it says of itself, what keeps it from being written to, and whether an index has its copies."""

from __future__ import annotations

from elasticsearch import AuthorizationException, Elasticsearch

from retriever.errors import IndexUnavailable
from retriever.index.elastic.client import VERSIONS, refusal, where
from retriever.index.elastic.names import Names

__all__ = ["check_blocks", "check_version", "describe", "wait_for_copies"]

_OLDEST = (8, 19)


def check_version(client: Elasticsearch) -> str:
    """Return the server's version.

    Raises:
        IndexUnavailable: it is too old.
    """
    number = str(client.info()["version"]["number"])
    if tuple(int(part) for part in number.split(".")[:2]) < _OLDEST:
        raise IndexUnavailable(f"Elasticsearch at {where(client)} is version {number}.", way_out=VERSIONS)
    return number


def check_blocks(client: Elasticsearch, names: Names) -> None:
    """Raise `IndexUnavailable` if an index cannot be written to, as none can on a full disk."""
    indices = client.indices.get_settings(index=f"{names.live}-*", allow_no_indices=True).body
    for name, found in indices.items():
        blocks = {block for block, on in found["settings"]["index"].get("blocks", {}).items() if on == "true"}
        if blocks and names.fits(name):
            error = {"error": {"type": "cluster_block_exception", "reason": f"{name}: {', '.join(sorted(blocks))}"}}
            raise refusal(client, 403, error)


def describe(client: Elasticsearch) -> str:
    """Return version and health of the cluster, as far as this user may ask for them."""
    said = f"at {where(client)}"
    try:
        said = f"{check_version(client)} {said}"
        health = client.cluster.health()
    except AuthorizationException:  # a replica may have no privilege for that
        return f"Elasticsearch {said}"
    nodes = f"{health['number_of_nodes']} nodes" if health["number_of_nodes"] > 1 else "1 node"
    return f"Elasticsearch {said}, {health['status']}, {nodes}"


def wait_for_copies(client: Elasticsearch, index: str, replicas: int, wait_s: int) -> None:
    """Let an index be refreshed and copied, and wait for the copies.

    Raises:
        IndexUnavailable: they are not there in time.
    """
    client.indices.put_settings(index=index, settings={"refresh_interval": None, "number_of_replicas": replicas})
    patient = client.options(request_timeout=wait_s + 10, ignore_status=408)
    if patient.cluster.health(index=index, wait_for_status="green", timeout=f"{wait_s}s")["timed_out"]:
        raise IndexUnavailable(
            f"Not every copy of the index {index} has found a node within {wait_s} s.",
            way_out=f"{replicas} replicas need {replicas + 1} nodes: see elasticsearch_replicas, and GET "
            "_cluster/allocation/explain.",
        )
