"""torch's own optimizers by name (``train.optimizer: torch:AdamW``), behind the interface of ours.

They move the same flat vectors: every parameter is a view of its range. Their arithmetic is torch's, so its bits belong
to a version of torch, and differ from those of our optimizers of the same name in the last digits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from nnlib.config.options import OwnTorchOptions
from nnlib.config.schema import Train
from nnlib.config.section import options_of
from nnlib.core.arrays import Array
from nnlib.core.entries import Entry, optimizer_state
from nnlib.core.errors import ConfigError
from nnlib.core.layout import Layout, aligned_empty

FIXED = {"lr", "params", "foreach", "fused", "capturable", "differentiable", "maximize"}
"""Arguments that `train.options` may not have: the learning rate has keys of its own, the others pick another way of
computing or another sign."""


class OwnTorchOptimizer:
    """See `nnlib.optim.protocol.StepOptimizer`.

    ``state`` holds 1 where there has been a step (0: all else is meaningless), then the tensors that torch keeps for
    each parameter, in the layout's order and by their names.
    """

    minimizes: ClassVar[Literal[False]] = False

    def __init__(self, train: Train, layout: Layout) -> None:
        """Raises `ConfigError` for options that the optimizer does not take."""
        self._name = train.optimizer.partition(":")[2]
        self._options = _arguments(options_of(train, OwnTorchOptions))
        self._layout = layout
        self._decayed = layout.decayed_ranges(train.decay)
        self._decays_all = train.decay == "all"
        kept = self._kept_shapes()
        self.state_arrays: list[Entry] = [optimizer_state("torch.stepped", (1,))]
        for name, shapes in kept.items():
            self.state_arrays += [optimizer_state(f"torch.{name}.{key}", shape) for key, shape in shapes.items()]
        self.state = aligned_empty(sum(entry.size for entry in self.state_arrays), layout.dtype)
        self._kept = kept
        self._optimizer: torch.optim.Optimizer | None = None
        self._bound: tuple[Array, Array] | None = None
        self._is_kept_bound = False
        self.reset()

    def reset(self) -> None:
        """See `nnlib.optim.protocol.StepOptimizer.reset`."""
        self.state[:] = 0.0

    def step(self, flat: Array, gradient: Array, lr: float, decay: float) -> None:
        """See `nnlib.optim.protocol.StepOptimizer.step`."""
        if decay:
            for part in self._decayed:
                gradient[part] += decay * flat[part]
        if (
            self._optimizer is None
            or self._bound is None
            or not (self._bound[0] is flat and self._bound[1] is gradient)
        ):
            self._bind(flat, gradient)
        optimizer = self._optimizer
        assert optimizer is not None
        for group in optimizer.param_groups:
            group["lr"] = lr
        if self.state[0] == 0.0:
            optimizer.state.clear()
        elif not self._is_kept_bound:
            self._keep(optimizer, take_over=False)
        optimizer.step()
        self._keep(optimizer, take_over=True)
        self.state[0] = 1.0
        self._is_kept_bound = True

    def _bind(self, flat: Array, gradient: Array) -> None:
        """Make torch's optimizer over views of the vectors."""
        values, slopes = self._layout.views(flat), self._layout.views(gradient)
        parameters = {}
        for entry in self._entries():
            parameters[entry.name] = torch.nn.Parameter(torch.from_numpy(values[entry.name]))
            parameters[entry.name].grad = torch.from_numpy(slopes[entry.name])
        self._optimizer = self._build(parameters)
        self._parameters = parameters
        self._bound = (flat, gradient)
        self._is_kept_bound = False

    def _keep(self, optimizer: torch.optim.Optimizer, *, take_over: bool) -> None:
        """Make torch's state views of `state`; ``take_over``: with the values that torch has."""
        for name, key, view in self._views():
            kept = optimizer.state[self._parameters[name]]
            if kept.get(key) is not None and kept[key].data_ptr() == view.data_ptr():
                continue
            if take_over:
                view.copy_(kept[key])
            kept[key] = view

    def _views(self) -> Iterator[tuple[str, str, torch.Tensor]]:
        """(parameter, key of torch's state, its view of `state`)."""
        start = 1
        for name, shapes in self._kept.items():
            for key, shape in shapes.items():
                size = int(np.prod(shape, dtype=np.int64))
                yield name, key, torch.from_numpy(self.state[start : start + size]).view(shape)
                start += size

    def _kept_shapes(self) -> dict[str, dict[str, tuple[int, ...]]]:
        """The shapes of what torch keeps for each parameter, which a step on zeros shows."""
        dtype = getattr(torch, self._layout.dtype)
        parameters = {
            entry.name: torch.nn.Parameter(torch.zeros(entry.shape, dtype=dtype)) for entry in self._entries()
        }
        for parameter in parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        optimizer = self._build(parameters)
        optimizer.step()
        return {
            name: {
                key: tuple(value.shape)
                for key, value in sorted(optimizer.state[parameter].items())
                if isinstance(value, torch.Tensor)
            }
            for name, parameter in parameters.items()
        }

    def _build(self, parameters: dict[str, torch.nn.Parameter]) -> torch.optim.Optimizer:
        """Make the optimizer; its own weight decay counts what `train.decay` says."""
        counted = [parameters[entry.name] for entry in self._entries() if entry.decays or self._decays_all]
        others = [parameters[entry.name] for entry in self._entries() if not (entry.decays or self._decays_all)]
        groups: list[dict[str, Any]] = [{"params": counted}, {"params": others, "weight_decay": 0.0}]
        kind: Any = getattr(torch.optim, self._name)
        try:
            optimizer: torch.optim.Optimizer = kind(
                [group for group in groups if group["params"]], lr=0.0, **_single(kind), **self._options
            )
        except (TypeError, ValueError) as error:
            text = " ".join(str(error).split())[:300]
            raise ConfigError(f"torch.optim.{self._name} refuses its options: {text}", key="train.options") from error
        return optimizer

    def _entries(self) -> Iterator[Entry]:
        return (entry for entry in self._layout.entries if entry.kind == "parameter")


def _single(kind: Any) -> dict[str, Any]:
    """The arguments that make an optimizer go through its parameters one by one, in their order."""
    return {"foreach": False} if "foreach" in kind.__init__.__code__.co_varnames else {}


def _arguments(options: OwnTorchOptions) -> dict[str, Any]:
    """The optimizer's arguments: JSON has lists where torch wants tuples."""
    if reserved := sorted(FIXED & options.options.keys()):
        raise ConfigError(f"{', '.join(reserved)} cannot be set here", key="train.options", hint="the rate is train.lr")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in options.options.items()}
