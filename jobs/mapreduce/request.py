"""The request for a job of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs.collective.request import Group
from jobs.mapreduce.round_job import RoundJob
from jobs.runners.request import JobRequest, file_arguments
from jobs.runners.task_job import TaskJob


@dataclass(frozen=True, kw_only=True)
class RoundRequest(JobRequest):
    """A job of a run: ``spec``, ``model`` and ``state`` are files' addresses, ``rounds`` is the run's number of rounds,
    where it is known. A job with a ``group`` is collective."""

    round: int
    active: Sequence[int]
    spec: str
    model: str | None
    state: str | None
    epochs: range = range(0)
    rounds: int | None = None
    group: Group | None = None

    @property
    def job(self) -> type[TaskJob]:
        if not self.collective:
            return RoundJob
        from jobs.collective.collective_job import CollectiveJob  # late: rounds mode needs nothing of a group

        return CollectiveJob

    @property
    def name(self) -> str:
        return f"{self.phase} {self.round}"

    @property
    def number(self) -> int | None:
        return self.round

    @property
    def collective(self) -> bool:
        return self.group is not None

    def arguments(self, *, fetched: bool = False) -> list[Any]:
        arguments: list[Any] = ["--phase", self.phase, "--round", str(self.round)]
        arguments += ["--epochs", f"{self.epochs.start}:{self.epochs.stop}"]
        arguments += ["--active", ",".join(map(str, self.active))]
        files = {"--spec": self.spec, "--model": self.model, "--state": self.state}
        arguments += file_arguments(files, fetched=fetched)
        if self.group is not None:
            arguments += ["--run-dir", self.group.run_dir, "--group", self.group.folder, "--lock", self.group.lock]
        return arguments
