"""The group of one worker: nothing to send, nobody to wait for."""

from __future__ import annotations

from collections.abc import Sequence

from nnlib.collective.communicator import Frames, Traffic


class Solo:
    """`nnlib.collective.communicator.Communicator` of a single worker."""

    worker = 0
    workers = 1

    def __init__(self, generation: int = 1) -> None:
        self.generation = generation

    def exchange(self, outgoing: Sequence[Frames]) -> list[Frames]:
        (own,) = outgoing
        return [own]

    def stats(self) -> Traffic:
        return Traffic()

    def close(self) -> None:
        pass
