"""One job of a run: write what its tasks need, run it, and put its lines together again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from types import TracebackType

from jobs.mapreduce.collect import assemble, collect
from jobs.mapreduce.demand import epoch_work, task_demand
from jobs.mapreduce.request import round_request
from jobs.mapreduce.tasks import slice_elements
from jobs.runners.local.chaos import Chaos
from jobs.runners.registry import open_session
from jobs.runners.request import JobRequest
from jobs.runners.session import SessionOptions, record_nothing
from nnlib.aggregation.quantization import encoded_size
from nnlib.config.devices import device_modules
from nnlib.config.kinds import MODELS, OPTIMIZERS, SCHEDULES, distributions_of
from nnlib.config.runners import runner_named
from nnlib.core.errors import ConfigError, JobError
from nnlib.core.events import Note
from nnlib.core.layout import LayoutSlice
from nnlib.run.checkpoint import Checkpoint
from nnlib.run.frozen import FROZEN
from nnlib.run.ledger import canonical
from nnlib.run.manifest import MODEL, STATE, round_path
from nnlib.run.round_store import RoundStore
from nnlib.run.run_events import RunEvent
from nnlib.run.spec import JobSpec, WorkerPlan, partial_layout
from nnlib.storage import has_scheme, storage
from nnlib.training.round_result import TrialOutput, check_records

TASK_MODULES = ("jobs.mapreduce.round_job",)
"""What the tasks of a round import."""


class RoundLauncher:
    """Launches the jobs of a run, whichever runner runs them.

    A context manager. ``session`` runs the jobs; what all of them need, the spec and the workers' plans, is made once.
    """

    def __init__(
        self,
        spec: JobSpec,
        plans: Sequence[WorkerPlan],
        notify: Callable[[Note], None],
        *,
        record: Callable[[RunEvent], None] = record_nothing,
        chaos: Chaos | None = None,
        run: str | None = None,
        modules: Sequence[str] = TASK_MODULES,
    ) -> None:
        """``notify`` takes notes for people, ``record`` facts for the run's events; ``chaos`` injects faults into local
        tasks; ``run`` is the address of the run whose lock the driver holds, if it holds one; ``modules`` are what
        every task imports."""
        self.spec = spec
        self._plans, self._notify = plans, notify
        self._lines = tuple(plan.to_line() for plan in plans)
        self._demand, self._work = task_demand(spec), epoch_work(spec)
        self._slices = cache(self._cut)
        for_tasks = _readable(spec)
        self.session = open_session(
            SessionOptions(
                runtime=spec.config.runtime,
                near=for_tasks.dataset.address,
                modules=(*modules, *kind_modules(spec)),
                distributions=distributions_of(spec.settings(trial).model for trial in spec.trials),
                notify=notify,
                record=record,
                chaos=chaos,
                run=run,
            )
        )
        try:
            self._spec_file = self.session.put("spec.json", canonical(for_tasks.to_json()))
            frozen = spec.frozen_bytes()
            self._frozen_file = None if frozen is None else self.session.put(FROZEN, frozen)
        except BaseException:
            self.session.close()
            raise

    def __enter__(self) -> RoundLauncher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.session.close()

    def run(
        self,
        phase: str,
        round_: int,
        active: Sequence[int],
        model: str | None = None,
        state: str | None = None,
        *,
        epochs: range = range(0),
    ) -> dict[int, TrialOutput]:
        """Launch one job of a round; return what came of it, by trial.

        ``active`` are the trials; ``model`` and ``state`` are the addresses of their models and of their optimizer
        state; a job whose phase is ``train`` trains ``epochs``. Raises as `launch` does.
        """
        return self.launch(self.request(phase, round_, active, model, state, epochs=epochs), active)

    def request(
        self,
        phase: str,
        round_: int,
        active: Sequence[int],
        model: str | None = None,
        state: str | None = None,
        *,
        epochs: range = range(0),
    ) -> JobRequest:
        """Return the request for a job of a round; the arguments are those of `run`."""
        return round_request(
            self.spec,
            phase,
            round_,
            active,
            lines=self._lines,
            files={"--spec": self._spec_file, "--frozen": self._frozen_file, "--model": model, "--state": state},
            demand=self._demand,
            work=self._work,
            epochs=epochs,
            slices=sum(len(self._slices(index)) for index in active),
        )

    def launch(self, request: JobRequest, active: Sequence[int]) -> dict[int, TrialOutput]:
        """Run a job over the ``active`` trials and put its lines together again, by trial.

        Raises what a task reported, or `JobError` where a task failed for good or the output is not whole.
        """
        try:
            outputs = collect(self.spec, self.session.run(request), active)
        except JobError as error:
            if "worker" in error.where:
                error.where["shards"] = self._shards(error.where["worker"])
            raise
        if request.phase != "scale":
            check_records(self.spec, outputs)
            if missing := next(iter(outputs.values())).missing(self.spec):
                named = ", ".join(f"{worker} ({self._shards(worker)})" for worker in missing)
                text = f"{request.name}: goes on without worker {named}: a quorum of {self.spec.quorum} is enough"
                self._notify(Note(text, "warning"))
            for index, output in outputs.items():
                output.join_scores(self.spec, index)
                if request.phase == "train" and output.diverged is None:
                    output.average, output.buffers = assemble(index, output, self._slices(index))
        return outputs

    @property
    def slots(self) -> int:
        """Tasks that run at once, as far as the driver knows."""
        return min(self.spec.workers, self.session.slots or 1)

    def shuffled_bytes(self, active: Sequence[int]) -> int:
        """Return the bytes that one round of these trials moves from mappers to reducers, before they are encoded as
        text: a vector from every worker."""
        layouts = [partial_layout(self.spec, self.spec.trials[index]) for index in active]
        precision = self.spec.config.sync.precision
        if precision == "exact":
            return self.spec.workers * sum(layout.nbytes for layout in layouts)
        buffers = sum(segment.nbytes for layout in layouts for segment in layout.buffers)
        return self.spec.workers * (sum(encoded_size(layout.size, precision) for layout in layouts) + buffers)

    def _cut(self, trial: int) -> list[LayoutSlice]:
        """The slices of a trial's layout, a reduce group each."""
        return partial_layout(self.spec, self.spec.trials[trial]).slices(slice_elements(self.spec))

    def _shards(self, worker: int) -> str:
        """The names of a worker's shards, for a message."""
        names = [self.spec.dataset.shards[index].name for index in self._plans[worker].shards]
        return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def kind_modules(spec: JobSpec) -> list[str]:
    """Return the modules that tasks import late, when they use the kinds that a run's trials name.

    A runner that forks its tasks imports them once, before all tasks.
    """
    modules = {"safetensors.numpy", *device_modules(spec.config.runtime.device)}
    for trial in spec.trials:
        settings = spec.settings(trial)
        optimizer = OPTIMIZERS.of(settings.train)
        kinds = (MODELS.of(settings.model), optimizer, SCHEDULES.of(settings.train.schedule))
        factories = (*(kind.factory for kind in kinds), spec.model(trial).learner)
        modules.update(factory.partition(":")[0] for factory in factories)
        modules.update(optimizer.packages)
    return sorted(modules)


def _readable(spec: JobSpec) -> JobSpec:
    """The spec with the dataset's address as tasks know it. Raises `ConfigError` where they could not read it."""
    if not runner_named(spec.config.runtime.runner).is_remote:
        return spec
    if not has_scheme(spec.config.data.path):
        raise ConfigError(
            "the nodes of a cluster cannot read a dataset on this machine",
            hint="import it into HDFS (nnjobs data import ... -o hdfs:///...), or, where all nodes share the file "
            "system, say file:///...",
            key="data.path",
        )
    # A node has none of this machine's Hadoop configuration, which may say what hdfs:///... means.
    return replace(spec, dataset=replace(spec.dataset, address=storage(spec.dataset.address).root))


def model_files(store: RoundStore, checkpoint: Checkpoint) -> tuple[str, str | None]:
    """Return the address of a round's model, and that of the averaged optimizer state, if there is any."""
    state = any(trial.optimizer.size for trial in checkpoint.trials)
    root = store.storage.root
    model = f"{root}/{round_path(checkpoint.round, MODEL)}"
    return model, f"{root}/{round_path(checkpoint.round, STATE)}" if state else None
