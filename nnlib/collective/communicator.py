"""What a worker says to its peers: ordered messages between every two, and the exchange of one step among all.

A `Communicator` is one worker's end of one generation of a group. A peer that is not heard of, or does not get on while
it is waited for, raises `PeerLostError`; after that, or any other error, the communicator is done with, and whoever
goes on meets the others in a new generation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TypeVar

from nnlib.core.arrays import Buffer
from nnlib.core.errors import JobError

Result = TypeVar("Result")
Frames = Sequence[Buffer]
"""One message: buffers that are sent as they lie, without being copied into one."""


def byte_count(frames: Frames) -> int:
    """Bytes in all frames of a message."""
    return sum(memoryview(frame).nbytes for frame in frames)  # type: ignore[arg-type,misc]  # arrays are buffers


class PeerLostError(JobError):
    """Peers died, hang, are cut off or have left. ``workers``: who; ``seconds``: how long they were waited for."""

    def __init__(self, workers: Sequence[int], seconds: float, why: str = "silent") -> None:
        self.workers = sorted(workers)
        self.seconds = seconds
        who = f"worker{'s' if len(self.workers) > 1 else ''} {', '.join(map(str, self.workers))}"
        super().__init__(f"lost {who}: {why} (waited for {seconds:.1f} s)", hint="see the tasks' own logs")


class SupersededError(JobError):
    """This worker's place was taken by another task while it was out of reach: it has to end."""


@dataclass
class Traffic:
    """What went over a communicator since it was made: bytes without headers, and seconds by the peer that was waited
    for."""

    sent: int = 0
    received: int = 0
    waited: dict[int, float] = field(default_factory=dict)


class Communicator(ABC):
    """One worker's end of a group. Calls come from one thread at a time, see `beside`.

    ``worker`` of ``workers``; ``generation`` counts how often the group has met, from 1.
    """

    worker: int
    workers: int
    generation: int

    @abstractmethod
    def send(self, peer: int, frames: Frames) -> None:
        """Put a message on its way to a peer and return at once. Messages to one peer arrive in the order they are
        sent. The buffers must not change before the peer has read them."""

    @abstractmethod
    def receive(self, peers: Collection[int]) -> tuple[int, Frames]:
        """The next message of any of these peers: (peer, frames). Those of others wait for their turn.

        Raises `PeerLostError`, `SupersededError`.
        """

    @abstractmethod
    def stats(self) -> Traffic: ...

    @abstractmethod
    def close(self, flush_seconds: float = 10.0) -> None:
        """Leave the group. What was sent to peers that are still there goes on its way first, for so long at most;
        nothing more is sent once a peer was lost. Closing twice is fine."""

    def beside(self, work: Callable[[], Result]) -> Callable[[], Result]:
        """Begin ``work``, which talks to the group, beside what the caller does next. Returns what waits for it, and
        returns or raises what it did. Until then the group is the work's alone.

        Here the work is done when it is waited for: to the same result.
        """
        return work

    def exchange(self, outgoing: Sequence[Frames]) -> list[Frames]:
        """Send ``outgoing[k]`` to worker k; returns at [k] what worker k sent here, the own entry as it was given.

        Buffers must not change until the next exchange has returned: only then has every peer surely read them.
        """
        others = [(self.worker + step) % self.workers for step in range(1, self.workers)]
        for peer in others:  # each begins with another, lest all send to the same one first
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
            self.close(flush_seconds=1.0)  # for the error that an owner told the others
