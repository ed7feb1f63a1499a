"""Runners: how a job is run. A new one is a subclass of mrjob's and one line in `RUNNERS`.

mrjob's own inline and local runners ignore the number of reducers, and its local runner neither retries a task nor
says which worker failed; these do (`jobs.runners.local.task_pool`).
"""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Iterator
from typing import Any

from jobs.runners.mrjob_compat import prepare_mrjob

prepare_mrjob()


from jobs.runners.lines import Line  # noqa: E402
from jobs.runners.request import JobRequest  # noqa: E402
from jobs.runners.task_environment import task_environment  # noqa: E402
from jobs.runners.task_job import TaskJob  # noqa: E402
from nnlib.core.errors import JobError, NnjobsError  # noqa: E402

# What mrjob logs, our errors say; without a handler Python would print its warnings on the terminal.
logging.getLogger("mrjob").addHandler(logging.NullHandler())


_STEPS: dict[str, list[dict[str, Any]]] = {}
"""By a job's name: its steps never change, and asking for them builds a parser of arguments."""


def _steps(job: type[TaskJob]) -> list[dict[str, Any]]:
    """The job's one step, in mrjob's words."""
    if job.__name__ not in _STEPS:
        _STEPS[job.__name__] = job(["--spec", ""])._steps_desc()
    return _STEPS[job.__name__]


RUNNERS = {
    "inline": "jobs.runners.inline:InlineRunner",
    "local": "jobs.runners.local.runner:LocalRunner",
    "hadoop": "jobs.runners.hadoop.runner:HadoopRunner",
}
"""Name -> where its class is: only the one that is used is imported."""


def run_job(runner: str, request: JobRequest) -> Iterator[Line]:
    """Run a job and yield its output lines (key, value), in no particular order.

    Raises `JobError` when a task fails for good. Errors the tasks foresaw come as lines of
    `jobs.runners.lines.ERROR_KEY`."""
    module, _, name = RUNNERS[runner].partition(":")
    kind = getattr(importlib.import_module(module), name)
    steps = _steps(request.job)
    common: dict[str, Any] = {
        "mr_job_script": inspect.getfile(request.job),
        "conf_paths": [],
        "extra_args": request.arguments(fetched=True),
        "input_paths": [str(path) for path in request.plan],
        "steps": steps,
        "sort_values": "reducer" in steps[0],
        "local_tmp_dir": str(request.folder),
        "cmdenv": task_environment(request.blas_threads),
        "check_input_paths": False,
        "read_logs": False,
    }
    job = kind.for_request(request, common)
    with job:
        try:
            job.run()
        except (NnjobsError, KeyboardInterrupt):
            raise
        except Exception as error:
            raise JobError(f"the {request.phase} job failed: {type(error).__name__}: {error}") from error
        for line in job.lines():
            key, _, value = line.rstrip(b"\r\n").partition(b"\t")
            yield key, value
