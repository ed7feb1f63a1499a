"""`NNJobsTorchRegressor`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nnlib.sklearn.base import ATTRIBUTES_DOC, PARAMETERS_DOC
from nnlib.sklearn.module_estimator import MODULE_ATTRIBUTES_DOC, MODULE_DOC, ModuleEstimator
from nnlib.sklearn.target_fitting import TARGET_SCALER_DOC, TARGETS_DOC, TargetFitting


class NNJobsTorchRegressor(TargetFitting, ModuleEstimator):
    __doc__ = f"""torch module for one number, trained by nnjobs' MapReduce driver with weight averaging.

    Minimises half the squared error, of targets scaled to mean 0 and standard deviation 1. Losses and predictions are
    in the target's own units. ``X`` may have more axes than two, as images have.

    Parameters
    ----------
    {MODULE_DOC}
    {PARAMETERS_DOC}
    {TARGETS_DOC}

    Attributes
    ----------
    {MODULE_ATTRIBUTES_DOC}
    {ATTRIBUTES_DOC}
    {TARGET_SCALER_DOC}

    Examples
    --------
    >>> import numpy as np
    >>> from nnlib.sklearn import NNJobsTorchRegressor
    >>> X = np.linspace(-1.0, 1.0, 200)[:, None]
    >>> model = NNJobsTorchRegressor(module__hidden=[50], learning_rate_init=0.01, random_state=0)
    >>> model.fit(X, np.sin(3.0 * X[:, 0])).score(X, np.sin(3.0 * X[:, 0])) > 0.95
    True
    """

    def __init__(
        self,
        factory: str | Callable[..., Any] = "torch-mlp",
        *,
        files: Sequence[str] = (),
        shape: Sequence[int] | None = None,
        device: str = "auto",
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
        **module_arguments: Any,
    ) -> None:
        super().__init__(
            factory,
            files=files,
            shape=shape,
            device=device,
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
            module_arguments=module_arguments,
        )
        self.target_scale = target_scale
