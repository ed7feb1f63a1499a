"""The heartbeat of a task: a count that grows while the task makes progress, and what the task is doing.

Training and reading call `heartbeat` for every batch, chunk and row group; `report_activity` names the work.
Hadoop's ``reporter:status`` and a group's heartbeat messages read `HEARTBEAT` from other threads: a count that has not
changed for long means a task that hangs, though its process lives. Nothing of it may reach a result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class Heartbeat:
    """``count`` only ever grows; ``activity``: the facts reported last (phase, round, epoch, loss ...); ``is_waiting``:
    the task waits for others, which have heartbeats themselves, and has nothing to do."""

    count: int
    activity: dict[str, Any]
    is_waiting: bool = False


HEARTBEAT = Heartbeat(0, {})
"""That of this process: it runs one task at a time."""


def heartbeat() -> None:
    """Count one more batch, chunk or row group that is done."""
    HEARTBEAT.count += 1


def report_activity(**facts: Any) -> None:
    """Report what the task does now; facts reported before stay until they are reported anew."""
    HEARTBEAT.activity = {**HEARTBEAT.activity, **facts}  # a new dict: another thread may hold the old one
    HEARTBEAT.count += 1
