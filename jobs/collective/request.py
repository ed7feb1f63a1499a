"""The request for a collective job: the request for a round, and the files through which the job's tasks work."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from jobs.collective.collective_job import CollectiveJob
from jobs.runners.request import JobRequest

TASK_MODULES = ("jobs.collective.collective_job", "jobs.collective.membership")
"""What the tasks of a collective job import."""


class JobFiles(NamedTuple):
    """Where the tasks of a collective job work: the run directory's address, the job's folder in it, and the name of
    the lease of the driver that starts them."""

    run_dir: str
    folder: str
    lease: str


def collective_request(round_: JobRequest, files: JobFiles) -> JobRequest:
    """Return the request for a collective job, made from the request for a round of the same workers."""
    options = (*round_.options, "--run-dir", files.run_dir, "--folder", files.folder, "--lease", files.lease)
    return replace(round_, job=CollectiveJob, options=options, reducers=0, spare=0, is_collective=True)
