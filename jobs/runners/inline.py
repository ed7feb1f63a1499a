"""The inline runner: all tasks in this process."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from jobs.runners.mrjob_compat import prepare_mrjob

prepare_mrjob()

from mrjob.inline import InlineMRJobRunner  # noqa: E402

from jobs.runners.lines import reducer_of  # noqa: E402
from jobs.runners.request import JobRequest  # noqa: E402
from jobs.runners.task_job import TaskJob  # noqa: E402


class InlineRunner(InlineMRJobRunner):  # type: ignore[misc]
    """All tasks in this process, one after the other, on the job's own files, with their lines in memory.

    mrjob's own inline runner plays a cluster on disk: each task gets a directory with links to copies of the files,
    an environment, a current directory, and files for its lines. Most of a round, its training aside, was that.
    """

    request: JobRequest
    reducers = 1

    @classmethod
    def for_request(cls, request: JobRequest, common: dict[str, Any]) -> InlineRunner:
        """The runner of a job; ``common`` are mrjob's options that all our runners share."""
        options = {name: value for name, value in common.items() if name != "read_logs"}
        job = cls(mrjob_cls=request.job, **options)
        job.reducers, job.request = request.reducers, request
        return job

    def _run(self) -> None:
        job = self.request.job(self._mr_job_extra_args(local=True))
        plan = [Path(path).read_bytes().splitlines() for path in self._input_paths_for_step(0)]
        if self.request.collective:  # one task is the whole group
            self._output = list(_output_of(job, job.run_mapper, [line for worker in plan for line in worker]))
            return
        mapped = [line for worker in plan for line in _output_of(job, job.run_mapper, worker)]
        if not self.reducers:
            self._output = mapped
            return
        groups: dict[int, list[bytes]] = {}
        for line in sorted(mapped):
            groups.setdefault(reducer_of(line, self.reducers), []).append(line)
        self._output = [line for group in groups.values() for line in _output_of(job, job.run_reducer, group)]

    def lines(self) -> Iterable[bytes]:
        """The job's output."""
        return self._output


def _output_of(job: TaskJob, task: Callable[[], None], lines: Sequence[bytes]) -> Iterable[bytes]:
    """The lines that one task of the job writes for the given ones."""
    output = io.BytesIO()
    job.sandbox(lines, output)
    task()
    output.seek(0)
    return output
