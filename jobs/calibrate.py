"""Measures what the cost model needs: two short runs, a commit, and a partial's way through the wire."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jobs import driver
from jobs.prepare import make_spec
from jobs.scale import changed, round_events
from nnlib.averaging import Average, Partial, block_drift
from nnlib.checkpoint import RoundStore
from nnlib.config.schema import Config
from nnlib.data.dataset import Dataset
from nnlib.data.sampling import sample_size
from nnlib.layout import slices
from nnlib.optim import build_optimizer
from nnlib.plan import JobSpec
from nnlib.rundir import RunDirectory
from nnlib.simulate.costs import Costs, Workload
from nnlib.simulate.fit import Measured, fit_costs
from nnlib.storage import storage
from nnlib.training import partial_layout
from nnlib.wire import SliceKey, decode_partial, encode_partial

SHARE = 0.4
"""Of the time given, for the rounds of each of the two runs; the rest goes to their starts and ends."""
MOST_ROUNDS, LEAST_ROUNDS, WARM_UP = 15, 3, 1
REPETITIONS = 5


def machine_slots(config: Config) -> int:
    """Tasks that run at once under the configured runner."""
    return 1 if config.runtime.runner == "inline" else config.runtime.cores or os.cpu_count() or 1


def second_point(config: Config, avoid: set[int]) -> int:
    """The number of workers to calibrate on besides one: where possible three to a slot, so that the cost of a task
    shows, and none of those that are to be predicted."""
    shards = len(Dataset.open(config.data.path).shards)
    wanted = 3 * machine_slots(config)
    free = [count for count in range(2, shards + 1) if count not in avoid] or list(range(2, shards + 1))
    return min(free, key=lambda count: (abs(count - wanted), count)) if free else 1


def workload(config: Config) -> Workload:
    """What the configured run has to do, from its plan for one worker."""
    spec, _ = make_spec(changed(config, workers=1), Dataset.open(config.data.path))
    return _workload(spec)


def _workload(spec: JobSpec) -> Workload:
    config, trial = spec.config, spec.trials[0]
    layout = partial_layout(spec, trial)
    step = build_optimizer(config.train, spec.model(trial).layout).kind == "step"
    rows = [sample_size(sum(other.train_rows), config.sampling.fraction) for other in spec.trials]
    return Workload(
        shard_rows=tuple(shard.rows for shard in spec.dataset.shards),
        train_rows=round(statistics.fmean(rows)),
        trials=len(spec.trials),
        epochs=config.train.epochs,
        epochs_per_round=config.train.epochs_per_round,
        model_bytes=layout.size * layout.itemsize,
        slices=len(slices(layout.size, config.sync.slice_elements)),
        batch_size=config.train.batch_size if step else None,
        shared=config.sampling.streams == "shared",
        reducers=config.reducers,
    )


def calibrate(
    config: Config, other: int, *, seconds: float, tell: Callable[[str], None]
) -> tuple[Workload, Costs, list[Measured]]:
    """The configured run's workload, and the costs that short runs of it on 1 and ``other`` workers show.

    Takes about ``seconds``, and at least one start and three rounds of each.
    """
    whole, began = workload(config), time.monotonic()
    plain = changed(config, train__stop=None, train__keep="last", checkpoint__keep=1)
    with tempfile.TemporaryDirectory(prefix="nnjobs-") as folder:
        tell("calibrating: one round on one worker")
        probe = _short_run(plain, 1, 1, 1, Path(folder) / "probe")
        left = max(0.0, seconds - (time.monotonic() - began))
        length = config.train.epochs_per_round
        if probe.round_seconds * length * (LEAST_ROUNDS + WARM_UP) > left * SHARE:
            length = 1
        fitting = int(left * SHARE / max(probe.round_seconds * length, 1e-6)) - WARM_UP
        rounds = min(max(fitting, LEAST_ROUNDS), MOST_ROUNDS)
        points = []
        for workers in (1, other):
            tell(f"calibrating: {rounds} rounds of {length} epochs, workers {workers}")
            points.append(_short_run(plain, workers, rounds + WARM_UP, length, Path(folder) / f"workers-{workers}"))
        known = _known(str(Path(folder) / "workers-1"), Path(folder) / "copy")
    return whole, fit_costs(points[0], points[1], machine_slots(config), known), points


def _short_run(config: Config, workers: int, rounds: int, length: int, folder: Path) -> Measured:
    """Train ``rounds`` rounds of ``length`` epochs; the first only warms up, if there are others. All are means over
    the rounds: what is to be predicted is their sum, interruptions included."""
    short = changed(
        config, workers=workers, run_dir=str(folder), train__epochs=rounds * length, train__epochs_per_round=length
    )
    result = driver.train(short)
    run = RunDirectory(str(folder))
    events = round_events(run)
    steady = events[WARM_UP:] or events

    def mean(value: Callable[[dict[str, Any]], float]) -> float:
        return statistics.fmean(value(event) for event in steady)

    whole = _workload(run.spec())
    return Measured(
        workload=whole,
        workers=workers,
        seconds=result["seconds"],
        round_seconds=mean(lambda event: float(event["seconds"])),
        train_seconds=mean(lambda event: float(event["worker_seconds"].get("train", 0.0))),
        visit_seconds=mean(lambda event: float(sum(event["worker_seconds"].get(k, 0.0) for k in ("read", "score")))),
    )


def _known(address: str, copy: Path) -> Costs:
    """Costs that are measured by themselves: a commit, and encoding and averaging a partial, per byte."""
    run = RunDirectory(address)
    spec = run.spec()
    store = run.rounds(spec)
    checkpoint = store.load(store.rounds()[-1])
    other = RoundStore(storage(str(copy)), store.layouts)
    commits = []
    for round_ in range(REPETITIONS):
        began = time.perf_counter()
        other.commit(replace(checkpoint, round=round_))
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
    """Seconds to encode one partial, and to decode it, add it to an average and compare it with that."""
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
