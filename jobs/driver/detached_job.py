"""The job of a detached driver: one map task that drives a run, as the command on a laptop would.

Its plan is one line that says which run; the configuration is a file of the job. Every attempt goes on with the run, so
one that was lost with its node is replaced. The task succeeds when the driver has ended in order, whatever came of the
run: a task that failed would be run again, and would take up a run that was cancelled. ``status.json`` of the run says
how it ended.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.runners.lines import Line
from jobs.runners.task_job import TaskJob
from nnlib.core.errors import BusyError, NnjobsError
from nnlib.core.events import Event
from nnlib.core.interrupts import WANTED, interrupt
from nnlib.core.liveness import HEARTBEAT
from nnlib.run.detached_driver import write_driver_error
from nnlib.storage import storage

PHASE = "drive"
NO_CLIENT = "nnjobs: this node has no Hadoop client"
"""What the task of a node says that cannot submit jobs; `jobs.runners.hadoop.known_failures` explains it."""
LEASE_SECONDS = 300.0
"""How long an attempt waits for the lease of one before it, which may have died elsewhere a moment ago."""
LEASE_POLL_SECONDS = 5.0


@dataclass(frozen=True)
class DriverPlan:
    """What a detached driver is to do: the address of the ``run``, the model that it starts from, and how its own jobs'
    tasks start (`jobs.runners.hadoop.task_environment.Environment`). ``home`` is the address of its job's folder;
    ``mrjob_conf`` is mrjob's configuration file: its path, relative to the folder where the command was given, and its
    text (None: there is none)."""

    run: str
    home: str
    start_from: str | None
    python: tuple[str, ...]
    archives: tuple[str, ...]
    variables: dict[str, str]
    files: tuple[str, ...]
    mrjob_conf: tuple[str, str] | None

    def to_line(self) -> str:
        """Return the plan as a line."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_line(cls, line: str) -> DriverPlan:
        """Read what `to_line` wrote."""
        data = json.loads(line)
        conf = data["mrjob_conf"]
        return cls(
            data["run"],
            data["home"],
            data["start_from"],
            tuple(data["python"]),
            tuple(data["archives"]),
            dict(data["variables"]),
            tuple(data.get("files", ())),
            None if conf is None else (str(conf[0]), str(conf[1])),
        )


class DetachedJob(TaskJob):
    """Drive one run to its end."""

    def steps(self) -> list[Any]:
        return self.map_steps(mapper=self.mapper)

    def add_task_args(self) -> None:
        super().add_task_args()
        self.add_file_arg("--config")

    def mapper(self, _: Any, line: str) -> Iterator[Line]:
        """Drive the run that the plan's line names."""
        if line.strip():
            HEARTBEAT.is_waiting = True  # a driver waits for its jobs: Hadoop must not take it for a task that hangs
            drive(DriverPlan.from_line(line), Path(self.options.config))
        yield from ()


def drive(plan: DriverPlan, config: Path) -> None:
    """Drive a run by the configuration in a file, from its newest commit, or from its begin if it has none."""
    from jobs.driver.driver import train
    from jobs.runners.hadoop import task_environment
    from nnlib.config.render import from_resolved
    from nnlib.storage.hdfs.hadoop_cli import find_hadoop

    if find_hadoop() is None:
        sys.exit(NO_CLIENT)
    for number in WANTED:  # a container's processes may have them ignored
        signal.signal(number, interrupt)
    task_environment.inherit(task_environment.Environment(plan.python, plan.archives, plan.variables, plan.files))
    if plan.mrjob_conf is not None:
        path, text = plan.mrjob_conf
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text, encoding="utf-8")
    settings = from_resolved(config.read_text(encoding="utf-8"), str(config), ())
    settings = settings.model_copy(update={"run_dir": plan.run})
    try:
        _with_lease(lambda: train(settings, resume=True, start_from=plan.start_from, listen=_write_event))
    except KeyboardInterrupt:
        print("nnjobs: interrupted", file=sys.stderr)
    except NnjobsError as error:
        print(f"nnjobs: {error}", file=sys.stderr)
        write_driver_error(storage(plan.home, private=True), error)


def _write_event(event: Event) -> None:
    """Write an event into the task's log."""
    print(event, file=sys.stderr, flush=True)


def _with_lease(work: Callable[[], object]) -> None:
    """Call ``work``; where another driver holds the run's lease, wait for its end."""
    deadline = time.monotonic() + LEASE_SECONDS
    while True:
        try:
            work()
            return
        except BusyError as error:
            if time.monotonic() > deadline:
                raise
            print(f"nnjobs: {error.message}; waiting for its end", file=sys.stderr, flush=True)
        time.sleep(LEASE_POLL_SECONDS)


if __name__ == "__main__":
    DetachedJob.run()
