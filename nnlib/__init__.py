"""nnjobs' library: everything that knows neural networks and nothing that knows mrjob.

``nnlib.load(run).predict(X)`` is the way in from Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnlib.inference.trained_model import TrainedModel

__version__ = "0.1.0"
FORMAT_VERSION = 1
"""Version of every file nnjobs writes (dataset.json, manifests, metrics, wire lines)."""


def load(run: str, *, trial: int = 0, trust_code: bool = False) -> TrainedModel:
    """Open the final model of a run directory; see `nnlib.inference.trained_model.TrainedModel`.

    ``trust_code``: run the code that the run brings, here and now and whenever this user opens such a run. Without it,
    and without having trained with that code on this machine, `nnlib.core.errors.UsageError` says what the run brings.
    """
    from nnlib.inference.trained_model import TrainedModel

    return TrainedModel.load(run, trial=trial, trust_code=trust_code)
