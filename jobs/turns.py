"""A group whose workers live in one process and work in turn: the collective without sockets, for the inline runner.

Each worker has a thread, so that it can be the same code as elsewhere, but only the one that holds the baton runs; it
passes the baton on when it waits for a message.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection

from nnlib.collective.communicator import Communicator, Frames, Traffic, byte_count


class _AbandonedError(Exception):
    """Another worker of the group has failed: this one has nobody to go on with."""


class Turns:
    """The group: its baton, and the messages that lie ready."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.baton = threading.Condition(threading.Lock())
        self.boxes: list[list[deque[Frames]]] = [[deque() for _ in range(workers)] for _ in range(workers)]
        """[receiver][sender]"""
        self.error: BaseException | None = None

    def run(self, work: Callable[[Communicator], None]) -> None:
        """Call ``work`` once for every worker. Raises what the first to fail raised.

        An interrupt ends this at once; the worker whose turn it is then finds nobody to go on with.
        """
        threads = [
            threading.Thread(target=self._take_part, args=(work, worker), daemon=True) for worker in range(self.workers)
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException as error:
            self.error = error
            raise
        if self.error is not None:
            raise self.error

    def _take_part(self, work: Callable[[Communicator], None], worker: int) -> None:
        with self.baton:
            try:
                if self.error is None:
                    work(_Place(self, worker))
            except _AbandonedError:
                pass
            except BaseException as error:
                self.error = self.error or error
            finally:
                self.baton.notify_all()


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
        self._group.baton.notify_all()

    def receive(self, peers: Collection[int]) -> tuple[int, Frames]:
        boxes = self._group.boxes[self.worker]
        while self._group.error is None:
            for peer in sorted(peers):
                if boxes[peer]:
                    return peer, boxes[peer].popleft()
            self._group.baton.wait()
        raise _AbandonedError

    def stats(self) -> Traffic:
        return self._traffic

    def close(self, flush_seconds: float = 0.0) -> None:
        """There is nothing to close."""
