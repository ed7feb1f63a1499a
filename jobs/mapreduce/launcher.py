"""One job of a run: write what its tasks need, run it, and put its lines together again."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from jobs.collective.request import Group
from jobs.mapreduce import tasks
from jobs.mapreduce.collect import collect
from jobs.mapreduce.request import RoundRequest
from jobs.runners.local.chaos import Chaos
from jobs.runners.local.processes import process_starter
from jobs.runners.local.task_pool import TaskPool
from jobs.runners.registry import run_job
from nnlib.aggregation.quantization import ENCODINGS
from nnlib.core.errors import JobError
from nnlib.core.layout import LayoutSlice, ModelState
from nnlib.core.scratch import scratch_folder, write_file
from nnlib.run.checkpoint import Checkpoint, RoundStore
from nnlib.run.ledger import canonical
from nnlib.run.round_length import round_count
from nnlib.run.spec import JobSpec, WorkerPlan, partial_layout
from nnlib.training.round_result import TrialOutput, check_records

if TYPE_CHECKING:
    from jobs.runners.hadoop.session import HadoopSite


class JobSite:
    """The local folder a run's jobs start from: the spec, and one plan file of one line per worker.

    Written once per run; mrjob gives each of several one-line files its own map task, but would cut one file of
    several lines by its own rule.
    """

    def __init__(
        self,
        spec: JobSpec,
        plans: Sequence[WorkerPlan],
        note: Callable[[str], None],
        *,
        record: Callable[..., None] = lambda **facts: None,
        chaos: Chaos | None = None,
        run: str | None = None,
    ) -> None:
        """``note`` gets lines for people, ``record`` facts for the run's events; ``chaos`` sabotages local tasks;
        ``run`` is the run whose lock the driver holds, if it has one yet."""
        self.spec = spec
        self.pool: TaskPool | None = None
        self.site: HadoopSite | None = None
        self._plans, self._note = plans, note
        with ExitStack() as stack:
            self._folder = stack.enter_context(scratch_folder())
            self._spec = self._folder / "spec.json"
            self._plan = [self._folder / f"worker-{plan.worker:06d}.plan" for plan in plans]
            write_file(self._spec, canonical(spec.to_json()))
            for plan, path in zip(plans, self._plan, strict=True):
                write_file(path, plan.to_line().encode() + b"\n")
            runtime = spec.config.runtime
            if runtime.runner == "hadoop":
                from jobs.runners.hadoop.session import HadoopSite  # late: other runners need nothing of a cluster

                self.site = HadoopSite(spec, plans, note, record, run)
                stack.callback(self.site.close)
            if runtime.runner == "local":
                collective = spec.config.sync.mode == "collective"
                modules = (
                    ("jobs.collective.collective_job", "jobs.collective.membership")
                    if collective
                    else ("jobs.mapreduce.round_job",)
                )
                self.pool = TaskPool(
                    process_starter(runtime.blas_threads, stack, modules),
                    cores=runtime.cores or os.cpu_count() or 1,
                    retries=runtime.retries,
                    timeout_seconds=runtime.task_timeout_seconds,
                    chaos=chaos,
                    note=note,
                    record=record,
                )
            self._stack = stack.pop_all()

    def __enter__(self) -> JobSite:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def run(
        self,
        phase: str,
        round_: int,
        active: Sequence[int],
        model: str | None = None,
        state: str | None = None,
        *,
        epochs: range = range(0),
        group: Group | None = None,
    ) -> dict[int, TrialOutput]:
        """Run one job, which trains ``epochs`` if its phase does. Raises what a task reported, or `JobError` where its
        output is not whole."""
        runtime = self.spec.config.runtime
        parts = {index: partial_layout(self.spec, self.spec.trials[index]).slices(self._slice) for index in active}
        request = RoundRequest(
            phase=phase,
            round=round_,
            active=active,
            spec=str(self._spec),
            plan=[Path(glob.escape(str(path))) for path in self._plan],
            model=model,
            state=state,
            folder=self._folder,
            reducers=0 if group is not None else self._reducers(sum(map(len, parts.values()))),
            spare=self.spec.workers - self.spec.quorum if phase in ("train", "score") and group is None else 0,
            blas_threads=runtime.blas_threads,
            epochs=epochs,
            group=group,
            rounds=round_count(self.spec.config),
            pool=self.pool,
            site=self.site,
        )
        try:
            outputs = collect(run_job(runtime.runner, request), active)
        except JobError as error:
            if "worker" in error.where:
                error.where["shards"] = self._shards(error.where["worker"])
            raise
        if phase != "scale":
            check_records(self.spec, outputs)
            if missing := next(iter(outputs.values())).missing(self.spec):
                named = ", ".join(f"{worker} ({self._shards(worker)})" for worker in missing)
                self._note(f"{request.name}: goes on without worker {named}: a quorum of {self.spec.quorum} is enough")
            for index, output in outputs.items():
                output.join_scores(self.spec)
                if phase == "train" and output.diverged is None:
                    output.average, output.buffers = self._assemble(index, output, parts[index])
        return outputs

    def end_task(self, worker: int, attempt: str | None) -> None:
        """End a worker's task that hangs, if it is still this attempt of it that runs; the runner starts the next."""
        if self.pool is not None and attempt is not None:
            self.pool.end(f"worker {worker}", int(attempt))
        if self.site is not None and attempt is not None:
            self.site.end_task(attempt)

    def end_job(self) -> None:
        """End the job that runs, where it does not end by itself: `run` then raises `JobError`."""
        if self.site is not None:
            self.site.end_job()

    @property
    def queued(self) -> bool:
        """Whether a cluster has a job of ours, and may let it wait."""
        said = None if self.site is None else self.site.submission
        return said is not None and said.submitted

    def _reducers(self, slices: int) -> int:
        return self.spec.config.reducers or min(self.spec.workers, slices)

    @property
    def slots(self) -> int:
        """Tasks that run at once."""
        cores = self.spec.config.runtime.cores or os.cpu_count() or 1
        return 1 if self.pool is None else min(self.spec.workers, cores)

    def shuffled_bytes(self, active: Sequence[int]) -> int:
        """What one round of these trials carries from mappers to reducers: a vector from every worker, before it is
        encoded as text."""
        layouts = [partial_layout(self.spec, self.spec.trials[index]) for index in active]
        precision = self.spec.config.sync.precision
        if precision == "exact":
            return self.spec.workers * sum(layout.nbytes for layout in layouts)
        buffers = sum(segment.nbytes for layout in layouts for segment in layout.buffers)
        return self.spec.workers * (sum(ENCODINGS[precision].size(layout.size) for layout in layouts) + buffers)

    @property
    def _slice(self) -> int:
        return tasks.slice_elements(self.spec)

    def _shards(self, worker: int) -> str:
        """The names of a worker's shards, for a message."""
        names = [self.spec.dataset.shards[index].name for index in self._plans[worker].shards]
        return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")

    def _assemble(self, trial: int, output: TrialOutput, parts: Sequence[LayoutSlice]) -> ModelState:
        """The whole average from its slices; each must be there, from the examples the workers reported."""
        examples = sum(record["examples"] for record in output.records.values())
        missing = [index for index in range(len(parts)) if index not in output.parts]
        if missing:
            raise JobError(f"slice {', '.join(map(str, missing))} of {len(parts)} is missing", trial=trial)
        for index, (_, part) in enumerate(parts):
            partial = output.parts[index]
            if partial.weights.size != part.stop - part.start or partial.examples != examples:
                raise JobError(
                    f"slice {index} has {partial.weights.size} elements of {partial.examples} examples, expected "
                    f"{part.stop - part.start} of {examples}",
                    trial=trial,
                )
        vectors = [
            np.concatenate([output.parts[index].weights for index, part in enumerate(parts) if part.segment == segment])
            for segment in range(parts[-1].segment + 1)
        ]
        return ModelState(vectors[0], tuple(vectors[1:]))


def model_files(store: RoundStore, checkpoint: Checkpoint) -> tuple[str, str | None]:
    """Paths of a round's model, and of the averaged optimizer state if there is any, for a job's tasks."""
    state = any(trial.optimizer.size for trial in checkpoint.trials)
    root = store.storage.root
    model = f"{root}/{store.model_file(checkpoint.round)}"
    return model, f"{root}/{store.state_file(checkpoint.round)}" if state else None
