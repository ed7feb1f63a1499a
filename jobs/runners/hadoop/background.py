"""Submits a job that outlives its command: Hadoop's client ends when the cluster has accepted it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jobs.runners.hadoop.cluster_settings import read_cluster_settings
from jobs.runners.hadoop.diagnosis import explain
from jobs.runners.hadoop.job_properties import container, job_properties
from jobs.runners.hadoop.job_watch import watched
from jobs.runners.hadoop.kerberos_login import require_login
from jobs.runners.hadoop.node_watch import NodeWatch
from jobs.runners.hadoop.orphans import run_mark
from jobs.runners.hadoop.runner import HadoopJob, HadoopRunner, client_environment
from jobs.runners.hadoop.staging import fixed_options, staging_base
from jobs.runners.hadoop.submission import Submission, submit
from jobs.runners.hadoop.task_environment import Environment, environment, escaped
from jobs.runners.hadoop.yarn_rest import program
from jobs.runners.mrjob_options import mrjob_options
from jobs.runners.request import JobRequest
from jobs.runners.session import record_nothing
from nnlib.config.schema import Runtime
from nnlib.core.errors import JobError
from nnlib.core.events import Note
from nnlib.core.scratch import scratch_folder
from nnlib.storage import Storage, storage

ATTEMPTS = "4"
"""Attempts of a background job's task: an attempt whose node is lost is followed by another."""


def tasks_environment(
    runtime: Runtime, near: str, notify: Callable[[Note], None], distributions: Sequence[str]
) -> Environment:
    """Return the environment of a background job's task, as `jobs.runners.hadoop.task_environment.environment` does;
    ``near`` is an address that the task reads."""
    return environment(runtime, staging_base(runtime.hadoop, near), notify, distributions, storage(near).access())


def submit_in_background(
    runtime: Runtime,
    request: JobRequest,
    home: Storage,
    task_environment: Environment,
    notify: Callable[[Note], None],
    *,
    run: str,
) -> Submission:
    """Submit a job of one map task, and return when the cluster has accepted it.

    Its task is run once at a time, in a container of its own, again if its node is lost; delegation tokens stay valid
    when it ends, for it may have started jobs that go on.

    Args:
        home: a folder on the cluster for the job's plan and output, which stays.
        run: the address of the run that the job is about; its tag says so.

    Raises:
        JobError: the cluster did not accept it.
    """
    home.write("plan", "".join(f"{line}\n" for line in request.lines).encode())
    submission = Submission()
    job = HadoopJob(
        request=request,
        in_master=False,
        properties=_properties(runtime, request),
        settings=runtime.hadoop,
        notify=notify,
        record=record_nothing,
        watch=NodeWatch(read_cluster_settings, notify),
        submission=submission,
    )
    with scratch_folder() as folder:
        options = _options(runtime, request, home, task_environment, folder, run)
        BackgroundRunner.for_job(job, options).run()
    return submission


def _properties(runtime: Runtime, request: JobRequest) -> dict[str, str]:
    size = container(runtime, request.demand)
    properties = job_properties(runtime, 1, size, name=request.title, reducers=0, uber=False, lines_per_map=1)
    return properties | {
        "mapreduce.map.speculative": "false",
        "mapreduce.map.maxattempts": ATTEMPTS,
        "mapreduce.job.complete.cancel.delegation.tokens": "false",
    }


def _options(
    runtime: Runtime, request: JobRequest, home: Storage, task_environment: Environment, folder: Path, run: str
) -> dict[str, Any]:
    options = mrjob_options(request, folder, runtime.blas_threads)
    files = {option: address and escaped(address) for option, address in request.files.items()}
    return options | {
        **fixed_options(runtime.hadoop, task_environment),
        "extra_args": [*replace(request, files=files).arguments(), "--report"],
        "input_paths": [f"{home.uri}/plan"],
        "output_dir": f"{home.uri}/output",
        "jobconf": {"mapreduce.job.tags": f"nnjobs-driver-{run_mark(run)}"},
    }


class BackgroundRunner(HadoopRunner):
    """Submits one job and does not wait for its end."""

    def _args_for_streaming_step(self, step_num: int) -> list[str]:
        return [*super()._args_for_streaming_step(step_num), "-background"]

    def _run(self) -> None:
        submission = self.job.submission
        require_login()
        client = client_environment(self.job.settings.jvm_options)
        with watched(self.job.request, submission):
            status = submit(self._args_for_step(0), client, program("yarn"), submission)
        if status:
            raise explain(submission, program("yarn"), os.environ)
        if submission.application is None:
            raise JobError("Hadoop's client submitted the job, but did not name it")

    def cleanup(self, mode: Any = None) -> None:
        """Delete nothing: the job has just begun."""

    def lines(self) -> Iterable[bytes]:
        """Return nothing: the run says how the job ended."""
        return ()
