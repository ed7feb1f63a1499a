"""How a run begins, or goes on: its plan, its first weights, its directory."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType

import numpy as np

from jobs.driver.device import with_device
from jobs.driver.parent_data import check_parent_data
from jobs.mapreduce.launcher import RoundLauncher
from jobs.runners.local.chaos import Chaos
from nnlib.config.identity import resume_problems, with_measured
from nnlib.config.schema import Config
from nnlib.core.arrays import Array, Vector
from nnlib.core.errors import ConfigError, DataError, MismatchError, StorageError, UsageError
from nnlib.core.events import Listener, PhaseStarted
from nnlib.core.layout import ModelState
from nnlib.core.notes import note
from nnlib.data.dataset import Dataset
from nnlib.data.scaling import FeatureStats, Scaler
from nnlib.optim import build_outer
from nnlib.run.checkpoint import Checkpoint, TrialState
from nnlib.run.directory import CODE, RunDirectory
from nnlib.run.frozen import FROZEN
from nnlib.run.lease import RunLock
from nnlib.run.ledger import Origin, RunOrigin, WeightsOrigin, digest, first_facts
from nnlib.run.manifest import ROUNDS
from nnlib.run.planner import make_spec
from nnlib.run.round_metrics import RoundMetrics
from nnlib.run.spec import JobSpec, Trial, WorkerPlan, assign_shards, initial_buffers, initial_vector, partial_layout
from nnlib.storage.outputs import refuse_overlap


def prepare(config: Config, listen: Listener, chaos: Chaos | None = None) -> tuple[JobSpec, list[WorkerPlan]]:
    """The spec of a new run, with its splits made and its feature scaling fitted. Writes nothing."""
    dataset = Dataset.open(config.data.path)
    config = with_device(config)
    listen(PhaseStarted("split", "finding the splits"))
    spec, plans = make_spec(config, dataset)
    if any(spec.settings(trial).data.scale != "none" for trial in spec.trials):
        listen(PhaseStarted("scale", "fitting the feature scaling"))
        spec = fit_scaling(spec, plans, listen, chaos)
    if any(_merges_features(spec, trial) for trial in spec.trials):
        note(
            "the dataset stores float64, but the model takes its features unscaled and rounded to float32, where "
            "different values may become the same: set data.scale to standard, or model.dtype to float64"
        )
    return spec, plans


def _merges_features(spec: JobSpec, trial: Trial) -> bool:
    """Return whether a trial rounds features to float32 that need float64, and does not scale them before."""
    settings = spec.settings(trial)
    is_narrow = settings.data.scale == "none" and settings.model.dtype == "float32"
    return is_narrow and spec.dataset.x_dtype == "float64"


def claim(config: Config, stack: ExitStack) -> RunDirectory:
    """The new run's directory, locked until ``stack`` ends: the one configured, or the first free ``runs/NAME-N``."""
    if config.run_dir is not None:
        run = RunDirectory(config.run_dir)
        run.refuse_if_exists()
        run.refuse_others()
        stack.enter_context(RunLock(run.storage))
        run.refuse_if_exists()  # it may have been made while we waited for nothing but the lock's files
        return run
    for number in itertools.count(1):
        run = RunDirectory(f"runs/{config.name}-{number}")
        if run.storage.names():
            continue
        try:
            stack.enter_context(RunLock(run.storage))
        except StorageError:
            if run.storage.names():
                continue  # another driver was quicker
            raise
        if not run.exists():
            return run
    raise AssertionError("unreachable")


def refuse_overlap_of_run(config: Config, start_from: str | Sequence[Vector | ModelState] | None) -> None:
    """Raise `UsageError` where the directory of a new run is, holds or lies in its dataset or the run that it starts
    from."""
    if config.run_dir is not None:
        parent = [_parent(start_from)[0]] if isinstance(start_from, str) else []
        refuse_overlap(config.run_dir, [config.data.path, *parent], option="--run-dir")


class NewRun:
    """Deletes the run that this command began, if bad data, a wrong configuration or an error before the first job ends
    the block: then there is nothing to go on with, and the next try is not to meet a run."""

    def __init__(self) -> None:
        self.directory: RunDirectory | None = None
        self.has_jobs = False
        """Whether the runner is ready: errors from now on leave a run that ``--resume`` goes on with."""

    def __enter__(self) -> NewRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.directory is None or error is None:
            return
        if isinstance(error, DataError | UsageError):
            self.directory.abandon()
        elif not self.has_jobs:
            with contextlib.suppress(StorageError):  # what is wrong may be the storage itself
                self.directory.abandon()


def create_run(run: RunDirectory, spec: JobSpec, states: list[TrialState], parent: Origin | None) -> None:
    """Commit round 0, and then the spec: with it the run exists."""
    for name in (ROUNDS, CODE, FROZEN):
        run.storage.delete(name)  # of a start that was killed before there was a spec
    run.storage.sweep()
    run.rounds(spec).commit(Checkpoint(0, states, RoundMetrics(0), first_facts(spec, parent)))
    run.write_spec(spec)


def reopen(run: RunDirectory, config: Config) -> tuple[JobSpec, list[WorkerPlan]]:
    """An existing run, under a configuration that may differ only in what does not touch its mathematics."""
    spec = run.spec()
    config = with_device(with_measured(spec.config, config))
    problems = resume_problems(spec.config, config)
    if problems:
        raise ConfigError(
            "this run cannot go on with a changed configuration:\n" + "\n".join(f"    {line}" for line in problems),
            hint=f"train a new run from its model: --from {run.address}",
            run=run.address,
        )
    dataset = Dataset.open(config.data.path)
    if dataset.fingerprint != spec.dataset.fingerprint:
        raise MismatchError(
            "the dataset is not the one this run was started with",
            hint=f"bring the old one back, or train a new run: --from {run.address}",
            dataset=dataset.address,
        )
    spec = replace(spec, config=config, dataset=dataset)
    run.write_spec(spec)
    return spec, assign_shards([shard.rows for shard in dataset.shards], config.workers)


def initial_states(spec: JobSpec) -> list[TrialState]:
    """The trials before round 0: weights by their seeds, the model's first buffers, all other state zero."""
    states = []
    for trial in spec.trials:
        weights = initial_vector(spec, trial)
        rest = partial_layout(spec, trial).size - weights.size
        outer = build_outer(spec.settings(trial).sync.outer, weights.size).initial()
        buffers = initial_buffers(spec, trial)
        states.append(TrialState(weights, np.zeros(rest, weights.dtype), outer, buffers=buffers))
    return states


def fit_scaling(spec: JobSpec, plans: Sequence[WorkerPlan], listen: Listener, chaos: Chaos | None = None) -> JobSpec:
    """The spec with every trial's feature scaling fitted on its training rows, by one job."""
    scaled = [trial.index for trial in spec.trials if spec.settings(trial).data.scale != "none"]
    with RoundLauncher(spec, plans, listen, chaos=chaos) as site:
        outputs = site.run("scale", 0, scaled)
    trials = list(spec.trials)
    for index in scaled:
        kind = spec.settings(trials[index]).data.scale
        stats = outputs[index].stats
        merged = FeatureStats.merged(stats[shard] for shard in sorted(stats))
        scaler = Scaler.from_stats(kind, merged, is_wide=spec.dataset.x_dtype == "float64")
        trials[index] = replace(trials[index], scaler=scaler)
    return replace(spec, trials=tuple(trials))


def warm_start(
    spec: JobSpec,
    states: Sequence[TrialState],
    frozen: list[dict[str, Array]],
    start: str | Sequence[Vector | ModelState],
) -> Origin:
    """Put weights into ``states``: flat vectors or these with buffers, one a trial, or another run's.

    ``RUN`` are its final models, ``RUN@N`` those of round N, trial by trial with the same split. ``frozen`` are the
    parameters of each trial that are not trained; another run's replace them. Returns the origin, for the ledger.
    """
    if isinstance(start, str):
        return _start_from_run(spec, states, frozen, start)
    hashes = []
    for state, trial, numbers in zip(states, spec.trials, start, strict=True):
        vector, buffers = numbers if isinstance(numbers, ModelState) else (numbers, ())
        layout = spec.model(trial).layout
        layout.check(vector)
        state.weights = vector.copy()
        if buffers:
            layout.check_buffers(buffers)
            state.buffers = tuple(buffer.copy() for buffer in buffers)
        hashes.append(
            digest(b"".join(each.astype(each.dtype.newbyteorder("<")).tobytes() for each in (vector, *buffers)))
        )
    return WeightsOrigin(tuple(hashes))


def _start_from_run(
    spec: JobSpec, states: Sequence[TrialState], frozen: list[dict[str, Array]], address: str
) -> RunOrigin:
    parent_address, number = _parent(address)
    parent = RunDirectory.open(parent_address)
    old = parent.spec()
    store = parent.rounds(old)
    committed = store.rounds()
    round_ = int(number) if number else store.newest()
    if round_ not in committed or not store.has_model(round_):
        kept = ", ".join(str(known) for known in committed if store.has_model(known))
        raise ConfigError(f"that run keeps no model of round {round_} (kept: {kept})", run=parent.address)
    checkpoint = store.load(round_) if number or parent.final() is None else None
    if checkpoint is not None:
        models = [trial.model for trial in checkpoint.trials]
    else:
        models = parent.final_models(old)
    for state, trial in zip(states, spec.trials, strict=True):
        index = _same_trial(old, trial)
        if index is None:
            there = ", ".join(sorted({str(known.split) for known in old.trials}))
            raise ConfigError(
                f"that run has no trial of {trial.label()} (it has splits {there}): another split's model has seen "
                "this split's test rows",
                run=parent.address,
                key="split.seeds",
            )
        layout = spec.model(trial).layout
        if old.model(old.trials[index]).layout != layout:
            raise ConfigError("that run's model has another shape or dtype", run=parent.address, key="model")
        before = old.frozen_arrays(old.trials[index])
        if _shapes(before) != _shapes(frozen[trial.index]):
            raise ConfigError("that run's model has other frozen parameters", run=parent.address, key="model")
        state.weights, state.buffers = models[index]
        frozen[trial.index] = before
    check_parent_data(old.dataset, spec.dataset, parent.address)
    return RunOrigin(round_, checkpoint is None, digest(store.log.ledger(round_)))


def _shapes(arrays: Mapping[str, Array]) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (array.shape, str(array.dtype)) for name, array in arrays.items()}


def with_targets_of(config: Config, start: str | Sequence[Vector | ModelState] | None) -> Config:
    """Return the configuration of a run that goes on from ``start`` (see `warm_start`). Weights of a run that learnt
    unscaled targets go on with those, unless the configuration says otherwise. Raises as `RunDirectory.open` does."""
    if not isinstance(start, str) or config.data.target_scale != "auto":
        return config
    before = RunDirectory.open(_parent(start)[0]).spec().config.data.target_scale
    if before != "none":
        return config
    return config.model_copy(update={"data": config.data.model_copy(update={"target_scale": before})})


def _parent(start: str) -> tuple[str, str]:
    """Split ``RUN@N`` into the address of the run and the number of the round, which may be empty."""
    address, separator, number = start.rpartition("@")
    if not separator or not number.isdigit() or RunDirectory(start).exists():
        return start, ""
    return address, number


def _same_trial(spec: JobSpec, wanted: Trial) -> int | None:
    """The trial of another run with the same split, fold and swept keys; without a sweep there, split and fold do."""
    for trial in spec.trials:
        if (trial.split, trial.fold) == (wanted.split, wanted.fold) and trial.overrides in ({}, wanted.overrides):
            return trial.index
    return None
