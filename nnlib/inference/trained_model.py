"""A trained model used from Python: predictions for arrays of rows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from nnlib.config.code_trust import trusting_code
from nnlib.core.arrays import Array
from nnlib.core.errors import UsageError
from nnlib.core.layout import ModelState
from nnlib.data.feature_converter import Converter
from nnlib.inference.model_input import model_input
from nnlib.run.directory import RunDirectory
from nnlib.run.spec import JobSpec, Trial
from nnlib.training.build_learner import build_learner, load_learner
from nnlib.training.learner import Learner

if TYPE_CHECKING:
    from torch.nn import Module

_INTEGER = re.compile("0|-?[1-9][0-9]{0,19}")


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
    def load(cls, run: str, *, trial: int = 0, trust_code: bool = False) -> TrainedModel:
        """Load the final model of a run, or that of its newest round if it is not finished.

        ``trust_code``: see `nnlib.load`. Raises `UsageError` if there is no run or no such trial, and for code that is
        not trusted.
        """
        with trusting_code(trust_code):
            return cls._load(run, trial)

    @classmethod
    def _load(cls, run: str, trial: int) -> TrainedModel:
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

    @property
    def feature_names(self) -> list[str]:
        """Names of the features of a row, in the order that an array has them."""
        return self.spec.dataset.encoding.feature_names

    @cached_property
    def module(self) -> Module:
        """The torch module with the trained numbers, on the CPU and in evaluation mode.

        It maps rows as `converted` gives them, in the module's own shape, to logits of the classes or to values of the
        target as it was scaled for training (``trial.target``)::

            x = torch.from_numpy(model.converted(X)).view(-1, 1, 28, 28)
            probabilities = torch.softmax(model.module(x), dim=1)

        It is the caller's: what is changed in it does not change `predict`. Raises `AttributeError` for a model that is
        no torch module.
        """
        if not self.has_module:
            kind = self.spec.settings(self.trial).model.kind
            raise AttributeError(
                f"a model of kind {kind} has no torch module; its arrays: spec.model(trial).layout.split(state)"
            )
        learner = cast(ModuleLearner, build_learner(self.spec.model(self.trial)))
        learner.load(self.state)
        return learner.trained_module()

    @property
    def has_module(self) -> bool:
        """Whether the model is a torch module."""
        return hasattr(self.spec.model(self.trial), "build_module")

    def converted(self, X: Any) -> Array:
        """Convert rows as `predict` does before it computes: to shape (n, features) of the model's dtype, by the
        dataset's scale and offset where it stores small integers, then by the feature scaling fitted in training.

        ``X``: see `predict`.
        """
        parts = [np.empty((0, self.features), self.weights.dtype)]
        predictor: Predictor | None = None
        for rows in model_input(X, self.spec.dataset):
            predictor = predictor or Predictor(self, stored=rows.is_stored)
            parts.append(predictor.converted(rows.x))
        return np.concatenate(parts)

    def predict(self, X: Any) -> Array:
        """Predict classes, shape (n,): integers if every class name is one, else text. Values for regression.

        ``X`` is one of two:

        - A table whose columns have names: of pandas, polars, DuckDB, pyarrow or any library that speaks Arrow's
          protocol, a structured array of numpy, a dictionary of columns. It means what a file of the same content
          means to ``nnjobs predict``: columns are found by their names, in any order, others are left out, categories
          are encoded as the import did. Names that only count the columns (0, 1, 2 ...) say nothing: the columns are
          then taken in order, and their number must fit.
        - An array, list or sparse matrix, shape (n, features), with the features in the order of `feature_names`:
          values as the model was trained on them; integers for a dataset that stores small integers (`x_dtype` uint8)
          are taken as stored, so 0-255 pixels need no dividing.

        Raises `DataError` for missing columns, another shape, and values that the model's dataset could not hold.
        """
        outputs = self._outputs(X)
        if not self.classes:
            return outputs[:, 0].astype(np.float64)
        guess: Array = np.take(class_labels(self.classes), np.argmax(outputs, axis=1))
        return guess

    def predict_proba(self, X: Any) -> Array:
        """Predict class probabilities, shape (n, classes). With independent sigmoids a row need not sum to 1.

        ``X``: see `predict`.
        """
        if not self.classes:
            raise UsageError("a regression model has no class probabilities: use predict")
        return self._outputs(X)

    def _outputs(self, X: Any) -> Array:
        outputs = [np.empty((0, max(len(self.classes), 1)), self.weights.dtype)]
        predictor: Predictor | None = None
        for rows in model_input(X, self.spec.dataset):
            predictor = predictor or Predictor(self, stored=rows.is_stored)
            outputs.append(predictor.outputs(rows.x))
        return np.concatenate(outputs)


class ModuleLearner(Learner, Protocol):
    """A learner of a torch module."""

    def trained_module(self) -> Module:
        """Return the module with its numbers, in evaluation mode."""
        ...


class Predictor:
    """A trained model ready to compute: its learner, and the conversion of features. Serves one thread at a time."""

    def __init__(self, model: TrainedModel, *, stored: bool) -> None:
        """``stored``: rows come as the model's dataset stores them, not as feature values."""
        dataset = model.spec.dataset
        scale, offset = (dataset.x_scale, dataset.x_offset) if stored else (1.0, 0.0)
        self._is_wide = dataset.x_dtype == "float64"
        self._convert = Converter(scale, offset, model.trial.scaler, model.weights.dtype, is_wide=self._is_wide)
        self._learner = load_learner(model.spec.model(model.trial), model.state, model.trial.target)

    def numerics(self) -> str:
        """Return the fingerprint of the bits that the learner computes here."""
        return self._learner.numerics()

    def outputs(self, x: Array) -> Array:
        """Compute the outputs, shape (n, outputs), of at most `CHUNK_ROWS` rows (n, features). A copy."""
        return self._learner.outputs(self.converted(x)).copy()

    def outputs_and_losses(self, x: Array, y: Array) -> tuple[Array, npt.NDArray[np.float64]]:
        """Compute `outputs` and each row's loss, shape (n,)."""
        outputs, losses = self._learner.outputs_and_losses(self.converted(x), y)
        return outputs.copy(), losses

    def converted(self, x: Array) -> Array:
        """Return rows (n, features) as the model takes them: through float32, unless its dataset stored float64."""
        if not self._is_wide and x.dtype.itemsize > 4:
            with np.errstate(over="ignore"):
                x = x.astype(np.float32)
        return self._convert(x)


def class_labels(classes: tuple[str, ...]) -> Array:
    """Make an array of class names: of integers (int64 or uint64) if every name is one, as Python writes it."""
    if all(map(_INTEGER.fullmatch, classes)):
        numbers = [int(name) for name in classes]
        for kind in (np.int64, np.uint64):
            if np.iinfo(kind).min <= min(numbers) and max(numbers) <= np.iinfo(kind).max:
                return np.array(numbers, kind)
    return np.array(classes)
