"""The collective job, as an mrjob job: map tasks that train to the end together, each for one line of the plan.

Its output is that of a job that scores: the records of the last models on every worker's held-out rows. The models are
in the run directory, where worker 0 commits them. On a cluster a task with several lines forks a process for each
(`jobs.collective.forked_workers`); with the inline runner one task has all lines and runs the whole group.
"""

from __future__ import annotations

import io
import platform
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

from jobs.collective.forked_workers import WorkerEndedError, fork_workers
from jobs.collective.job_folder import JobFiles
from jobs.collective.member_task import run_member_task
from jobs.mapreduce.counters import count_mapped
from jobs.mapreduce.round_job import RoundJob
from jobs.runners.lines import Line
from nnlib.core.numerics import blas_threads
from nnlib.run.spec import WorkerPlan
from nnlib.training.worker import prepare_learners


class CollectiveJob(RoundJob):
    """Train every active trial to its last round."""

    def steps(self) -> list[Any]:
        return self.map_steps(mapper=self.mapper, mapper_final=self.mapper_final)

    def add_task_args(self) -> None:
        super().add_task_args()
        self.add_passthru_arg("--run-dir")
        self.add_passthru_arg("--folder")
        self.add_passthru_arg("--lease")
        self.add_passthru_arg("--replacement-seconds", type=float, default=0.0)

    def execute(self) -> None:
        if not self.options.report:
            super().execute()
            return
        lines = [line for line in self.stdin if line.strip()]
        if len(lines) < 2:
            self._work(b"".join(lines), self.stdout)
            return
        if self.options.phase != "preflight":
            import jobs.collective.membership  # noqa: F401  (once, for all)

            with blas_threads(1):  # a process forked after a computation by several threads waits for them forever
                prepare_learners(self._spec())
        try:
            fork_workers(lines, self._work, self.stdout)
        except WorkerEndedError as ended:
            worker = WorkerPlan.from_line(lines[ended.index].decode()).worker
            sys.exit(f"nnjobs: worker {worker} on {platform.node()} {ended}")

    def _work(self, lines: bytes, output: BinaryIO) -> None:
        self.sandbox(io.BytesIO(lines), output, self.stderr)
        super().execute()

    def mapper(self, _: Any, line: str) -> Iterator[Line]:
        if line.strip():
            self._plans = [*getattr(self, "_plans", ()), WorkerPlan.from_line(line)]
        yield from ()

    def mapper_final(self) -> Iterator[Line]:
        options, plans = self.options, getattr(self, "_plans", [])
        if not plans:
            return
        if options.check_node:
            yield from self._node(plans[0])
        if options.phase != "preflight":
            spec = self._spec()
            files = JobFiles(options.run_dir, options.folder, options.lease, options.replacement_seconds)
            lines = run_member_task(spec, plans, files)
            yield from lines if self._reporter is None else count_mapped(self._reporter, spec, plans[0], lines)


if __name__ == "__main__":
    CollectiveJob.run()
