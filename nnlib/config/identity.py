"""Which keys decide the bits of a run, as data; what two configurations differ in; what a resumed run may change."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from nnlib.config.schema import Config

NOT_MATHEMATICS = (
    "name",
    "run_dir",
    "reducers",
    "data.path",  # the dataset's fingerprint stands for it
    "sync.mode",
    "sync.slice_elements",
    "checkpoint",
    "evaluate",
    "runtime.runner",
    "runtime.cores",
    "runtime.memory_mb",
    "runtime.retries",
    "runtime.task_timeout_seconds",
    "runtime.numerics",
    "runtime.hadoop",
)
"""Keys (a section stands for all its keys) that change where a run happens, what it costs and what is kept, never its
bits. Every other key is part of the mathematics, also one that the chosen optimizer does not read."""


def mathematics(config: Config) -> dict[str, Any]:
    """The keys that decide the bits of every round, dotted, as JSON-able values.

    ``train.epochs`` is among them only where the schedule stretches with it (cosine): elsewhere it says when to stop,
    and round 7 of a long run is round 7 of a short one.
    """
    keys = _deciding(config)
    if not _schedule_needs_epochs(config):
        del keys["train.epochs"]
    return keys


def config_hash(config: Config, dataset_fingerprint: str) -> str:
    """SHA-256 (hex) over the mathematics and the dataset it is applied to."""
    facts = {"config": mathematics(config), "dataset": dataset_fingerprint}
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(old: Config, new: Config) -> list[str]:
    """Dotted keys of the mathematics, ``train.epochs`` included, that two configurations give other values."""
    before, after = _deciding(old), _deciding(new)
    return [key for key in sorted(before | after) if before.get(key) != after.get(key)]


def resume_problems(old: Config, new: Config) -> list[str]:
    """Why a run of ``old`` cannot go on as ``new``, one line each; [] if it can.

    Only ``train.epochs`` may change: grow, where the schedule does not depend on it and the old end is the end of a
    whole round. Then the resumed run has the bits of one that was never stopped.
    """
    before, after = _deciding(old), _deciding(new)
    problems = [
        f"{key} was {json.dumps(before.get(key))}, is {json.dumps(after.get(key))}: another run (train --from goes on "
        "from this one's model)"
        for key in differences(old, new)
        if key != "train.epochs"
    ]
    was, now = old.train.epochs, new.train.epochs
    if now < was:
        problems.append(f"train.epochs was {was}, is {now}: it may only grow")
    elif now > was and _schedule_needs_epochs(old):
        problems.append(f"train.epochs was {was}, is {now}: the {old.train.schedule.kind} schedule depends on it")
    elif now > was and was % old.train.epochs_per_round:
        problems.append(
            f"train.epochs was {was}, is {now}: the run ends within a round (epochs_per_round is "
            f"{old.train.epochs_per_round}), so a longer one would average at other epochs"
        )
    return problems


def _schedule_needs_epochs(config: Config) -> bool:
    return config.train.schedule.kind == "cosine"


def _deciding(config: Config) -> dict[str, Any]:
    return {key: value for key, value in _flat(config.model_dump(mode="json")).items() if not _is_other(key)}


def _is_other(key: str) -> bool:
    return any(key == other or key.startswith(f"{other}.") for other in NOT_MATHEMATICS)


def _flat(values: dict[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        # Class weights are one value: the labels below are not keys of the configuration.
        if isinstance(value, dict) and f"{above}{key}" != "train.class_weights":
            flat |= _flat(value, f"{above}{key}.")
        else:
            flat[f"{above}{key}"] = value
    return flat
