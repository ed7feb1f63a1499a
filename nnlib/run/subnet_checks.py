"""Whether partitions into sub-nets (`train.subnets`) fit the models of a run."""

from __future__ import annotations

from typing import cast

from nnlib.core.errors import ConfigError
from nnlib.core.partition import Partition
from nnlib.models.protocol import DivisibleModel, Model
from nnlib.run.spec import JobSpec

KEY = "train.subnets.partition"


def check_subnets(spec: JobSpec) -> None:
    """Raise `ConfigError` for a partition that does not have a letter for each hidden unit of its trial's model."""
    for trial in spec.trials:
        subnets = spec.settings(trial).train.subnets
        if subnets is None or subnets.partition is None:
            continue
        if spec.model(trial).layout.buffers:
            raise ConfigError("a model with buffers (running statistics) cannot be cut into sub-nets", key=KEY)
        partition, widths = Partition.parse(subnets.partition), divisible(spec.model(trial)).hidden_widths
        if partition.widths != widths:
            raise ConfigError(
                f"{subnets.partition[:60]} has {_joined(partition.widths)} letters, but the hidden layers have "
                f"{_joined(widths)} units",
                key=KEY,
            )


def divisible(model: Model) -> DivisibleModel:
    """Return a model as one whose hidden units can be put into groups. Raises `ConfigError` where they cannot."""
    widths = getattr(model, "hidden_widths", None)
    if widths is None:
        raise ConfigError(
            "the hidden units of this model cannot be put into groups", hint="use an mlp, or simple-cnn", key=KEY
        )
    if not widths:
        raise ConfigError("a model without hidden layers has no sub-nets", key=KEY)
    return cast(DivisibleModel, model)


def _joined(widths: tuple[int, ...]) -> str:
    return "-".join(map(str, widths))
