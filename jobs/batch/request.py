"""A job of map tasks alone, to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.batch.map_job import MapJob
from jobs.runners.request import JobRequest, file_arguments


@dataclass(frozen=True, kw_only=True)
class MapRequest(JobRequest):
    """One task a line. ``files`` are options -> addresses, ``shared`` is the address of a folder that all tasks can
    use; on a cluster ``memory_mb`` is what a task holds besides Python itself, and ``small`` work is done sooner than
    containers start."""

    kind: type[MapJob]
    lines: Sequence[str]
    files: Mapping[str, str]
    shared: str
    memory_mb: int = 0
    small: bool = False

    @property
    def job(self) -> type[MapJob]:
        return self.kind

    def arguments(self, *, fetched: bool = False) -> list[Any]:
        arguments = ["--phase", self.phase, "--shared", self.shared]
        return arguments + file_arguments(self.files, fetched=fetched)
