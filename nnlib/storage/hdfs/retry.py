"""Waiting for a service that is away, not for ever, and not in silence."""

from __future__ import annotations

import logging
import time

from nnlib.core.errors import StorageError
from nnlib.core.liveness import beat

_log = logging.getLogger("nnjobs.storage")

SHORTEST_SECONDS = 0.1
LONGEST_SECONDS = 2.0


class Patience:
    """The waiting of one call. It says once what it waits for, and once that it is over."""

    def __init__(self, seconds: float, service: str) -> None:
        self._seconds = seconds
        self._service = service
        self._since: float | None = None
        self._pause = SHORTEST_SECONDS
        self._told = False

    def wait(self, reason: str, *, at_once: bool = False) -> None:
        """Pause before the next attempt; ``at_once``: there is another server to ask. Raises `StorageError` when the
        time is up."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        waited = now - self._since
        if waited + self._pause > self._seconds:
            raise StorageError(
                f"HDFS is not available: {reason}" + (f" (waited {waited:.0f} s)" if waited >= 1.0 else ""),
                hint="see that its daemons run (hdfs dfsadmin -report), then run the same command with --resume; "
                "NNJOBS_HDFS_WAIT sets how long to wait",
                service=self._service,
            )
        beat()  # a task that waits is not one that hangs
        if at_once:
            return
        if not self._told and waited > 1.0:
            _log.warning(
                "waiting up to %.0f s (NNJOBS_HDFS_WAIT) for HDFS at %s: %s", self._seconds, self._service, reason
            )
            self._told = True
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, LONGEST_SECONDS)

    def over(self) -> None:
        """The call got through."""
        if self._told and self._since is not None:
            _log.warning("HDFS at %s is back after %.0f s", self._service, time.monotonic() - self._since)
