"""What a collective job is asked: where its workers meet, and whose lease they work under."""

from __future__ import annotations

from typing import NamedTuple


class Group(NamedTuple):
    """What the tasks of a collective job are told: the run directory, the folder in it where they meet, and the lease
    of the driver they work for."""

    run_dir: str
    folder: str
    lock: str
