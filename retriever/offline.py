"""One switch that keeps this process from talking to anything outside: no code path, of ours or of a library, gets past it."""

from __future__ import annotations

import ipaddress
import os
import sys

from retriever.errors import BelegError

__all__ = ["OfflineError", "go_offline"]

_SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK")


class OfflineError(BelegError):
    """Something asked for a connection to the outside while `offline` is set."""


def go_offline() -> None:
    """Refuse, from now on and until the process ends, every connection to a public address, and to look up names of such.

    This machine and private networks stay reachable: a company's own model server or Elasticsearch is not outside. Names are
    resolved by the system and refused by the addresses they have. Libraries are also told by the variables they know, so that
    they look at what they have instead of failing.
    """
    for switch in _SWITCHES:
        os.environ[switch] = "1"
    # An audit hook sees every connection that Python code makes, whatever library makes it, and cannot be taken off again.
    sys.addaudithook(_refuse_public)


def _refuse_public(event: str, arguments: tuple[object, ...]) -> None:
    if event not in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        return
    address = arguments[1]
    if isinstance(address, tuple) and not _is_ours(str(address[0])):
        raise OfflineError(
            f"offline is set, but something asked for a connection to {address[0]}.",
            way_out="Use models that are on this machine, or unset offline.",
        )


def _is_ours(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        # A name: what it stands for is not known here, so only the one that never leaves this machine is let through.
        return host in ("localhost", "")
    # An IPv4 address that is written as an IPv6 one, as dual-stack sockets do, is judged as what it is.
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_private or address.is_link_local or address.is_unspecified
