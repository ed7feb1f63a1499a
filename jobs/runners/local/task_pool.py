"""Runs the tasks of a local run: processes, attempts, time limits, and one whole output committed for each.

Each attempt writes into its own files. Its output becomes the task's by a rename, and only if its last line shows that
it is whole. So the output of an attempt that was killed, hung or cut cannot be taken for a result.
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from jobs.runners.local.attempt import (
    ATTEMPT,
    Attempt,
    Process,
    StartProcess,
    Task,
    kill,
    last_lines,
    same_results,
    signal_name,
    wait_for,
)
from jobs.runners.local.chaos import Chaos, Faults, cut, shuffle_lines
from jobs.runners.output_trailer import unseal
from nnlib.core.errors import JobError
from nnlib.core.waiting import waiting_for
from nnlib.run.run_events import AttemptFailedEvent, FaultEvent, RunEvent

FAULTS = {
    "kill": "killed",
    "hang": "hung",
    "cut": "cut",
    "twin": "run twice",
    "delay": "delayed",
    "order": "reordered",
}
"""Fields of `Faults` (and twins), in words."""
ASSUMED_SECONDS = 0.1
"""Assumed duration of a task before one of its kind has ended. Chaos draws the moment of a kill from the usual
duration."""
ASSUMED_COLLECTIVE_SECONDS = 3.0
"""Assumed duration in seconds of a collective task. Chaos draws the moment of a kill from it, because a collective job
has no earlier task to measure."""


class _StoppedError(Exception):
    """The job ended while this task was running."""


class TaskPool:
    """Runs tasks as processes, at most ``cores`` at once, and runs those that fail up to ``retries`` times again.

    Worker k uses device k modulo ``devices`` (0: none), and at most ``workers_per_device`` of a device's run at once.
    ``keep`` takes what an attempt (its number from 0) of a task has written to standard error, from any thread.
    ``warn`` takes a line for people, ``record`` the run's events; both are called by one thread at a time.
    ``injected`` counts the faults of ``chaos`` by kind.
    """

    def __init__(
        self,
        start: StartProcess = subprocess.Popen,
        *,
        cores: int = 1,
        retries: int = 0,
        timeout_seconds: float | None = None,
        chaos: Chaos | None = None,
        devices: int = 0,
        workers_per_device: int = 1,
        keep: Callable[[Task, int, bytes], None] = lambda task, number, messages: None,
        warn: Callable[[str], None] = lambda text: None,
        record: Callable[[RunEvent], None] = lambda event: None,
    ) -> None:
        self.chaos, self._chaos = chaos, chaos or Chaos()
        self.injected: Counter[str] = Counter()
        self._start, self._cores, self._retries, self._timeout = start, cores, retries, timeout_seconds
        self._keep, self._warn, self._record = keep, warn, record
        self._reporting = threading.Lock()
        self._slots = threading.BoundedSemaphore(cores)
        self._rooms = [threading.BoundedSemaphore(workers_per_device) for _ in range(devices)]
        self._running: dict[Process, tuple[str, int]] = {}
        self._changing = threading.Lock()
        self._stopping = threading.Event()
        self._usual_seconds: dict[str, float] = {}

    def run_all(self, functions: Iterable[Callable[[], None]], *, at_once: int | None = None, what: str = "") -> None:
        """Call functions that call `run`, in threads; the first failure, or an interrupt, ends all their processes.

        ``at_once`` is the number of tasks that run at once, however few the cores, because they wait for each other.
        ``what`` names the job for the line that says how many of its tasks are done ("": they need not know).
        Raises the first failure.
        """
        self._stopping.clear()
        slots = at_once or self._cores
        self._slots = threading.BoundedSemaphore(slots)
        futures: list[Future[None]] = []
        with ThreadPoolExecutor(slots) as threads, waiting_for("") as shown:

            def show(_: object = None) -> None:
                if what:
                    done = sum(future.done() for future in futures)
                    shown.what = f"{what}: {done} of {len(futures)} tasks done"

            try:
                futures += [threads.submit(function) for function in functions]
                show()
                for future in futures:
                    future.add_done_callback(show)
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                threads.shutdown(wait=False, cancel_futures=True)
                self._stop()
        errors = [future.exception() for future in futures if not future.cancelled()]
        for error in errors:
            if error is not None and not isinstance(error, _StoppedError):
                raise error

    def run(self, task: Task) -> None:
        """Run a task until an attempt leaves a whole output. Raises `JobError` when no attempt is left."""
        for number in range(self._retries + 1):
            attempt = self._attempt(task, number)
            if attempt.failure is None:
                self._commit(task, attempt)
                return
            self._report_failure(task, number, attempt)
        raise _last_failure(task, attempt, self._retries)

    def end(self, task: str, number: int) -> None:
        """Kill an attempt (its ``number`` from 0) of a task, if it still runs; the next attempt then follows."""
        with self._changing:
            for process, running in self._running.items():
                if running == (task, number):
                    process.send_signal(signal.SIGKILL)

    def summary(self) -> str:
        """Return a line for people about the injected faults."""
        counts = ", ".join(f"{self.injected[kind]} {word}" for kind, word in FAULTS.items() if self.injected[kind])
        return f"chaos: of the attempts of tasks, {counts or 'none harmed'}; every task came through"

    def _attempt(self, task: Task, number: int) -> Attempt:
        """Make one attempt, or two at once if chaos asks for a twin; return the one to use."""
        used = self._chaos.twin_of(task.job, task.name, number)
        first = self._planned(task, number, 0)
        if used is None:
            self._execute(task, first)
            return first
        self._report_fault(task, number, "twin")
        second = self._planned(task, number, 1)
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(partial(self._execute, task), (first, second)))
        whole = [attempt for attempt in (first, second) if attempt.failure is None]
        if len(whole) == 2 and not same_results(first.output, second.output):
            raise JobError(
                "the same task, run twice, had two results",
                hint="this machine does not compute repeatably: check its memory, and that nothing writes the dataset",
                **task.where,
            )
        return (whole[-1] if used == "second" else whole[0]) if whole else first

    def _planned(self, task: Task, number: int, twin: int) -> Attempt:
        faults = self._chaos.faults(task.job, task.name, number, twin, last=number == self._retries)
        for kind in FAULTS:
            if getattr(faults, kind, None) not in (None, False, 0.0):
                self._report_fault(task, number, kind)
        return Attempt(task.directory.parent / f"attempt-{number}-{twin}", faults, number)

    def _execute(self, task: Task, attempt: Attempt) -> None:
        """Run the process of an attempt, and check that its output is whole."""
        attempt.folder.mkdir()
        if attempt.faults.delay:
            self._stopping.wait(attempt.faults.delay)
        with (
            self._room_of(task),
            self._slots,
            task.input.open("rb") as stdin,
            attempt.output.open("wb") as stdout,
            attempt.messages.open("wb") as stderr,
        ):
            options = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
            with self._changing:
                if self._stopping.is_set():
                    raise _StoppedError
                try:
                    environment = {**task.environment, ATTEMPT: str(attempt.number)}
                    process = self._start(task.arguments, cwd=task.directory, env=environment, **options)
                    self._running[process] = (task.name, attempt.number)
                except OSError as error:
                    attempt.failure = f"could not be started: {error}"
            if attempt.failure is None:
                try:
                    attempt.failure = self._outcome(process, task, attempt.faults)
                finally:
                    with self._changing:
                        del self._running[process]
                    if attempt.messages.stat().st_size:
                        self._keep(task, attempt.number, attempt.messages.read_bytes())
        if self._stopping.is_set():
            raise _StoppedError
        if attempt.failure is None:
            if attempt.faults.cut is not None:
                cut(attempt.output, attempt.faults.cut, at_line=attempt.faults.cut_at_line)
            if not unseal(attempt.output):
                attempt.failure = "left an output that is not whole"
        if attempt.failure is not None:
            attempt.output.unlink()

    def _room_of(self, task: Task) -> AbstractContextManager[object]:
        """Room on the device that a task uses. It is waited for before a slot, so that a task that waits has none."""
        return self._rooms[task.number % len(self._rooms)] if self._rooms and task.kind == "worker" else nullcontext()

    def _outcome(self, process: Process, task: Task, faults: Faults) -> str | None:
        """Wait for a process; return None if it ended well, else why its output cannot be used."""
        began = time.monotonic()
        if faults.kill:
            assumed = ASSUMED_SECONDS if task.limited else ASSUMED_COLLECTIVE_SECONDS
            wait_for(process, faults.moment * self._usual_seconds.get(task.kind, assumed))
            kill(process)  # a process that has ended is lost, too, as on a machine that dies before the commit
            return "was killed on purpose (--chaos)"
        if faults.hang:
            process.send_signal(signal.SIGSTOP)
        code = wait_for(process, self._timeout if task.limited else None)
        if code is None:
            kill(process)
            return f"took longer than {self._timeout:g} seconds (runtime.task_timeout_seconds)"
        if code != 0:
            return f"was ended by {signal_name(-code)}" if code < 0 else f"ended with code {code}"
        self._usual_seconds[task.kind] = time.monotonic() - began
        return None

    def _commit(self, task: Task, attempt: Attempt) -> None:
        if attempt.faults.order is not None:
            shuffle_lines(attempt.output, attempt.faults.order)
        attempt.output.replace(task.output)

    def _stop(self) -> None:
        with self._changing:
            self._stopping.set()
            for process in self._running:
                process.send_signal(signal.SIGKILL)

    def _report_fault(self, task: Task, number: int, fault: str) -> None:
        with self._reporting:
            self.injected[fault] += 1
            self._record(FaultEvent(task.job, task.name, number + 1, fault))

    def _report_failure(self, task: Task, number: int, attempt: Attempt) -> None:
        with self._reporting:
            self._record(AttemptFailedEvent(task.job, task.name, number + 1, attempt.failure))
            if not attempt.faults.fatal and number < self._retries:  # no warning about intended faults
                self._warn(f"{task.label}: attempt {number + 1} of {self._retries + 1} {attempt.failure}; trying again")


def _last_failure(task: Task, attempt: Attempt, retries: int) -> JobError:
    """The error of a task none of whose attempts left a whole output; ``attempt`` is the last."""
    lines = last_lines(attempt.messages)
    messages = "its last lines:\n" + "\n".join(f"    {line}" for line in lines) if lines else "it wrote no message"
    tries = "its only attempt" if retries == 0 else f"attempt {retries + 1} of {retries + 1}"
    return JobError(f"failed for good: {tries} {attempt.failure}; {messages}", **task.where)
