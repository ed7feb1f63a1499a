"""How many bytes this process has given to storages on other machines: what a round sends is told and reported."""

from __future__ import annotations

import threading


class Counter:
    """A sum that threads share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sum = 0

    def add(self, amount: int) -> None:
        with self._lock:
            self._sum += amount

    @property
    def sum(self) -> int:
        return self._sum

    def since(self, mark: int) -> tuple[int, int]:
        """What was added since the sum was ``mark``, and the sum now: the next mark."""
        now = self._sum
        return now - mark, now


UPLOADED = Counter()
"""Bytes of the files that were uploaded, each attempt that succeeded once."""
