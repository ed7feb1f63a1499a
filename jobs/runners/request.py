"""What a runner is asked to run: a job, the lines of its map tasks, and what the tasks need.

A request says nothing of the runner it will meet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.runners.task_job import TaskJob
from nnlib.storage import has_scheme


@dataclass(frozen=True)
class TaskDemand:
    """What the work on one line of the plan needs. ``memory_mb`` counts what a task holds besides Python and its
    libraries; ``line_bytes`` is the size of the longest line that it reads or writes."""

    memory_mb: int = 0
    line_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """One job to run.

    Each of ``lines`` is the plan of one map task (of one worker, where the job trains). ``name`` tells the job from the
    others of its command; on a cluster's pages people see `title`. ``options`` are arguments of the tasks; ``files``
    are more of them, whose values are addresses of files (None: there is no such file).

    Without ``reducers`` the job is its map tasks alone. ``spare`` of the map tasks may fail for good without the job
    failing. ``round`` is the round that the job trains or scores, if it does. The map tasks of a collective job work
    together, so all of them must run at once. A small job takes less time than starting its tasks in containers.
    """

    job: type[TaskJob]
    phase: str
    name: str
    experiment: str
    label: str
    lines: Sequence[str]
    options: Sequence[str] = ()
    files: Mapping[str, str | None] = field(default_factory=dict)
    demand: TaskDemand = TaskDemand()
    reducers: int = 0
    spare: int = 0
    round: int | None = None
    is_collective: bool = False
    is_small: bool = False

    @property
    def title(self) -> str:
        """The job's name for people: the experiment or command that it belongs to, and what it does there."""
        return f"nnjobs {self.experiment} {self.label}"

    def arguments(self, *, fetched: bool = False) -> list[Any]:
        """Return the tasks' arguments in mrjob's form: files as dicts, so that runners can ship them.

        ``fetched``: tasks read files with a scheme (``hdfs://...``) by themselves, so these stay addresses.
        """
        arguments: list[Any] = ["--phase", self.phase, *self.options]
        for option, address in self.files.items():
            if address is not None and fetched and has_scheme(address):
                arguments += [option, address]
            elif address is not None:
                name = address.rpartition("/")[2]
                arguments += [option, {"type": "file", "path": address, "name": name}]
        return arguments

    def local_arguments(self) -> list[str]:
        """Return the arguments of tasks that run on this machine, where files have their own names."""
        return [part["path"] if isinstance(part, dict) else part for part in self.arguments(fetched=True)]
