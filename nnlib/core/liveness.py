"""The pulse of a task: that it gets on, and with what, for whoever watches it from outside.

Training and reading call `beat` for every batch, chunk and row group, which only counts; `say` tells what the work is.
A watcher (Hadoop's ``reporter:status``, a group's heartbeats) reads `PULSE` from a thread of its own: a pulse that has
not changed for long means a task that hangs, though its process lives. Nothing of it may reach a result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class Pulse:
    """``beats`` only ever grows; ``doing`` are the facts last said: phase, round, epoch, loss ...; ``waits``: the task
    waits for others, which are watched, and has nothing to do itself."""

    beats: int
    doing: dict[str, Any]
    waits: bool = False


PULSE = Pulse(0, {})
"""Of this process: it runs one task at a time."""


def beat() -> None:
    """One more batch, chunk or row group is done."""
    PULSE.beats += 1


def say(**facts: Any) -> None:
    """What the task does now; facts said before stay until they are said anew."""
    PULSE.doing = {**PULSE.doing, **facts}  # a new dict: a watcher's thread may hold the old one
    PULSE.beats += 1
