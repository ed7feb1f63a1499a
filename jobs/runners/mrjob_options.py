"""How mrjob's runners are called: the options that all of ours have in common, and how their output is read.

mrjob's own inline and local runners ignore the number of reducers, and its local runner neither retries a task nor
says which worker failed; our subclasses do (`jobs.runners.local.task_pool`).
"""

from __future__ import annotations

import inspect
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs.runners.lines import Line
from jobs.runners.request import JobRequest
from jobs.runners.task_environment import task_environment
from jobs.runners.task_job import TaskJob
from nnlib.core.errors import JobError, NnjobsError

_STEPS: dict[type[TaskJob], list[dict[str, Any]]] = {}
"""By job: its steps never change, and asking for them builds a parser of arguments."""


def mrjob_options(job: JobRequest, folder: Path, blas_threads: int) -> dict[str, Any]:
    """Return the options of mrjob's runners for a job; ``folder`` takes its temporary files."""
    steps = _steps(job.job)
    return {
        "mr_job_script": inspect.getfile(job.job),
        "conf_paths": [],
        "extra_args": job.arguments(fetched=True),
        "steps": steps,
        "sort_values": "reducer" in steps[0],
        "local_tmp_dir": str(folder),
        "cmdenv": task_environment(blas_threads),
        "check_input_paths": False,
        "read_logs": False,
        "stdin": io.BytesIO(),  # mrjob would take ``sys.stdin.buffer``, which programs without a terminal lack
    }


def run_mrjob(runner: Any, job: JobRequest) -> Iterator[Line]:
    """Run a job by one of our subclasses of mrjob's runners, which has ``lines``; yield its output.

    Raises `JobError` when the job fails.
    """
    with runner:
        try:
            runner.run()
        except (NnjobsError, KeyboardInterrupt):
            raise
        except Exception as error:
            raise JobError(f"the {job.phase} job failed: {type(error).__name__}: {error}") from error
        for line in runner.lines():
            key, _, value = line.rstrip(b"\r\n").partition(b"\t")
            yield key, value


def _steps(job: type[TaskJob]) -> list[dict[str, Any]]:
    """The job's one step, in mrjob's words."""
    if job not in _STEPS:
        _STEPS[job] = job(["--spec", ""])._steps_desc()
    return _STEPS[job]
