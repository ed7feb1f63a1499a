"""A group whose workers are threads of one process: for tests, and to run workers side by side without sockets."""

from __future__ import annotations

import queue
import time
from collections.abc import Sequence

from nnlib.collective.communicator import Frames, PeerLostError, Traffic, as_bytes


class MemoryGroup:
    """The mailboxes that ``workers`` threads share."""

    def __init__(self, workers: int, *, generation: int = 1, timeout_seconds: float = 60.0) -> None:
        self.workers = workers
        self.generation = generation
        self.timeout_seconds = timeout_seconds
        self.boxes: list[list[queue.SimpleQueue[Frames]]] = [
            [queue.SimpleQueue() for _ in range(workers)] for _ in range(workers)
        ]
        """[receiver][sender]"""

    def communicators(self) -> list[MemoryCommunicator]:
        """One for each worker, each for one thread."""
        return [MemoryCommunicator(self, worker) for worker in range(self.workers)]


class MemoryCommunicator:
    """`nnlib.collective.communicator.Communicator` between threads."""

    def __init__(self, group: MemoryGroup, worker: int) -> None:
        self._group = group
        self.worker = worker
        self.workers = group.workers
        self.generation = group.generation
        self._traffic = Traffic()

    def exchange(self, outgoing: Sequence[Frames]) -> list[Frames]:
        for peer, frames in enumerate(outgoing):
            if peer != self.worker:
                self._group.boxes[peer][self.worker].put([bytes(as_bytes(frame)) for frame in frames])
                self._traffic.sent += sum(as_bytes(frame).nbytes for frame in frames)
        return [own if peer == self.worker else self._take(peer) for peer, own in enumerate(outgoing)]

    def _take(self, peer: int) -> Frames:
        begin = time.monotonic()
        try:
            frames = self._group.boxes[self.worker][peer].get(timeout=self._group.timeout_seconds)
        except queue.Empty:
            raise PeerLostError([peer], time.monotonic() - begin) from None
        self._traffic.received += sum(as_bytes(frame).nbytes for frame in frames)
        self._traffic.waited[peer] = self._traffic.waited.get(peer, 0.0) + time.monotonic() - begin
        return frames

    def stats(self) -> Traffic:
        return self._traffic

    def close(self) -> None:
        pass
