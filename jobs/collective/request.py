"""The request for a collective job: a round's request, and where the job's workers meet."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from jobs.collective.collective_job import CollectiveJob
from jobs.runners.request import JobRequest

TASK_MODULES = ("jobs.collective.collective_job", "jobs.collective.membership")
"""What the tasks of a collective job import."""


class Group(NamedTuple):
    """Where the workers of a collective job meet: the run directory, a folder in it, and the lease of the driver they
    work for."""

    run_dir: str
    folder: str
    lock: str


def collective_request(job: JobRequest, group: Group) -> JobRequest:
    """Return the request for the collective job of a group, made from that for a round of its workers."""
    options = (*job.options, "--run-dir", group.run_dir, "--group", group.folder, "--lock", group.lock)
    return replace(job, job=CollectiveJob, options=options, reducers=0, spare=0, is_collective=True)
