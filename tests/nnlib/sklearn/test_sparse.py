"""Sparse matrices in the estimators: the same bits as the dense matrices, and little memory."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", "1.6")

import scipy.sparse as sp
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline

from nnlib.core.errors import DataError
from nnlib.data.importing.import_dataset import from_arrays
from nnlib.sklearn import NNJobsClassifier, NNJobsRegressor

RANDOM = np.random.default_rng(8)
X = np.where(RANDOM.random((80, 10)) < 0.3, RANDOM.standard_normal((80, 10)), 0)
Y = RANDOM.integers(0, 3, 80)
SMALL: dict[str, Any] = {"hidden_layer_sizes": (5,), "max_iter": 4, "random_state": 3}
MAKE: list[Any] = [sp.csr_matrix, sp.csc_array, sp.coo_array, sp.lil_matrix, sp.dok_array, sp.bsr_array, sp.dia_array]


@pytest.mark.parametrize("make", MAKE, ids=lambda make: make.__name__)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
@pytest.mark.parametrize("scale", ["none", "standard"])
def test_a_sparse_matrix_trains_and_predicts_as_the_dense_one(make: Any, dtype: Any, scale: str) -> None:
    dense = (10 * X).astype(dtype)
    expected = NNJobsClassifier(**SMALL, scale=scale).fit(dense, Y)
    fitted = NNJobsClassifier(**SMALL, scale=scale).fit(make(dense), Y)
    assert fitted.model_sha256_ == expected.model_sha256_
    assert np.array_equal(fitted.predict_proba(make(dense)), expected.predict_proba(dense))
    assert fitted.score(make(dense), Y) == expected.score(dense, Y)
    regressor = NNJobsRegressor(**SMALL, scale=scale)
    assert np.array_equal(
        regressor.fit(make(dense), X[:, 0]).predict(make(dense)), regressor.fit(dense, X[:, 0]).predict(dense)
    )


@pytest.mark.parametrize("scale", ["none", "standard"])
@pytest.mark.parametrize("shift", [0, 2**40], ids=["float32", "float64"])
def test_training_goes_on_with_sparse_rows(scale: str, shift: int) -> None:
    dense = np.where(X != 0, X + shift, 0)
    hashes = set()
    for first, second in ((a, b) for a in (dense, sp.csr_array(dense)) for b in (dense, sp.csr_array(dense))):
        estimator = NNJobsClassifier(**SMALL, scale=scale).partial_fit(first, Y, classes=[0, 1, 2])
        hashes.add(estimator.partial_fit(second, Y).model_sha256_)
    assert len(hashes) == 1


def test_text_by_a_pipeline() -> None:
    texts = ["red apple", "green pear", "red cherry", "green apple", "red red cherry", "green green pear"] * 5
    labels = ["r" if "red" in text else "g" for text in texts]
    model = make_pipeline(TfidfVectorizer(), NNJobsClassifier((8,), solver="lbfgs", random_state=0))
    assert model.fit(texts, labels).score(texts, labels) == 1.0


def test_predictions_of_a_large_matrix_take_little_memory() -> None:
    width, rows = 5000, 30_000
    few = sp.random_array((40, width), density=0.01, rng=1, format="csr")
    model = NNJobsClassifier((4,), max_iter=1, random_state=0).fit(few, np.arange(40) % 2)
    many = sp.random_array((rows, width), density=0.001, rng=2, format="csr", dtype=np.float32)
    tracemalloc.start()
    try:
        predicted = model.predict(many)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(predicted) == rows
    assert peak < rows * width * 4 / 4  # a quarter of the dense matrix


def test_datasets_from_sparse_arrays(tmp_path: Any) -> None:
    for name, array in (("dense", X), ("sparse", sp.csc_matrix(X))):
        from_arrays(array, Y, str(tmp_path / name), shards=2)
    for path in (tmp_path / "dense").glob("*.parquet"):
        assert path.read_bytes() == (tmp_path / "sparse" / path.name).read_bytes()
    with pytest.raises(DataError, match="no matrix"):
        from_arrays(sp.coo_array(X[0]), Y, str(tmp_path / "bad"))


def test_what_is_not_finite_is_refused() -> None:
    bad = sp.csr_array(np.where(np.arange(800).reshape(80, 10) == 42, np.nan, X))
    with pytest.raises(ValueError, match="NaN"):
        NNJobsClassifier(**SMALL).fit(bad, Y)
