"""What the classifiers share: labels, class weights, probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, unique_labels
from sklearn.utils.validation import validate_data

from nnlib.core.arrays import Array
from nnlib.sklearn.base import NNJobsEstimator
from nnlib.sklearn.fitting import PARAMETERS

CLASSES_DOC = """\
class_weight : dict, 'balanced' or None, default=None
        Factor of each class's loss (of a class not named: 1); 'balanced': n_samples / (n_classes * rows of the class).\
"""


class ClassFitting(ClassifierMixin, NNJobsEstimator):  # type: ignore[misc]
    """An abstract estimator whose ``y`` are labels of classes."""

    class_weight: Mapping[Any, float] | str | None

    def fit(self, X: Any, y: Any) -> Self:
        """Train on all rows.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Finite numbers. A sparse matrix is made dense a few rows at a time.
        y : array-like of shape (n_samples,)
            Labels of two or more classes.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            For bad data, bad parameters, and training that diverges.
        """
        go_on = self.warm_start and hasattr(self, "classes_")
        X, y = self._checked(X, y, reset=not go_on)
        classes = np.unique(y)
        if go_on and not np.array_equal(classes, self.classes_):
            raise ValueError(f"warm_start goes on with the classes {self.classes_}, but y has {classes}")
        return self._fit_classes(X, y, classes, self.max_iter, go_on)

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Self:
        """Train one epoch (iteration) on these rows, from the weights there are.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Finite numbers. A sparse matrix is made dense a few rows at a time.
        y : array-like of shape (n_samples,)
            Labels, not necessarily of all classes.
        classes : array-like of shape (n_classes,), default=None
            All labels that will ever come; needed at the first call.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        self._check_partial_fit()
        go_on = hasattr(self, "classes_")
        X, y = self._checked(X, y, reset=not go_on)
        if classes is None and not go_on:
            raise ValueError("classes must be passed on the first call to partial_fit")
        known = self.classes_ if go_on else unique_labels(classes)
        if go_on and classes is not None and not np.array_equal(known, unique_labels(classes)):
            raise ValueError(f"classes={classes} are not those of the first call to partial_fit: {known}")
        return self._fit_classes(X, y, known, 1, go_on)

    def predict_proba(self, X: Any) -> Array:
        """Class probabilities.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Finite numbers. A sparse matrix is made dense a few rows at a time.

        Returns
        -------
        P : ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``, of the weights' dtype.
        """
        return self._outputs(X)

    def predict(self, X: Any) -> Array:
        """The most probable classes.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Finite numbers. A sparse matrix is made dense a few rows at a time.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Labels, of the type they had in `fit`.
        """
        outputs = self._outputs(X)
        labels: Array = self.classes_[np.argmax(outputs, axis=1)]
        return labels

    def _checked(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Array]:
        X, y = validate_data(
            self, self._flattened(X, reset=reset), y, dtype=(np.float64, np.float32), accept_sparse="csr", reset=reset
        )
        check_classification_targets(y)
        return X, y

    def _fit_classes(self, X: Any, y: Array, classes: Array, epochs: Any, go_on: bool) -> Self:
        if len(classes) < 2:
            raise ValueError(f"{type(self).__name__} needs two or more classes, but there is only one class: {classes}")
        unknown = np.setdiff1d(y, classes)
        if len(unknown):
            raise ValueError(f"y has labels that are not among the classes {classes}: {unknown}")
        self._train(X, np.searchsorted(classes, y), classes=classes, epochs=epochs, go_on=go_on)
        self.classes_ = classes
        return self

    def _values(self, epochs: Any, classes: Array | None) -> dict[str, Any]:
        values = super()._values(epochs, classes)
        weights = self.class_weight
        if isinstance(weights, Mapping):
            indices = {label: index for index, label in enumerate([] if classes is None else classes.tolist())}
            unknown = [label for label in weights if label not in indices]
            if unknown:
                raise ValueError(f"class_weight names {unknown[0]!r}, which is none of the classes {classes}")
            weights = {str(indices[label]): weight for label, weight in weights.items()}
        return values | {PARAMETERS["class_weight"]: "none" if weights is None else weights}
