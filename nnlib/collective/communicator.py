"""The interface through which a worker exchanges messages with its peers, and the errors that it raises.

A `Communicator` is one worker's end of one generation of a group. It raises `PeerLostError` for a peer that sends no
heartbeats, or that makes no progress while this worker waits for it. After that, or after any other error, the
communicator is of no further use: the worker joins a new generation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import TypeVar

from nnlib.core.arrays import Buffer
from nnlib.core.errors import JobError

Result = TypeVar("Result")
Frames = Sequence[Buffer]
"""One message: buffers that are sent from where they lie, without being copied into one."""


def byte_count(frames: Frames) -> int:
    """Return the number of bytes in all frames of a message."""
    return sum(memoryview(frame).nbytes for frame in frames)  # type: ignore[arg-type,misc]  # arrays are buffers


class PeerLostError(JobError):
    """Raised when peers have died, hang, cannot be reached or have left.

    ``workers``: the lost workers, sorted; ``seconds``: how long this worker has waited for them.
    """

    def __init__(self, workers: Sequence[int], seconds: float, why: str = "silent") -> None:
        self.workers = sorted(workers)
        self.seconds = seconds
        names = f"worker{'s' if len(self.workers) > 1 else ''} {', '.join(map(str, self.workers))}"
        super().__init__(f"lost {names}: {why} (waited for {seconds:.1f} s)", hint="see the tasks' own logs")


class SupersededError(JobError):
    """Raised when another task has replaced this worker while it could not be reached: this task has to end."""


class Communicator(ABC):
    """One worker's end of a group. Calls come from one thread at a time, see `run_in_background`.

    ``worker``: this worker's number, from 0; ``workers``: how many the group has; ``generation``: how often the group
    has been formed, from 1; ``sent_bytes``: bytes of all messages sent so far, without headers.
    """

    worker: int
    workers: int
    generation: int
    sent_bytes: int = 0

    @abstractmethod
    def send(self, peer: int, frames: Frames) -> None:
        """Queue a message for a peer and return at once. Messages to one peer arrive in the order they are sent. The
        buffers must not change before the peer has read them."""

    @abstractmethod
    def receive(self, peers: Collection[int]) -> tuple[int, Frames]:
        """Wait for the next message of any of ``peers`` and return (peer, frames). Messages of other peers are kept
        for later calls.

        Raises `PeerLostError`, `SupersededError`.
        """

    @abstractmethod
    def close(self, flush_seconds: float = 10.0) -> None:
        """Leave the group. Messages to peers that are still there are delivered first, within ``flush_seconds``;
        nothing more is sent once a peer was lost. Closing twice does no harm."""

    def run_in_background(self, work: Callable[[], Result]) -> Callable[[], Result]:
        """Start ``work``, which uses this communicator, and return a function that waits for its result or raises its
        error. Until that function returns, only ``work`` may use the communicator.

        This default runs the work when its result is waited for: the result is the same.
        """
        return work

    def exchange(self, outgoing: Sequence[Frames]) -> list[Frames]:
        """Send ``outgoing[k]`` to worker k; return a list with what worker k sent to this worker at [k]. This worker's
        entry is returned as it is.

        The buffers must not change until the next exchange has returned: only then has every peer surely read them.
        """
        others = [(self.worker + step) % self.workers for step in range(1, self.workers)]
        for peer in others:  # each worker starts with another peer, so that not all send to the same one first
            self.send(peer, outgoing[peer])
        incoming = list(outgoing)
        expected = set(others)
        while expected:
            peer, incoming[peer] = self.receive(expected)
            expected.remove(peer)
        return incoming

    def __enter__(self) -> Communicator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.close(flush_seconds=1.0)  # an error that this worker has sent to the others is still delivered
