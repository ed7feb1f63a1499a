"""The request for a collective job, made from that for a round."""

from __future__ import annotations

from dataclasses import replace

from jobs.collective.collective_job import CollectiveJob
from jobs.collective.job_folder import JobFiles
from jobs.runners.request import JobRequest

TASK_MODULES = ("jobs.collective.collective_job", "jobs.collective.membership")
"""What the tasks of a collective job import."""


def collective_request(round_: JobRequest, files: JobFiles) -> JobRequest:
    """Return the request for a collective job, made from the request for a round of the same workers."""
    options = [*round_.options, "--run-dir", files.run_dir, "--folder", files.folder, "--lease", files.lease]
    options += ["--replacement-seconds", str(files.replacement_seconds)]
    return replace(round_, job=CollectiveJob, options=options, reducers=0, spare=0, is_collective=True)
