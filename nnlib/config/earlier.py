"""What earlier versions did: the keys of the first version, and the keys that were added later.

Runs outlive versions. The ledger of a run names a hash of its configuration, so that hash may not change when a key is
added. The rule:

* a key of the first version (`FIRST`) always enters the hash, also where the chosen kind does not read it;
* a key added later enters it only where its value differs from what versions without the key did. The key's field
  declares that value: ``Field(..., json_schema_extra=since("0.2", before=None))``;
* a configuration that an earlier version resolved lacks such a key: it then means that value, whatever the default is.

`FIRST` never changes, and neither does a declared ``before``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from pydantic.fields import FieldInfo

from nnlib.config.section import Section

FIRST: dict[str, Any] = {
    "name": "run",
    "seed": 0,
    "workers": 1,
    "reducers": None,
    "run_dir": None,
    "sweep": {},
    "data.scale": "none",
    "split.train": 0.7,
    "split.validation": 0.0,
    "split.test": None,
    "split.seeds": [0],
    "split.folds": 0,
    "split.stratified": False,
    "split.column": None,
    "split.group": None,
    "sampling.fraction": 1.0,
    "sampling.streams": "independent",
    "sampling.window_rows": 65536,
    "model.kind": "mlp",
    "model.hidden": [100],
    "model.activation": "relu",
    "model.output": "auto",
    "model.init": "he",
    "model.dtype": "float32",
    "train.optimizer": "momentum",
    "train.lr": 0.05,
    "train.momentum": 0.9,
    "train.beta1": 0.9,
    "train.beta2": 0.999,
    "train.epsilon": 1e-08,
    "train.history": 10,
    "train.batch_size": 32,
    "train.epochs": 100,
    "train.epochs_per_round": 5,
    "train.l2": 0.0,
    "train.schedule.kind": "constant",
    "train.schedule.step_epochs": 30,
    "train.schedule.gamma": 0.1,
    "train.schedule.final": 0.0,
    "train.schedule.warmup_epochs": 0,
    "train.class_weights": "none",
    "train.optimizer_state": "reset",
    "train.stop": None,
    "train.stop.min_delta": 0.0,
    "train.keep": "last",
    "sync.mode": "rounds",
    "sync.every": "epochs",
    "sync.weighting": "examples",
    "sync.precision": "exact",
    "sync.error_feedback": False,
    "sync.overlap": 0,
    "sync.overlap_drain": 10,
    "sync.outer.kind": "mean",
    "sync.outer.lr": 1.0,
    "sync.outer.momentum": 0.0,
    "sync.min_workers": None,
    "sync.round_cost": None,
    "sync.slice_elements": 1048576,
    "sync.gang_timeout_seconds": 120.0,
    "sync.gang_fallback": "stop",
    "sync.worker_timeout_seconds": 60.0,
    "sync.encryption": True,
    "checkpoint.keep": 3,
    "checkpoint.every": "30s",
    "runtime.runner": "inline",
    "runtime.cores": None,
    "runtime.blas_threads": 1,
    "runtime.memory_mb": 256,
    "runtime.cache_mb": 4096,
    "runtime.cache_dir": None,
    "runtime.retries": 3,
    "runtime.task_timeout_seconds": None,
    "runtime.numerics": "strict",
    "runtime.hadoop.queue": None,
    "runtime.hadoop.uber": "auto",
    "runtime.hadoop.memory_mb": None,
    "runtime.hadoop.vcores": None,
    "runtime.hadoop.workers_per_task": "auto",
    "runtime.hadoop.jvm_options": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "runtime.hadoop.heap_mb": None,
    "runtime.hadoop.archive": None,
    "runtime.hadoop.python_bin": None,
    "runtime.hadoop.preflight": "auto",
    "runtime.hadoop.speculative": True,
    "runtime.hadoop.scratch": None,
    "runtime.hadoop.mrjob_conf": "configs/mrjob/hadoop.conf",
    "runtime.hadoop.jobconf": {},
    "evaluate.workers": [],
    "evaluate.streams": [],
    "evaluate.epochs": [],
    "evaluate.control": True,
    "evaluate.published": "none",
    "tracking.tensorboard": False,
    "tracking.mlflow": False,
    "tracking.experiment": "nnjobs",
}
"""Every key of the first version, dotted -> its default then (JSON). A section that may be null
stands as one key, and its keys besides."""

NO_VALUE = object()


def value_before(field: FieldInfo) -> Any:
    """Return what versions without this key did, or `NO_VALUE` for a key that is not marked by `since`."""
    extra = field.json_schema_extra
    return extra.get("before", NO_VALUE) if isinstance(extra, dict) else NO_VALUE


def stable_values(config: Section) -> dict[str, Any]:
    """Return all values of a configuration, nested, in a form that versions of the same behaviour share.

    Keys of the first version that the chosen kinds do not read are there with their first defaults; keys added later
    are left out where they have the value of before.
    """
    values = config.model_dump(mode="json")
    for path, before in _added_keys(config):
        section = _section(values, path)
        if section is not None and section.get(path[-1], NO_VALUE) == before:
            del section[path[-1]]
    for key, value in FIRST.items():
        path = tuple(key.split("."))
        section = _section(values, path)
        if section is not None:
            section.setdefault(path[-1], copy.deepcopy(value))
    return values


def missing_keys(config: Section, values: dict[str, Any]) -> dict[str, Any]:
    """Return the keys, dotted, that ``values`` lacks and that were added later, each with what was done before.

    ``config`` is what the values were validated to.
    """
    missing = {}
    for path, before in _added_keys(config):
        section = _section(values, path)
        if section is None or path[-1] not in section:
            missing[".".join(path)] = before
    return missing


def lost_keys(config: Section, values: dict[str, Any]) -> list[str]:
    """Return the keys, dotted, that ``values`` lacks although every version writes them into a resolved file.

    ``config`` is what the values were validated to, with defaults for the lost keys.
    """
    added = {".".join(path) for path, _ in _added_keys(config)}
    return [key for key in _absent(config.model_dump(mode="json"), values) if key not in added]


def _absent(whole: dict[str, Any], part: dict[str, Any], above: str = "") -> Iterator[str]:
    """The dotted keys of nested mappings that ``part`` lacks; of a section that it lacks, the section alone."""
    for name, value in whole.items():
        if name not in part:
            yield f"{above}{name}"
        elif isinstance(value, dict) and isinstance(part[name], dict):
            yield from _absent(value, part[name], f"{above}{name}.")


def _section(values: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any] | None:
    """The mapping that holds the last key of a path; None if there is none."""
    section: Any = values
    for part in path[:-1]:
        section = section.get(part)
        if not isinstance(section, dict):
            return None
    return section if isinstance(section, dict) else None


def _added_keys(section: Section, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, value before) of every key of a configuration that was added after the first version."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if (before := value_before(field)) is not NO_VALUE:
            yield (*above, name), before
        if isinstance(value, Section):
            yield from _added_keys(value, (*above, name))
