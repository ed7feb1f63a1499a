"""What a worker says to its peers: one all-to-all exchange after the other.

A `Communicator` is one worker's end of one generation of a group. All workers call `exchange` the same number of times;
the n-th call of one meets the n-th call of every other. A peer that is not heard of, or does not get on while it is
waited for, raises `PeerLostError`: the communicator is then done with, and whoever goes on meets in a new generation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy.typing as npt

from nnlib.errors import JobError

Buffer = bytes | bytearray | memoryview | npt.NDArray[Any]
"""Anything that ``np.frombuffer`` reads: contiguous memory, of any type."""
Frames = Sequence[Buffer]
"""What one worker sends to one peer in one exchange; sent without being copied."""


def as_bytes(buffer: Buffer) -> memoryview:
    """A view of the bytes."""
    return memoryview(buffer).cast("B")  # type: ignore[arg-type]  # typing knows arrays as buffers from Python 3.12 on


class PeerLostError(JobError):
    """Peers died, hang or are cut off. ``workers``: who; ``seconds``: how long they were waited for."""

    def __init__(self, workers: Sequence[int], seconds: float, why: str = "silent") -> None:
        self.workers = sorted(workers)
        self.seconds = seconds
        who = f"worker{'s' if len(self.workers) > 1 else ''} {', '.join(map(str, self.workers))}"
        super().__init__(f"lost {who}: {why} (waited for {seconds:.1f} s)", hint="see the tasks' own logs")


class SupersededError(JobError):
    """This worker's place was taken by another task while it was out of reach: it has to end."""


@dataclass
class Traffic:
    """What went over a communicator since it was made. ``waited``: seconds spent waiting, by the peer waited for."""

    sent: int = 0
    received: int = 0
    waited: dict[int, float] = field(default_factory=dict)


class Communicator(Protocol):
    """One worker's end of a group of ``workers``. Calls come from one thread at a time."""

    worker: int
    workers: int
    generation: int

    def exchange(self, outgoing: Sequence[Frames]) -> list[Frames]:
        """Send ``outgoing[k]`` to worker k; returns at [k] what worker k sent here, the own entry as it was given.

        Buffers must not change until the next exchange has returned: only then has every peer surely read them.
        Raises `PeerLostError`, `SupersededError`.
        """
        ...

    def stats(self) -> Traffic: ...

    def close(self) -> None:
        """Leave the group at once; whatever is still on its way may be lost. Closing twice is fine."""
        ...
