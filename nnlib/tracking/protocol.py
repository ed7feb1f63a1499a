"""What a tracker is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from nnlib.run.directory import RunDirectory

Status = Literal["finished", "failed", "interrupted"]


@dataclass(frozen=True)
class Point:
    """Values by name (``test/accuracy``) after ``epoch`` epochs; ``time`` in seconds since 1970."""

    epoch: int
    time: float
    values: Mapping[str, float]


class Tracker(Protocol):
    """Writes one run's points somewhere. Its methods are called by one thread, and may raise anything."""

    def begin(self, run: RunDirectory) -> Mapping[str, int]:
        """Before the first point. What is there already of this run: name -> the newest epoch of its values."""
        ...

    def write(self, point: Point) -> None:
        """Write a point."""
        ...

    def end(self, status: Status) -> None:
        """After the last point."""
        ...
