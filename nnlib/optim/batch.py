"""Nonlinear conjugate gradient and L-BFGS, through scipy: the step length comes from a line search, not a rate."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, Literal

import numpy as np

from nnlib.config.options import LBFGSOptions
from nnlib.config.schema import Train
from nnlib.config.section import options_of
from nnlib.core.layout import Layout
from nnlib.optim.protocol import Float64, Minimum, Objective


class _Scipy:
    """Runs one of scipy's methods, stopping for nothing but the iterations or a line search that finds no way down."""

    minimizes: ClassVar[Literal[True]] = True
    method: ClassVar[str]

    def __init__(self, train: Train, layout: Layout) -> None:
        """``train`` has the options of the kind."""

    def _options(self, iterations: int) -> dict[str, Any]:
        raise NotImplementedError

    def minimize(self, objective: Objective, start: Float64, iterations: int) -> Minimum:
        """See `nnlib.optim.protocol.BatchOptimizer.minimize`."""
        from scipy.optimize import minimize  # costs 0.2 s of start-up that step optimizers need not pay

        point = np.array(start, dtype=np.float64)
        if iterations <= 0:
            return Minimum(point, float(objective(point)[0]), 1, "no iterations asked for")

        def guarded(at: Float64) -> tuple[float, Float64]:
            loss, gradient = objective(at)
            return loss, np.array(gradient, dtype=np.float64)  # scipy keeps gradients; the objective may reuse its own

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a failed line search near the optimum: `message` names it
            result = minimize(guarded, point, jac=True, method=self.method, options=self._options(iterations))
        reached = np.array(result.x, dtype=np.float64)
        return Minimum(reached, float(result.fun), int(result.nfev), str(result.message))


class ConjugateGradient(_Scipy):
    """Polak-Ribiere+ with a strong Wolfe line search (Nocedal and Wright 2006, section 5.2)."""

    method = "CG"

    def _options(self, iterations: int) -> dict[str, Any]:
        return {"maxiter": iterations, "gtol": 0.0}


class LBFGS(_Scipy):
    """Limited-memory BFGS (Byrd, Lu, Nocedal and Zhu 1995), without bounds."""

    method = "L-BFGS-B"

    def __init__(self, train: Train, layout: Layout) -> None:
        super().__init__(train, layout)
        self._history = options_of(train, LBFGSOptions).history

    def _options(self, iterations: int) -> dict[str, Any]:
        return {
            "maxiter": iterations,
            "maxcor": self._history,
            "maxfun": 1_000 * iterations,  # scipy's 15000 would cut long runs short
            "gtol": 0.0,
            "ftol": 0.0,
        }
