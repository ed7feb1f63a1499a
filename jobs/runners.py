"""Runners: how one round's job is run. A new one is a subclass of mrjob's and one line in `RUNNERS`.

mrjob's own inline and local runners ignore the number of reducers, and its local runner neither retries a task nor
says which worker failed; these do.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from jobs.compat import prepare_mrjob

prepare_mrjob()

from mrjob.inline import InlineMRJobRunner  # noqa: E402  (needs the shims above on Python 3.13)
from mrjob.local import LocalMRJobRunner  # noqa: E402
from mrjob.util import to_lines  # noqa: E402

from jobs import round_job  # noqa: E402
from nnlib.errors import JobError, NnjobsError  # noqa: E402

# What mrjob logs, our errors say; without a handler Python would print its warnings on the terminal.
logging.getLogger("mrjob").addHandler(logging.NullHandler())

Line = tuple[bytes, bytes]


TaskCall = Callable[..., int]
"""How the local runner starts a task's process: `subprocess.call`, or the same by a `TaskServer`."""


def task_environment(blas_threads: int) -> dict[str, str]:
    """What tasks' processes need: BLAS threads are fixed before numpy is loaded, and nnjobs must be importable."""
    root = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    return {**dict.fromkeys(names, str(blas_threads)), "PYTHONPATH": path}


@dataclass(frozen=True)
class JobRequest:
    """One job to run: files are local paths; ``plan`` has one file of one line per worker."""

    phase: str
    round: int
    active: Sequence[int]
    spec: Path
    plan: Sequence[Path]
    model: Path | None
    state: Path | None
    reducers: int
    cores: int
    retries: int
    blas_threads: int
    call: TaskCall = subprocess.call
    note: Callable[[str], None] = field(default=lambda text: None)

    def arguments(self) -> list[Any]:
        """The tasks' arguments in mrjob's form: files as dicts, so that runners can ship them."""
        arguments: list[Any] = ["--phase", self.phase, "--round", str(self.round)]
        arguments += ["--active", ",".join(map(str, self.active))]
        for option, path in (("--spec", self.spec), ("--model", self.model), ("--state", self.state)):
            if path is not None:
                arguments += [option, {"type": "file", "path": str(path), "name": path.name}]
        return arguments


class _ReducersByKey:
    """Gives each key group to one of exactly ``reducers`` reduce tasks, as Hadoop's hash partitioner would."""

    reducers = 1

    def _num_reducers(self, step_num: int) -> int:
        return self.reducers

    def _split_reducer_input(self, step_num: int) -> int:
        path = self._sorted_reducer_input_path(step_num)  # type: ignore[attr-defined]
        outputs: dict[int, tuple[int, BinaryIO]] = {}
        files = self._yield_split_fileobjs("reducer", step_num)  # type: ignore[attr-defined]
        try:
            with open(path, "rb") as lines:  # noqa: PTH123  (mrjob's paths are strings)
                for line in lines:
                    key = line.split(b"\t", 1)[0]
                    bucket = zlib.crc32(key) % self.reducers
                    if bucket not in outputs:
                        outputs[bucket] = (len(outputs), next(files))
                    outputs[bucket][1].write(line)
        finally:
            for _, output in outputs.values():
                output.close()
        return len(outputs)


class InlineRunner(_ReducersByKey, InlineMRJobRunner):  # type: ignore[misc]
    """All tasks in this process, one after the other."""


class LocalRunner(_ReducersByKey, LocalMRJobRunner):  # type: ignore[misc]
    """Every task a process of its own, as many at once as there are cores; a failed task is tried again."""

    retries = 0
    call: TaskCall
    note: Callable[[str], None]

    def _invoke_task_func(self, task_type: str, step_num: int, task_num: int) -> Callable[..., None]:
        arguments = self._substep_args(step_num, task_type)
        # Plan files are given in worker order, one line each, so map task k is worker k's.
        name = f"worker {task_num}" if task_type == "mapper" else f"{task_type} {task_num}"
        return partial(_run_task, self.call, self.retries, self.note, arguments, name)

    def _run_multiple(self, funcs: Iterable[Callable[[], None]], num_processes: int | None = None) -> None:
        """Threads wait for the tasks' processes; forking this process, as mrjob does, is unsafe beside threads."""
        with ThreadPoolExecutor(self._opts["num_cores"]) as pool:
            futures = [pool.submit(func) for func in funcs]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
            finally:
                for future in futures:
                    future.cancel()


def _run_task(
    call: TaskCall,
    retries: int,
    note: Callable[[str], None],
    arguments: Sequence[str],
    name: str,
    stdin: BinaryIO,
    stdout: BinaryIO,
    stderr: BinaryIO,
    directory: str,
    environment: dict[str, str],
) -> None:
    """Run a task's process; on failure start over with empty output, at most ``retries`` times."""
    for attempt in range(retries + 1):
        for stream in (stdin, stdout, stderr):
            stream.seek(0)
        stdout.truncate()
        stderr.truncate()
        code = call(arguments, stdin=stdin, stdout=stdout, stderr=stderr, cwd=directory, env=environment)
        if code == 0:
            return
        if attempt < retries:
            note(f"{name} ended with code {code}, attempt {attempt + 1} of {retries + 1}; trying again")
    text = Path(stderr.name).read_text("utf-8", "replace").strip().splitlines()
    raise JobError(
        f"{name} failed {retries + 1} times; the last lines it wrote:\n"
        + "\n".join(f"    {line}" for line in text[-12:]),
        code=code,
    )


RUNNERS: dict[str, type[InlineRunner | LocalRunner]] = {"inline": InlineRunner, "local": LocalRunner}


def run_job(runner: str, request: JobRequest) -> Iterator[Line]:
    """Run a round's job and yield its output lines (key, value), in no particular order.

    Raises `JobError` when a task fails for good. Errors the tasks foresaw come as lines of `nnlib.wire.ERROR_KEY`.
    """
    kind = RUNNERS[runner]
    options: dict[str, Any] = {
        "mr_job_script": round_job.__file__,
        "conf_paths": [],
        "extra_args": request.arguments(),
        "input_paths": [str(path) for path in request.plan],
        "steps": round_job.RoundJob(["--spec", ""])._steps_desc(),
        "sort_values": True,
        "num_cores": request.cores,
        "cmdenv": task_environment(request.blas_threads),
        "check_input_paths": False,
        "read_logs": False,
    }
    if runner == "inline":
        options["mrjob_cls"] = round_job.RoundJob
        del options["read_logs"]
    else:
        options |= {"python_bin": [sys.executable], "bootstrap_mrjob": False}
    job = kind(**options)
    job.reducers = request.reducers
    if isinstance(job, LocalRunner):
        job.call, job.retries, job.note = request.call, request.retries, request.note
    with job:
        try:
            job.run()
        except (NnjobsError, KeyboardInterrupt):
            raise
        except Exception as error:
            raise JobError(f"the {request.phase} job failed: {type(error).__name__}: {error}") from error
        for line in to_lines(job.cat_output()):
            key, _, value = line.rstrip(b"\r\n").partition(b"\t")
            yield key, value
