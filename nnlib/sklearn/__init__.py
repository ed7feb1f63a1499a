"""scikit-learn estimators that train as ``nnjobs train`` does: the same driver, jobs and bits.

Needs scikit-learn: ``pip install "nnjobs[sklearn]"``.
"""

from __future__ import annotations

from nnlib.sklearn.classifier import NNJobsClassifier
from nnlib.sklearn.regressor import NNJobsRegressor
from nnlib.sklearn.torch_classifier import NNJobsTorchClassifier
from nnlib.sklearn.torch_regressor import NNJobsTorchRegressor

__all__ = ["NNJobsClassifier", "NNJobsRegressor", "NNJobsTorchClassifier", "NNJobsTorchRegressor"]
