"""The base of jobs of map tasks alone that do not train: each line of their plan is an independent piece of work."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

from jobs.runners.lines import ERROR_KEY, Line, encode_record
from jobs.runners.task_job import TaskJob
from nnlib.core.errors import NnjobsError


class MapJob(TaskJob):
    """Works on its lines one after the other. A line is a JSON object with its task's number under ``worker``."""

    def add_task_args(self) -> None:
        super().add_task_args()
        self.add_passthru_arg("--shared")

    def steps(self) -> list[Any]:
        return self.map_steps(mapper=self.mapper)

    def mapper(self, _: Any, line: str) -> Iterator[Line]:
        """Yield a line's output. An error that a retry cannot repair becomes a record, not a failed task."""
        if not line.strip():
            return
        worker = int(json.loads(line)["worker"])
        if self._reporter is not None:
            self._reporter.begin(worker)
        try:
            yield from self.work(line)
        except NnjobsError as error:
            error.where.setdefault("worker", worker)
            yield ERROR_KEY, encode_record(worker, error.to_record())

    @abstractmethod
    def work(self, line: str) -> Iterator[Line]:
        """Do the work of a line; yield its output."""

    def count(self, name: str, amount: int) -> None:
        """Add to a counter of the job, if the runner has counters."""
        if self._reporter is not None:
            self._reporter.count({name: amount})
