"""A group whose workers are threads of one process, without sockets."""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Collection

from nnlib.collective.communicator import Communicator, Frames, PeerLostError, Result, byte_count
from nnlib.collective.zeromq import start_in_thread


class MemoryGroup:
    """The mailboxes that the threads share."""

    def __init__(self, workers: int, *, generation: int = 1, timeout_seconds: float = 60.0) -> None:
        self.workers = workers
        self.generation = generation
        self.timeout_seconds = timeout_seconds
        self.boxes: list[queue.SimpleQueue[tuple[int, Frames]]] = [queue.SimpleQueue() for _ in range(workers)]

    def communicators(self) -> list[MemoryCommunicator]:
        """One for each worker, each for one thread."""
        return [MemoryCommunicator(self, worker) for worker in range(self.workers)]


class MemoryCommunicator(Communicator):
    """Messages between threads; they are copied, as a network would."""

    def __init__(self, group: MemoryGroup, worker: int) -> None:
        self._group = group
        self.worker = worker
        self.workers = group.workers
        self.generation = group.generation
        self._early: dict[int, deque[Frames]] = {peer: deque() for peer in range(group.workers)}

    def send(self, peer: int, frames: Frames) -> None:
        copies = [bytes(frame) for frame in frames]
        self.sent_bytes += byte_count(copies)
        self._group.boxes[peer].put((self.worker, copies))

    def receive(self, peers: Collection[int]) -> tuple[int, Frames]:
        for peer in peers:
            if self._early[peer]:
                return peer, self._early[peer].popleft()
        begin = time.monotonic()
        while True:
            try:
                peer, frames = self._group.boxes[self.worker].get(timeout=self._group.timeout_seconds)
            except queue.Empty:
                raise PeerLostError(list(peers), time.monotonic() - begin) from None
            if peer in peers:
                return peer, frames
            self._early[peer].append(frames)

    def run_in_background(self, work: Callable[[], Result]) -> Callable[[], Result]:
        return start_in_thread(work).result

    def close(self, flush_seconds: float = 10.0) -> None:
        pass
