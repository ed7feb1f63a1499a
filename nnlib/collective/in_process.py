"""A group whose workers live in one process and work in turn: the collective without sockets, for the inline runner.

Each worker has a thread, so that it can be the same code as elsewhere, but only the one whose turn it is runs. It hands
on when it waits for a message, to the next worker in the circle that has something to do: no other thread wakes, and by
the time the circle comes round all have sent what it waits for.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection

from nnlib.collective.communicator import Communicator, Frames, Traffic, byte_count
from nnlib.core.errors import JobError


class _AbandonedError(Exception):
    """Another worker of the group has failed: this one has nobody to go on with."""


class Turns:
    """The group: whose turn it is, and the messages that lie ready."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.boxes: list[list[deque[Frames]]] = [[deque() for _ in range(workers)] for _ in range(workers)]
        """[receiver][sender]"""
        self.error: BaseException | None = None
        self._turns = [threading.Semaphore(0) for _ in range(workers)]
        self._waiting: dict[int, Collection[int]] = {}
        """Worker -> peers it waits for."""
        self._unbegun = set(range(workers))

    def run(self, work: Callable[[Communicator], None]) -> None:
        """Call ``work`` once for every worker. Raises what the first to fail raised, `JobError` if all wait for
        messages that nobody sends.

        An interrupt ends this at once; the worker whose turn it is then finds nobody to go on with.
        """
        threads = [
            threading.Thread(target=self._take_part, args=(work, worker), daemon=True) for worker in range(self.workers)
        ]
        for thread in threads:
            thread.start()
        self._turns[0].release()
        try:
            for thread in threads:
                thread.join()
        except BaseException as error:
            self.error = error
            raise
        if self.error is not None:
            raise self.error

    def wait(self, worker: int, peers: Collection[int]) -> None:
        """Hand on until one of these peers has sent something; called by the worker whose turn it is."""
        self._waiting[worker] = peers
        self._hand_on(worker)
        self._turns[worker].acquire()
        del self._waiting[worker]

    def _take_part(self, work: Callable[[Communicator], None], worker: int) -> None:
        self._turns[worker].acquire()
        self._unbegun.remove(worker)
        try:
            if self.error is None:
                work(_Place(self, worker))
        except _AbandonedError:
            pass
        except BaseException as error:
            self.error = self.error or error
        finally:
            self._hand_on(worker)

    def _hand_on(self, worker: int) -> None:
        """Give the turn to the next in the circle that can use it: anyone who is left, once one has failed."""
        left = [
            peer
            for step in range(1, self.workers + 1)
            if (peer := (worker + step) % self.workers) in self._unbegun or peer in self._waiting
        ]
        able = [peer for peer in left if self._can_go_on(peer)]
        if left and not able:
            self.error = JobError(f"workers {sorted(left)} wait for messages that nobody sends")
            able = left
        if able:
            self._turns[able[0]].release()

    def _can_go_on(self, worker: int) -> bool:
        return (
            self.error is not None
            or worker in self._unbegun
            or any(self.boxes[worker][peer] for peer in self._waiting[worker])
        )


class _Place(Communicator):
    """One worker's end of the group."""

    generation = 1

    def __init__(self, group: Turns, worker: int) -> None:
        self._group = group
        self._traffic = Traffic()
        self.worker = worker
        self.workers = group.workers

    def send(self, peer: int, frames: Frames) -> None:
        self._traffic.sent += byte_count(frames)
        self._group.boxes[peer][self.worker].append(frames)

    def receive(self, peers: Collection[int]) -> tuple[int, Frames]:
        boxes = self._group.boxes[self.worker]
        while self._group.error is None:
            for peer in sorted(peers):
                if boxes[peer]:
                    return peer, boxes[peer].popleft()
            self._group.wait(self.worker, peers)
        raise _AbandonedError

    def stats(self) -> Traffic:
        return self._traffic

    def close(self, flush_seconds: float = 0.0) -> None:
        """There is nothing to close."""
