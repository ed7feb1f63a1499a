"""A trained model used from Python: predictions for arrays of rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nnlib.core.arrays import Array
from nnlib.core.errors import DataError, UsageError
from nnlib.core.layout import ModelState
from nnlib.data.feature_converter import Converter
from nnlib.run.directory import RunDirectory
from nnlib.run.spec import JobSpec, Trial
from nnlib.training.learner import load_learner

CHUNK_ROWS = 1024
"""Rows predicted at once. How BLAS rounds a row's last bit depends on the number of rows, so a row predicted alone may
differ there from the same row in a file."""


@dataclass(frozen=True)
class TrainedModel:
    """One trial's kept model of a run, with the feature scaling and the class names it was trained with."""

    spec: JobSpec
    trial: Trial
    weights: Array
    buffers: tuple[Array, ...] = ()

    @property
    def state(self) -> ModelState:
        """The weights and buffers."""
        return ModelState(self.weights, self.buffers)

    @classmethod
    def load(cls, run: str, *, trial: int = 0) -> TrainedModel:
        """Load the final model of a run, or that of its newest round if it is not finished.

        Raises `UsageError` if there is no run or no such trial.
        """
        directory = RunDirectory.open(run)
        spec = directory.spec()
        if not 0 <= trial < len(spec.trials):
            raise UsageError(f"the run has trials 0 to {len(spec.trials) - 1}, not {trial}", run=directory.address)
        chosen = spec.trials[trial]
        if directory.final() is not None:
            state = directory.final_models(spec)[trial]
        else:
            store = directory.rounds(spec)
            committed = store.rounds()
            if not committed:
                raise UsageError("this run has no model yet", run=directory.address)
            state = store.load(committed[-1]).trials[trial].model
        return cls(spec, chosen, *state)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of `predict_proba`'s columns; () for regression."""
        return self.spec.dataset.classes

    @property
    def features(self) -> int:
        """Features of a row."""
        return self.spec.dataset.features

    def predict(self, X: npt.ArrayLike) -> Array:
        """Predict classes, shape (n,): integers if every class name is one, else text. Values for regression.

        ``X`` (n, features): feature values as the model was trained on them; an integer array for a dataset that
        stores small integers (`x_dtype` uint8) is taken as stored, so 0-255 pixels need no dividing. Raises `DataError`
        for another shape and for what is not a finite number.
        """
        outputs = self._outputs(X)
        if not self.classes:
            return outputs[:, 0].astype(np.float64)
        guess: Array = np.take(class_labels(self.classes), np.argmax(outputs, axis=1))
        return guess

    def predict_proba(self, X: npt.ArrayLike) -> Array:
        """Predict class probabilities, shape (n, classes). With independent sigmoids a row need not sum to 1."""
        if not self.classes:
            raise UsageError("a regression model has no class probabilities: use predict")
        return self._outputs(X)

    def _outputs(self, X: npt.ArrayLike) -> Array:
        x = np.asarray(X)
        if x.ndim != 2 or x.shape[1] != self.features:
            raise DataError(f"X has shape {x.shape}, expected (rows, {self.features})")
        if x.dtype.kind not in "biuf":
            raise DataError(f"X has dtype {x.dtype}, expected numbers")
        if not np.isfinite(x).all():
            row, feature = (int(index[0]) for index in np.nonzero(~np.isfinite(x)))
            raise DataError(f"feature {feature} is {x[row, feature]}", row=row)
        stored = self.spec.dataset.x_dtype == "uint8" and np.issubdtype(x.dtype, np.integer)
        predictor = Predictor(self, stored=stored)
        chunks = (predictor.outputs(x[start : start + CHUNK_ROWS]) for start in range(0, len(x), CHUNK_ROWS))
        return np.concatenate([np.empty((0, max(len(self.classes), 1)), self.weights.dtype), *chunks])


class Predictor:
    """A trained model ready to compute: its learner, and the conversion of features. Serves one thread at a time."""

    def __init__(self, model: TrainedModel, *, stored: bool) -> None:
        """``stored``: rows come as the model's dataset stores them, not as feature values."""
        dataset = model.spec.dataset
        scale, offset = (dataset.x_scale, dataset.x_offset) if stored else (1.0, 0.0)
        self._is_wide = dataset.x_dtype == "float64"
        self._convert = Converter(scale, offset, model.trial.scaler, model.weights.dtype, is_wide=self._is_wide)
        self._learner = load_learner(model.spec.model(model.trial), model.state)

    def outputs(self, x: Array) -> Array:
        """Compute the outputs, shape (n, outputs), of rows (n, features): n is `CHUNK_ROWS` at most. A copy."""
        return self._learner.outputs(self._converted(x)).copy()

    def outputs_and_losses(self, x: Array, y: Array) -> tuple[Array, npt.NDArray[np.float64]]:
        """Compute `outputs` and each row's loss, shape (n,)."""
        outputs, losses = self._learner.outputs_and_losses(self._converted(x), y)
        return outputs.copy(), losses

    def _converted(self, x: Array) -> Array:
        """Return the rows as the model takes them: through float32 first, unless its dataset stored float64."""
        if not self._is_wide and x.dtype.itemsize > 4:
            with np.errstate(over="ignore"):
                x = x.astype(np.float32)
        return self._convert(x)


def class_labels(classes: tuple[str, ...]) -> Array:
    """Make an array of class names: of integers if every name is one."""
    if all(name.removeprefix("-").isdecimal() and str(int(name)) == name for name in classes):
        return np.array([int(name) for name in classes])
    return np.array(classes)
