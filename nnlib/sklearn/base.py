"""What all estimators share: parameters, the run, the forward pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from nnlib.core.arrays import Array
from nnlib.core.layout import ModelState
from nnlib.data.feature_converter import Converter
from nnlib.data.importing.formats.arrays import ArrayColumn, is_scipy_sparse
from nnlib.data.importing.raw_rows import CHUNK_ROWS
from nnlib.data.scaling import Scaler
from nnlib.data.target_scaling import TargetScaler
from nnlib.models.protocol import Model
from nnlib.sklearn.fitting import PARAMETERS, Fitted, configuration, train_arrays
from nnlib.training.build_learner import load_learner

PARAMETERS_DOC = """\
alpha : float, default=0.0001
        lambda of the L2 term lambda / (2 m) * sum of squared weights, with m training rows. For 'lbfgs' that is
        what `sklearn.neural_network.MLPClassifier` calls alpha; for mini-batches of b rows that one decays weights
        m / b times as fast.
    batch_size : int, default=32
        Rows a step, on each worker.
    learning_rate_init : float, default=0.001
        Learning rate; 'sgd', 'momentum' and 'nesterov' want a larger one (0.05, say).
    momentum : float, default=0.9
        Of 'momentum' and 'nesterov'; of 'rmsprop', where 0 is usual.
    max_iter : int, default=200
        Epochs; iterations for 'cg' and 'lbfgs'.
    epochs_per_round : int or None, default=None
        Local epochs between two averagings, which also reset the solver's state. None: 5, or all epochs if there is
        one worker and no early stopping, for then a round changes nothing but the state.
    workers : int, default=1
        Map tasks that train side by side, each on its part of the rows (at most one a row).
    runner : {'inline', 'local'}, default='inline'
        'inline' runs the tasks in this process one after the other, 'local' as processes. The model is the same.
    early_stopping : bool, default=False
        Hold out rows, stop when their loss no longer falls, keep the best round's model.
    validation_fraction : float, default=0.1
        Rows held out (stratified by class), if ``early_stopping``.
    n_iter_no_change : int, default=10
        Rounds without improvement before training stops, if ``early_stopping``.
    tol : float, default=0.0001
        A fall of the loss by less is no improvement.
    scale : {'none', 'standard', 'minmax'}, default='none'
        Feature scaling, fitted on the training rows (by `partial_fit`: on those of its first call).
    dtype : {'float32', 'float64'}, default='float32'
        Of the weights. Features are rounded to float32 in either case, unless that would merge distinct values of a
        feature in `fit` (such as Unix times): then they stay float64 until they are scaled.
    random_state : int, RandomState instance or None, default=None
        Decides first weights, order of rows and held-out rows. An int is the seed of the run: the same int gives the
        same bits, here and by ``nnjobs train``.
    warm_start : bool, default=False
        `fit` goes on from the weights of the fit before.
    verbose : bool, default=False
        Print a line a round.
    config : dict or None, default=None
        Other keys of nnjobs' configuration, such as ``{"sync.outer.kind": "nesterov", "sampling.fraction": 0.9}``."""

ATTRIBUTES_DOC = """\
scaler_ : nnlib.data.scaling.Scaler or None
        The fitted feature scaling.
    n_iter_ : int
        Epochs trained.
    loss_curve_ : list of float
        Mean training loss of each epoch ('cg', 'lbfgs': of each round, with the L2 term).
    loss_ : float or None
        The last of them.
    model_sha256_ : str
        Hash of the flat weights, as ``nnjobs train`` reports it.
    n_features_in_ : int
        Features seen by `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, if ``X`` has names that are all strings."""


class NNJobsEstimator(BaseEstimator):  # type: ignore[misc]
    """An abstract estimator: its subclasses say what the model is, and what ``y`` is."""

    scaler_: Scaler | None
    target_scaler_: TargetScaler | None
    n_iter_: int
    loss_curve_: list[float]
    loss_: float | None
    model_sha256_: str
    _x_dtype: str

    def __init__(
        self,
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int = 32,
        learning_rate_init: float = 0.001,
        momentum: float = 0.9,
        max_iter: int = 200,
        epochs_per_round: int | None = None,
        workers: int = 1,
        runner: str = "inline",
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 0.0001,
        scale: str = "none",
        dtype: str = "float32",
        random_state: int | np.random.RandomState | None = None,
        warm_start: bool = False,
        verbose: bool = False,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.momentum = momentum
        self.max_iter = max_iter
        self.epochs_per_round = epochs_per_round
        self.workers = workers
        self.runner = runner
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.scale = scale
        self.dtype = dtype
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.config = config

    def _train(self, X: Any, y: npt.NDArray[Any], *, classes: Array | None, epochs: Any, go_on: bool) -> Self:
        """Run the driver on all rows and take over what it leaves.

        ``X`` may be sparse. ``y`` holds indices of ``classes``, or targets.
        """
        epochs_before = self.n_iter_ if go_on else 0
        if self.early_stopping and self.validation_fraction * X.shape[0] < 0.5:
            raise ValueError(
                f"validation_fraction={self.validation_fraction} of n_samples={X.shape[0]} holds out no row to stop by"
            )
        values = self._values(epochs, classes) | {"seed": self._seed(epochs_before)}
        target = self.target_scaler_ if go_on else None
        if go_on:  # by the scaling the weights are made for, not by one fitted anew on these rows
            values["data.scale"] = values["data.target_scale"] = "none"
            if target is not None:
                y = target.scale(y)
                if self.early_stopping:
                    values[PARAMETERS["tol"]] = self.tol / target.loss_factor
            X = self._converted(X.astype(self._x_dtype, copy=False))
        fitted = train_arrays(
            configuration(type(self).__name__, values, self.config),
            X,
            y,
            classes=None if classes is None else len(classes),
            start=self._state() if go_on else None,
            verbose=bool(self.verbose),
            shape=self._row_shape(X.shape[1]),
        )
        self._keep(fitted)
        trial = fitted.trained.trial
        self.scaler_ = self.scaler_ if go_on else trial.scaler
        self.target_scaler_ = target if go_on else trial.target
        self._x_dtype = self._x_dtype if go_on else fitted.trained.spec.dataset.x_dtype
        losses = [loss * target.loss_factor for loss in fitted.losses] if target is not None else fitted.losses
        self.loss_curve_ = [*self.loss_curve_, *losses] if go_on else losses
        self.loss_ = self.loss_curve_[-1] if self.loss_curve_ else None
        self.n_iter_ = epochs_before + fitted.epochs
        self.model_sha256_ = fitted.sha256
        return self

    def _values(self, epochs: Any, classes: Array | None) -> dict[str, Any]:
        """The parameters as values of the configuration, by dotted key."""
        values = {key: getattr(self, name) for name, key in PARAMETERS.items() if hasattr(self, name)}
        values |= {"data.path": "data", "train.epochs": epochs, "split.train": 1.0}
        if self.early_stopping:
            values |= {"split.train": 1.0 - self.validation_fraction, "split.test": 0.0, "train.keep": "best"}
            values["split.stratified"] = classes is not None
        else:
            for name in ("validation_fraction", "n_iter_no_change", "tol"):
                del values[PARAMETERS[name]]
        if self.epochs_per_round is None:
            del values["train.epochs_per_round"]
            alone = self.workers == 1 and not self.early_stopping
            if alone and isinstance(epochs, int | np.integer) and epochs > 0:
                values["train.epochs_per_round"] = epochs
        return values

    def _seed(self, epochs_before: int) -> Any:
        """An integer ``random_state`` is the run's seed itself; a run that goes on has one derived from it, lest every
        `partial_fit` draws the same order."""
        if self.random_state is None or isinstance(self.random_state, np.random.RandomState):
            return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        if not epochs_before:
            return self.random_state
        key = np.random.SeedSequence(self.random_state, spawn_key=(epochs_before,))
        return int(key.generate_state(1, np.uint64)[0] >> np.uint64(1))

    def _keep(self, fitted: Fitted) -> None:
        """Take over the model and its numbers. Subclasses know what they are."""
        raise NotImplementedError

    def _fitted_model(self) -> Model:
        """The architecture of the fitted model."""
        raise NotImplementedError

    def _state(self) -> ModelState:
        """The numbers of the fitted model, in its layout."""
        raise NotImplementedError

    def _row_shape(self, features: int) -> tuple[int, ...] | None:
        """The shape of a row as the model sees it; None: (features,)."""
        return None

    def _flattened(self, X: Any, *, reset: bool) -> Any:
        """``X`` as scikit-learn checks it: with two axes, and columns that have their names. ``reset``: for `fit`."""
        return with_names(X)

    def _outputs(self, X: Any) -> Array:
        """Probabilities or values, shape (n, outputs), in the chunks and so the bits of
        `nnlib.inference.trained_model`."""
        check_is_fitted(self)
        X = validate_data(
            self, self._flattened(X, reset=False), dtype=np.dtype(self._x_dtype), accept_sparse="csr", reset=False
        )
        model = self._fitted_model()
        convert = self._converter(model.layout.dtype)
        learner = load_learner(model, self._state(), self.target_scaler_)
        column = ArrayColumn.of_sparse(X) if is_scipy_sparse(X) else ArrayColumn.of(X)
        chunks = column.blocks(CHUNK_ROWS)
        return np.concatenate([learner.outputs(convert(chunk)).copy() for chunk in chunks])

    def _converted(self, X: Any) -> Any:
        """Features of type ``_x_dtype`` by the fitted scaling, an array of shape (n, features) or, of a sparse ``X``, a
        column that converts blocks of rows as they are read."""
        dtype = self._fitted_model().layout.dtype if self._x_dtype == "float64" else "float32"
        convert = self._converter(dtype)
        if not is_scipy_sparse(X):
            return convert(X)
        column = ArrayColumn.of_sparse(X)
        return ArrayColumn(
            column.shape, np.dtype(dtype), lambda rows: (convert(block).copy() for block in column.blocks(rows))
        )

    def _converter(self, dtype: str) -> Converter:
        """What turns validated features of type ``_x_dtype`` into those of the fitted model, of type ``dtype``."""
        return Converter(1.0, 0.0, self.scaler_, dtype, is_wide=self._x_dtype == "float64")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_sha256_")

    def _check_partial_fit(self) -> None:
        if self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")


def with_names(X: Any) -> Any:
    """Return ``X``, an Arrow record batch as a table: sklearn finds the names of a table, but not those of a batch."""
    return pa.Table.from_batches([X]) if isinstance(X, pa.RecordBatch) else X
