"""Why a worker may stop waiting for its group: the run has ended, or its driver is gone."""

from __future__ import annotations

from nnlib.core.errors import JobError
from nnlib.run.lease import is_held
from nnlib.storage import Storage


class RunEndedError(Exception):
    """Raised when the run has come to its end while a worker waited for others."""


def require_lease(run: Storage, lease: str) -> None:
    """Raise `JobError` if the driver that started the job is gone, or another one has taken the run over.

    ``lease``: the name of the driver's lease, see `nnlib.run.lease`.
    """
    if not is_held(run, lease):
        raise JobError(
            "the driver of this job is gone, or another driver has taken the run over",
            hint="nnjobs train --resume",
            run=run.root,
        )
