"""DataNodes that failed lately: a NameNode goes on naming one that is lost, until it has missed it for ten minutes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

AVOIDED_SECONDS = 600.0
"""How long a DataNode is avoided: by then the NameNode knows itself whether it is lost."""


class AvoidedDataNodes:
    """The addresses of DataNodes that did not do what they were asked. Threads may share one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failed: dict[str, tuple[float, str]] = {}
        """IP address -> when it failed, and how."""

    def add(self, url: str, reason: str) -> bool:
        """Avoid the DataNode of a URL from now on; return whether it was not avoided before.

        A NameNode knows DataNodes by their IP addresses; where a host's name has none, nothing is avoided.
        """
        try:
            address = str(socket.getaddrinfo(urlsplit(url).hostname, None)[0][4][0])
        except OSError:
            return False
        with self._lock:
            is_new = address not in self._failed
            self._failed[address] = (self._clock(), reason)
        return is_new

    def current(self) -> tuple[list[str], list[str]]:
        """Return the IP addresses to avoid now, sorted, and why, the latest reason last."""
        with self._lock:
            limit = self._clock() - AVOIDED_SECONDS
            self._failed = {address: failed for address, failed in self._failed.items() if failed[0] > limit}
            return sorted(self._failed), [reason for _, reason in sorted(self._failed.values())]

    def forget(self) -> None:
        """Avoid none any more."""
        with self._lock:
            self._failed.clear()
