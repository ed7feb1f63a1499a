"""Which keys decide the bits of a run, as data; what two configurations differ in; what a resumed run may change.

The hash of a configuration stays what it was when keys are added: `nnlib.config.earlier` has the rule.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from nnlib.config.devices import AUTO, CPU, DEVICES, parse_device
from nnlib.config.earlier import stable_values
from nnlib.config.kinds import SCHEDULES, TABLES
from nnlib.config.schema import Config

NOT_MATHEMATICS = (
    "name",
    "run_dir",
    "reducers",
    "data.path",  # the dataset's fingerprint stands for it
    "model.files",  # model.sha256 stands for what is in them
    "model.from",  # likewise
    "sync.mode",
    "sync.slice_elements",
    "sync.min_workers",  # changes bits only where workers are missing, which the ledger records
    "sync.gang_timeout_seconds",
    "sync.gang_fallback",
    "sync.worker_timeout_seconds",
    "sync.encryption",
    "checkpoint",
    "evaluate",
    "splitting",
    "tracking",
    "runtime.runner",
    "runtime.cores",
    "runtime.workers_per_gpu",
    "runtime.memory_mb",
    "runtime.cache_mb",
    "runtime.cache_dir",
    "runtime.decoded_mb",
    "runtime.retries",
    "runtime.task_timeout_seconds",
    "runtime.numerics",
    "runtime.hadoop",
)
"""Keys (a section stands for all its keys) that change where a run happens, what it costs and what is kept, never its
bits. Every other key is part of the mathematics, also one that the chosen optimizer does not read."""


def mathematics(config: Config) -> dict[str, Any]:
    """Return the keys that decide the bits of every round, dotted, as JSON-able values.

    ``train.epochs`` is among them only where what is trained before depends on it: elsewhere it says when to stop, and
    round 7 of a long run is round 7 of a short one.
    """
    keys = _deciding(config)
    if _needs_epochs(config) is None:
        del keys["train.epochs"]
    return keys


def mathematics_read(config: Config) -> dict[str, Any]:
    """Return the keys of the mathematics without the options that the configured kinds do not read: for people."""
    values = _flat(config.model_dump(mode="json"))
    sections = (config.model, config.train, config.train.schedule, config.sync.outer)
    unread = {
        f"{table.key}.{option}"
        for table, section in zip(TABLES, sections, strict=True)
        for option in section.model_extra or ()
    }
    return {key: value for key, value in mathematics(config).items() if key in values and key not in unread}


def config_hash(config: Config, dataset_fingerprint: str) -> str:
    """Return the SHA-256 (hex) of the mathematics and the dataset it is applied to."""
    facts = {"config": mathematics(config), "dataset": dataset_fingerprint}
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(old: Config, new: Config) -> list[str]:
    """Return the dotted keys of the mathematics, ``train.epochs`` included, in which two configurations differ."""
    before, after = _deciding(old), _deciding(new)
    return [key for key in sorted(before | after) if before.get(key) != after.get(key)]


def resume_problems(old: Config, new: Config) -> list[str]:
    """Return why a run of ``old`` cannot be resumed as ``new``, one line each; [] if it can.

    Only ``train.epochs`` may change: grow, where nothing before the end depends on it and that is the end of a whole
    round. Then the resumed run has the bits of one that was never stopped.
    """
    before, after = _deciding(old), _deciding(new)
    problems = [
        f"{_change(key, before.get(key), after.get(key))}: another run (train --from goes on from this one's model)"
        for key in differences(old, new)
        if key not in ("train.epochs", "runtime.device")
    ]
    if (problem := _device_problem(old, new)) is not None:
        problems.append(problem)
    was, now = old.train.epochs, new.train.epochs
    if now < was:
        problems.append(f"train.epochs was {was}, is {now}: it may only grow")
    elif now > was and (reason := _needs_epochs(old)):
        problems.append(f"train.epochs was {was}, is {now}: {reason}")
    elif now > was and old.train.epochs_per_round != "auto" and was % old.train.epochs_per_round:
        problems.append(
            f"train.epochs was {was}, is {now}: the run ends within a round (epochs_per_round is "
            f"{old.train.epochs_per_round}), so a longer one would average at other epochs"
        )
    elif now > was and _ends_between_drains(old):
        problems.append(
            f"train.epochs was {was}, is {now}: the run waits for its last round (sync.overlap_drain is "
            f"{old.sync.overlap_drain}), a longer one would not"
        )
    return problems


def _device_problem(old: Config, new: Config) -> str | None:
    """Why a run cannot go on with another device; None if it can."""
    was, now = (parse_device(config.runtime.device).kind for config in (old, new))
    if was == now or new.runtime.numerics == "loose":
        return None
    return f"runtime.device was {was}, is {now}: it computes other bits (runtime.numerics: loose allows them)"


def device_hashes(config: Config, dataset_fingerprint: str) -> set[str]:
    """Return the hashes (`config_hash`) that the rounds of one run may have: with ``runtime.numerics: loose`` a run may
    go on with another device, which is a part of the mathematics."""
    kinds = (CPU, *DEVICES) if config.runtime.numerics == "loose" else (config.runtime.device,)
    runtimes = [config.runtime.model_copy(update={"device": kind}) for kind in kinds]
    return {config_hash(config.model_copy(update={"runtime": each}), dataset_fingerprint) for each in runtimes}


def _change(key: str, before: Any, after: Any) -> str:
    """What has changed, in words."""
    name = key.removeprefix("model.sha256.")
    if name == key:
        return f"{key} was {json.dumps(before)}, is {json.dumps(after)}"
    if before is None or after is None:
        return f"{name} is {'not ' if after is None else ''}among what makes the model now"
    return f"{name} has changed since the run began (SHA-256 was {before[:16]}, is {after[:16]})"


def with_measured(old: Config, new: Config) -> Config:
    """Return ``new`` with what the run that it resumes (of configuration ``old``) found out at its start: how it scales
    targets, what computes its modules (unless ``runtime.numerics: loose`` lets that change), and what a round costs."""
    if new.runtime.device == AUTO and new.runtime.numerics == "strict":
        new = new.model_copy(update={"runtime": new.runtime.model_copy(update={"device": old.runtime.device})})
    if new.data.target_scale == "auto":
        new = new.model_copy(update={"data": new.data.model_copy(update={"target_scale": old.data.target_scale})})
    if new.train.epochs_per_round != "auto" or new.sync.round_cost is not None:
        return new
    return new.model_copy(update={"sync": new.sync.model_copy(update={"round_cost": old.sync.round_cost})})


def epochs_may_grow(config: Config) -> bool:
    """Return whether a finished run of this configuration can be resumed with more epochs."""
    return not resume_problems(
        config, config.model_copy(update={"train": config.train.model_copy(update={"epochs": config.train.epochs + 1})})
    )


def _needs_epochs(config: Config) -> str | None:
    """Why ``train.epochs`` decides more than the end of a run; None if it does not."""
    if SCHEDULES.of(config.train.schedule).reads_epochs:
        return f"the {config.train.schedule.kind} schedule depends on it"
    if config.train.epochs_per_round == "auto":
        return "with epochs_per_round auto the last round is as long as what was left"
    return None


def _ends_between_drains(config: Config) -> bool:
    """Whether the last round is waited for only because it is the last."""
    length = config.train.epochs_per_round
    if not config.sync.overlap or length == "auto":
        return False
    return config.train.epochs % (length * config.sync.overlap_drain) > 0


def _deciding(config: Config) -> dict[str, Any]:
    keys = {key: value for key, value in _flat(stable_values(config)).items() if not _is_other(key)}
    if config.train.epochs_per_round != "auto":
        del keys["sync.round_cost"]  # nothing reads it
    if not config.sync.overlap:
        del keys["sync.overlap_drain"]  # likewise
    if config.data.target_scale == "auto":
        keys.pop("data.target_scale", None)  # a run has what it means for its dataset
    if "runtime.device" in keys:
        keys["runtime.device"] = parse_device(config.runtime.device).kind  # equal devices compute equal bits
    if config.runtime.device == AUTO:
        del keys["runtime.device"]  # a run has what it means where it was started
    return keys


def _is_other(key: str) -> bool:
    return any(key == other or key.startswith(f"{other}.") for other in NOT_MATHEMATICS)


def _flat(values: dict[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        # Class weights are one value, arguments another: what is below is not a key of the configuration.
        if isinstance(value, dict) and f"{above}{key}" not in ("train.class_weights", "model.arguments"):
            flat |= _flat(value, f"{above}{key}.")
        else:
            flat[f"{above}{key}"] = value
    return flat
