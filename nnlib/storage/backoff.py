"""Waiting for a service that is away: longer from attempt to attempt, not for ever, and not in silence."""

from __future__ import annotations

import logging
import time

from nnlib.core.errors import StorageError
from nnlib.core.liveness import heartbeat

_log = logging.getLogger("nnjobs.storage")

SHORTEST_SECONDS = 0.1
LONGEST_SECONDS = 2.0


class Backoff:
    """The pauses between the attempts of one call. A pause is twice the one before, up to `LONGEST_SECONDS`.

    It logs once what it waits for, and once that the service is back.
    """

    def __init__(self, seconds: float, kind: str, service: str, *, variable: str, check: str) -> None:
        """``seconds``: longest time to wait in all. The others are for messages: the ``kind`` of service ("HDFS"), the
        ``service`` itself (host:port), the environment ``variable`` that sets the time, and the command that ``check``s
        the service."""
        self._seconds = seconds
        self._kind, self._service = kind, service
        self._variable, self._check = variable, check
        self._since: float | None = None
        self._pause = SHORTEST_SECONDS
        self._has_warned = False

    def wait(self, reason: str, *, at_once: bool = False) -> None:
        """Pause before the next attempt; with ``at_once`` do not, because another server can be asked.

        Raises `StorageError` when the time is up.
        """
        now = time.monotonic()
        if self._since is None:
            self._since = now
        waited = now - self._since
        if waited + self._pause > self._seconds:
            raise StorageError(
                f"{self._kind} is not available: {reason}" + (f" (waited {waited:.0f} s)" if waited >= 1.0 else ""),
                hint=f"see that its daemons run ({self._check}), then run the same command with --resume; "
                f"{self._variable} sets how long to wait",
                service=self._service,
            )
        heartbeat()  # a task that waits is not one that hangs
        if at_once:
            return
        if not self._has_warned and waited > 1.0:
            _log.warning(
                "waiting up to %.0f s (%s) for %s at %s: %s",
                *(self._seconds, self._variable, self._kind, self._service, reason),
            )
            self._has_warned = True
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, LONGEST_SECONDS)

    def succeeded(self) -> None:
        """End the waiting: the call succeeded."""
        if self._has_warned and self._since is not None:
            _log.warning("%s at %s is back after %.0f s", self._kind, self._service, time.monotonic() - self._since)
