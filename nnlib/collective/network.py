"""The addresses at which this host can be reached by its peers."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Sequence

LOOPBACK = "127.0.0.1"
_ELSEWHERE = "192.0.2.1"
"""Of a block that is nobody's (RFC 5737): the way there is the default route."""


def own_addresses(towards: Sequence[str]) -> list[str]:
    """This host's addresses on the ways to other hosts (names or addresses: the storage's, say), best first.

    No packet is sent: the kernel is asked which source address it would take. A host that serves the storage itself
    may get its loopback address; the default route's address then stands behind it, for peers on other hosts.
    """
    found = [address for host in towards for address in _sources(host)]
    if all(is_loopback(address) for address in found):
        found += _sources(_ELSEWHERE)
    return list(dict.fromkeys(found)) or [LOOPBACK]


def is_loopback(address: str) -> bool:
    """Whether an address leads to the same host only."""
    return ipaddress.ip_address(address).is_loopback


def _sources(host: str) -> list[str]:
    found: list[str] = []
    with contextlib.suppress(OSError):  # an unknown name, or no way there: another host of the list may do
        for family, kind, protocol, _, address in socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM):
            with contextlib.suppress(OSError), socket.socket(family, kind, protocol) as probe:
                probe.connect(address)
                found.append(str(probe.getsockname()[0]).partition("%")[0])
    return found
