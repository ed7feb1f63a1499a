"""scikit-learn estimators whose training is nnjobs' own: the same driver, jobs and bits as ``nnjobs train``.

Needs scikit-learn: ``pip install "nnjobs[sklearn]"``.
"""

from __future__ import annotations

from nnlib.sklearn.classifier import NNJobsClassifier
from nnlib.sklearn.regressor import NNJobsRegressor

__all__ = ["NNJobsClassifier", "NNJobsRegressor"]
