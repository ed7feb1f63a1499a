"""What the regressors share: targets and their scaling."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.validation import validate_data

from nnlib.core.arrays import Array
from nnlib.sklearn.base import NNJobsEstimator

FAR = 16.0
"""Standard deviations between 0 and the mean of targets from which on predictions are float64."""

TARGETS_DOC = """\
target_scale : {'auto', 'none', 'standard'}, default='auto'
        Scaling of the targets, fitted on the training rows (by `partial_fit`: on those of its first call). 'auto' is
        'standard'."""

TARGET_SCALER_DOC = """\
target_scaler_ : nnlib.data.target_scaling.TargetScaler or None
        The fitted target scaling."""


class TargetFitting(RegressorMixin, NNJobsEstimator):  # type: ignore[misc]
    """An abstract estimator whose ``y`` are numbers."""

    target_scale: str

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
        go_on = self.warm_start and self.__sklearn_is_fitted__()
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
        go_on = self.__sklearn_is_fitted__()
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
        return values.astype(self._fitted_model().layout.dtype, copy=False)

    def _checked(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Array]:
        X, y = validate_data(
            self,
            self._flattened(X, reset=reset),
            y,
            dtype=(np.float64, np.float32),
            accept_sparse="csr",
            y_numeric=True,
            reset=reset,
        )
        return X, np.asarray(y, np.float64)
