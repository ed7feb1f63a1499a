"""The local runner: every task is a process on this machine, started by a `TaskPool`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

from jobs.runners.mrjob_compat import prepare_mrjob

prepare_mrjob()

from mrjob.local import LocalMRJobRunner  # noqa: E402

from jobs.runners.lines import reducer_of  # noqa: E402
from jobs.runners.local.attempt import Task  # noqa: E402
from jobs.runners.local.task_pool import TaskPool  # noqa: E402
from jobs.runners.request import JobRequest  # noqa: E402
from nnlib.core.errors import JobError  # noqa: E402


class LocalRunner(LocalMRJobRunner):  # type: ignore[misc]
    """Every task a process of its own, run by the job's `TaskPool`."""

    request: JobRequest
    reducers = 1
    lost: list[int]
    """Map tasks that failed for good, where the job may go on without them."""

    @classmethod
    def for_request(cls, request: JobRequest, common: dict[str, Any]) -> LocalRunner:
        """The runner of a job; ``common`` are mrjob's options that all our runners share."""
        job = cls(
            **common | {"extra_args": [*common["extra_args"], "--seal"]},
            python_bin=[sys.executable],
            bootstrap_mrjob=False,
        )
        job.reducers, job.request, job.lost = request.reducers, request, []
        return job

    def _num_reducers(self, step_num: int) -> int:
        return self.reducers

    def _split_reducer_input(self, step_num: int) -> int:
        path = self._sorted_reducer_input_path(step_num)
        outputs: dict[int, tuple[int, BinaryIO]] = {}
        files = self._yield_split_fileobjs("reducer", step_num)
        try:
            with open(path, "rb") as lines:  # noqa: PTH123  (mrjob's paths are strings)
                for line in lines:
                    bucket = reducer_of(line, self.reducers)
                    if bucket not in outputs:
                        outputs[bucket] = (len(outputs), next(files))
                    outputs[bucket][1].write(line)
        finally:
            for _, output in outputs.values():
                output.close()
        return len(outputs)

    @property
    def _pool(self) -> TaskPool:
        assert self.request.pool is not None
        return self.request.pool

    def _invoke_task_func(self, task_type: str, step_num: int, task_num: int) -> Callable[..., None]:
        arguments = self._substep_args(step_num, task_type)

        def invoke(
            stdin: BinaryIO, stdout: BinaryIO, stderr: BinaryIO, directory: str, environment: dict[str, str]
        ) -> None:
            task = Task(
                job=self.request.name,
                round=self.request.number,
                # Plan files are given in worker order, one line each, so map task k is worker k's.
                kind="worker" if task_type == "mapper" else task_type,
                number=task_num,
                arguments=arguments,
                directory=Path(directory),
                environment=environment,
                input=Path(stdin.name),
                output=Path(stdout.name),
                limited=not self.request.collective,
            )
            try:
                self._pool.run(task)
            except JobError:
                self.lost.append(task_num)  # its output stays as it was made: empty
                if task_type != "mapper" or len(self.lost) > self.request.spare:
                    raise

        return invoke

    def _run_multiple(self, funcs: Iterable[Callable[[], None]], num_processes: int | None = None) -> None:
        """Threads wait for the tasks' processes; forking this process, as mrjob does, is unsafe beside threads."""
        self._pool.run_all(funcs, at_once=len(self.request.plan) if self.request.collective else None)

    def _parse_task_counters(self, task_type: str, step_num: int) -> None:
        """Counters that tasks print; ours print none."""

    def lines(self) -> Iterable[bytes]:
        """The job's output."""
        outputs = sorted(Path(self.get_output_dir()).glob("part-*"))  # mrjob would take the folder for a pattern
        chaos = self._pool.chaos
        if chaos is not None:
            outputs = [outputs[index] for index in chaos.order_of_outputs(self.request.name, len(outputs))]
        for output in outputs:
            with output.open("rb") as lines:
                yield from lines
