"""The state of a run after a round, and its files: the models by name, what belongs to them, the metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from nnlib import FORMAT_VERSION
from nnlib.core.arrays import Array, Vector
from nnlib.core.errors import MismatchError
from nnlib.core.layout import Layout, ModelState
from nnlib.run.ledger import Facts, canonical
from nnlib.run.manifest import BEST, METRICS, MODEL, OPTIMIZERS, RESIDUALS, STATE, TRIALS
from nnlib.run.model_file import named_arrays, pack, parse_json, read_model, unpack
from nnlib.run.round_metrics import RoundMetrics


@dataclass
class TrialState:
    """One trial after a round: its model, the state of its optimizers, and whether it goes on.

    ``weights`` and ``buffers`` have the model's layout; ``optimizer`` is the averaged local optimizer state (size 0 if
    reset); ``outer`` the outer step's. ``status`` is active, stopped (early) or diverged; ``round`` counts the rounds
    that went into ``weights``. ``best_value`` is that of the metric which early stopping watches, in ``best_round``.
    """

    weights: Vector
    optimizer: Vector
    outer: Vector
    status: str = "active"
    round: int = 0
    best_round: int | None = None
    best_value: float | None = None
    waited: int = 0
    reason: str | None = None
    buffers: tuple[Vector, ...] = ()

    @property
    def model(self) -> ModelState:
        """The weights and buffers."""
        return ModelState(self.weights, self.buffers)

    def to_json(self) -> dict[str, Any]:
        """All but the arrays; `from_json` is the inverse."""
        return {
            "status": self.status,
            "round": self.round,
            "best_round": self.best_round,
            "best_loss": self.best_value,
            "waited": self.waited,
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], model: ModelState, optimizer: Vector, outer: Vector) -> TrialState:
        """Join what `to_json` wrote with the trial's arrays."""
        facts = dict(data)
        best = facts.pop("best_loss")
        return cls(model.vector, optimizer, outer, buffers=model.buffers, best_value=best, **facts)


class KeptState(NamedTuple):
    """What all workers keep for themselves from round to round, by trial.

    ``residuals``: what rounding took from their partials (error feedback), shape (workers, size of a partial);
    ``optimizers``: their local optimizers' state (`train.optimizer_state: keep`), shape (workers, size of the state).
    """

    residuals: dict[int, Array]
    optimizers: dict[int, Array]


@dataclass
class Checkpoint:
    """All trials after ``round`` rounds, the metrics of the job that led here, and the facts for the ledger.

    ``line`` is the round's line of the ledger, known once it is committed, deferred or loaded. ``best`` has, by trial,
    the model of a best round whose own commit does not keep it. ``kept`` is what the workers keep for themselves: only
    where it is about to be committed, or was asked for.
    """

    round: int
    trials: list[TrialState]
    metrics: RoundMetrics
    facts: Facts | None = None
    line: bytes | None = None
    best: dict[int, ModelState] = field(default_factory=dict)
    kept: KeptState = field(default_factory=lambda: KeptState({}, {}))

    @property
    def active(self) -> list[int]:
        """The trials that go on."""
        return [index for index, trial in enumerate(self.trials) if trial.status == "active"]


def round_files(checkpoint: Checkpoint, layouts: Sequence[Layout]) -> dict[str, bytes]:
    """Encode the files that a round's line of the ledger names; equal checkpoints, equal bytes."""
    state: dict[str, Vector] = {}
    for index, trial in enumerate(checkpoint.trials):
        if trial.optimizer.size:
            state[f"{index}.optimizer"] = trial.optimizer
        if trial.outer.size:
            state[f"{index}.outer"] = trial.outer
    trials = {"format_version": FORMAT_VERSION, "trials": [trial.to_json() for trial in checkpoint.trials]}
    files = {
        MODEL: pack(_named({index: trial.model for index, trial in enumerate(checkpoint.trials)}, layouts)),
        TRIALS: canonical(trials),
        METRICS: canonical({"format_version": FORMAT_VERSION, **checkpoint.metrics.to_json()}),
    }
    if state:
        files[STATE] = pack(state)
    return files


def commit_files(checkpoint: Checkpoint, layouts: Sequence[Layout]) -> dict[str, bytes]:
    """Encode the files that a commit has on top of its round's, where there is something to keep."""
    files = {}
    if checkpoint.best:
        files[BEST] = pack(_named(checkpoint.best, layouts))
    for name, kept in ((RESIDUALS, checkpoint.kept.residuals), (OPTIMIZERS, checkpoint.kept.optimizers)):
        if kept:
            files[name] = pack({str(index): rows for index, rows in kept.items()})
    return files


def read_trials(files: Mapping[str, bytes], layouts: Sequence[Layout], folder: str) -> list[TrialState]:
    """Decode the trials from the files of a commit in ``folder``. Raises `MismatchError` where they do not fit."""
    arrays = unpack(files[MODEL], f"{folder}/{MODEL}")
    state = unpack(files[STATE], f"{folder}/{STATE}") if STATE in files else {}
    entries = parse_json(files[TRIALS], f"{folder}/{TRIALS}").get("trials", [])
    if len(entries) != len(layouts):
        raise MismatchError(f"has {len(entries)} trials, the run has {len(layouts)}", file=f"{folder}/{TRIALS}")
    trials = []
    for index, (entry, layout) in enumerate(zip(entries, layouts, strict=True)):
        empty = np.empty(0, layout.dtype)
        model = read_model(index, arrays, layout, f"{folder}/{MODEL}")
        optimizer, outer = (state.get(f"{index}.{name}", empty) for name in ("optimizer", "outer"))
        trials.append(TrialState.from_json(entry, model, optimizer, outer))
    return trials


def read_best(data: bytes, layouts: Sequence[Layout], folder: str) -> dict[int, ModelState]:
    """Decode `Checkpoint.best` from its file."""
    arrays = unpack(data, f"{folder}/{BEST}")
    return {
        index: read_model(index, arrays, layout, f"{folder}/{BEST}")
        for index, layout in enumerate(layouts)
        if any(name.startswith(f"{index}.") for name in arrays)
    }


def _named(models: Mapping[int, ModelState], layouts: Sequence[Layout]) -> dict[str, Array]:
    """Trials' models under the names of a model file."""
    arrays: dict[str, Array] = {}
    for index, model in models.items():
        arrays.update(named_arrays(index, model, layouts[index]))
    return arrays
