"""Counts what is sent to storages on other machines, for events and reports."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Literal

Price = Literal["write", "read", "free"]
"""What a service charges for a request: as for one that writes or lists, as for one that reads, or nothing."""


class Traffic:
    """Counters of one storage; threads may share them. What is counted is also counted by the ``total``."""

    def __init__(self, total: Traffic | None = None) -> None:
        self._total = total
        self._lock = threading.Lock()
        self._uploaded_bytes = 0
        self._requests = 0
        self._priced: Counter[Price] = Counter()

    @property
    def uploaded_bytes(self) -> int:
        """Bytes of the files that were uploaded: each file once, however many attempts it took."""
        return self._uploaded_bytes

    @property
    def requests(self) -> int:
        """Calls of the service, whether they succeeded or not; a call may take several messages and attempts."""
        return self._requests

    def take_priced(self) -> dict[Price, int]:
        """Return the requests, by what they cost, that were made of services that charge for them since this was last
        asked: every attempt, as the bill has it. {} where there were none."""
        with self._lock:
            taken = dict(self._priced)
            self._priced.clear()
        return taken

    def count_upload(self, size: int) -> None:
        """Count the ``size`` bytes of a file that was uploaded."""
        with self._lock:
            self._uploaded_bytes += size
        if self._total is not None:
            self._total.count_upload(size)

    def count_request(self, price: Price | None = None) -> None:
        """Count one call of the service; ``price`` where it charges for requests, each of which is then a call."""
        with self._lock:
            self._requests += 1
            if price is not None:
                self._priced[price] += 1
        if self._total is not None:
            self._total.count_request(price)

    def uploaded_since(self, mark: int) -> tuple[int, int]:
        """Return the bytes uploaded since ``uploaded_bytes`` was ``mark``, and what it is now: the next mark."""
        now = self._uploaded_bytes
        return now - mark, now


PROCESS = Traffic()
"""The traffic of all storages of this process: what a round costs, whichever storages it uses."""
