"""Notices that the group has moved on to a newer generation, and interrupts a worker that is still in an older one.

A worker that was declared lost by mistake, and peers that wait for nobody, would otherwise never learn about it: all
of them send heartbeats and make progress, so none of them misses another one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

from nnlib.collective.communicator import PeerLostError, SupersededError
from nnlib.core.errors import StorageError


class GenerationWatcher(threading.Thread):
    """A thread that calls ``interrupt`` with an error once other workers are in a newer generation; it then ends."""

    def __init__(
        self, workers_ahead: Callable[[], Collection[int]], interrupt: Callable[[Exception], None], every_seconds: float
    ) -> None:
        """``workers_ahead`` returns the workers in newer generations, see `Rendezvous.workers_ahead`; it is called
        every ``every_seconds``."""
        super().__init__(name="generations", daemon=True)  # a storage that hangs must not keep the process alive
        self._workers_ahead = workers_ahead
        self._interrupt = interrupt
        self._every = every_seconds
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let the thread end. Does not wait for it: it may hang in a storage."""
        self._stopped.set()

    def run(self) -> None:
        while not self._stopped.wait(self._every):
            try:
                workers = self._workers_ahead()
            except SupersededError as error:
                self._interrupt(error)
                return
            except StorageError:
                continue  # the next call may work
            if workers and not self._stopped.is_set():
                self._interrupt(PeerLostError(sorted(workers), 0.0, "went on to a newer generation"))
                return
