"""What an exported file of a perceptron holds: plain arrays, and in words how to compute with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from nnlib.core.arrays import Array
from nnlib.core.errors import UsageError
from nnlib.export.exported_model import ExportedModel, surroundings
from nnlib.inference.trained_model import TrainedModel
from nnlib.models.mlp import MLP


@dataclass(frozen=True, kw_only=True)
class Network(ExportedModel):
    """Layers a = f(x W + b), W (in, out) and b (out,), all of the model's dtype.

    ``buffers`` are the model's buffers by name, each of its own dtype; perceptrons of this package have none.
    """

    layers: tuple[tuple[Array, Array], ...]
    activation: str
    buffers: Mapping[str, Array] = field(default_factory=dict)

    @classmethod
    def of(cls, model: TrainedModel) -> Network:
        """The network of a trained model. Raises `UsageError` for a kind of model that is no perceptron."""
        shape = model.spec.model(model.trial)
        if not isinstance(shape, MLP):
            raise UsageError(
                f"a model of kind {model.spec.settings(model.trial).model.kind} cannot be exported",
                hint="only perceptrons and torch modules can",
            )
        values = shape.layout.views(model.weights)
        return cls(
            layers=tuple(
                (values[f"layer{index}.weight"], values[f"layer{index}.bias"]) for index in range(len(shape.widths) - 1)
            ),
            activation=shape.activation,
            buffers=shape.layout.buffer_views(model.buffers),
            **surroundings(model, shape.loss),
        )

    @property
    def widths(self) -> tuple[int, ...]:
        """Features, each hidden layer, outputs."""
        return (self.layers[0][0].shape[0], *(bias.size for _, bias in self.layers))

    @property
    def features(self) -> int:
        """See `ExportedModel.features`."""
        return self.widths[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of weights and biases."""
        return self.layers[0][0].dtype

    @cached_property
    def arrays(self) -> dict[str, Array]:
        """Every array by its name in a file: ``layer0.weight`` (in, out), ``layer0.bias``, ..., ``scaling.shift``,
        ``target.shift``, ``target.spread``, and the buffers."""
        named = {} if self.scaling is None else {"scaling.shift": self.scaling[0], "scaling.factor": self.scaling[1]}
        for index, (weight, bias) in enumerate(self.layers):
            named |= {f"layer{index}.weight": weight, f"layer{index}.bias": bias}
        return named | ({} if self.target is None else self.target.to_arrays()) | dict(self.buffers)

    @property
    def computation(self) -> str:
        """See `ExportedModel.computation`."""
        steps, last = self.scaling_steps, len(self.layers) - 1
        if last:
            steps.append(f"x = {self.activation}(x @ layerK.weight + layerK.bias) for every layer K but the last")
        steps.append(f"x @ layer{last}.weight + layer{last}.bias, then")
        return "; ".join(steps) + f" {self.answer}"

    def description(self) -> dict[str, Any]:
        """See `ExportedModel.description`."""
        return self.description_of(
            widths=list(self.widths), activation=self.activation if len(self.layers) > 1 else None
        )
