"""Optimizer state that each worker keeps (`train.optimizer_state: keep`): the same bits however a run is run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from collective_experiment import config, substance
from lost_workers import assert_a_death_changes_nothing
from runs import committed, rounds_of
from safetensors.numpy import load_file, save_file

from jobs.driver import driver
from jobs.driver.run_setup import initial_states, prepare
from jobs.driver.verification import verify
from jobs.mapreduce.demand import task_demand
from nnlib.aggregation.average import Average, Partial
from nnlib.config.schema import Config
from nnlib.core.errors import MismatchError
from nnlib.core.events import ignore
from nnlib.optim import build_optimizer, learning_rate
from nnlib.run.manifest import OPTIMIZERS
from nnlib.training.worker_round import worker_data
from nnlib.training.worker_trial import WorkerTrial

KEPT: dict[str, Any] = {
    "sync__mode": "collective",
    "train__optimizer": "adam",
    "train__lr": 0.02,
    "train__optimizer_state": "keep",
}


def kept(blobs: str, run: Path, **changes: Any) -> Config:
    return config(blobs, run, **(KEPT | changes))


@pytest.mark.parametrize("optimizer", ["momentum", "nesterov", "adam", "adamw", "rmsprop"])
def test_it_does_what_is_said_of_it(blobs: str, tmp_path: Path, optimizer: str) -> None:
    """A run against a loop of its own: weights are averaged, each worker's optimizer goes on as it is. DiLoCo's outer
    step takes the average."""
    outer = {"kind": "nesterov", "lr": 0.7, "momentum": 0.5}
    changes = {"train__optimizer": optimizer, "split__seeds": [0], "workers": 2, "sync__outer": outer}
    experiment = kept(blobs, tmp_path / "run", checkpoint={"every": 1, "keep": "all"}, **changes)
    driver.train(experiment)
    spec, plans = prepare(experiment, ignore)
    (trial,) = spec.trials
    works = [WorkerTrial.of(spec, trial, plan.worker, worker_data(spec, plan)) for plan in plans]
    model = spec.model(trial)
    optimizers: list[Any] = [build_optimizer(experiment.train, model.layout) for _ in plans]
    weights: Any = initial_states(spec)[0].weights
    velocity = np.zeros(weights.size)
    for round_ in range(4):
        average = Average([0, 1], "any")
        for worker, work in enumerate(works):
            flat, gradient = weights.copy(), np.empty_like(weights)
            bound = model.bind(flat, gradient, 16)  # type: ignore[attr-defined]
            batches = work.draw_batches(2 * round_)
            for epoch in (2 * round_, 2 * round_ + 1):
                for batch in batches.epoch(epoch):
                    bound.loss_and_gradient(batch.x, batch.y)
                    decay = experiment.train.l2 / trial.objective_rows
                    optimizers[worker].step(flat, gradient, learning_rate(experiment.train, epoch), decay)
            average.add(Partial(worker, batches.rows, flat, "any"))
        delta = weights.astype(np.float64) - average.finish().astype(np.float64)
        velocity = 0.5 * velocity + delta
        weights = (weights.astype(np.float64) - 0.7 * (delta + 0.5 * velocity)).astype(np.float32)
        store = rounds_of(tmp_path / "run")
        assert store.load(round_ + 1).trials[0].weights.tobytes() == weights.tobytes()
        states = np.stack([each.state for each in optimizers])
        assert store.kept(round_ + 1).optimizers[0].tobytes() == states.tobytes()


def test_it_is_not_what_reset_or_average_do(blobs: str, tmp_path: Path) -> None:
    found = set()
    for state in ("reset", "average", "keep"):
        result = driver.train(kept(blobs, tmp_path / state, train__optimizer_state=state))
        found.add(result.model_sha256)
    assert len(found) == 3


@pytest.mark.parametrize("workers", [1, 3])
def test_processes_equal_one_process(blobs: str, tmp_path: Path, workers: int) -> None:
    for runner in ("inline", "local"):
        driver.train(kept(blobs, tmp_path / runner, workers=workers, runtime__runner=runner, checkpoint__every=3))
    assert substance(tmp_path / "inline") == substance(tmp_path / "local")
    assert committed(tmp_path / "inline") == committed(tmp_path / "local")


VARIANTS: dict[str, dict[str, Any]] = {
    "overlap": {"sync__overlap": 1, "sync__overlap_drain": 2},
    "error feedback": {"sync__precision": "int8", "sync__error_feedback": True},
    "gradients": {"sync__every": "batch"},
    "some trials keep": {"sweep": {"train.optimizer": ["adam", "sgd"], "train.optimizer_state": ["keep", "reset"]}},
    "one trial diverges": {"train__optimizer": "momentum", "sweep": {"train.lr": [0.05, 1e6]}},
    "early stopping": {"train__stop": {"patience": 1, "min_delta": 0.02}, "train__epochs": 20},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_when_it_commits_and_stops_does_not_matter(blobs: str, tmp_path: Path, name: str) -> None:
    changes = VARIANTS[name]
    whole = {"train__epochs": 12} | changes
    driver.train(kept(blobs, tmp_path / "whole", **whole, checkpoint__every=1))
    driver.train(kept(blobs, tmp_path / "seldom", **whole, checkpoint__every=4))
    assert substance(tmp_path / "seldom") == substance(tmp_path / "whole")
    if "train__stop" not in changes:
        for epochs in (4, 12):
            experiment = kept(blobs, tmp_path / "run", **whole | {"train__epochs": epochs}, checkpoint__every=1)
            driver.train(experiment, resume=True)
        assert substance(tmp_path / "run") == substance(tmp_path / "whole")


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork and /proc")
@pytest.mark.parametrize("worker", [0, pytest.param(2, marks=pytest.mark.full)])
def test_a_worker_that_dies_is_replaced(blobs: str, tmp_path: Path, worker: int) -> None:
    assert_a_death_changes_nothing(blobs, tmp_path, worker, **KEPT)


def test_verify_recomputes_it(blobs: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    driver.train(kept(blobs, run, checkpoint__every=2, checkpoint__keep="all", train__epochs=10))
    for found in (verify(str(run)), verify(str(run), round_=3), verify(str(run), every=True)):
        assert (found.problems, found.notes) == ([], [])
    assert verify(str(run), every=True).recomputed == [0, 1, 2, 3, 4, 5]


def test_states_that_are_lost_or_altered_are_named(blobs: str, tmp_path: Path) -> None:
    driver.train(kept(blobs, tmp_path / "run", checkpoint__every=1, train__epochs=4))
    longer = kept(blobs, tmp_path / "run", checkpoint__every=1, train__epochs=6)
    path = tmp_path / "run" / "rounds" / "000002" / OPTIMIZERS
    arrays = load_file(path)
    save_file({name: rows[:2] for name, rows in arrays.items()}, path)
    with pytest.raises(MismatchError, match="does not match its manifest"):
        driver.train(longer, resume=True)
    path.unlink()
    with pytest.raises(MismatchError, match="is missing") as caught:
        driver.train(longer, resume=True)
    assert OPTIMIZERS in str(caught.value)
    assert any(OPTIMIZERS in problem for problem in verify(str(tmp_path / "run")).problems)


def test_worker_0_asks_for_the_memory_of_all_states(blobs: str, tmp_path: Path) -> None:
    experiment = kept(blobs, tmp_path, model__hidden=[2000])
    plain = kept(blobs, tmp_path, model__hidden=[2000], train__optimizer_state="reset")
    (spec, _), (other, _) = (prepare(each, ignore) for each in (experiment, plain))
    size = 2 * spec.model(spec.trials[0]).layout.nbytes + 4
    more = 2 * 3 * 2 * size / 2**20  # twice, 3 workers, 2 trials
    assert task_demand(spec).memory_mb - task_demand(other).memory_mb == pytest.approx(more, abs=1.0)
