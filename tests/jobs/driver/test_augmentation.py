"""Runs that change their training rows at random (`data.augment`): one way of running has the bits of another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from driver_experiment import config
from pydantic import ValidationError

from jobs.driver import driver
from nnlib.data.importing.import_dataset import from_arrays

AUGMENT = {"shift": 1, "crop": 1, "flip": True, "noise": 0.05}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, 240)
    images = rng.integers(0, 60, (240, 6, 6))
    images[np.arange(240), y + 1, :] += 120
    where = str(tmp_path_factory.mktemp("data") / "images")
    return from_arrays(images.astype(np.uint8), y, where, shards=4).address


def trained(dataset: str, run: Path, **changes: Any) -> str:
    return str(driver.train(config(dataset, run, **{"data__augment": AUGMENT, **changes})).model_sha256)


def test_every_way_of_running_gives_the_same_model(dataset: str, tmp_path: Path) -> None:
    expected = trained(dataset, tmp_path / "rounds")
    assert trained(dataset, tmp_path / "collective", sync__mode="collective") == expected
    assert trained(dataset, tmp_path / "local", runtime__runner="local", runtime__cores=2) == expected
    trained(dataset, tmp_path / "resumed", train__epochs=2)
    longer = config(dataset, tmp_path / "resumed", data__augment=AUGMENT)
    assert driver.train(longer, resume=True).model_sha256 == expected
    assert trained(dataset, tmp_path / "plain", data__augment=None) != expected
    assert trained(dataset, tmp_path / "other", data__augment={**AUGMENT, "shift": 2}) != expected


def test_gradient_averaging_takes_changed_rows(dataset: str, tmp_path: Path) -> None:
    steps = {"sync__mode": "collective", "sync__every": "batch"}
    one = trained(dataset, tmp_path / "one", **steps)
    assert trained(dataset, tmp_path / "two", **steps) == one
    assert trained(dataset, tmp_path / "plain", data__augment=None, **steps) != one


def test_trials_may_differ_in_it(dataset: str, tmp_path: Path) -> None:
    swept = config(dataset, tmp_path / "run", sweep={"data.augment.shift": [0, 1]}, data__augment={"noise": 0.05})
    result = driver.train(swept)
    assert len({str(trial) for trial in result.trials}) == 2


@pytest.mark.parametrize(
    ("augment", "others", "message"),
    [
        ({"shift": 1}, {"train__optimizer": "cg"}, "train.optimizer: cg takes no steps"),
        ({"noise": 1.0}, {"train__optimizer": "lbfgs"}, "train.optimizer: lbfgs takes no steps"),
        ({}, {}, "set one of crop, shift, flip and noise"),
        ({"shift": -1}, {}, "greater than or equal to 0"),
        ({"noise": float("nan")}, {}, "finite"),
        ({"rotate": 1}, {}, "rotate"),
    ],
)
def test_what_it_cannot_be(augment: dict[str, Any], others: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config("somewhere", None, data__augment=augment, **others)
