"""`NNJobsRegressor`."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.validation import validate_data

from nnlib.core.arrays import Array
from nnlib.sklearn.base import ATTRIBUTES_DOC, PARAMETERS_DOC, NNJobsEstimator, with_names


class NNJobsRegressor(RegressorMixin, NNJobsEstimator):  # type: ignore[misc]
    __doc__ = f"""Multilayer perceptron for one number, trained by nnjobs' MapReduce driver with weight averaging.

    Minimises half the squared error. Targets are not scaled: wrap the estimator in
    `sklearn.compose.TransformedTargetRegressor` if they are far from 0 or spread wide.

    Parameters
    ----------
    {PARAMETERS_DOC}

    Attributes
    ----------
    {ATTRIBUTES_DOC}

    Examples
    --------
    >>> import numpy as np
    >>> from nnlib.sklearn import NNJobsRegressor
    >>> X = np.linspace(-1.0, 1.0, 200)[:, None]
    >>> model = NNJobsRegressor((20,), solver="lbfgs", random_state=0).fit(X, np.sin(3.0 * X[:, 0]))
    >>> model.score(X, np.sin(3.0 * X[:, 0])) > 0.99
    True
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Train on all rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Finite numbers.
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
        X : array-like of shape (n_samples, n_features)
            Finite numbers.
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
        X : array-like of shape (n_samples, n_features)
            Finite numbers.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Of the weights' dtype.
        """
        return self._outputs(X)[:, 0]

    def _checked(self, X: Any, y: Any, *, reset: bool) -> tuple[Array, Array]:
        X, y = validate_data(self, with_names(X), y, dtype=(np.float64, np.float32), y_numeric=True, reset=reset)
        return X, np.asarray(y, np.float64)
