"""What a round costs besides training, measured once before a run that chooses its rounds' lengths by it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from jobs.mapreduce.launcher import RoundLauncher, model_files
from nnlib.core.errors import ConfigError
from nnlib.core.events import Listener
from nnlib.core.scratch import scratch_folder
from nnlib.run.checkpoint import Checkpoint, TrialState
from nnlib.run.ledger import first_facts
from nnlib.run.round_metrics import RoundMetrics
from nnlib.run.round_store import RoundStore
from nnlib.run.spec import JobSpec, WorkerPlan
from nnlib.storage import LocalStorage
from nnlib.training.round_result import TrialOutput

PROBES, PROBE_SECONDS = 3, 1.0
"""The most rounds that are measured, and the seconds after which no further one begins. The first may warm up caches
and clocks."""


def with_round_cost(spec: JobSpec, plans: Sequence[WorkerPlan], states: list[TrialState], listen: Listener) -> JobSpec:
    """The spec with ``sync.round_cost`` in its configuration: measured, if ``epochs_per_round: auto`` needs it and the
    user gave none.

    The cost is (seconds of a round of one epoch - seconds of its training) / seconds of its training, the least of a
    few such rounds, in a scratch folder. What is measured is stored, because it decides the run's bits. Raises
    `ConfigError` in collective mode, whose rounds cannot be tried before all workers have met.
    """
    config = spec.config
    if config.train.epochs_per_round != "auto" or config.sync.round_cost is not None or config.train.epochs == 0:
        return spec
    if config.sync.mode == "collective":
        raise ConfigError(
            "epochs_per_round auto needs to know what a round costs in collective mode",
            hint="set sync.round_cost, in epochs: little, 0.01 say, for workers that exchange their weights in memory",
            key="sync.round_cost",
        )
    cost = _measure(spec, plans, states, listen)
    rounded = float(f"{cost:.3g}")  # as a person would write it into a configuration
    return replace(
        spec, config=config.model_copy(update={"sync": config.sync.model_copy(update={"round_cost": rounded})})
    )


def _measure(spec: JobSpec, plans: Sequence[WorkerPlan], states: list[TrialState], listen: Listener) -> float:
    with scratch_folder() as folder, RoundLauncher(spec, plans, listen) as site:
        store = RoundStore(LocalStorage(folder), [spec.model(trial).layout for trial in spec.trials])
        facts = first_facts(spec, None)
        everyone, costs, first = range(len(spec.trials)), [], time.monotonic()
        for number in range(PROBES):
            began = time.monotonic()
            checkpoint = Checkpoint(number, states, RoundMetrics(number), facts)
            store.commit(checkpoint)  # every round writes one, and reads it in its tasks
            outputs = site.run("train", 0, everyone, *model_files(store, checkpoint), epochs=range(1))
            training = _training_seconds(outputs, site.slots)
            costs.append((time.monotonic() - began - training) / training)
            if time.monotonic() - first > PROBE_SECONDS:
                break
    return max(0.0, min(costs))


def _training_seconds(outputs: dict[int, TrialOutput], slots: int) -> float:
    """How long the job trained: its slowest worker, or all of them shared out to the slots that run at once."""
    workers: dict[int, float] = {}
    for output in outputs.values():
        for worker, record in output.records.items():
            workers[worker] = workers.get(worker, 0.0) + record.seconds["train"]
    return max(max(workers.values()), sum(workers.values()) / slots, 1e-9)
