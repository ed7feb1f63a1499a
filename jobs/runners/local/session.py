"""The local runner's session: a pool of processes on this machine."""

from __future__ import annotations

import glob
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from jobs.runners.lines import Line
from jobs.runners.local.attempt import StartProcess, Task
from jobs.runners.local.fork_server import TaskServer
from jobs.runners.local.runner import LocalRunner
from jobs.runners.local.task_pool import TaskPool
from jobs.runners.mrjob_options import mrjob_options, run_mrjob
from jobs.runners.request import JobRequest
from jobs.runners.session import MachineSession, SessionOptions
from jobs.runners.task_environment import task_environment
from nnlib.config.devices import count_used_devices
from nnlib.core.events import Note
from nnlib.core.scratch import write_file
from nnlib.run.task_logs import TaskLogs
from nnlib.storage import storage


class LocalSession(MachineSession):
    """Runs every task in a process of its own, at most ``runtime.cores`` at once."""

    slots: int

    def __init__(self, options: SessionOptions) -> None:
        super().__init__()
        runtime = options.runtime
        self.slots = runtime.cores or os.cpu_count() or 1
        self._blas_threads = runtime.blas_threads
        self._logs = None if options.run is None else TaskLogs(storage(options.run, private=True))
        self._running: str | None = None
        self._lines: Sequence[str] = ()
        self._plan: list[Path] = []
        with ExitStack() as stack:
            stack.callback(super().close)
            self._pool = TaskPool(
                process_starter(runtime.blas_threads, stack, (*options.modules, *options.access.modules)),
                cores=self.slots,
                devices=count_used_devices(runtime.device),
                workers_per_device=runtime.workers_per_gpu,
                retries=runtime.retries,
                timeout_seconds=runtime.task_timeout_seconds,
                chaos=options.chaos,
                keep=self._keep,
                warn=lambda text: options.notify(Note(text, "warning")),
                record=options.record,
            )
            self._processes = stack.pop_all()

    def run(self, job: JobRequest) -> Iterator[Line]:
        options = mrjob_options(job, self.folder, self._blas_threads)
        options["input_paths"] = [glob.escape(str(path)) for path in self._plan_of(job.lines)]
        self._running = job.name
        try:
            yield from run_mrjob(LocalRunner.for_request(job, options, self._pool), job)
        finally:
            self._running = None

    @property
    def job(self) -> str | None:
        return self._running

    @property
    def task_folder(self) -> str | None:
        return str(self.folder)

    def _keep(self, task: Task, number: int, messages: bytes) -> None:
        """Keep a worker's messages in the run's directory."""
        if self._logs is not None and task.kind == "worker":
            self._logs.add(task.number, f"{task.job}, attempt {number + 1}", messages)

    def end_task(self, worker: int, attempt: str) -> None:
        self._pool.end(f"worker {worker}", int(attempt))

    def summary(self) -> str | None:
        return None if self._pool.chaos is None else self._pool.summary()

    def close(self) -> None:
        if self._logs is not None:
            self._logs.flush()
        self._processes.close()

    def _plan_of(self, lines: Sequence[str]) -> list[Path]:
        """The plan as files of one line each, written anew only when it changes.

        mrjob gives each of several one-line files its own map task, but would cut one file of several lines by its own
        rule.
        """
        if lines != self._lines:
            self._plan = [self.folder / f"worker-{number:06d}.plan" for number in range(len(lines))]
            for path, line in zip(self._plan, lines, strict=True):
                write_file(path, f"{line}\n".encode())
            self._lines = lines
        return self._plan


def process_starter(blas_threads: int, stack: ExitStack, modules: Sequence[str]) -> StartProcess:
    """Return a function that starts the processes of tasks until ``stack`` ends; ``modules`` are what they import."""
    if sys.platform != "linux":  # elsewhere a fork of a loaded BLAS is not safe
        return subprocess.Popen
    return stack.enter_context(TaskServer(task_environment(blas_threads), modules)).start
