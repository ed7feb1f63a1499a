"""Where a command's jobs of map tasks alone start from on a cluster (predicting, importing)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jobs.runners.hadoop.job_properties import JVM_MB, LEAST_MB, PYTHON_MB, UBER_MAPS, Resources, job_properties
from jobs.runners.hadoop.staging import Scratch
from jobs.runners.hadoop.submission import Submission
from nnlib.config.schema import Runtime

if TYPE_CHECKING:
    from jobs.batch.request import MapRequest

HEAP_MB = 64
"""Of a task's JVM: it passes lines of some hundred bytes."""


class HadoopMapSite:
    """The scratch folder of one command, from its making to `close`. ``near`` is an address on the cluster;
    ``memory_mb`` is what a task holds besides Python itself."""

    checked = True  # nobody asks the nodes what they are like: each task's work says it by itself
    submission: Submission | None = None

    def __init__(
        self,
        runtime: Runtime,
        name: str,
        near: str,
        files: Mapping[str, bytes],
        note: Callable[[str], None],
        record: Callable[..., None],
    ) -> None:
        self.settings = runtime.hadoop
        self.note, self.record = note, record
        self._runtime, self._name = runtime, name
        self.scratch = Scratch(runtime, near, files, note)
        self.close = self.scratch.close

    def uber(self, request: MapRequest) -> bool:
        """Whether the job's tasks are to run in its master's container."""
        if self.settings.uber != "auto":
            return self.settings.uber == "on"
        return request.small and len(request.lines) <= UBER_MAPS

    def properties(self, request: MapRequest, *, uber: bool) -> dict[str, str]:
        """The Hadoop properties of a job."""
        heap = self.settings.heap_mb or HEAP_MB
        memory = self.settings.memory_mb or max(LEAST_MB, heap + JVM_MB + PYTHON_MB + request.memory_mb)
        return job_properties(
            self._runtime,
            len(request.lines),
            Resources(memory, heap, self.settings.vcores or self._runtime.blas_threads),
            name=f"nnjobs {self._name} {request.phase}",
            reducers=0,
            uber=uber,
            lines_per_map=len(request.lines) if uber else 1,
        )

    def options(self, request: MapRequest) -> dict[str, Any]:
        """mrjob's options of a job: its files are addresses in HDFS, its input is a plan of its own."""
        self.scratch.next_job()
        plan = f"plan-{request.phase}"
        self.scratch.storage.write(plan, "".join(f"{line}\n" for line in request.lines).encode())
        files = {option: self.scratch.shipped(file) for option, file in request.files.items()}
        return self.scratch.options(plan, [*replace(request, files=files).arguments(), "--report"])

    def hear_of_nodes(self, values: Iterable[bytes]) -> None:
        """Nobody asked."""
