"""Error feedback (`sync.error_feedback`): what rounding takes comes back, the same bits however a run is run."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from collective_experiment import config, substance
from lost_workers import assert_a_death_changes_nothing
from pydantic import ValidationError
from runs import committed, rounds_of
from safetensors.numpy import load_file, save_file

from jobs.driver import driver
from jobs.driver.run_setup import initial_states, prepare
from jobs.driver.verification import verify
from nnlib.aggregation.average import Average, Partial
from nnlib.aggregation.quantization import decode, encode
from nnlib.config.schema import Config
from nnlib.core.errors import MismatchError
from nnlib.core.events import ignore
from nnlib.core.layout import ModelState
from nnlib.run.manifest import RESIDUALS
from nnlib.training.local_result import RoundStart
from nnlib.training.local_training import local_training
from nnlib.training.worker_round import worker_data
from nnlib.training.worker_trial import WorkerTrial

FEEDBACK: dict[str, Any] = {"sync__precision": "int8", "sync__error_feedback": True, "sync__mode": "collective"}


def fed_back(blobs: str, run: Path, **changes: Any) -> Config:
    return config(blobs, run, **(FEEDBACK | changes))


def test_it_does_what_is_said_of_it(blobs: str, tmp_path: Path) -> None:
    """A run against a loop of its own: every worker rounds its difference and what rounding took before."""
    experiment = fed_back(blobs, tmp_path / "run", split__seeds=[0], checkpoint={"every": 1, "keep": "all"}, workers=2)
    driver.train(experiment)
    spec, plans = prepare(experiment, ignore)
    (trial,) = spec.trials
    exact = experiment.model_copy(update={"sync": experiment.sync.model_copy(update={"precision": "exact"})})
    plain = replace(spec, config=exact)
    works = [WorkerTrial.of(plain, trial, plan.worker, worker_data(spec, plan)) for plan in plans]
    weights: Any = initial_states(spec)[0].weights
    taken = np.zeros((2, weights.size), np.float32)
    for round_ in range(4):
        start = RoundStart(ModelState(weights), round_, range(2 * round_, 2 * round_ + 2))
        average = Average([0, 1], "any")
        for worker, work in enumerate(works):
            result = next(local_training(work, start))
            wanted = result.partial.weights.astype(np.float64) - weights.astype(np.float64) + taken[worker]
            rounded = decode(encode(wanted, "int8"), weights.size, "int8")
            taken[worker] = wanted - rounded
            average.add(Partial(worker, result.rows, (weights.astype(np.float64) + rounded).astype(np.float32), "any"))
        weights = average.finish()
        store = rounds_of(tmp_path / "run")
        assert store.load(round_ + 1).trials[0].weights.tobytes() == weights.tobytes()
        assert store.kept(round_ + 1).residuals[0].tobytes() == taken.tobytes()


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_processes_equal_one_process(blobs: str, tmp_path: Path, workers: int) -> None:
    for runner in ("inline", "local"):
        driver.train(fed_back(blobs, tmp_path / runner, workers=workers, runtime__runner=runner, checkpoint__every=3))
    assert substance(tmp_path / "inline") == substance(tmp_path / "local")
    assert committed(tmp_path / "inline") == committed(tmp_path / "local")


@pytest.mark.parametrize(
    "changes",
    [
        {"sync__precision": "bfloat16", "train__optimizer_state": "average", "model__dtype": "float64"},
        {"sweep": {"train.lr": [0.05, 1e6]}, "sync__outer": {"kind": "nesterov", "lr": 0.7, "momentum": 0.5}},
        {"train__stop": {"patience": 1, "min_delta": 0.02}, "train__epochs": 20},
    ],
    ids=["averaged state", "one trial diverges", "early stopping"],
)
def test_when_it_commits_does_not_matter(blobs: str, tmp_path: Path, changes: dict[str, Any]) -> None:
    found = []
    for every in (1, 3, "1s"):
        driver.train(fed_back(blobs, tmp_path / str(every), checkpoint__every=every, **changes))
        found.append(substance(tmp_path / str(every)))
    assert found[0] == found[1] == found[2]


def test_a_resumed_run_equals_one_never_stopped(blobs: str, tmp_path: Path) -> None:
    driver.train(fed_back(blobs, tmp_path / "whole", train__epochs=12))
    for epochs in (4, 12):
        driver.train(fed_back(blobs, tmp_path / "run", train__epochs=epochs, checkpoint__every=1), resume=True)
    assert substance(tmp_path / "run") == substance(tmp_path / "whole")


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork and /proc")
@pytest.mark.parametrize("worker", [0, pytest.param(2, marks=pytest.mark.full)])
def test_a_worker_that_dies_is_replaced(blobs: str, tmp_path: Path, worker: int) -> None:
    assert_a_death_changes_nothing(blobs, tmp_path, worker, **FEEDBACK)


def test_verify_recomputes_it(blobs: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    driver.train(fed_back(blobs, run, checkpoint__every=2, checkpoint__keep="all", train__epochs=10))
    assert [span[-1] for span in rounds_of(run).log.spans()] == [0, 2, 4, 5]
    for found in (verify(str(run)), verify(str(run), round_=3), verify(str(run), every=True)):
        assert (found.problems, found.notes) == ([], [])
    assert verify(str(run), every=True).recomputed == [0, 1, 2, 3, 4, 5]


def test_residuals_that_are_lost_or_altered_are_named(blobs: str, tmp_path: Path) -> None:
    experiment = fed_back(blobs, tmp_path / "run", checkpoint__every=1, train__epochs=4)
    driver.train(experiment)
    longer = experiment.model_copy(update={"train": experiment.train.model_copy(update={"epochs": 6})})
    path = tmp_path / "run" / "rounds" / "000002" / RESIDUALS
    arrays = load_file(path)
    save_file({name: rows[:2] for name, rows in arrays.items()}, path)
    with pytest.raises(MismatchError, match="does not match its manifest"):
        driver.train(longer, resume=True)
    path.unlink()
    with pytest.raises(MismatchError, match="is missing") as caught:
        driver.train(longer, resume=True)
    assert RESIDUALS in str(caught.value)
    assert any(RESIDUALS in problem for problem in verify(str(tmp_path / "run")).problems)


def test_old_residuals_are_deleted_with_their_models(blobs: str, tmp_path: Path) -> None:
    driver.train(fed_back(blobs, tmp_path / "run", checkpoint__every=1, checkpoint__keep=1, train__epochs=8))
    assert [path.parent.name for path in (tmp_path / "run").rglob(RESIDUALS)] == ["000004"]
    assert verify(str(tmp_path / "run")).problems == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sync__mode": "rounds"}, "needs sync.mode: collective"),
        ({"sync__precision": "exact"}, "needs a sync.precision that rounds"),
        ({"sync__gang_fallback": "rounds"}, "cannot go on in rounds mode"),
    ],
)
def test_what_cannot_be_is_refused(blobs: str, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        fed_back(blobs, tmp_path, **changes)


def test_real_digits_are_learnt_no_worse_than_without(digits: Path, tmp_path: Path) -> None:
    """Of 2 x 1500 test rows; at int8 already the differences lose so little that both learn what exact weights do."""
    changes: dict[str, Any] = {"split__seeds": [0, 1], "workers": 4, "model__hidden": [25], "train__lr": 0.01}
    changes |= {"train__epochs": 10, "train__epochs_per_round": 1, "train__l2": 0.0, "split__validation": 0.0}
    found = []
    for number, sync in enumerate(({"sync__precision": "int8"}, FEEDBACK)):
        result = driver.train(
            config(str(digits), tmp_path / str(number), **{"sync__mode": "collective", **sync, **changes})
        )
        found.append((result.test_accuracy or 0.0, np.mean([trial.test_loss or 0.0 for trial in result.trials])))
    without, with_feedback = found
    assert with_feedback[0] >= without[0] - 0.005
    assert with_feedback[1] <= without[1] * 1.005
