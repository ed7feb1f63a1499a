"""Jobs of map tasks alone that do not train: each line of their plan is a piece of work for itself."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

from jobs.runners.mrjob_compat import prepare_mrjob

prepare_mrjob()

from mrjob.step import MRStep  # noqa: E402  (needs the shims above on Python 3.13)

from jobs.runners.lines import (  # noqa: E402
    ERROR_KEY,
    Line,
    encode_record,
)
from jobs.runners.task_job import TaskJob  # noqa: E402
from nnlib.core.errors import NnjobsError  # noqa: E402


class MapJob(TaskJob):
    """Does its lines one after the other. A line is a JSON object with its task's number under ``worker``."""

    def add_task_args(self) -> None:
        super().add_task_args()
        self.add_passthru_arg("--shared")

    def steps(self) -> list[MRStep]:
        return [MRStep(mapper=self.mapper)]

    def mapper(self, _: Any, line: str) -> Iterator[Line]:
        """A line's output. An error that a retry cannot mend becomes a record, not a failed task."""
        if not line.strip():
            return
        worker = int(json.loads(line)["worker"])
        if self._reporter is not None:
            self._reporter.begins(worker)
        try:
            yield from self.work(line)
        except NnjobsError as error:
            error.where.setdefault("worker", worker)
            yield ERROR_KEY, encode_record(worker, error.to_record())

    @abstractmethod
    def work(self, line: str) -> Iterator[Line]:
        """The output of a line's work."""

    def count(self, name: str, amount: int) -> None:
        """Add to a counter of the job, where somebody counts."""
        if self._reporter is not None:
            self._reporter.counted({name: amount})
