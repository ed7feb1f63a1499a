"""The group of one worker: nothing to send, nobody to wait for."""

from __future__ import annotations

from collections.abc import Collection

from nnlib.collective.communicator import Communicator, Frames


class Solo(Communicator):
    """The communicator of a single worker."""

    def __init__(self, generation: int = 1) -> None:
        self.worker = 0
        self.workers = 1
        self.generation = generation

    def send(self, peer: int, frames: Frames) -> None:
        raise ValueError(f"there is no worker {peer}")

    def receive(self, peers: Collection[int]) -> tuple[int, Frames]:
        raise ValueError(f"there are no workers {sorted(peers)}")

    def close(self, flush_seconds: float = 10.0) -> None:
        pass
