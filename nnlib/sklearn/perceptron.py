"""What the estimators of perceptrons share: layers, coefficients, intercepts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnlib.core.arrays import Array
from nnlib.core.layout import ModelState, aligned_empty
from nnlib.models.protocol import Model
from nnlib.sklearn.base import NNJobsEstimator
from nnlib.sklearn.fitting import Fitted

PERCEPTRON_DOC = """\
hidden_layer_sizes : array-like of int, default=(100,)
        Width of each hidden layer; () is a linear model.
    activation : {'relu', 'tanh', 'sigmoid'}, default='relu'
        Function of the hidden layers.
    solver : {'sgd', 'momentum', 'nesterov', 'adam', 'adamw', 'rmsprop', 'cg', 'lbfgs'}, default='adam'
        Local optimizer. 'cg' and 'lbfgs' use all rows of a worker in every iteration."""

COEFFICIENTS_DOC = """\
coefs_ : list of ndarray of shape (fan_in, fan_out)
        Weights of each layer.
    intercepts_ : list of ndarray of shape (fan_out,)
        Biases of each layer."""


class PerceptronEstimator(NNJobsEstimator):
    """An abstract estimator whose model is a perceptron."""

    coefs_: list[Array]
    intercepts_: list[Array]
    _model: Model

    def __init__(self, hidden_layer_sizes: Sequence[int] = (100,), *, activation: str = "relu", **common: Any) -> None:
        super().__init__(**common)
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation

    def _keep(self, fitted: Fitted) -> None:
        self._model = fitted.trained.spec.model(fitted.trained.trial)
        arrays = self._model.layout.views(fitted.trained.weights)
        entries = self._model.layout.entries
        self.coefs_ = [arrays[entry.name].copy() for entry in entries if entry.decays]
        self.intercepts_ = [arrays[entry.name].copy() for entry in entries if not entry.decays]

    def _fitted_model(self) -> Model:
        return self._model

    def _state(self) -> ModelState:
        return ModelState(self._flat())

    def _flat(self) -> Array:
        """``coefs_`` and ``intercepts_`` as the model's flat vector."""
        layout = self._model.layout
        flat = aligned_empty(layout.size, layout.dtype)
        weights, biases = iter(self.coefs_), iter(self.intercepts_)
        for entry in layout.entries:
            flat[entry.range] = next(weights if entry.decays else biases).reshape(-1)
        return flat
