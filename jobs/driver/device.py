"""What computes the modules of a run: decided by the driver before the run has a configuration that counts."""

from __future__ import annotations

import platform

from nnlib.config.devices import AUTO, CPU, DEVICES, count_devices, parse_device
from nnlib.config.kinds import MODELS
from nnlib.config.runners import runner_named
from nnlib.config.schema import Config
from nnlib.core.errors import ConfigError, JobError


def with_device(config: Config) -> Config:
    """Return the configuration with ``runtime.device: auto`` replaced by what it means here.

    Raises `JobError` where this machine is to compute on a device that it lacks, `ConfigError` where more workers would
    run at once than the devices are for.
    """
    device = config.runtime.device
    if device == AUTO:
        device = _meaning_of_auto(config)
        config = config.model_copy(update={"runtime": config.runtime.model_copy(update={"device": device})})
    kind, index = parse_device(device)
    if kind == CPU or runner_named(config.runtime.runner).is_remote:  # the nodes of a cluster say what they have
        return config
    count = count_devices(kind)
    if count <= (index or 0):
        raise JobError(
            f"there is no {device} on {platform.node()}" + (f": it has {count} of that kind" if count else ""),
            hint="nnjobs devices shows what there is; runtime.device: auto takes what there is",
        )
    _check_room(config, 1 if index is not None else count)
    return config


def _meaning_of_auto(config: Config) -> str:
    """The kind of device that computes the models where nobody has chosen one."""
    if not MODELS.of(config.model).uses_devices:
        return CPU
    if runner_named(config.runtime.runner).is_remote:
        return next(iter(DEVICES)) if config.runtime.hadoop.gpus else CPU
    return next((kind for kind in DEVICES if count_devices(kind)), CPU)


def _check_room(config: Config, devices: int) -> None:
    """Refuse a group of workers, which must all run at once, that is larger than its devices are for."""
    runtime = config.runtime
    room = devices * runtime.workers_per_gpu
    if config.sync.mode != "collective" or runner_named(runtime.runner).in_one_process or config.workers <= room:
        return
    raise ConfigError(
        f"all {config.workers} workers of a collective job compute at once, but {devices} "
        f"device{'s' * (devices > 1)} with {runtime.workers_per_gpu} each are for {room}",
        hint=f"set it to {-(-config.workers // devices)}, if that fits into the memory of a device",
        key="runtime.workers_per_gpu",
    )
