"""A small experiment on separable points, for tests of the driver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jobs.driver import driver
from nnlib.config.schema import Config
from nnlib.config.sweep import applied

FEATURES, CLASSES = 6, 3


def blobs(rows: int, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, rows)
    centres = rng.normal(0.0, 1.0, (CLASSES, FEATURES))
    return (centres[y] + rng.normal(0.0, 0.7, (rows, FEATURES))).astype(np.float32), y


def config(dataset: str, run: Path | str | None, **changes: Any) -> Config:
    """A small experiment; ``changes`` are dotted keys with ``__`` for the dot."""
    values: dict[str, Any] = {
        "data": {"path": dataset},
        "workers": 4,
        "run_dir": None if run is None else str(run),
        "model": {"hidden": [5]},
        "train": {"epochs": 6, "epochs_per_round": 2, "batch_size": 16, "l2": 0.1},
    }
    return Config.model_validate(applied(values, {key.replace("__", "."): value for key, value in changes.items()}))


def model_hash(dataset: str, run: Path, **changes: Any) -> str:
    return str(driver.train(config(dataset, run, **changes)).model_sha256)
