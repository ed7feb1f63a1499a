"""The inline runner: all tasks run in this process, one after the other."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mrjob.inline import InlineMRJobRunner

from jobs.runners.lines import Line, reducer_of
from jobs.runners.mrjob_options import mrjob_options, run_mrjob
from jobs.runners.request import JobRequest
from jobs.runners.session import MachineSession, SessionOptions
from jobs.runners.task_job import TaskJob
from nnlib.core.waiting import waiting_for


class InlineSession(MachineSession):
    """Runs all tasks in this process, one at a time."""

    slots = 1

    def __init__(self, options: SessionOptions) -> None:
        super().__init__()
        self._blas_threads = options.runtime.blas_threads

    def run(self, job: JobRequest) -> Iterator[Line]:
        options = mrjob_options(job, self.folder, self._blas_threads)
        return run_mrjob(InlineRunner.for_request(job, options), job)


class InlineRunner(InlineMRJobRunner):  # type: ignore[misc]
    """Runs a job's tasks on the job's own files, with their lines in memory.

    mrjob's own inline runner plays a cluster on disk: each task gets a directory with links to copies of the files,
    an environment, a current directory, and files for its lines. Most of a round, its training aside, was that.
    """

    request: JobRequest

    @classmethod
    def for_request(cls, request: JobRequest, options: dict[str, Any]) -> InlineRunner:
        """Make the runner of a job from mrjob's options."""
        options.pop("read_logs")
        runner = cls(mrjob_cls=request.job, **options)
        runner.request = request
        return runner

    def _run(self) -> None:
        job = self.request.job(self.request.local_arguments())
        plan = [line.encode() for line in self.request.lines]
        if self.request.is_collective:  # one task is the whole group
            self._output = output_of(job, job.run_mapper, plan)
            return
        mapped = []
        with waiting_for("") as wait:
            for number, worker in enumerate(plan):
                wait.what = f"{self.request.name}: task {number + 1} of {len(plan)}"
                mapped += output_of(job, job.run_mapper, [worker])
        if not self.request.reducers:
            self._output = mapped
            return
        groups: dict[int, list[bytes]] = {}
        for line in sorted(mapped):
            groups.setdefault(reducer_of(line, self.request.reducers), []).append(line)
        self._output = [line for group in groups.values() for line in output_of(job, job.run_reducer, group)]

    def lines(self) -> Iterable[bytes]:
        """Return the job's output."""
        return self._output


def output_of(job: TaskJob, task: Callable[[], None], lines: Iterable[bytes]) -> list[bytes]:
    """Run one task of a job on input lines; return the lines that it writes."""
    output = io.BytesIO()
    job.sandbox(lines, output)
    task()
    output.seek(0)
    return output.readlines()
