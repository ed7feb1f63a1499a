"""When a worker of a group has nothing to go on for: the run is at its end, or the driver it works for is gone."""

from __future__ import annotations

from nnlib.core.errors import JobError
from nnlib.run.lease import held
from nnlib.storage import Storage


class RunEndedError(Exception):
    """The run came to its end while a worker waited for others."""


def require_lock(place: Storage, lock: str) -> None:
    """Raise `JobError` if the driver that started the job is gone, or another one drives the run."""
    if not held(place, lock):
        raise JobError(
            "the driver of this job is gone: its run is another's now", hint="nnjobs train --resume", run=place.root
        )
