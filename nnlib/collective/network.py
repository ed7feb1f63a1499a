"""The addresses at which this host can be reached by its peers."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Sequence

LOOPBACK = "127.0.0.1"
_REMOTE_ADDRESS = "192.0.2.1"
"""Of a block that belongs to nobody (RFC 5737): packets to it take the default route."""


def host_addresses(destinations: Sequence[str]) -> list[str]:
    """Return this host's addresses on the ways to other hosts, best first.

    ``destinations``: names or addresses of hosts, for example the storage's. No packet is sent: the kernel is asked
    which source address it would use. A host that serves the storage itself may get its loopback address; then the
    address of the default route follows, for peers on other hosts.
    """
    addresses = [address for host in destinations for address in _source_addresses(host)]
    if all(is_loopback(address) for address in addresses):
        addresses += _source_addresses(_REMOTE_ADDRESS)
    return list(dict.fromkeys(addresses)) or [LOOPBACK]


def is_loopback(address: str) -> bool:
    """Return whether an address leads to the same host only."""
    return ipaddress.ip_address(address).is_loopback


def _source_addresses(host: str) -> list[str]:
    addresses: list[str] = []
    with contextlib.suppress(OSError):  # the name is unknown or no route leads there: another host may do
        for family, kind, protocol, _, address in socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM):
            with contextlib.suppress(OSError), socket.socket(family, kind, protocol) as probe:
                probe.connect(address)
                addresses.append(str(probe.getsockname()[0]).partition("%")[0])
    return addresses
