"""The plan of a run: which worker has which shards, and what every trial is.

It is made once by the driver and read by every task: one `JobSpec` for the run, and one line a worker (`WorkerPlan`).
A task decides from these alone which rows it works on, so it depends on no other task and on no order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from nnlib import FORMAT_VERSION
from nnlib.config.code_files import check_sources
from nnlib.config.identity import config_hash
from nnlib.config.kinds import MODELS
from nnlib.config.options import TorchOptions, torch_options
from nnlib.config.schema import Config, stored_config
from nnlib.core.arrays import Vector
from nnlib.core.entries import Entry
from nnlib.core.errors import ConfigError, MismatchError
from nnlib.core.layout import Layout
from nnlib.core.seeds import Purpose, generator
from nnlib.data.dataset import Dataset
from nnlib.data.scaling import Scaler
from nnlib.data.split.rule import SplitRule
from nnlib.data.target_scaling import TargetScaler
from nnlib.models import ModelParts, build_model
from nnlib.models.protocol import Model, PartedModel
from nnlib.optim import build_optimizer
from nnlib.run.frozen import FrozenFacts, frozen_of, pack_frozen, unpack_frozen


@dataclass(frozen=True)
class Trial:
    """One model being trained.

    ``overrides`` are the dotted keys in which its configuration differs from the run's (a sweep). ``train_rows`` and
    ``test_rows`` are counts per worker (of the rows it trains on, of the rows it scores); ``objective_rows`` is m of
    the L2 term: the rows that all workers' samples of a round hold together. ``scaler`` scales features, ``target`` a
    regression's targets.
    """

    index: int
    split: int
    rule: SplitRule
    objective_rows: int
    train_rows: tuple[int, ...]
    validation_rows: tuple[int, ...]
    test_rows: tuple[int, ...]
    class_weights: tuple[float, ...] | None = None
    scaler: Scaler | None = None
    fold: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)
    target: TargetScaler | None = None

    def label(self) -> str:
        """Name it for people: its split, its fold and its swept keys, where there are any."""
        swept = "".join(f", {key}={value}" for key, value in self.overrides.items())
        return f"split {self.split}{f', fold {self.fold}' if self.fold else ''}{swept}"

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able data. A trial that does not scale its targets is written as before there was that."""
        target = {} if self.target is None else {"target": arrays_to_json(self.target.to_arrays())}
        return {
            "index": self.index,
            "split": self.split,
            "fold": self.fold,
            "overrides": dict(self.overrides),
            "rule": self.rule.to_json(),
            "objective_rows": self.objective_rows,
            "train_rows": list(self.train_rows),
            "validation_rows": list(self.validation_rows),
            "test_rows": list(self.test_rows),
            "class_weights": None if self.class_weights is None else list(self.class_weights),
            "scaler": None if self.scaler is None else arrays_to_json(self.scaler.to_arrays()),
            **target,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Trial:
        """Read what `to_json` wrote."""
        return cls(
            index=data["index"],
            split=data["split"],
            fold=data["fold"],
            overrides=data["overrides"],
            rule=SplitRule.from_json(data["rule"]),
            objective_rows=data["objective_rows"],
            train_rows=tuple(data["train_rows"]),
            validation_rows=tuple(data["validation_rows"]),
            test_rows=tuple(data["test_rows"]),
            class_weights=None if data["class_weights"] is None else tuple(data["class_weights"]),
            scaler=None if data["scaler"] is None else Scaler.from_arrays(arrays_from_json(data["scaler"])),
            target=TargetScaler.from_arrays(arrays_from_json(data.get("target", {}))),
        )


@dataclass(frozen=True)
class WorkerPlan:
    """One line of the plan: a worker and its group of shards (indices into the dataset's)."""

    worker: int
    shards: tuple[int, ...]

    def to_line(self) -> str:
        """Return the plan as a line of canonical JSON, without its end."""
        data = {"format_version": FORMAT_VERSION, "worker": self.worker, "shards": list(self.shards)}
        return json.dumps(data, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_line(cls, line: str | bytes) -> WorkerPlan:
        """Read a line that `to_line` wrote. Raises `MismatchError` where it is none."""
        try:
            data = json.loads(line)
            return cls(int(data["worker"]), tuple(int(shard) for shard in data["shards"]))
        except (ValueError, KeyError, TypeError) as error:
            raise MismatchError(f"not a line of a plan: {line[:80]!r}") from error


@dataclass(frozen=True)
class JobSpec:
    """What every task of a run reads once: configuration, dataset (with its shards' hashes), trials."""

    config: Config
    dataset: Dataset
    trials: tuple[Trial, ...]
    sources: Mapping[str, str] = field(default_factory=dict)
    """The texts of the files of ``model.files`` by name."""
    frozen: FrozenFacts | None = None
    """The parameters that no worker trains; None if there are none, or none yet."""
    frozen_file: Callable[[], bytes] | None = field(default=None, compare=False, repr=False)
    """Reads the file of the frozen parameters."""
    admit: Callable[[TorchOptions], None] | None = field(default=None, compare=False, repr=False)
    """Called before the code of a model is imported; raises where it is not trusted. None: this process
    gave the code, or asked before."""

    @property
    def workers(self) -> int:
        """The number of workers."""
        return self.config.workers

    @property
    def quorum(self) -> int:
        """Workers that a round needs; all of them, unless the configuration says otherwise."""
        return self.config.sync.min_workers or self.workers

    def model(self, trial: Trial) -> Model:
        """Return the trial's model: its architecture, without numbers. Built once, for many parts ask for it."""
        if trial.index not in self._models:
            outputs = len(self.dataset.classes) if self.dataset.task == "classification" else 1
            settings, shape = self.settings(trial).model, self.dataset.shape
            self._models[trial.index] = build_model(
                settings, shape=shape, outputs=outputs, task=self.dataset.task, parts=self._parts(trial)
            )
        return self._models[trial.index]

    def optimizer_entries(self, trial: Trial) -> tuple[Entry, ...]:
        """Return the arrays that the trial's local optimizer keeps from step to step; () for one that minimizes.

        Found once: an optimizer has to be built for it, and torch's own to take a step.
        """
        if trial.index not in self._optimizer_entries:
            optimizer = build_optimizer(self.settings(trial).train, self.model(trial).layout)
            self._optimizer_entries[trial.index] = () if optimizer.minimizes else tuple(optimizer.state_arrays)
        return self._optimizer_entries[trial.index]

    def layouts(self) -> list[Layout]:
        """Return the layout of each trial's model."""
        return [self.model(trial).layout for trial in self.trials]

    def admit_code(self) -> None:
        """Raise `UsageError` now, not when a model is built, where the run brings code that is not trusted here."""
        for trial in self.trials:
            options = torch_options(self.settings(trial).model)
            if self.admit is not None and options is not None:
                self.admit(options)

    def _parts(self, trial: Trial) -> ModelParts:
        options = torch_options(self.settings(trial).model)
        admit = None if self.admit is None or options is None else partial(self.admit, options)
        frozen = None if self.frozen is None else partial(self.frozen_arrays, trial)
        return ModelParts(self.sources, admit, frozen)

    def frozen_arrays(self, trial: Trial) -> dict[str, npt.NDArray[Any]]:
        """Return the frozen parameters of a trial's model by name; read only, they are all trials' that share them.

        Raises `MismatchError` where the file is not the one that the run began with.
        """
        if self.frozen is None:
            return {}
        return frozen_of(self.frozen, trial.index, self._all_frozen)

    def frozen_bytes(self) -> bytes | None:
        """Read the file of the frozen parameters, as it is stored; None if there are none."""
        return None if self.frozen is None or self.frozen_file is None else self.frozen_file()

    @cached_property
    def _all_frozen(self) -> dict[str, npt.NDArray[Any]]:
        if self.frozen is None or self.frozen_file is None:
            raise ValueError("the file of the frozen parameters was not passed on")
        return unpack_frozen(self.frozen, self.frozen_file())

    @cached_property
    def _models(self) -> dict[int, Model]:
        return {}

    @cached_property
    def _optimizer_entries(self) -> dict[int, tuple[Entry, ...]]:
        return {}

    def train_rows(self, trial: Trial) -> int:
        """The trial's training rows: with shared streams every worker has all of them."""
        return trial.train_rows[0] if self.config.sampling.streams == "shared" else sum(trial.train_rows)

    def settings(self, trial: Trial) -> Config:
        """Return the configuration of a trial: the run's, with what a sweep changes for it."""
        return self._settings[trial.index]

    @cached_property
    def _settings(self) -> list[Config]:
        if not self.config.sweep:
            return [self.config] * len(self.trials)
        return [self.config.with_overrides(trial.overrides) for trial in self.trials]

    @cached_property
    def config_hash(self) -> str:
        """`nnlib.config.identity.config_hash` of the run, which every round's ledger line names."""
        return config_hash(self.config, self.dataset.fingerprint)

    @property
    def extra_columns(self) -> tuple[str, ...]:
        """Kept columns that decide the split."""
        split = self.config.split
        return tuple(name for name in (split.column, split.group) if name is not None)

    def to_json(self, *, sources: bool = True) -> dict[str, Any]:
        """Return it as JSON-able data; without ``sources`` for a run directory, which keeps them as files."""
        return {
            "format_version": FORMAT_VERSION,
            **({"sources": dict(self.sources)} if sources and self.sources else {}),
            **({} if self.frozen is None else {"frozen": self.frozen.to_json()}),
            "config": self.config.model_dump(mode="json"),
            "dataset": {"address": self.dataset.address, "manifest": self.dataset.to_json()},
            "trials": [trial.to_json() for trial in self.trials],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> JobSpec:
        """Read what `to_json` wrote. Raises `ValueError` or `KeyError` where its parts do not fit together."""
        dataset = Dataset.from_json(data["dataset"]["address"], data["dataset"]["manifest"])
        trials = tuple(Trial.from_json(trial) for trial in data["trials"])
        config, sources = stored_config(data["config"]), dict(data.get("sources", {}))
        frozen = FrozenFacts.from_json(data["frozen"]) if "frozen" in data else None
        spec = cls(config, dataset, trials, sources, frozen)
        check_sources(config, sources)
        if frozen is not None and len(frozen.sets) != len(trials):
            raise ValueError(f"frozen parameters of {len(frozen.sets)} trials")
        width = dataset.features
        for index, trial in enumerate(trials):
            counts = (trial.train_rows, trial.validation_rows, trial.test_rows)
            if trial.index != index or any(len(count) != spec.workers for count in counts):
                raise ValueError(f"trial {index}: its number or its rows per worker")
            if trial.scaler is not None and not trial.scaler.shift.shape == trial.scaler.factor.shape == (width,):
                raise ValueError(f"trial {index}: its feature scaling is not one of {width} features")
        return spec


def arrays_to_json(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """Small arrays as JSON: Python writes floats so that they read back as the same bits."""
    return {name: {"dtype": str(array.dtype), "values": array.tolist()} for name, array in arrays.items()}


def arrays_from_json(data: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """The inverse of `arrays_to_json`. Raises `ValueError` for types that are no plain numbers."""
    for entry in data.values():
        if not re.fullmatch(r"float(32|64)|u?int(8|16|32|64)", entry["dtype"]):  # numpy would parse any text
            raise ValueError(f"dtype {entry['dtype'][:40]!r}")
    return {name: np.asarray(entry["values"], np.dtype(entry["dtype"])) for name, entry in data.items()}


def assign_shards(shard_rows: Sequence[int], workers: int) -> list[WorkerPlan]:
    """Assign shards to workers in turn: worker k gets shards k, k + workers, ... (sizes differ by at most one)."""
    if workers > len(shard_rows):
        raise ConfigError(
            f"workers is {workers}, but the dataset has only {len(shard_rows)} shards",
            hint=f"set workers to at most {len(shard_rows)}, or import the data again with --shards {workers} or more",
        )
    return [WorkerPlan(worker, tuple(range(worker, len(shard_rows), workers))) for worker in range(workers)]


def partial_layout(spec: JobSpec, trial: Trial) -> Layout:
    """The layout of what travels: the model's parameters and, if averaged, the local optimizer's state."""
    layout = spec.model(trial).layout
    if spec.settings(trial).train.optimizer_state != "average":
        return layout
    entries = spec.optimizer_entries(trial)
    return layout.extended(entries) if entries else layout


def kept_optimizer_size(spec: JobSpec, trial: Trial) -> int:
    """Elements of the local optimizer's state, where each worker keeps its own; else 0."""
    if spec.settings(trial).train.optimizer_state != "keep":
        return 0
    return sum(entry.size for entry in spec.optimizer_entries(trial))


def initial_vector(spec: JobSpec, trial: Trial) -> npt.NDArray[Any]:
    """The weights a trial starts from: decided by the seed, its split and its fold, not by the number of workers."""
    return spec.model(trial).initial(_initial_generator(spec, trial))


def initial_buffers(spec: JobSpec, trial: Trial) -> tuple[Vector, ...]:
    """The buffers a trial starts from: decided by what decides `initial_vector`."""
    return spec.model(trial).initial_buffers(_initial_generator(spec, trial))


def initial_frozen(spec: JobSpec, trial: Trial) -> dict[str, npt.NDArray[Any]]:
    """The frozen parameters a trial starts and stays with: decided by what decides `initial_vector`."""
    if not MODELS.of(spec.settings(trial).model).has_parts:
        return {}
    return cast(PartedModel, spec.model(trial)).initial_frozen(_initial_generator(spec, trial))


def with_frozen(spec: JobSpec, trials: Sequence[Mapping[str, npt.NDArray[Any]]]) -> JobSpec:
    """The spec with the frozen parameters of each trial, by name."""
    frozen = pack_frozen(trials)
    if frozen is None:
        return spec
    facts, data = frozen
    return replace(spec, frozen=facts, frozen_file=lambda: data)


def _initial_generator(spec: JobSpec, trial: Trial) -> np.random.Generator:
    return generator(spec.config.seed, Purpose.INIT, split=trial.split, fold=trial.fold)
