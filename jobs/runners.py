"""Runners: how a job is run. A new one is a subclass of mrjob's and one line in `RUNNERS`.

mrjob's own inline and local runners ignore the number of reducers, and its local runner neither retries a task nor
says which worker failed; these do (`jobs.local_tasks`).
"""

from __future__ import annotations

import importlib
import inspect
import io
import logging
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from jobs.compat import prepare_mrjob

prepare_mrjob()

from mrjob.inline import InlineMRJobRunner  # noqa: E402  (needs the shims above on Python 3.13)
from mrjob.local import LocalMRJobRunner  # noqa: E402

from jobs.attempts import Task  # noqa: E402
from jobs.job_request import JobRequest  # noqa: E402
from jobs.local_tasks import TaskPool  # noqa: E402
from jobs.task_job import TaskJob  # noqa: E402
from nnlib.errors import JobError, NnjobsError  # noqa: E402

# What mrjob logs, our errors say; without a handler Python would print its warnings on the terminal.
logging.getLogger("mrjob").addHandler(logging.NullHandler())

Line = tuple[bytes, bytes]


def task_environment(blas_threads: int) -> dict[str, str]:
    """What tasks' processes need: BLAS threads are fixed before numpy is loaded, and nnjobs must be importable."""
    root = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    return {**dict.fromkeys(names, str(blas_threads)), "PYTHONPATH": path}


def _reducer_of(line: bytes, reducers: int) -> int:
    """Lines of one key go to one reducer, as with Hadoop's hash partitioner."""
    return zlib.crc32(line.split(b"\t", 1)[0]) % reducers


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
            groups.setdefault(_reducer_of(line, self.reducers), []).append(line)
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
                    bucket = _reducer_of(line, self.reducers)
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


_STEPS: dict[str, list[dict[str, Any]]] = {}
"""By a job's name: its steps never change, and asking for them builds a parser of arguments."""


def _steps(job: type[TaskJob]) -> list[dict[str, Any]]:
    """The job's one step, in mrjob's words."""
    if job.__name__ not in _STEPS:
        _STEPS[job.__name__] = job(["--spec", ""])._steps_desc()
    return _STEPS[job.__name__]


RUNNERS = {
    "inline": "jobs.runners:InlineRunner",
    "local": "jobs.runners:LocalRunner",
    "hadoop": "jobs.hadoop.runner:HadoopRunner",
}
"""Name -> where its class is: only the one that is used is imported."""


def run_job(runner: str, request: JobRequest) -> Iterator[Line]:
    """Run a job and yield its output lines (key, value), in no particular order.

    Raises `JobError` when a task fails for good. Errors the tasks foresaw come as lines of `nnlib.wire.ERROR_KEY`.
    """
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
