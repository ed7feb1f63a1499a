"""Waiting for a service that is away: longer from attempt to attempt, not for ever, and not in silence."""

from __future__ import annotations

import logging
import random
import time

from nnlib.core.errors import StorageError
from nnlib.core.liveness import heartbeat

_log = logging.getLogger("nnjobs.storage")

SHORTEST_SECONDS = 0.1
LONGEST_SECONDS = 2.0


class Backoff:
    """The pauses between the attempts of one call. A pause is twice the one before, up to ``longest`` seconds.

    It logs once what it waits for, and once that the service is back.
    """

    def __init__(
        self,
        seconds: float,
        kind: str,
        service: str,
        *,
        variable: str,
        check: str,
        longest: float = LONGEST_SECONDS,
        jitter: bool = False,
    ) -> None:
        """``seconds``: longest time to wait in all. ``jitter``: a pause is a random part of what it would be, so that
        many clients do not come back at the same moment (full jitter).

        The others are for messages: the ``kind`` of service ("HDFS"), the ``service`` itself (host:port), the
        environment ``variable`` that sets the time, and how to ``check`` the service ("see that ...")."""
        self._seconds = seconds
        self._kind, self._service = kind, service
        self._variable, self._check = variable, check
        self._longest = longest
        self._jitter = random.SystemRandom() if jitter else None
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
        pause = self._pause if self._jitter is None else self._jitter.uniform(0.0, self._pause)
        if waited + pause > self._seconds:
            raise StorageError(
                f"{self._kind} is not available: {reason}" + (f" (waited {waited:.0f} s)" if waited >= 1.0 else ""),
                hint=f"{self._check}, then run the same command again (train: with --resume); "
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
        time.sleep(pause)
        self._pause = min(2 * self._pause, self._longest)

    def succeeded(self) -> None:
        """End the waiting: the call succeeded."""
        if self._has_warned and self._since is not None:
            _log.warning("%s at %s is back after %.0f s", self._kind, self._service, time.monotonic() - self._since)
