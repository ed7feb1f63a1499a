"""Gradients averaged at every step: equal to one worker with the joint batch, up to rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from collective_experiment import config, substance
from pydantic import ValidationError

from jobs.driver import driver
from jobs.driver.run_setup import initial_states, prepare
from jobs.driver.verification import verify
from nnlib.config.schema import Config
from nnlib.core.events import ignore
from nnlib.models.mlp import MLP
from nnlib.optim import build_optimizer
from nnlib.optim.schedules import learning_rate
from nnlib.run.directory import RunDirectory
from nnlib.run.spec import JobSpec
from nnlib.training.synchronous_sgd import steps_of_epoch
from nnlib.training.worker_round import worker_data
from nnlib.training.worker_trial import WorkerTrial


def batched(blobs: str, run: Path, **changes: Any) -> Config:
    fixed: dict[str, Any] = {
        "sync__mode": "collective",
        "sync__every": "batch",
        "split__seeds": [0],
        "model__dtype": "float64",
        "train__epochs": 6,
    }
    return config(blobs, run, **(fixed | changes))


def weights(run: Path) -> Any:
    directory = RunDirectory.open(str(run))
    return np.concatenate([model.vector for model in directory.final_models(directory.spec())])


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "nesterov", "adam"])
def test_full_batches_of_many_workers_are_those_of_one(blobs: str, tmp_path: Path, optimizer: str) -> None:
    """With batches of all its rows a worker takes one step an epoch, so one worker's batch is the others' joint one."""
    found = []
    for workers in (1, 3, 8):
        run = tmp_path / str(workers)
        changes = {"workers": workers, "train__optimizer": optimizer, "train__batch_size": 1000}
        driver.train(batched(blobs, run, train__class_weights="balanced", train__lr=0.02, **changes))
        found.append(weights(run))
    assert np.abs(found[0]).max() > 0.1
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-9, atol=1e-12)


def joint_batches(spec: JobSpec) -> Any:
    """An oracle of its own: one model, whose every step is on the workers' batches of that step put together."""
    trial = spec.trials[0]
    plain = spec.config.train
    model = spec.model(trial)
    state = initial_states(spec)[0].weights
    plans = prepare(spec.config, ignore)[1]
    works = [WorkerTrial.of(spec, trial, plan.worker, worker_data(spec, plan)) for plan in plans]
    flat, gradient = state.copy(), np.empty_like(state)
    assert isinstance(model, MLP)
    bound = model.bind(flat, gradient, 1000)
    for first in range(0, plain.epochs, 2):
        epochs = range(first, first + 2)
        optimizer = build_optimizer(plain, model.layout)  # reset at every round
        assert not optimizer.minimizes
        samples = [work.draw_batches(first) for work in works]
        for epoch in epochs:
            steps = [[(batch.x.copy(), batch.y.copy()) for batch in sample.epoch(epoch)] for sample in samples]
            for number in range(max(map(len, steps))):
                parts = [batches[number] for batches in steps if number < len(batches)]
                bound.loss_and_gradient(np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts]))
                optimizer.step(flat, gradient, learning_rate(plain, epoch), plain.l2 / trial.objective_rows)
    return flat


@pytest.mark.parametrize("changes", [{}, {"sampling__fraction": 0.6}, {"train__optimizer": "adam", "train__lr": 0.01}])
def test_mini_batches_equal_their_joint_batch(blobs: str, tmp_path: Path, changes: dict[str, Any]) -> None:
    """Also where workers run out of batches: shards and splits are of unequal size."""
    experiment = batched(blobs, tmp_path / "run", train__batch_size=7, **changes)
    driver.train(experiment)
    spec = RunDirectory.open(str(tmp_path / "run")).spec()
    trial = spec.trials[0]
    assert len({-(-rows // 7) for rows in trial.train_rows}) > 1
    assert steps_of_epoch(spec, trial) >= max(trial.train_rows) * experiment.sampling.fraction // 7
    np.testing.assert_allclose(weights(tmp_path / "run"), joint_batches(spec), rtol=1e-9, atol=1e-12)


def test_workers_never_part_and_the_run_can_be_verified(blobs: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    driver.train(batched(blobs, run, split__seeds=[0, 1], checkpoint__every=2))
    directory = RunDirectory.open(str(run))
    store = directory.rounds(directory.spec())
    for round_ in store.rounds()[1:]:
        for entry in store.log.metrics(round_).trials:
            assert [worker.drift.relative for worker in entry.workers] == [0.0] * 3
    found = verify(str(run), every=True)
    assert found.problems == [] and found.recomputed == store.rounds()


@pytest.mark.parametrize("changes", [{}, {"train__optimizer_state": "average", "sync__outer": {"lr": 0.8}}])
def test_processes_give_the_bits_of_one_process(blobs: str, tmp_path: Path, changes: dict[str, Any]) -> None:
    for runner in ("inline", "local"):
        driver.train(batched(blobs, tmp_path / runner, runtime__runner=runner, split__seeds=[0, 1], **changes))
    assert substance(tmp_path / "inline") == substance(tmp_path / "local")


def test_a_trial_that_diverges_leaves_the_others_alone(blobs: str, tmp_path: Path) -> None:
    result = driver.train(batched(blobs, tmp_path / "both", sweep={"train.lr": [0.05, 1e6]}, model__dtype="float32"))
    assert [trial.status for trial in result.trials] == ["active", "diverged"]
    alone = driver.train(batched(blobs, tmp_path / "one", sweep={"train.lr": [0.05]}, model__dtype="float32"))
    assert result.trials[0] == alone.trials[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sync__mode": "rounds"}, "needs sync.mode: collective"),
        ({"train__optimizer": "cg"}, "takes no such steps"),
        ({"sync__weighting": "equal"}, "weights gradients by examples"),
        ({"sync__gang_fallback": "rounds"}, "cannot go on in rounds mode"),
    ],
)
def test_what_cannot_be_is_refused(blobs: str, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        batched(blobs, tmp_path, **changes)
