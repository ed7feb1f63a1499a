"""Training of sub-nets: bit for bit that of small nets by themselves, put together by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from driver_experiment import blobs, config
from shards import write_dataset

from jobs.driver import driver
from jobs.driver.verification import verify
from nnlib.config.schema import Config
from nnlib.core.errors import ConfigError
from nnlib.core.layout import ModelState
from nnlib.core.partition import Partition
from nnlib.models.mlp import MLP
from nnlib.run.directory import RunDirectory
from nnlib.training.build_learner import load_learner

HIDDEN = [4, 6]
PARTITION = "abba-aabbab"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    where = tmp_path_factory.mktemp("subnets") / "data"
    x, y = blobs(240)
    write_dataset(where, x, y, shards=4, row_group_rows=16, classes=3)
    return str(where)


def experiment(dataset: str, run: Path | None, **changes: Any) -> Config:
    settings: dict[str, Any] = {
        "model__hidden": HIDDEN,
        "train__subnets": {"partition": PARTITION},
        "train__epochs": 2,
        "sampling__streams": "shared",
        "train__l2": 0.0,
    }
    return config(dataset, run, **{**settings, **changes})


def weights(run: Path, trial: int = 0) -> Any:
    directory = RunDirectory.open(str(run))
    return directory.final_models(directory.spec())[trial].vector


def first(run: Path) -> tuple[MLP, Any]:
    directory = RunDirectory.open(str(run))
    spec = directory.spec()
    model: Any = spec.model(spec.trials[0])
    return model, directory.rounds(spec).load(0).trials[0].weights


@pytest.mark.parametrize("rescale", [False, True])
def test_a_sub_net_trains_as_a_small_net_would(dataset: str, tmp_path: Path, rescale: bool) -> None:
    """The four sub-nets of a partition as runs of their own, averaged by hand, are the recombined net."""
    subnets = {"partition": PARTITION, "rescale": rescale}
    driver.train(experiment(dataset, tmp_path / "split", train__subnets=subnets))
    model, start = first(tmp_path / "split")
    partition = Partition.parse(PARTITION)
    total, holders = np.zeros(start.size, np.float64), np.zeros(start.size)
    for worker in range(4):
        units = partition.units(partition.subnet_of("together", worker, 0))
        _, index, factor = model.subnet(units)
        scale = factor if rescale else np.ones_like(factor)
        alone = experiment(
            dataset,
            tmp_path / f"alone-{worker}",
            workers=1,
            model__hidden=[len(layer) for layer in units],
            train__subnets=None,
        )
        driver.train(alone, start_from=[(start[index] * scale).astype(np.float32)])
        total[index] += (weights(tmp_path / f"alone-{worker}") / scale).astype(np.float32)
        holders[index] += 1
    assert (holders > 0).all() and holders.max() == 4
    assert weights(tmp_path / "split").tobytes() == (total / holders).astype(np.float32).tobytes()


def test_same_bits_whatever_the_runner_and_reducers(dataset: str, tmp_path: Path) -> None:
    turns: dict[str, Any] = {"partition": PARTITION, "alternate": "rounds"}
    ways: dict[str, dict[str, Any]] = {"inline": {}, "local": {"runtime__runner": "local", "reducers": 3}}
    hashes = set()
    for name, more in ways.items():
        settings = {"train__subnets": turns, "sampling__streams": "independent", "train__epochs": 4, **more}
        hashes.add(driver.train(experiment(dataset, tmp_path / name, **settings)).model_sha256)
    assert len(hashes) == 1
    found = verify(str(tmp_path / "inline"), every=True)
    assert found.problems == [] and found.recomputed == [0, 1, 2]


def test_without_alternation_weights_between_groups_stay(dataset: str, tmp_path: Path) -> None:
    subnets = {"partition": PARTITION, "alternate": "none"}
    driver.train(experiment(dataset, tmp_path / "run", train__subnets=subnets, workers=2))
    model, start = first(tmp_path / "run")
    before, after = (model.layout.views(vector)["layer1.weight"] for vector in (start, weights(tmp_path / "run")))
    groups = [np.array(layer) for layer in Partition.parse(PARTITION).layers]
    within = groups[0][:, None] == groups[1]
    assert np.array_equal(before[~within], after[~within])
    assert (before[within] != after[within]).mean() > 0.5


def test_sub_nets_without_weights_between_them_are_an_ensemble(dataset: str, tmp_path: Path) -> None:
    """The recombined net's outputs are the softmax of the mean of its sub-nets' outputs before it."""
    subnets = {"partition": PARTITION, "alternate": "none", "between": "zero", "rescale": True}
    driver.train(experiment(dataset, tmp_path / "run", train__subnets=subnets, workers=2, train__epochs=4))
    model, _ = first(tmp_path / "run")
    vector, partition = weights(tmp_path / "run"), Partition.parse(PARTITION)
    x = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32)
    logits = []
    for subnet in partition.subnets(0):
        part, index, factor = model.subnet(partition.units(subnet))
        last = part.layout.entries[-2].range  # the weights to the outputs
        small = vector[index]
        small[last] *= factor[last].astype(np.float32)
        logits.append(np.log(load_learner(part, ModelState(small)).outputs(x).astype(np.float64)))
    mean = np.exp(np.mean(logits, axis=0))
    whole = load_learner(model, ModelState(vector)).outputs(x)
    np.testing.assert_allclose(whole, mean / mean.sum(axis=1, keepdims=True), rtol=1e-4)
    assert verify(str(tmp_path / "run"), every=True).problems == []


def test_partitions_are_trials_of_one_run(dataset: str, tmp_path: Path) -> None:
    every = [None, PARTITION, "aabb-ababab"]
    together = experiment(
        dataset, tmp_path / "sweep", train__subnets={}, sweep={"train.subnets.partition": every}, split__seeds=[0, 1]
    )
    result = driver.train(together)
    assert [trial.name.overrides["train.subnets.partition"] for trial in result.trials[::2]] == every
    alone = driver.train(experiment(dataset, tmp_path / "alone", split__seeds=[0, 1]))
    assert weights(tmp_path / "sweep", 2).tobytes() == weights(tmp_path / "alone").tobytes()
    assert alone.trials[1].scores == result.trials[3].scores
    assert verify(str(tmp_path / "sweep")).problems == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"train__subnets": {"partition": "aabb"}}, "4 letters, but the hidden layers have 4-6 units"),
        ({"model__hidden": [], "train__subnets": {"partition": "ab"}}, "without hidden layers"),
    ],
)
def test_partitions_that_do_not_fit_the_model(
    dataset: str, tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        driver.train(experiment(dataset, tmp_path / "run", **changes))
    assert not (tmp_path / "run" / "spec.json").exists()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"workers": 3}, "workers is 3, but 4 sub-nets train at once"),
        ({"sync__mode": "collective"}, "sync.mode: rounds"),
        ({"train__subnets": {"partition": PARTITION, "between": "zero"}}, "alternate: none"),
        ({"train__optimizer_state": "average"}, "optimizer_state: reset"),
        ({"train__epochs_per_round": "auto"}, "epochs_per_round"),
        ({"train__subnets": {"partition": "aab-aaa"}}, "layer 2 has no unit in group b"),
    ],
)
def test_configurations_without_sense(dataset: str, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        experiment(dataset, None, **changes)
