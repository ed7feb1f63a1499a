"""The local runner: every task is a process on this machine, started by a `TaskPool`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

from mrjob.local import LocalMRJobRunner

from jobs.runners.lines import reducer_of
from jobs.runners.local.attempt import Task
from jobs.runners.local.task_pool import TaskPool
from jobs.runners.request import JobRequest
from nnlib.core.errors import JobError


class LocalRunner(LocalMRJobRunner):  # type: ignore[misc]
    """Runs every task of a job in a process of its own, by a `TaskPool`."""

    request: JobRequest
    pool: TaskPool
    lost: list[int]
    """Map tasks that failed for good, where the job may go on without them."""

    @classmethod
    def for_request(cls, request: JobRequest, options: dict[str, Any], pool: TaskPool) -> LocalRunner:
        """Make the runner of a job from mrjob's options."""
        options["extra_args"] = [*options["extra_args"], "--seal"]
        runner = cls(**options, python_bin=[sys.executable], bootstrap_mrjob=False)
        runner.request, runner.pool, runner.lost = request, pool, []
        return runner

    def _num_reducers(self, step_num: int) -> int:
        return self.request.reducers

    def _split_reducer_input(self, step_num: int) -> int:
        path = self._sorted_reducer_input_path(step_num)
        outputs: dict[int, tuple[int, BinaryIO]] = {}
        files = self._yield_split_fileobjs("reducer", step_num)
        try:
            with open(path, "rb") as lines:  # noqa: PTH123  (mrjob's paths are strings)
                for line in lines:
                    bucket = reducer_of(line, self.request.reducers)
                    if bucket not in outputs:
                        outputs[bucket] = (len(outputs), next(files))
                    outputs[bucket][1].write(line)
        finally:
            for _, output in outputs.values():
                output.close()
        return len(outputs)

    def _invoke_task_func(self, task_type: str, step_num: int, task_num: int) -> Callable[..., None]:
        arguments = self._substep_args(step_num, task_type)

        def invoke(
            stdin: BinaryIO, stdout: BinaryIO, stderr: BinaryIO, directory: str, environment: dict[str, str]
        ) -> None:
            task = Task(
                job=self.request.name,
                round=self.request.round,
                # Plan files are given in worker order, one line each, so map task k is worker k's.
                kind="worker" if task_type == "mapper" else task_type,
                number=task_num,
                arguments=arguments,
                directory=Path(directory),
                environment=environment,
                input=Path(stdin.name),
                output=Path(stdout.name),
                limited=not self.request.is_collective,
            )
            try:
                self.pool.run(task)
            except JobError:
                self.lost.append(task_num)  # its output stays as it was made: empty
                if task_type != "mapper" or len(self.lost) > self.request.spare:
                    raise

        return invoke

    def _run_multiple(self, funcs: Iterable[Callable[[], None]], num_processes: int | None = None) -> None:
        """Run tasks in threads that wait for processes: forking this process, as mrjob does, is unsafe with threads."""
        if self.request.is_collective:
            self.pool.run_all(funcs, at_once=len(self.request.lines))
        else:
            self.pool.run_all(funcs, what=self.request.name)

    def _parse_task_counters(self, task_type: str, step_num: int) -> None:
        """Do nothing: our tasks print no counters."""

    def lines(self) -> Iterable[bytes]:
        """Return the job's output."""
        outputs = sorted(Path(self.get_output_dir()).glob("part-*"))  # mrjob would take the folder for a pattern
        chaos = self.pool.chaos
        if chaos is not None:
            outputs = [outputs[index] for index in chaos.order_of_outputs(self.request.name, len(outputs))]
        for output in outputs:
            with output.open("rb") as lines:
                yield from lines
