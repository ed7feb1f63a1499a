"""Sweeps: one run whose trials differ in some keys, trained in the same jobs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

SWEPT = (
    "model.",
    "train.",
    "data.scale",
    "data.target_scale",
    "data.augment.",
    "sampling.fraction",
    "sync.outer.",
    "sync.weighting",
)
"""Keys (or sections) that trials of one run may differ in."""
SHARED = (
    *("train.epochs", "train.epochs_per_round", "train.stop", "train.keep"),  # when the run's jobs start and end
    *("model.files", "model.from", "model.sha256"),  # the files of the run
)
"""Keys under them that they may not."""


def sweepable(key: str) -> bool:
    """Return whether trials of one run may differ in a dotted key."""
    return any(key == known or (known.endswith(".") and key.startswith(known)) for known in SWEPT) and not any(
        key == shared or key.startswith(f"{shared}.") for shared in SHARED
    )


def combinations(sweep: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """Return the grid: every combination of values, the last key changing fastest; [{}] without a sweep."""
    return [dict(zip(sweep, values, strict=True)) for values in itertools.product(*sweep.values())]


def applied(values: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration's values (plain, nested) with dotted keys replaced; the argument is not changed."""
    result = dict(values)
    for key, value in overrides.items():
        section, *path = result, *key.split(".")
        for part in path[:-1]:
            section[part] = dict(section.get(part) or {})
            section = section[part]
        section[path[-1]] = value
    return result
