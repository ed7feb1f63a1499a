"""Clipping, micro-batches, schedules by step, losses and weight decay in whole runs, against loops that spell them
out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from collective_experiment import both
from shards import write_dataset

from jobs.driver import driver
from jobs.driver.run_setup import initial_states, prepare
from nnlib.config.schema import Config
from nnlib.core.errors import ConfigError
from nnlib.core.events import ignore
from nnlib.run.directory import RunDirectory
from nnlib.training.worker_round import worker_data
from nnlib.training.worker_trial import WorkerTrial

EVERYTHING: dict[str, Any] = {
    "optimizer": "adamw",
    "weight_decay": 0.05,
    "lr": 0.02,
    "decay": "all",
    "l2": 0.5,
    "clip_norm": 0.3,
    "label_smoothing": 0.1,
    "schedule": {"kind": "cosine", "by": "step", "final": 0.1, "warmup_steps": 5},
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> str:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 150)
    x = (rng.normal(size=(3, 6))[y] + rng.normal(size=(150, 6))).astype(np.float32)
    where = tmp_path_factory.mktemp("rows") / "set"
    write_dataset(where, x, y, shards=4, row_group_rows=16, classes=3)
    return str(where)


def config(path: str, run: Path, train: dict[str, Any], **sections: Any) -> Config:
    settings = {"epochs": 4, "epochs_per_round": 2, "batch_size": 16, **train}
    model = {"hidden": [5], "activation": "tanh", "dtype": "float64", **sections.pop("model", {})}
    values = {"data": {"path": path}, "run_dir": str(run), "train": settings, "model": model, **sections}
    return Config.model_validate(values)


def final_vector(run: Path) -> np.ndarray:
    directory = RunDirectory.open(str(run))
    spec, arrays = directory.spec(), directory.final_arrays()
    names = [entry.name for entry in spec.model(spec.trials[0]).layout.entries]
    return np.concatenate([arrays[f"0.{name}"].reshape(-1) for name in names])


def torch_loop(experiment: Config) -> np.ndarray:
    """One worker's run by a plain torch loop with the same batches: everything that `EVERYTHING` names, by torch."""
    torch = pytest.importorskip("torch")
    spec, (plan,) = prepare(experiment, ignore)
    (trial,) = spec.trials
    work = WorkerTrial.of(spec, trial, 0, worker_data(spec, plan))
    layout, flat = spec.model(trial).layout, initial_states(spec)[0].weights
    parts = [torch.from_numpy(part.copy()).requires_grad_() for part in layout.views(flat).values()]
    train = experiment.train
    steps = work.draw_batches(0).steps
    total = train.epochs * steps
    for start in range(0, train.epochs, 2):
        optimizer = torch.optim.AdamW(parts, lr=1.0, weight_decay=0.05)  # a round starts with a fresh one
        batches = work.draw_batches(start)
        for epoch in (start, start + 1):
            for step, batch in enumerate(batches.epoch(epoch)):
                done = epoch * steps + step
                way = max(0, done - 5) / (total - 6)
                rate = (done + 1) / 6 if done < 5 else 0.1 + 0.45 * (1.0 + math.cos(math.pi * way))
                optimizer.param_groups[0]["lr"] = 0.02 * rate
                optimizer.zero_grad()
                z = torch.from_numpy(batch.x.copy())
                z = torch.tanh(z @ parts[0] + parts[1]) @ parts[2] + parts[3]
                y = torch.from_numpy(batch.y.copy())
                torch.nn.functional.cross_entropy(z, y, label_smoothing=0.1).backward()
                torch.nn.utils.clip_grad_norm_(parts, 0.3)
                with torch.no_grad():
                    for part in parts:
                        part.grad += 0.5 / trial.objective_rows * part
                optimizer.step()
    return np.concatenate([part.detach().numpy().reshape(-1) for part in parts])


@pytest.mark.parametrize("micro_batch", [None, 5])
def test_all_options_together_equal_a_torch_loop(rows: str, tmp_path: Path, micro_batch: int | None) -> None:
    experiment = config(rows, tmp_path / "run", {**EVERYTHING, "micro_batch": micro_batch})
    driver.train(experiment)
    np.testing.assert_allclose(final_vector(tmp_path / "run"), torch_loop(experiment), rtol=1e-9, atol=1e-11)


def test_averaged_gradients_of_workers_equal_the_joined_batches_of_one(rows: str, tmp_path: Path) -> None:
    """With `sync.every: batch` the mean gradient is clipped, not each worker's: two workers that draw the same batches
    (shared streams) take the steps of one."""
    for workers in (1, 2):
        driver.train(
            config(
                rows,
                tmp_path / str(workers),
                EVERYTHING,
                workers=workers,
                sampling={"streams": "shared"},
                sync={"mode": "collective", "every": "batch"},
            )
        )
    np.testing.assert_allclose(final_vector(tmp_path / "2"), final_vector(tmp_path / "1"), rtol=1e-9, atol=1e-12)
    driver.train(config(rows, tmp_path / "alone", {**EVERYTHING, "epochs_per_round": 2}))
    np.testing.assert_allclose(final_vector(tmp_path / "alone"), final_vector(tmp_path / "1"), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_micro_batches_change_rounding_alone(rows: str, tmp_path: Path, optimizer: str) -> None:
    """Also with class weights, whose mean is over the whole step's rows, and a last part of another size."""
    keys = {"optimizer": optimizer, "lr": 0.02, "class_weights": {"0": 3.0}, "batch_size": 20}
    found = []
    for micro_batch in (None, 20, 10, 7, 1):
        driver.train(config(rows, tmp_path / str(micro_batch), {**keys, "micro_batch": micro_batch}))
        found.append(final_vector(tmp_path / str(micro_batch)))
    assert np.array_equal(found[0], found[1])
    for each in found[2:]:
        np.testing.assert_allclose(each, found[0], rtol=1e-8, atol=1e-10)


def test_rounds_and_collective_mode_agree(blobs: str, tmp_path: Path) -> None:
    keys = {**EVERYTHING, "micro_batch": 4}
    rounds, collective = both(blobs, tmp_path, **{f"train__{key}": value for key, value in keys.items()})
    assert rounds == collective


@pytest.mark.parametrize("optimizer", ["momentum", "lbfgs"])
def test_a_huber_loss_is_that_of_scaled_targets(tmp_path: Path, optimizer: str) -> None:
    """A run on targets in other units learns the same function in those units; scores are of the squared error."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(120, 4)).astype(np.float32)
    y = x @ rng.normal(size=4) + rng.standard_t(1.5, size=120)
    found = []
    for number, unit in enumerate((1.0, 8.0)):  # a power of two: scaled targets are the same bits
        write_dataset(tmp_path / f"set{number}", x, unit * y, shards=2, row_group_rows=16)
        train = {"optimizer": optimizer, "loss": "huber", "huber_delta": 0.5, "epochs": 6}
        if optimizer == "momentum":
            train["lr"] = 0.02
        result = driver.train(config(str(tmp_path / f"set{number}"), tmp_path / f"run{number}", train))
        found.append(result.trials[0].test_loss)
    assert np.array_equal(final_vector(tmp_path / "run0"), final_vector(tmp_path / "run1"))
    assert found[1] == pytest.approx(64.0 * (found[0] or math.nan), rel=1e-12)


@pytest.mark.parametrize(
    ("train", "key"), [({"loss": "huber"}, "train.loss"), ({"label_smoothing": 0.1}, "train.label_smoothing")]
)
def test_a_loss_that_does_not_fit_the_task_is_refused_before_the_first_round(
    rows: str, tmp_path: Path, train: dict[str, Any], key: str
) -> None:
    x, y = np.zeros((20, 2), np.float32), np.arange(20.0)
    write_dataset(tmp_path / "numbers", x, y, shards=2, row_group_rows=16)
    path = rows if key == "train.loss" else str(tmp_path / "numbers")
    with pytest.raises(ConfigError) as caught:
        driver.train(config(path, tmp_path / "run", train))
    assert caught.value.where["key"] == key and not (tmp_path / "run").exists()
