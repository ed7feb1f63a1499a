"""The tables of kinds: each model, optimizer, schedule and outer step by its name in a configuration.

A new kind is one file with its code, a class of its options in `nnlib.config.options`, and one line here. Everything
else asks these tables: what a kind is called, which keys it reads, what it can do, and where its code is. The code is
named as text ("module:name") and imported when it is first used, so reading a configuration loads none of it.
"""

from __future__ import annotations

import importlib
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

from nnlib.config import options
from nnlib.config.section import Section
from nnlib.core.errors import ConfigError
from nnlib.core.named_object import load_named


@dataclass(frozen=True)
class Kind:
    """One kind of model, optimizer, schedule or outer step."""

    factory: str
    """Where its code is: "module:name"."""
    options: type[Section]
    """The keys it reads, besides those that every kind of its section has."""
    about: str
    """What it is, in a few words, for the reference of all keys."""
    distributions: tuple[str, ...] = ()
    """Distributions that its code imports and that are no part of a plain installation: an extra of nnjobs has the
    name of the first. They are packed for nodes that train it."""
    memory_mb: int = 0
    """Memory that a process takes by importing them."""

    def load(self) -> Any:
        """Import and return the factory. Raises `ConfigError` where a distribution of it is not installed."""
        try:
            return load_named(self.factory)
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package not in self.distributions:
                raise
            raise ConfigError(
                f"this kind of model needs the package {package}, which is not installed on {platform.node()}",
                hint=f"pip install 'nnjobs[{self.distributions[0]}]'; on a cluster the tasks' environment must have it",
                key="model.kind",
            ) from error


@dataclass(frozen=True)
class ModelKind(Kind):
    """A kind of model."""

    precisions: tuple[str, ...] = ("float32",)
    """The values of ``train.precision`` that it can be trained with; float32 means as ``model.dtype`` says."""
    has_parts: bool = False
    """Whether its models need more than their configuration: see `nnlib.models.parts`."""
    uses_devices: bool = False
    """Whether devices other than the CPU can compute it (``runtime.device``)."""


@dataclass(frozen=True)
class OptimizerKind(Kind):
    """A kind of local optimizer."""

    averages_gradients: bool = True
    """Whether it takes a step for each mini-batch, so that workers can average the gradients of a step
    (``sync.every: batch``). If not, it minimizes over all rows at once."""
    packages: tuple[str, ...] = ()
    """Modules that its first use imports."""
    model_kinds: tuple[str, ...] = ()
    """The kinds of models that it trains; empty: all."""

    def load_packages(self) -> None:
        """Import what its first use would import: before the first round, so that no round waits for it."""
        for package in self.packages:
            importlib.import_module(package)


@dataclass(frozen=True)
class ScheduleKind(Kind):
    """A kind of learning rate schedule."""

    reads_epochs: bool = False
    """Whether the rate of an epoch depends on ``train.epochs``, so that a longer run has other rates."""


K = TypeVar("K", bound=Kind)


class Kinds(Mapping[str, K], Generic[K]):
    """A table of kinds by name, and the section of the configuration that names one of them."""

    def __init__(self, noun: str, key: str, tag: str, kinds: Mapping[str, K]) -> None:
        """``noun``: what a kind is; ``key``: the section, dotted; ``tag``: the key in it that names the kind."""
        self.noun, self.key, self.tag = noun, key, tag
        self._kinds = dict(kinds)

    def __getitem__(self, name: str) -> K:
        return self._kinds[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)

    def __hash__(self) -> int:
        return hash(tuple(self._kinds))

    @property
    def path(self) -> tuple[str, ...]:
        """The keys from the root to the section."""
        return tuple(self.key.split("."))

    @cached_property
    def default(self) -> str:
        """The kind of a section that names none: the default of the tag in the base of all options."""
        return str(next(iter(self._kinds.values())).options.model_fields[self.tag].default)

    def of(self, section: Section) -> K:
        """Return the kind that a section names. Raises `ConfigError` if there is no such kind."""
        return self.named(getattr(section, self.tag))

    def named(self, name: str) -> K:
        """Return the kind of this name. Raises `ConfigError` if there is none."""
        try:
            return self._kinds[name]
        except KeyError:
            raise ConfigError(
                f"there is no {self.noun} {name!r}", key=f"{self.key}.{self.tag}", hint=f"one of {', '.join(self)}"
            ) from None

    def readers(self, option: str) -> list[str]:
        """Names of the kinds that read an option; [] if none does."""
        return [name for name, kind in self._kinds.items() if option in kind.options.model_fields]


MODELS: Kinds[ModelKind] = Kinds(
    "model",
    "model",
    "kind",
    {
        "mlp": ModelKind("nnlib.models.mlp:build", options.MLPOptions, "a multi-layer perceptron"),
        "torch": ModelKind(
            "nnlib.torch.model:build",
            options.TorchOptions,
            "a torch module (extra: torch)",
            distributions=("torch",),
            memory_mb=450,
            precisions=("float32", "bfloat16"),
            has_parts=True,
            uses_devices=True,
        ),
    },
)

TORCH_OPTIMIZERS = (
    "SGD",
    "Adam",
    "AdamW",
    "NAdam",
    "RAdam",
    "Adamax",
    "Adagrad",
    "Adadelta",
    "RMSprop",
    "Rprop",
    "ASGD",
)
"""The classes of `torch.optim` that take a step on any dense gradient and compute elementwise."""

OPTIMIZERS: Kinds[OptimizerKind] = Kinds(
    "optimizer",
    "train",
    "optimizer",
    {
        "sgd": OptimizerKind("nnlib.optim.steps:SGD", options.RateOptions, "plain gradient steps"),
        "momentum": OptimizerKind("nnlib.optim.steps:Momentum", options.MomentumOptions, "the heavy ball"),
        "nesterov": OptimizerKind("nnlib.optim.steps:Nesterov", options.MomentumOptions, "Nesterov's momentum"),
        "adam": OptimizerKind("nnlib.optim.adam:Adam", options.AdamOptions, "Adam"),
        "adamw": OptimizerKind(
            "nnlib.optim.adam:AdamW", options.AdamWOptions, "Adam with weight decay apart from the gradient"
        ),
        "rmsprop": OptimizerKind("nnlib.optim.rmsprop:RMSprop", options.RMSpropOptions, "RMSprop"),
        "cg": OptimizerKind(
            "nnlib.optim.batch:ConjugateGradient",
            options.OptimizerOptions,
            "conjugate gradient over all rows, with a line search",
            averages_gradients=False,
            packages=("scipy.optimize",),
        ),
        "lbfgs": OptimizerKind(
            "nnlib.optim.batch:LBFGS",
            options.LBFGSOptions,
            "L-BFGS over all rows, with a line search",
            averages_gradients=False,
            packages=("scipy.optimize",),
        ),
        **{
            f"torch:{name}": OptimizerKind(
                "nnlib.torch.own_optimizer:OwnTorchOptimizer",
                options.OwnTorchOptions,
                "torch.optim's own, with the bits of its version",
                distributions=("torch",),
                model_kinds=("torch",),
            )
            for name in TORCH_OPTIMIZERS
        },
    },
)

SCHEDULES: Kinds[ScheduleKind] = Kinds(
    "schedule",
    "train.schedule",
    "kind",
    {
        "constant": ScheduleKind("nnlib.optim.schedules:constant", options.ScheduleOptions, "lr all along"),
        "step": ScheduleKind("nnlib.optim.schedules:step", options.StepOptions, "a drop every step_epochs"),
        "exponential": ScheduleKind("nnlib.optim.schedules:exponential", options.ExponentialOptions, "gamma^epoch"),
        "cosine": ScheduleKind(
            "nnlib.optim.schedules:cosine", options.CosineOptions, "half a cosine down to final", reads_epochs=True
        ),
        "inverse": ScheduleKind("nnlib.optim.schedules:inverse", options.InverseOptions, "1 / (1 + gamma * epoch)"),
    },
)

OUTER_STEPS: Kinds[Kind] = Kinds(
    "outer step",
    "sync.outer",
    "kind",
    {
        "mean": Kind("nnlib.optim.outer:Mean", options.OuterOptions, "the average, or a part of the way to it"),
        "momentum": Kind("nnlib.optim.outer:ServerMomentum", options.OuterMomentumOptions, "server momentum"),
        "nesterov": Kind("nnlib.optim.outer:OuterNesterov", options.OuterMomentumOptions, "DiLoCo"),
    },
)

TABLES: tuple[Kinds[Any], ...] = (MODELS, OPTIMIZERS, SCHEDULES, OUTER_STEPS)


def distributions_of(models: Iterable[Section]) -> list[str]:
    """Return the distributions that models of these sections need, besides those that every task needs."""
    return sorted({name for model in models for name in MODELS.of(model).distributions})
