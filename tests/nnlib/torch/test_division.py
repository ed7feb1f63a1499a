"""Sub-nets of torch modules: the numbers of the whole's units, channels among them, and what they make of rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from driver_experiment import config  # noqa: E402
from shards import write_dataset  # noqa: E402

from jobs.driver import driver  # noqa: E402
from jobs.driver.verification import verify  # noqa: E402
from nnlib.config.training import model_section  # noqa: E402
from nnlib.core.errors import ConfigError  # noqa: E402
from nnlib.core.layout import ModelState  # noqa: E402
from nnlib.core.partition import Partition  # noqa: E402
from nnlib.models import build_model  # noqa: E402
from nnlib.models.mlp import MLP  # noqa: E402
from nnlib.run.directory import RunDirectory  # noqa: E402
from nnlib.run.subnet_checks import divisible  # noqa: E402
from nnlib.training.build_learner import load_learner  # noqa: E402

CNN = {"factory": "simple-cnn", "arguments": {"channels": [2, 4], "hidden": [6, 2]}}
PARTITION = "ab-abba-aabbab-ba"


def torch_model(section: dict[str, Any], shape: tuple[int, ...] = (1, 8, 8)) -> Any:
    return build_model(model_section(kind="torch", **section), shape=shape, outputs=3, task="classification")


def started(model: Any) -> Any:
    return model.initial(np.random.default_rng(0))


def test_a_sub_net_is_the_whole_with_its_other_units_silenced() -> None:
    """With the outputs of all other units multiplied by zero, the whole computes what the sub-net does."""
    model = torch_model(CNN)
    vector, x = started(model), np.random.default_rng(1).normal(size=(5, 64)).astype(np.float32)
    partition = Partition.parse(PARTITION)
    assert model.hidden_widths == partition.widths == (2, 4, 6, 2)
    for subnet in partition.subnets(1):
        units = partition.units(subnet)
        part, positions, factor = model.subnet(units)
        silenced = vector.copy()
        views = model.layout.views(silenced)
        for layer, name in enumerate(("conv2", "fc1", "fc2", "fc3")):  # what reads the layer's units
            others = np.setdiff1d(np.arange(partition.widths[layer]), units[layer])
            weight = views[f"{name}.weight"]
            wide = weight.shape[1] // partition.widths[layer]
            weight.reshape(weight.shape[0], -1, wide, *weight.shape[2:])[:, others] = 0.0
        ours = load_learner(part, ModelState(vector[positions])).outputs(x).copy()
        theirs = load_learner(model, ModelState(silenced)).outputs(x)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
        assert set(factor.tolist()) == {1.0, 2.0}


def test_a_torch_perceptron_is_cut_as_one_of_numpy() -> None:
    model = torch_model({"factory": "torch-mlp", "arguments": {"hidden": [4, 2]}}, (5,))
    twin = MLP([5, 4, 2, 3], activation="relu", loss="softmax", init="he", dtype="float32")
    vector = started(model)
    flat = np.concatenate([np.ravel(view.T) for view in model.layout.views(vector).values()])
    units = Partition.parse("abba-ab").units((0, 1))
    part, positions, factor = model.subnet(units)
    small, theirs, scale = twin.subnet(units)
    ours = [np.ravel(view.T) for view in part.layout.views(vector[positions]).values()]
    assert np.array_equal(np.concatenate(ours), flat[theirs])
    assert part.layout.size == small.layout.size and sorted(factor) == sorted(scale)
    for mine, other in zip(model.connections(vector), twin.connections(flat), strict=True):
        np.testing.assert_allclose(mine, other)
    x = np.random.default_rng(1).normal(size=(7, 5)).astype(np.float32)
    before = model.activations(ModelState(vector), x)
    after = twin.activations(ModelState(flat), x)
    np.testing.assert_allclose(np.maximum(before[0], 0), after[0], rtol=1e-5, atol=1e-6)


def test_channels_have_the_mean_of_their_positions() -> None:
    model = torch_model(CNN)
    found = model.activations(ModelState(started(model)), np.zeros((3, 64), np.float32))
    assert [layer.shape for layer in found] == [(3, 2), (3, 4), (3, 6), (3, 2)]
    bias = model.layout.views(started(model))["conv1.bias"]
    np.testing.assert_allclose(found[0], np.tile(bias, (3, 1)), rtol=1e-6)


def test_a_module_of_which_nothing_is_known_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be put into groups"):
        divisible(torch_model({"factory": "resnet-small"}))


def test_the_same_bits_on_every_runner_and_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 96)
    x = (rng.normal(size=(3, 64))[y] + rng.normal(size=(96, 64))).astype(np.float32)
    write_dataset(tmp_path / "data", x, y, shards=4, row_group_rows=16, classes=3, shape=(8, 8))
    settings: dict[str, Any] = {
        "model": {"kind": "torch", **CNN},
        "train__subnets": {"partition": PARTITION, "rescale": True},
        "train__epochs": 2,
        "sampling__streams": "shared",
    }
    data = str(tmp_path / "data")
    hashes = {
        driver.train(config(data, tmp_path / runner, **settings, runtime__runner=runner)).model_sha256
        for runner in ("inline", "local")
    }
    assert len(hashes) == 1
    assert verify(str(tmp_path / "local"), every=True, runner="inline").problems == []
    run = RunDirectory.open(str(tmp_path / "inline"))
    spec = run.spec()
    after, before = run.final_models(spec)[0].vector, run.rounds(spec).load(0).trials[0].weights
    assert (after != before).mean() > 0.9
