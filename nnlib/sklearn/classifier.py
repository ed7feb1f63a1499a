"""`NNJobsClassifier`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnlib.sklearn.base import ATTRIBUTES_DOC, PARAMETERS_DOC
from nnlib.sklearn.class_fitting import CLASSES_DOC, ClassFitting
from nnlib.sklearn.perceptron import COEFFICIENTS_DOC, PERCEPTRON_DOC, PerceptronEstimator


class NNJobsClassifier(ClassFitting, PerceptronEstimator):
    __doc__ = f"""Multilayer perceptron for classes, trained by nnjobs' MapReduce driver with weight averaging.

    `fit` trains what ``nnjobs train`` would train on the same rows with the same configuration, bit for bit; the
    softmax of as many outputs as classes, two classes included.

    Parameters
    ----------
    {PERCEPTRON_DOC}
    {PARAMETERS_DOC}
    {CLASSES_DOC}

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, in the order of `predict_proba`'s columns.
    {COEFFICIENTS_DOC}
    {ATTRIBUTES_DOC}

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from nnlib.sklearn import NNJobsClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = NNJobsClassifier((20,), scale="standard", learning_rate_init=0.01, workers=2, random_state=0)
    >>> model.fit(X, y).score(X, y) > 0.95
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
        class_weight: Mapping[Any, float] | str | None = None,
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
        self.class_weight = class_weight
