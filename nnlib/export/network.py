"""What every exported file holds: a trained perceptron as plain arrays, and in words how to compute with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from nnlib import FORMAT_VERSION
from nnlib.core.arrays import Array
from nnlib.core.errors import UsageError
from nnlib.data.encoding import FeatureColumn, columns_to_json
from nnlib.data.target_scaling import TargetScaler
from nnlib.inference.trained_model import TrainedModel
from nnlib.models.mlp import MLP


@dataclass(frozen=True)
class Network:
    """Layers a = f(x W + b), W (in, out) and b (out,), behind the feature scaling (x - shift) * factor.

    ``scaling`` is (shift, factor), each (features,), or None. All arrays have the model's dtype, but for the scaling of
    a model whose dataset stores float64: that is computed in float64, and rounded to the model's dtype once; and for
    ``target``, which brings a regression's values into the target's own units, in float64. Its input is feature
    *values*: what a dataset stores as small integers becomes values by ``stored * stored_scale +
    stored_offset``.
    ``buffers`` are the model's buffers by name, each of its own dtype; perceptrons of this package have none.
    """

    layers: tuple[tuple[Array, Array], ...]
    scaling: tuple[Array, Array] | None
    activation: str
    output: str
    classes: tuple[str, ...]
    feature_names: tuple[str, ...]
    columns: tuple[FeatureColumn, ...]
    stored_dtype: str
    stored_scale: float
    stored_offset: float
    buffers: Mapping[str, Array] = field(default_factory=dict)
    target: TargetScaler | None = None

    @classmethod
    def of(cls, model: TrainedModel) -> Network:
        """The network of a trained model. Raises `UsageError` for a kind of model that is no perceptron."""
        shape = model.spec.model(model.trial)
        if not isinstance(shape, MLP):
            raise UsageError(
                f"only perceptrons can be exported, this is a model of kind {model.spec.config.model.kind}"
            )
        values = shape.layout.views(model.weights)
        scaler, dataset = model.trial.scaler, model.spec.dataset
        scaling = None
        if scaler is not None:  # rounded as `nnlib.data.feature_converter` does
            kind = "float64" if dataset.x_dtype == "float64" else shape.layout.dtype
            scaling = scaler.shift.astype(kind), scaler.factor.astype(kind)
        return cls(
            layers=tuple(
                (values[f"layer{index}.weight"], values[f"layer{index}.bias"]) for index in range(len(shape.widths) - 1)
            ),
            scaling=scaling,
            activation=shape.activation,
            output=shape.loss,
            classes=dataset.classes,
            feature_names=tuple(dataset.encoding.feature_names),
            columns=dataset.encoding.columns,
            stored_dtype=dataset.x_dtype,
            stored_scale=dataset.x_scale,
            stored_offset=dataset.x_offset,
            buffers=shape.layout.buffer_views(model.buffers),
            target=model.trial.target,
        )

    @property
    def widths(self) -> tuple[int, ...]:
        """Features, each hidden layer, outputs."""
        return (self.layers[0][0].shape[0], *(bias.size for _, bias in self.layers))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of weights and biases."""
        return self.layers[0][0].dtype

    @property
    def output_dtype(self) -> np.dtype[Any]:
        """The dtype of the answer: that of the weights, or float64 in the units of a scaled target."""
        return self.dtype if self.target is None else np.dtype(np.float64)

    @property
    def input_dtype(self) -> np.dtype[Any]:
        """The dtype of the input: float32, or float64 if the dataset stores that."""
        return np.dtype(np.float64 if self.stored_dtype == "float64" else np.float32)

    @property
    def scaling_dtype(self) -> np.dtype[Any]:
        """The dtype in which features are scaled."""
        return np.dtype(np.float64) if self.stored_dtype == "float64" else self.dtype

    @cached_property
    def arrays(self) -> dict[str, Array]:
        """Every array by its name in a file: ``layer0.weight`` (in, out), ``layer0.bias``, ..., ``scaling.shift``,
        ``target.shift``, ``target.spread``, and the buffers."""
        named = {} if self.scaling is None else {"scaling.shift": self.scaling[0], "scaling.factor": self.scaling[1]}
        for index, (weight, bias) in enumerate(self.layers):
            named |= {f"layer{index}.weight": weight, f"layer{index}.bias": bias}
        return named | ({} if self.target is None else self.target.to_arrays()) | dict(self.buffers)

    @property
    def input_meaning(self) -> str:
        """The meaning of the network's input."""
        text = f"{self.widths[0]} feature values a row, {self.input_dtype}, in the order of feature_names"
        if self.stored_dtype != "uint8":
            return text
        shift = f" + {self.stored_offset!r}" if self.stored_offset else ""
        return f"{text}; the dataset stores them as {self.stored_dtype}: value = stored * {self.stored_scale!r}{shift}"

    @property
    def computation(self) -> str:
        """The arithmetic, in the arrays' names."""
        last = {
            "softmax": "softmax over the classes",
            "sigmoid": "an independent sigmoid for each class",
            "linear": "the value itself",
        }
        if self.target is not None:
            last["linear"] = "the value * target.spread + target.shift, in float64"
        steps = [] if self.scaling is None else ["x = (x - scaling.shift) * scaling.factor"]
        if self.scaling_dtype != self.dtype:
            steps.append(f"x = {self.dtype}(x)")
        if len(self.layers) > 1:
            steps.append(f"x = {self.activation}(x @ layerK.weight + layerK.bias) for every layer K but the last")
        steps.append(f"x @ layer{len(self.layers) - 1}.weight + layer{len(self.layers) - 1}.bias, then")
        return "; ".join(steps) + f" {last[self.output]}"

    def description(self) -> dict[str, Any]:
        """The network without its numbers, as JSON-able data; every exported file carries it.

        ``columns``: the columns of the input in the order of their features, each with its name, its kind (numeric: one
        feature; categorical: an indicator for each of its categories; vector: a feature for each element), the number
        of its features, its categories and what replaces missing values.
        """
        target = {} if self.target is None else {"target": asdict(self.target)}
        return {
            "format_version": FORMAT_VERSION,
            "widths": list(self.widths),
            "activation": self.activation if len(self.layers) > 1 else None,
            "output": self.output,
            "dtype": str(self.dtype),
            "input": self.input_meaning,
            "computation": self.computation,
            "stored": {"dtype": self.stored_dtype, "scale": self.stored_scale, "offset": self.stored_offset},
            "feature_names": list(self.feature_names),
            "columns": columns_to_json(self.columns),
            "classes": list(self.classes),
            **target,
        }
