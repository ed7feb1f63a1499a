"""What exported models of every kind have in common: features before the model, an answer behind it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from nnlib import FORMAT_VERSION
from nnlib.core.arrays import Array
from nnlib.data.encoding import FeatureColumn, columns_to_json
from nnlib.data.target_scaling import TargetScaler
from nnlib.inference.trained_model import TrainedModel


@dataclass(frozen=True, kw_only=True)
class ExportedModel(ABC):
    """A model behind the feature scaling (x - shift) * factor.

    ``scaling`` is (shift, factor), each (features,), or None. It has the model's dtype, but for a model whose dataset
    stores float64: that is scaled in float64, and rounded to the model's dtype once. ``target`` brings a regression's
    values into the target's own units, in float64. The input are feature *values*: what a dataset stores as small
    integers becomes values by ``stored * stored_scale + stored_offset``. ``output``: softmax, sigmoid or linear.
    """

    scaling: tuple[Array, Array] | None
    output: str
    classes: tuple[str, ...]
    feature_names: tuple[str, ...]
    columns: tuple[FeatureColumn, ...]
    stored_dtype: str
    stored_scale: float
    stored_offset: float
    target: TargetScaler | None = None

    @classmethod
    @abstractmethod
    def of(cls, model: TrainedModel) -> Self:
        """The exported form of a trained model of this kind."""

    @property
    @abstractmethod
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the model's arrays."""

    @property
    @abstractmethod
    def features(self) -> int:
        """Features of a row."""

    @property
    @abstractmethod
    def computation(self) -> str:
        """The arithmetic, in the arrays' names."""

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """The model without its numbers, as JSON-able data; every exported file carries it."""

    @property
    def output_dtype(self) -> np.dtype[Any]:
        """The dtype of the answer: the model's, or float64 in the units of a scaled target."""
        return self.dtype if self.target is None else np.dtype(np.float64)

    @property
    def input_dtype(self) -> np.dtype[Any]:
        """The dtype of the input: float32, or float64 if the dataset stores that."""
        return np.dtype(np.float64 if self.stored_dtype == "float64" else np.float32)

    @property
    def scaling_dtype(self) -> np.dtype[Any]:
        """The dtype in which features are scaled."""
        return np.dtype(np.float64) if self.stored_dtype == "float64" else self.dtype

    @property
    def input_meaning(self) -> str:
        """The meaning of the model's input."""
        text = f"{self.features} feature values a row, {self.input_dtype}, in the order of feature_names"
        if self.stored_dtype != "uint8":
            return text
        shift = f" + {self.stored_offset!r}" if self.stored_offset else ""
        return f"{text}; the dataset stores them as {self.stored_dtype}: value = stored * {self.stored_scale!r}{shift}"

    @property
    def answer(self) -> str:
        """What is computed from the model's last values."""
        if self.target is not None:
            return "the value * target.spread + target.shift, in float64"
        return {
            "softmax": "softmax over the classes",
            "sigmoid": "an independent sigmoid for each class",
            "linear": "the value itself",
        }[self.output]

    @property
    def scaling_steps(self) -> list[str]:
        """The arithmetic before the model."""
        steps = [] if self.scaling is None else ["x = (x - scaling.shift) * scaling.factor"]
        if self.scaling_dtype != self.dtype:
            steps.append(f"x = {self.dtype}(x)")
        return steps

    def description_of(self, **architecture: Any) -> dict[str, Any]:
        """The description of a model of this ``architecture``.

        ``columns``: the columns of the input in the order of their features, each with its name, its kind (numeric: one
        feature; categorical: an indicator for each of its categories; vector: a feature for each element), the number
        of its features, its categories and what replaces missing values.
        """
        target = {} if self.target is None else {"target": asdict(self.target)}
        return {
            "format_version": FORMAT_VERSION,
            **architecture,
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


def surroundings(model: TrainedModel, output: str) -> dict[str, Any]:
    """The fields of `ExportedModel` for a trained model whose last values have this ``output``."""
    scaler, dataset = model.trial.scaler, model.spec.dataset
    scaling = None
    if scaler is not None:  # rounded as `nnlib.data.feature_converter` does
        kind = "float64" if dataset.x_dtype == "float64" else model.weights.dtype
        scaling = scaler.shift.astype(kind), scaler.factor.astype(kind)
    return {
        "scaling": scaling,
        "output": output,
        "classes": dataset.classes,
        "feature_names": tuple(dataset.encoding.feature_names),
        "columns": dataset.encoding.columns,
        "stored_dtype": dataset.x_dtype,
        "stored_scale": dataset.x_scale,
        "stored_offset": dataset.x_offset,
        "target": model.trial.target,
    }
