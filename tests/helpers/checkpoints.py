"""Checkpoints of two trials, with all kinds of state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from records import round_facts, round_metrics, trial_metrics

from nnlib.core.entries import parameter
from nnlib.core.layout import Layout
from nnlib.run.checkpoint import Checkpoint, TrialState
from nnlib.run.round_store import RoundStore

LAYOUTS = [
    Layout.build(
        [parameter("layer0.weight", (3, 2), decays=True), parameter("layer0.bias", (2,), decays=False)], "float32"
    ),
    Layout.build(
        [
            parameter("layer0.weight", (2, 5), decays=True),
            parameter("layer0.bias", (5,), decays=False),
            parameter("out.weight", (5, 1), decays=True),
        ],
        "float64",
    ),
]


def state(layout: Layout, seed: int, **rest: Any) -> TrialState:
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal(layout.size).astype(layout.dtype)
    weights[0] = -0.0
    optimizer = np.empty(0, layout.dtype)
    outer = np.empty(0)
    if seed % 2:
        optimizer, outer = weights[::-1].copy(), rng.standard_normal(layout.size)
    return TrialState(weights, optimizer, outer, **rest)


def checkpoint(round_: int, *, seed: int = 0) -> Checkpoint:
    """Two trials of different layouts and dtypes; one with all kinds of state and one with none."""
    trials = [
        state(LAYOUTS[0], 2 * seed, status="diverged", reason="loss is nan", round=round_, waited=3),
        state(LAYOUTS[1], 2 * seed + 1, best_round=1, best_value=0.1 + 0.2),
    ]
    metrics = round_metrics(round_, trial_metrics(), trial_metrics(1 / 3, None, trial=1))
    return Checkpoint(round_, trials, metrics, round_facts(round_))


def folder(store: RoundStore, round_: int) -> Path:
    return Path(store.storage.root) / f"rounds/{round_:06d}"


def assert_same(one: Checkpoint, two: Checkpoint) -> None:
    assert (one.round, one.metrics, one.line) == (two.round, two.metrics, two.line)
    for first, second in zip(one.trials, two.trials, strict=True):
        assert first.to_json() == second.to_json()
        for name in ("weights", "optimizer", "outer"):
            assert getattr(first, name).tobytes() == getattr(second, name).tobytes(), name
        assert first.weights.dtype == second.weights.dtype
        assert first.optimizer.dtype == second.optimizer.dtype
        assert not first.outer.size or second.outer.dtype == np.float64
