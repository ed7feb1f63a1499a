"""Measures what the cost model needs: two short runs, a commit, the encoding and averaging of a partial."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from jobs.driver import driver
from jobs.experiments.scaling import changed
from jobs.mapreduce.wire import SliceKey, decode_partial, encode_partial
from nnlib.aggregation.average import Average, Partial
from nnlib.aggregation.drift import block_drift
from nnlib.config.kinds import OPTIMIZERS
from nnlib.config.runners import runner_named
from nnlib.config.schema import Config
from nnlib.core.scratch import scratch_folder
from nnlib.data.dataset import Dataset
from nnlib.data.sampling import sample_size
from nnlib.run.directory import RunDirectory
from nnlib.run.journal import last_rounds, read_events
from nnlib.run.ledger import first_facts
from nnlib.run.planner import make_spec
from nnlib.run.round_store import RoundStore
from nnlib.run.run_events import RoundEvent
from nnlib.run.spec import JobSpec, partial_layout
from nnlib.simulate.costs import Costs, Workload
from nnlib.simulate.fit import Measured, fit_costs
from nnlib.storage import storage

ROUNDS_SHARE = 0.8
"""Share of the time for the rounds of all runs; the rest is for their starts and ends."""
MAX_ROUNDS, ROUNDS_TO_WARM_UP = 15, 3
"""Rounds of a short run. In a run of at least `ROUNDS_TO_WARM_UP` rounds the first one is not counted."""
REPETITIONS = 5


def machine_slots(config: Config) -> int:
    """Return how many tasks run at once under the configured runner."""
    return 1 if runner_named(config.runtime.runner).in_one_process else config.runtime.cores or os.cpu_count() or 1


def second_point(config: Config, avoid: set[int]) -> int:
    """Return the second number of workers to calibrate on, after one worker.

    Where possible it is three to a slot, so that the cost of a task shows, and not in ``avoid``, the numbers to be
    predicted.
    """
    shards = len(Dataset.open(config.data.path).shards)
    wanted = 3 * machine_slots(config)
    free = [count for count in range(2, shards + 1) if count not in avoid] or list(range(2, shards + 1))
    return min(free, key=lambda count: (abs(count - wanted), count)) if free else 1


def workload(config: Config) -> Workload:
    """Return the work of the configured run, from its plan for one worker."""
    spec, _ = make_spec(changed(config, workers=1), Dataset.open(config.data.path))
    return _workload(spec)


def planned_length(config: Config) -> int:
    """Return the epochs per round; 1 with ``auto``, whose lengths depend on a drift that is not known yet."""
    return 1 if config.train.epochs_per_round == "auto" else config.train.epochs_per_round


def _workload(spec: JobSpec) -> Workload:
    config, trial = spec.config, spec.trials[0]
    layout = partial_layout(spec, trial)
    rows = [sample_size(sum(other.train_rows), config.sampling.fraction) for other in spec.trials]
    return Workload(
        shard_rows=tuple(shard.rows for shard in spec.dataset.shards),
        train_rows=round(statistics.fmean(rows)),
        trials=len(spec.trials),
        epochs=config.train.epochs,
        epochs_per_round=planned_length(config),
        model_bytes=layout.nbytes,
        slices=len(layout.slices(config.sync.slice_elements)),
        batch_size=config.train.batch_size if OPTIMIZERS.of(config.train).averages_gradients else None,
        shared=config.sampling.streams == "shared",
        reducers=config.reducers,
    )


def calibrate(
    config: Config, other: int, *, seconds: float, notify: Callable[[str], None]
) -> tuple[Workload, Costs, list[Measured]]:
    """Measure the costs of the configured run by short runs of it on 1 and ``other`` workers.

    Takes about ``seconds``, and at least one round of each of five short runs. Those on 1 and ``other`` workers come
    twice, the second time in reverse, so that a machine that gets busier favours neither.

    Returns:
        The run's workload, the costs, and the means of the short runs on 1 and ``other`` workers.
    """
    whole, began = workload(config), time.monotonic()
    plain = changed(config, train__stop=None, train__keep="last", checkpoint__keep=1)
    with scratch_folder() as folder:
        notify("calibrating: one round on one worker")
        probe = _short_run(plain, 1, 1, 1, f"{folder}/probe")
        order = (1, other, other, 1)
        left = ROUNDS_SHARE * max(0.0, seconds - (time.monotonic() - began)) / len(order)
        length = planned_length(config)
        if probe.round_seconds * length * ROUNDS_TO_WARM_UP > left:
            length = 1
        rounds = min(max(1, int(left / max(probe.round_seconds * length, 1e-6))), MAX_ROUNDS)
        runs: dict[int, list[Measured]] = {1: [], other: []}
        for turn, workers in enumerate(order):
            notify(f"calibrating: workers {workers}, rounds {rounds}, epochs per round {length}")
            runs[workers].append(_short_run(plain, workers, rounds, length, f"{folder}/{turn}"))
        known = _known(f"{folder}/0", f"{folder}/copy")
    points = [_mean(repeated) for repeated in runs.values()]
    return whole, fit_costs(points[0], points[1], machine_slots(config), known), points


def _short_run(config: Config, workers: int, rounds: int, length: int, folder: str) -> Measured:
    """Train ``rounds`` rounds of ``length`` epochs and return means over the rounds: the sum of all is to be predicted,
    interruptions included."""
    short = changed(
        config, workers=workers, run_dir=folder, train__epochs=rounds * length, train__epochs_per_round=length
    )
    result = driver.train(short)
    run = RunDirectory(folder)
    events = [recorded.event for recorded in last_rounds(read_events(run))]
    steady = events[1:] if len(events) >= ROUNDS_TO_WARM_UP else events

    def mean(value: Callable[[RoundEvent], float]) -> float:
        return statistics.fmean(value(event) for event in steady)

    whole = _workload(run.spec())
    return Measured(
        workload=whole,
        workers=workers,
        seconds=result.seconds,
        round_seconds=mean(lambda event: event.seconds),
        train_seconds=mean(lambda event: event.worker_seconds.get("train", 0.0)),
        visit_seconds=mean(lambda event: sum(event.worker_seconds.get(k, 0.0) for k in ("read", "score"))),
    )


def _mean(repeated: list[Measured]) -> Measured:
    """Return the mean of runs of the same work."""
    return replace(
        repeated[0],
        seconds=statistics.fmean(run.seconds for run in repeated),
        round_seconds=statistics.fmean(run.round_seconds for run in repeated),
        train_seconds=statistics.fmean(run.train_seconds for run in repeated),
        visit_seconds=statistics.fmean(run.visit_seconds for run in repeated),
    )


def _known(address: str, copy: str) -> Costs:
    """Measure single costs: a commit, and encoding and averaging a partial, per byte."""
    run = RunDirectory(address)
    spec = run.spec()
    store = run.rounds(spec)
    checkpoint = store.load(store.newest())
    other = RoundStore(storage(copy), store.layouts)
    commits = []
    for round_ in range(REPETITIONS):
        began = time.perf_counter()
        other.commit(replace(checkpoint, round=round_, facts=first_facts(spec, None)))
        commits.append(time.perf_counter() - began)
    size = partial_layout(spec, spec.trials[0]).size
    weights = np.resize(checkpoint.trials[0].weights, size)
    encoding, averaging = zip(*(_wire_seconds(weights) for _ in range(REPETITIONS)), strict=True)
    return Costs(
        train_example=0.0,
        commit=statistics.median(commits),
        encode_byte=statistics.median(encoding) / weights.nbytes,
        average_byte=statistics.median(averaging) / weights.nbytes,
    )


def _wire_seconds(weights: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Return the seconds to encode a partial, and to decode it, add it to an average and compare it with that."""
    key = SliceKey(0, 0).encode()
    partial = Partial(0, 1, weights, "0")
    began = time.perf_counter()
    line = encode_partial(key, partial)
    encoded = time.perf_counter()
    average = Average([0, 1], "0")
    decoded = decode_partial(key, line)
    average.add(decoded)
    block_drift(decoded.weights, weights, weights)
    return encoded - began, time.perf_counter() - encoded
