"""`NNJobsRegressor`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.validation import validate_data

from nnlib.core.arrays import Array
from nnlib.sklearn.base import ATTRIBUTES_DOC, PARAMETERS_DOC, NNJobsEstimator, with_names

FAR = 16.0
"""Standard deviations between 0 and the mean of targets from which on predictions are float64."""


class NNJobsRegressor(RegressorMixin, NNJobsEstimator):  # type: ignore[misc]
    __doc__ = f"""Multilayer perceptron for one number, trained by nnjobs' MapReduce driver with weight averaging.

    Minimises half the squared error, of targets scaled to mean 0 and standard deviation 1. Losses and predictions are
    in the target's own units.

    Parameters
    ----------
    {PARAMETERS_DOC}
    target_scale : {{'auto', 'none', 'standard'}}, default='auto'
        Scaling of the targets, fitted on the training rows (by `partial_fit`: on those of its first call). 'auto' is
        'standard'.

    Attributes
    ----------
    {ATTRIBUTES_DOC}
    target_scaler_ : nnlib.data.target_scaling.TargetScaler or None
        The fitted target scaling.

    Examples
    --------
    >>> import numpy as np
    >>> from nnlib.sklearn import NNJobsRegressor
    >>> X = np.linspace(-1.0, 1.0, 200)[:, None]
    >>> model = NNJobsRegressor((20,), solver="lbfgs", random_state=0).fit(X, np.sin(3.0 * X[:, 0]))
    >>> model.score(X, np.sin(3.0 * X[:, 0])) > 0.99
    True
    """

    def __init__(
        self,
        hidden_layer_sizes: Sequence[int] = (100,),
        *,
        activation: str = "relu",
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
        target_scale: str = "auto",
    ) -> None:
        super().__init__(
            hidden_layer_sizes,
            activation=activation,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate_init=learning_rate_init,
            momentum=momentum,
            max_iter=max_iter,
            epochs_per_round=epochs_per_round,
            workers=workers,
            runner=runner,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            tol=tol,
            scale=scale,
            dtype=dtype,
            random_state=random_state,
            warm_start=warm_start,
            verbose=verbose,
            config=config,
        )
        self.target_scale = target_scale

    def fit(self, X: Any, y: Any) -> Self:
        """Train on all rows.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Finite numbers. A sparse matrix is made dense a few rows at a time.
        y : array-like of shape (n_samples,)
            Targets.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            For bad data, bad parameters, and training that diverges.
        """
        go_on = self.warm_start and hasattr(self, "coefs_")
        X, y = self._checked(X, y, reset=not go_on)
        return self._train(X, y, classes=None, epochs=self.max_iter, go_on=go_on)

    def partial_fit(self, X: Any, y: Any) -> Self:
        """Train one epoch (iteration) on these rows, from the weights there are.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Finite numbers. A sparse matrix is made dense a few rows at a time.
        y : array-like of shape (n_samples,)
            Targets.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        self._check_partial_fit()
        go_on = hasattr(self, "coefs_")
        X, y = self._checked(X, y, reset=not go_on)
        return self._train(X, y, classes=None, epochs=1, go_on=go_on)

    def predict(self, X: Any) -> Array:
        """Predicted targets.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Finite numbers. A sparse matrix is made dense a few rows at a time.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            In the units of ``y``, of the weights' dtype; float64 where targets lie so far from 0, compared with their
            deviation, that float32 would take digits from them.
        """
        values = self._outputs(X)[:, 0]
        target = self.target_scaler_
        if target is not None and abs(target.shift) > FAR * target.spread:
            return values
        return values.astype(self._model.layout.dtype, copy=False)

    def _checked(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Array]:
        X, y = validate_data(
            self, with_names(X), y, dtype=(np.float64, np.float32), accept_sparse="csr", y_numeric=True, reset=reset
        )
        return X, np.asarray(y, np.float64)
