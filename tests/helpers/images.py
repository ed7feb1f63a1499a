"""Small images of simple shapes, for tests of convolutional nets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from shards import write_dataset

from nnlib.config.schema import Config
from nnlib.config.sweep import applied

SIDE, CLASSES = 8, 3


def bars(rows: int, seed: int = 0, channels: int = 1) -> tuple[Any, Any]:
    """Images (rows, channels * SIDE * SIDE) of noise with a horizontal, vertical or diagonal bar, and which it is."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, rows)
    x = rng.normal(0.0, 0.4, (rows, channels, SIDE, SIDE))
    for image, label in zip(x, y, strict=True):
        line = rng.integers(1, SIDE - 1)
        target = (image[:, line, :], image[:, :, line], np.einsum("cii->ci", image))[label]
        target += 1.0
    return x.reshape(rows, -1).astype(np.float32), y


def write_images(where: Path, rows: int, *, shards: int = 4, channels: int = 1, seed: int = 0) -> str:
    """Write a dataset of `bars` and return its address."""
    x, y = bars(rows, seed, channels)
    shape = (SIDE, SIDE) if channels == 1 else (channels, SIDE, SIDE)
    write_dataset(where, x, y, shards=shards, classes=CLASSES, shape=shape)
    return str(where)


def torch_config(dataset: str, run: Path | str | None, factory: str = "simple-cnn", **changes: Any) -> Config:
    """A small experiment with a torch module; ``changes`` are dotted keys with ``__`` for the dot."""
    values: dict[str, Any] = {
        "data": {"path": dataset},
        "workers": 4,
        "run_dir": None if run is None else str(run),
        "model": {"kind": "torch", "factory": factory},
        "train": {"epochs": 4, "epochs_per_round": 2, "batch_size": 16, "optimizer": "sgd", "lr": 0.05},
    }
    return Config.model_validate(applied(values, {key.replace("__", "."): value for key, value in changes.items()}))
