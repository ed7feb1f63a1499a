"""scikit-learn estimators that train as ``nnjobs train`` does: the same driver, jobs and bits.

Needs scikit-learn: ``pip install "nnjobs[sklearn]"``.
"""

from __future__ import annotations

from nnlib.sklearn.classifier import NNJobsClassifier
from nnlib.sklearn.regressor import NNJobsRegressor

__all__ = ["NNJobsClassifier", "NNJobsRegressor"]
