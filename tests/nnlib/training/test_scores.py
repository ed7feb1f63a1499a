"""Scores equal scikit-learn's, add up over workers, and have a value for what cannot be scored."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as oracle

from nnlib.core.exact_sum import exact_sum
from nnlib.run.score_summary import RegressionSummary, score_summary_from_json
from nnlib.training.scores import (
    CONFUSION_CLASSES,
    ClassificationScore,
    RegressionScore,
    merge_scores,
    new_score,
    score_from_json,
)


def classified(rows: int, classes: int, seed: int = 0) -> tuple[Any, Any, Any]:
    """Probabilities, row losses and true classes; about half of the rows are right."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, rows)
    z = rng.standard_normal((rows, classes))
    z[np.arange(rows), y] += 2.0
    outputs = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    return outputs, -np.log(outputs[np.arange(rows), y]), y


def scored(outputs: Any, losses: Any, y: Any, classes: int, chunk: int = 100) -> ClassificationScore:
    score = ClassificationScore(classes)
    for start in range(0, len(y), chunk):
        part = slice(start, start + chunk)
        score.add(outputs[part], losses[part], y[part])
    return score


@pytest.mark.parametrize("classes", [2, 5, 6, 10, CONFUSION_CLASSES])
def test_classification_equals_scikit_learn(classes: int) -> None:
    outputs, losses, y = classified(1234, classes)
    labels = np.arange(classes)
    summary = scored(outputs, losses, y, classes).summary()
    guess = outputs.argmax(axis=1)
    assert summary.rows == 1234
    assert summary.accuracy == oracle.accuracy_score(y, guess)
    assert summary.loss == pytest.approx(oracle.log_loss(y, outputs, labels=labels), rel=1e-12)
    assert summary.confusion == oracle.confusion_matrix(y, guess, labels=labels).tolist()
    if classes > 5:
        assert summary.top_5_accuracy == oracle.top_k_accuracy_score(y, outputs, k=5, labels=labels)
    else:
        assert (
            summary.top_5_accuracy is None and "top_5_accuracy" not in summary.to_json()
        )  # it would be 1 for any model


def test_with_many_classes_counts_replace_the_matrix() -> None:
    classes = CONFUSION_CLASSES + 1
    outputs, losses, y = classified(3000, classes)
    guess = outputs.argmax(axis=1)
    summary = scored(outputs, losses, y, classes).summary()
    matrix = oracle.confusion_matrix(y, guess, labels=np.arange(classes))
    assert summary.confusion is None and "confusion" not in summary.to_json()
    assert summary.accuracy == oracle.accuracy_score(y, guess)
    assert summary.top_5_accuracy == oracle.top_k_accuracy_score(y, outputs, k=5, labels=np.arange(classes))
    assert summary.class_rows == matrix.sum(axis=1).tolist()
    assert summary.class_hits == matrix.diagonal().tolist()
    assert summary.class_predicted == matrix.sum(axis=0).tolist()


def test_equal_outputs_are_no_hit_for_every_class() -> None:
    # A saturated softmax: all probability on one class, exact zeros elsewhere. Of equals the lower class is ahead, so
    # of ten classes five are among the first five, whichever is the true one.
    outputs = np.zeros((10, 10), np.float32)
    outputs[:, 9] = 1.0
    score = scored(outputs, np.zeros(10), np.arange(10), 10)
    assert score.top_k == 5
    for label, hit in ((9, 1), (0, 1), (3, 1), (4, 0), (8, 0)):
        assert scored(outputs[:1], np.zeros(1), np.array([label]), 10).top_k == hit
    assert scored(np.full((3, 10), 0.1), np.zeros(3), np.array([0, 4, 5]), 10).top_k == 2


def regressed(rows: int, seed: int = 0) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    y = 1e6 + rng.standard_normal(rows)  # far from zero: a naive sum of squares would lose the spread
    outputs = (y + rng.standard_normal(rows) * 0.3)[:, None]
    return outputs, 0.5 * (outputs[:, 0] - y) ** 2, y


def test_regression_equals_scikit_learn() -> None:
    outputs, losses, y = regressed(2345)
    score = RegressionScore()
    for start in range(0, len(y), 100):
        part = slice(start, start + 100)
        score.add(outputs[part], losses[part], y[part])
    summary = score.summary()
    assert summary.rows == 2345
    assert summary.mse == pytest.approx(oracle.mean_squared_error(y, outputs), rel=1e-12)
    assert summary.mae == pytest.approx(oracle.mean_absolute_error(y, outputs), rel=1e-12)
    assert summary.r2 == pytest.approx(oracle.r2_score(y, outputs), rel=1e-9)
    assert summary.loss == pytest.approx(losses.mean(), rel=1e-12)


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("classes", [10, 300])
def test_workers_scores_add_up_to_the_whole(task: str, classes: int) -> None:
    """Through JSON, as they travel; one worker has no rows at all."""
    outputs, losses, y = classified(1000, classes) if task == "classification" else regressed(1000)
    whole: Any = new_score(task, classes)
    whole.add(outputs, losses, y)
    parts = []
    for worker_rows in (slice(0, 1), slice(1, 400), slice(400, 400), slice(400, 1000)):
        part: Any = new_score(task, classes)
        if len(y[worker_rows]):
            part.add(outputs[worker_rows], losses[worker_rows], y[worker_rows])
        parts.append(json.loads(json.dumps(part.to_json(), allow_nan=False)))
        again = score_from_json(parts[-1], task, classes)
        assert again.to_json() == part.to_json()
        assert again.summary() == part.summary()
        assert score_summary_from_json(part.summary().to_json()) == part.summary()
    summary = merge_scores([score_from_json(part, task, classes) for part in parts], task, classes)
    merged, expected = summary.to_json(), whole.summary().to_json()
    assert merged.keys() == expected.keys()
    if task == "classification":
        bins, whole_bins = merged.pop("calibration"), expected.pop("calibration")
        assert (bins["rows"], bins["hits"]) == (whole_bins["rows"], whole_bins["hits"])
        assert bins["confidence"] == pytest.approx(whole_bins["confidence"], rel=1e-12)
    for key, value in expected.items():
        assert merged[key] == (pytest.approx(value, rel=1e-12) if isinstance(value, float) else value), key


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_nothing_scored_is_null(task: str) -> None:
    empty = new_score(task, 3)
    for summary in (empty.summary(), merge_scores([empty] * 2, task, 3), merge_scores([], task, 3)):
        assert summary.rows == 0
        assert all(value is None for key, value in summary.to_json().items() if key != "rows")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_losses_that_are_not_finite_are_null(bad: float) -> None:
    outputs, losses, y = classified(20, 10)
    losses[3] = bad
    part = score_from_json(scored(outputs, losses, y, 10).to_json(), "classification", 10)
    classified_summary = merge_scores([part], "classification", 10)
    assert classified_summary.loss is None and classified_summary.value("accuracy") is not None
    values, losses, y = regressed(20)
    values[4] = losses[4] = bad
    score = RegressionScore()
    with np.errstate(all="ignore"):
        score.add(values, losses, y)
    summary = merge_scores([RegressionScore.from_json(score.to_json()), RegressionScore()], "regression", 0)
    assert summary == RegressionSummary(rows=20, loss=None, mse=None, mae=None, r2=None)
    json.dumps(summary.to_json(), allow_nan=False)


def test_outputs_that_are_no_numbers_score_no_top_hit() -> None:
    score = scored(np.full((4, 10), np.nan, np.float32), np.full(4, np.nan), np.array([1, 2, 3, 9]), 10)
    assert (score.top_k, score.correct) == (0, 0)
    assert score.summary().loss is None


def test_constant_targets_have_no_r2() -> None:
    score = RegressionScore()
    score.add(np.array([[1.0], [3.0]]), np.array([0.5, 0.5]), np.array([2.0, 2.0]))
    assert score.summary() == RegressionSummary(rows=2, loss=0.5, mse=1.0, mae=1.0, r2=None)


def test_exact_sum_knows_no_order() -> None:
    values = [1e16, 1.0, -1e16, 1e-9]
    assert exact_sum(values) == exact_sum(values[::-1]) == 1.000000001
    for bad in ([math.inf], [math.inf, -math.inf], [1e308, 1e308], [math.nan]):
        assert not math.isfinite(exact_sum(bad))
