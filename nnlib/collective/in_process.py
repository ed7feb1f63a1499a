"""A group whose workers are threads of one process and run in turn: collective training without sockets, for the inline
runner.

Each worker has a thread, so that it runs the same code as elsewhere, but only one runs at a time. A worker that waits
for a message passes the turn to the next worker in the circle that has something to do: no other thread wakes up, and
when the turn comes back all have sent what the worker waits for.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection

from nnlib.collective.communicator import Communicator, Frames, byte_count
from nnlib.core.errors import JobError


class _AbandonedError(Exception):
    """Another worker of the group has failed: this one cannot go on alone."""


class InProcessGroup:
    """Runs the workers of a group in turn and holds their undelivered messages."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.mailboxes: list[list[deque[Frames]]] = [[deque() for _ in range(workers)] for _ in range(workers)]
        """[receiver][sender]: messages in the order they were sent."""
        self.error: BaseException | None = None
        self._turns = [threading.Semaphore(0) for _ in range(workers)]
        self._waiting: dict[int, Collection[int]] = {}
        """Worker -> peers it waits for."""
        self._not_started = set(range(workers))

    def run(self, work: Callable[[Communicator], None]) -> None:
        """Call ``work`` once for every worker. Raises the error of the first worker that fails, `JobError` if all wait
        for messages that nobody sends.

        An interrupt ends this at once; the worker whose turn it is fails at its next message.
        """
        threads = [
            threading.Thread(target=self._run_worker, args=(work, worker), daemon=True)
            for worker in range(self.workers)
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
        """Pass the turn until one of ``peers`` has sent something; called by the worker whose turn it is."""
        self._waiting[worker] = peers
        self._pass_turn(worker)
        self._turns[worker].acquire()
        del self._waiting[worker]

    def _run_worker(self, work: Callable[[Communicator], None], worker: int) -> None:
        self._turns[worker].acquire()
        self._not_started.remove(worker)
        try:
            if self.error is None:
                work(_InProcessCommunicator(self, worker))
        except _AbandonedError:
            pass
        except BaseException as error:
            self.error = self.error or error
        finally:
            self._pass_turn(worker)

    def _pass_turn(self, worker: int) -> None:
        """Wake the next worker in the circle that can run: any that has not ended, once one has failed."""
        unfinished = [
            peer
            for step in range(1, self.workers + 1)
            if (peer := (worker + step) % self.workers) in self._not_started or peer in self._waiting
        ]
        runnable = [peer for peer in unfinished if self._can_run(peer)]
        if unfinished and not runnable:
            self.error = JobError(f"workers {sorted(unfinished)} wait for messages that nobody sends")
            runnable = unfinished
        if runnable:
            self._turns[runnable[0]].release()

    def _can_run(self, worker: int) -> bool:
        return (
            self.error is not None
            or worker in self._not_started
            or any(self.mailboxes[worker][peer] for peer in self._waiting[worker])
        )


class _InProcessCommunicator(Communicator):
    """One worker's end of the group."""

    generation = 1

    def __init__(self, group: InProcessGroup, worker: int) -> None:
        self._group = group
        self.worker = worker
        self.workers = group.workers

    def send(self, peer: int, frames: Frames) -> None:
        self.sent_bytes += byte_count(frames)
        self._group.mailboxes[peer][self.worker].append(frames)

    def receive(self, peers: Collection[int]) -> tuple[int, Frames]:
        mailboxes = self._group.mailboxes[self.worker]
        while self._group.error is None:
            for peer in sorted(peers):
                if mailboxes[peer]:
                    return peer, mailboxes[peer].popleft()
            self._group.wait(self.worker, peers)
        raise _AbandonedError

    def close(self, flush_seconds: float = 0.0) -> None:
        """Do nothing: there is nothing to close."""
