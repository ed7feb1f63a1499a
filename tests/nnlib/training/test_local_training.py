"""Local training against a bare loop: the same floating-point operations, so the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
from shards import write_dataset

from jobs.driver import driver
from nnlib.config.schema import Config
from nnlib.core.errors import DivergedError, MismatchError
from nnlib.core.layout import ModelState
from nnlib.core.seeds import Purpose, generator
from nnlib.data.split.rule import TRAIN
from nnlib.data.worker_data import WorkerData
from nnlib.optim.schedules import learning_rate
from nnlib.run.directory import RunDirectory
from nnlib.run.planner import make_spec
from nnlib.run.spec import JobSpec, initial_vector
from nnlib.training.local_result import RoundStart
from nnlib.training.local_training import local_training
from nnlib.training.worker_trial import WorkerTrial

WIDTHS = [6, 5, 3]
ROWS, BATCH, EPOCHS, PERIOD = 300, 16, 6, 2


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, Any]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, ROWS)
    x = (rng.normal(size=(3, 6))[y] + rng.normal(size=(ROWS, 6))).astype(np.float32)
    where = tmp_path_factory.mktemp("data") / "set"
    write_dataset(where, x, y, shards=4, row_group_rows=16, classes=3)
    return str(where), x, y


def config(path: str, run: Path, **train: Any) -> Config:
    workers = train.pop("workers", 1)
    settings = {"epochs": EPOCHS, "epochs_per_round": PERIOD, "batch_size": BATCH, "lr": 0.1, "l2": 0.5, **train}
    return Config.model_validate(
        {
            "data": {"path": path},
            "workers": workers,
            "run_dir": str(run),
            "model": {"hidden": [5]},
            "train": settings,
        }
    )


def trained(run: Path) -> tuple[JobSpec, Any]:
    directory = RunDirectory.open(str(run))
    spec = directory.spec()
    arrays = directory.final_arrays()
    names = [entry.name for entry in spec.model(spec.trials[0]).layout.entries]
    return spec, np.concatenate([arrays[f"0.{name}"].reshape(-1) for name in names])


def batches_of(spec: JobSpec, x: Any, y: Any, worker: int, epochs: range) -> list[tuple[int, Any, Any]]:
    """(epoch, x, y) of a worker's mini-batches, by the definition: its shards' training rows in storage order, the
    row groups permuted, then the rows of each window (here one window: all rows), cut every `BATCH` rows."""
    trial = spec.trials[0]
    held = [row for shard in range(worker, 4, spec.workers) for row in range(shard, ROWS, 4)]
    rows = np.array(held)
    parts = trial.rule.parts(rows, y[rows], {})
    groups = []
    for shard in range(worker, 4, spec.workers):
        own = np.arange(shard, ROWS, 4)
        for start in range(0, len(own), 16):
            group = own[start : start + 16]
            groups.append(group[trial.rule.parts(group, y[group], {}) == TRAIN])
    assert sum(map(len, groups)) == np.count_nonzero(parts == TRAIN)
    found = []
    for epoch in epochs:
        rng = generator(spec.config.seed, Purpose.ORDER, split=trial.split, epoch=epoch, worker=worker)
        order = np.concatenate([groups[index] for index in rng.permutation(len(groups))])
        order = order[rng.permutation(len(order))]
        found += [
            (epoch, np.ascontiguousarray(x[order[at : at + BATCH]]), y[order[at : at + BATCH]])
            for at in range(0, len(order), BATCH)
        ]
    return found


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_rounds_equal_a_bare_loop_bit_for_bit(
    data: tuple[str, Any, Any], tmp_path: Path, workers: int, momentum: float
) -> None:
    """The whole algorithm as a reader would write it: local SGD, then the weighted mean; nothing of ours but the
    seeds. With one worker it is plain mini-batch SGD."""
    path, x, y = data
    optimizer = {"optimizer": "momentum", "momentum": momentum} if momentum else {"optimizer": "sgd"}
    driver.train(config(path, tmp_path / "run", workers=workers, **optimizer))
    spec, ours = trained(tmp_path / "run")
    train = spec.config.train
    flat = initial_vector(spec, spec.trials[0])
    decay = train.l2 / spec.trials[0].objective_rows
    for start in range(0, EPOCHS, PERIOD):
        total, rows = np.zeros(flat.size), 0
        for worker in range(workers):
            batches = batches_of(spec, x, y, worker, range(start, start + PERIOD))
            layers, _ = reference.train(
                reference.unflatten(flat, WIDTHS),
                [(own_x, own_y) for _, own_x, own_y in batches],
                lr=learning_rate(train, start),
                momentum=momentum,
                decay=decay,
            )
            examples = sum(len(own_y) for epoch, _, own_y in batches if epoch == start)
            own = reference.flatten(layers)
            total += examples * own.astype(np.float64)
            rows += examples
            single = own
        flat = single if workers == 1 else (total / rows).astype(np.float32)
    assert np.array_equal(flat, ours)


def test_the_generator_driven_to_the_end_equals_rounds(data: tuple[str, Any, Any], tmp_path: Path) -> None:
    """One long-lived generator that is sent each average gives the bits of a fresh one per round."""
    path, _, _ = data
    driver.train(config(path, tmp_path / "run", optimizer="momentum"))
    spec, ours = trained(tmp_path / "run")
    trial = spec.trials[0]
    rows = WorkerData(spec.dataset, range(4), range(4), memory_bytes=1 << 24)
    start = RoundStart(ModelState(initial_vector(spec, trial)), 0, range(PERIOD))
    flow = local_training(WorkerTrial.of(spec, trial, 0, rows), start)
    result = next(flow)
    for round_ in range(1, EPOCHS // PERIOD):
        epochs = range(round_ * PERIOD, (round_ + 1) * PERIOD)
        result = flow.send(RoundStart(ModelState(result.partial.weights), round_, epochs))
    assert np.array_equal(result.partial.weights, ours)
    with pytest.raises(StopIteration):
        flow.send(RoundStart(ModelState(result.partial.weights), EPOCHS // PERIOD, range(EPOCHS, EPOCHS)))


def test_cg_minimises_the_stated_objective(data: tuple[str, Any, Any], tmp_path: Path) -> None:
    """Many iterations on all rows reach the optimum that scikit-learn finds for softmax regression."""
    from sklearn.linear_model import LogisticRegression

    path, x, y = data
    settings = config(path, tmp_path / "run", optimizer="cg", epochs=200, epochs_per_round=200, l2=1.0)
    settings = settings.model_copy(
        update={"model": settings.model.model_copy(update={"hidden": [], "dtype": "float64"})}
    )
    driver.train(settings)
    spec, ours = trained(tmp_path / "run")
    rows = np.arange(ROWS)
    train = spec.trials[0].rule.parts(rows, y, {}) == TRAIN
    # scikit-learn minimises sum of losses + |w|^2 / (2C): our objective times the number of rows, with C = 1/lambda.
    oracle = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(x[train].astype(np.float64), y[train])
    weights = ours[: 6 * 3].reshape(6, 3)
    assert weights - weights.mean(axis=1, keepdims=True) == pytest.approx(oracle.coef_.T, abs=1e-4)


def test_chunks_that_are_held_keep_their_labels(tmp_path: Path) -> None:
    """More rows than a chunk has: held and read again, they train the same model."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, 9000)
    x = (rng.normal(size=(3, 60))[y] + rng.normal(size=(9000, 60))).astype(np.float32)
    write_dataset(tmp_path / "set", x, y, shards=1, row_group_rows=1000, classes=3)
    hashes = set()
    for memory in (1, 256):
        settings = config(str(tmp_path / "set"), tmp_path / str(memory), optimizer="cg", epochs=4)
        changes: dict[str, Any] = {"runtime": settings.runtime.model_copy(update={"memory_mb": memory})}
        changes["sampling"] = settings.sampling.model_copy(update={"window_rows": 500})
        hashes.add(driver.train(settings.model_copy(update=changes)).model_sha256)
    assert len(hashes) == 1


def test_losses_of_a_batch_optimizer_do_not_depend_on_memory(data: tuple[str, Any, Any], tmp_path: Path) -> None:
    path, _, _ = data
    hashes = set()
    for memory in (1, 256):
        settings = config(path, tmp_path / str(memory), optimizer="lbfgs")
        settings = settings.model_copy(update={"runtime": settings.runtime.model_copy(update={"memory_mb": memory})})
        hashes.add(driver.train(settings).model_sha256)
    assert len(hashes) == 1


def test_a_loss_that_explodes_names_round_epoch_and_worker(data: tuple[str, Any, Any], tmp_path: Path) -> None:
    path, _, _ = data
    settings = config(path, tmp_path / "run", optimizer="sgd", lr=1e5, l2=1e4)
    from nnlib.data.dataset import Dataset

    spec, _ = make_spec(settings, Dataset.open(path))
    trial = spec.trials[0]
    rows = WorkerData(spec.dataset, range(4), range(4), memory_bytes=1 << 24)
    with pytest.raises(DivergedError) as caught:
        start = RoundStart(ModelState(initial_vector(spec, trial)), 0, range(EPOCHS))
        next(local_training(WorkerTrial.of(spec, trial, 0, rows), start))
    assert {"round", "epoch", "worker"} <= set(caught.value.where)


def test_other_rows_than_planned_are_refused(data: tuple[str, Any, Any], tmp_path: Path) -> None:
    path, _, _ = data
    from nnlib.data.dataset import Dataset

    spec, _ = make_spec(config(path, tmp_path / "run"), Dataset.open(path))
    trial = spec.trials[0]
    fewer = WorkerTrial.of(spec, trial, 0, WorkerData(spec.dataset, range(3), range(3), memory_bytes=1 << 24))
    with pytest.raises(MismatchError, match="the plan says"):
        next(local_training(fewer, RoundStart(ModelState(initial_vector(spec, trial)), 0, range(1))))
