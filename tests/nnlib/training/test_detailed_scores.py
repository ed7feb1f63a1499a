"""Metrics equal scikit-learn's, whatever chunks, workers and their order; a class without rows makes them null."""

from __future__ import annotations

import json
import re
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from product import ROOT
from sklearn import metrics as oracle

from nnlib.core.metrics import METRICS, metrics_of
from nnlib.run.score_summary import ClassificationSummary, score_summary_from_json
from nnlib.training import ranked_scores
from nnlib.training.classification_details import RANKED_CLASSES
from nnlib.training.scores import Score, merge_scores, new_score, score_from_json


def classified(rows: int, classes: int, seed: int, *, steps: int | None = None, kind: Any = np.float32) -> Any:
    """Probabilities and true classes; with ``steps`` many rows have equal probabilities."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, rows)
    z = rng.standard_normal((rows, classes))
    z[np.arange(rows), y] += 1.0
    if steps is not None:
        z = np.round(z * steps) / steps
    outputs = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    return outputs.astype(kind), y


def scored(outputs: Any, y: Any, classes: int, chunk: int = 100, rows: int = 0) -> Any:
    score: Any = new_score("classification", classes, detailed=True, rows=rows)
    losses = np.zeros(len(y))
    for start in range(0, len(y), chunk):
        part = slice(start, start + chunk)
        score.add(outputs[part], losses[part], y[part])
    return score


def travelled(score: Score, task: str, classes: int) -> Score:
    """A score as another worker or the driver reads it."""
    return score_from_json(json.loads(json.dumps(score.to_json(), allow_nan=False)), task, classes)


def expected(outputs: Any, y: Any) -> dict[str, float]:
    """What scikit-learn says, of rows that have all classes."""
    classes = outputs.shape[1]
    guess, labels = outputs.argmax(axis=1), np.arange(classes)
    one_hot = np.eye(classes, dtype=int)[y]
    values = outputs.astype(np.float64)
    ranked = (y, values[:, 1]) if classes == 2 else (one_hot, values)
    # The probabilities as they are predicted: scikit-learn takes the limits of their dtype. It sums in that dtype too,
    # so it is given numbers cut to these limits in float64.
    eps = np.finfo(outputs.dtype).eps
    cut = np.clip(outputs, eps, 1 - eps).astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "accuracy": oracle.accuracy_score(y, guess),
            "balanced_accuracy": oracle.balanced_accuracy_score(y, guess),
            "f1_macro": oracle.f1_score(y, guess, average="macro"),
            "f1_weighted": oracle.f1_score(y, guess, average="weighted"),
            "log_loss": oracle.log_loss(y, cut, labels=labels),
            "roc_auc": oracle.roc_auc_score(*ranked, average="macro"),
            "average_precision": oracle.average_precision_score(*ranked, average="macro"),
        }


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(20, 400),
    classes=st.integers(2, 12),
    seed=st.integers(0, 10**6),
    steps=st.sampled_from([None, 1, 2]),
    kind=st.sampled_from([np.float32, np.float64]),
    chunk=st.integers(1, 200),
)
def test_metrics_equal_scikit_learn(
    rows: int, classes: int, seed: int, steps: int | None, kind: Any, chunk: int
) -> None:
    outputs, y = classified(rows, classes, seed, steps=steps, kind=kind)
    present = len(set(y.tolist()))
    summary = merge_scores(
        [travelled(scored(outputs, y, classes, chunk), "classification", classes)], "classification", classes
    )
    want = expected(outputs, y)
    if present < classes:  # scikit-learn warns, and gives NaN or 0
        want |= {"roc_auc": None, "average_precision": None}  # type: ignore[dict-item]
    values = summary.values()
    assert summary.error == {}
    for name, value in want.items():
        assert values[name] == (value if value is None else pytest.approx(value, rel=1e-12, abs=1e-12)), name
    assert score_summary_from_json(json.loads(json.dumps(summary.to_json()))) == summary


@settings(max_examples=25, deadline=None)
@given(data=st.data(), classes=st.integers(2, 5), seed=st.integers(0, 10**6), limit=st.sampled_from([1, 300, 1 << 20]))
def test_parts_merge_in_any_order_to_the_same_bits(data: Any, classes: int, seed: int, limit: int) -> None:
    """Exact or in bins: how rows lie on workers decides nothing, nor that some keep rows and others count them."""
    outputs, y = classified(200, classes, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranked_scores, "EXACT_VALUES", limit)
        whole = scored(outputs, y, classes, 200).summary()
        owner = np.array(data.draw(st.lists(st.integers(0, 3), min_size=200, max_size=200)))
        parts = []
        for worker in data.draw(st.permutations(range(4))):
            mine = owner == worker
            part = scored(outputs[mine], y[mine], classes, 33)
            parts.append(travelled(part, "classification", classes))
        merged = merge_scores(parts, "classification", classes)
    assert isinstance(merged, ClassificationSummary) and isinstance(whole, ClassificationSummary)
    assert (merged.roc_auc, merged.average_precision, merged.error) == (
        whole.roc_auc,
        whole.average_precision,
        whole.error,
    )
    assert merged.values()["log_loss"] == pytest.approx(whole.values()["log_loss"], rel=1e-14)


@pytest.mark.parametrize("classes", [2, 4, 40])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_bins_are_wrong_by_no_more_than_they_say(classes: int, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs, y = classified(20_000, classes, 3, kind=kind)
    exact = scored(outputs, y, classes, 1024).summary().values()
    monkeypatch.setattr(ranked_scores, "EXACT_VALUES", 1000)
    binned = scored(outputs, y, classes, 1024).summary()
    assert binned == scored(outputs, y, classes, 1024, rows=20_000).summary()  # counted from the first row
    for name in ("roc_auc", "average_precision"):
        value, true = binned.value(name), exact[name]
        assert value is not None and true is not None
        assert 0.0 < binned.error[name] < 0.02
        assert abs(value - true) <= binned.error[name]
        assert abs(value - true) < 2e-4
    assert json.loads(json.dumps(binned.to_json()))["details"]["error"] == dict(binned.error)


def test_bins_keep_the_order_of_outputs_and_know_both_ends() -> None:
    values = np.sort(
        np.concatenate([10.0 ** np.arange(-45, 0), 1 - 10.0 ** -np.arange(1, 9), [0.0, 0.5, 1.0, -0.0, 2.0, -1.0]])
    )
    for bits in (0, 3, 11):
        numbers = ranked_scores._bin_numbers(values[:, None].astype(np.float32), bits)[:, 0]
        assert (np.diff(numbers) >= 0).all() and numbers[0] == 0 and numbers[-1] == ranked_scores._bins(bits) - 1
    near = np.array([[1 - 1e-6], [1 - 1e-7], [1e-6], [1e-7]], np.float32)
    assert len(set(ranked_scores._bin_numbers(near, 8)[:, 0].tolist())) == 4


def test_what_cannot_be_ranked_is_null() -> None:
    one = scored(np.array([[0.9, 0.1], [0.2, 0.8]], np.float32), np.array([0, 0]), 2).summary()
    assert (one.value("roc_auc"), one.value("average_precision")) == (None, None)
    assert one.value("balanced_accuracy") == 0.5  # of the one class that has rows, as scikit-learn has it
    outputs, y = classified(30, 3, 0)
    outputs[4, 1] = np.nan
    broken = travelled(scored(outputs, y, 3), "classification", 3)
    summary = merge_scores([broken, scored(outputs[5:], y[5:], 3)], "classification", 3)
    assert summary.value("roc_auc") is None and summary.value("f1_macro") is not None
    outputs, y = classified(40, RANKED_CLASSES + 1, 0)
    assert scored(outputs, y, RANKED_CLASSES + 1).summary().value("roc_auc") is None


def test_a_part_of_an_earlier_version_leaves_no_details() -> None:
    outputs, y = classified(60, 3, 0)
    detailed = scored(outputs, y, 3)
    plain: Any = new_score("classification", 3)
    plain.add(outputs, np.zeros(60), y)
    assert "details" not in plain.to_json() and "details" not in plain.summary().to_json()
    for parts in ([detailed, plain], [plain, detailed]):
        merged = merge_scores(parts, "classification", 3)
        assert merged.rows == 120 and merged.details is None
        assert "roc_auc" not in merged.values() and merged.value("f1_macro") is not None
    empty = new_score("classification", 3)
    assert merge_scores([empty, scored(outputs, y, 3)], "classification", 3).details is not None


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(2, 300),
    seed=st.integers(0, 10**6),
    chunk=st.integers(1, 100),
    bias=st.sampled_from([0.0, 3.0, 1e6]),
)
def test_regression_metrics_equal_scikit_learn(rows: int, seed: int, chunk: int, bias: float) -> None:
    rng = np.random.default_rng(seed)
    y = 1e5 + 10 * rng.standard_normal(rows)
    outputs = (y + bias + rng.standard_normal(rows))[:, None]
    parts = []
    for start in range(0, rows, chunk):
        part: Any = new_score("regression", 0, detailed=True)
        part.add(outputs[start : start + chunk], np.zeros(len(y[start : start + chunk])), y[start : start + chunk])
        parts.append(travelled(part, "regression", 0))
    values = merge_scores(parts, "regression", 0).values()
    assert values["rmse"] == pytest.approx(oracle.root_mean_squared_error(y, outputs), rel=1e-12)
    assert values["mae"] == pytest.approx(oracle.mean_absolute_error(y, outputs), rel=1e-12)
    assert values["explained_variance"] == pytest.approx(
        oracle.explained_variance_score(y, outputs), rel=1e-8, abs=1e-8
    )


def test_the_page_about_metrics_is_the_table() -> None:
    text = (ROOT / "docs/metrics.md").read_text("utf-8")
    rows = re.findall(r"^\| (`[^|]+) \| [^|]+ \| (\w+) \| ([^|]+) \|$", text, re.MULTILINE)
    said = {
        name: (better == "greater", computed == "final models")
        for names, better, computed in rows
        for name in re.findall("`([^`]+)`", names)
    }
    assert said == {name: (metric.greater_is_better, metric.detailed) for name, metric in METRICS.items()}


def test_the_table_says_which_way_is_better() -> None:
    less = {name for name, metric in METRICS.items() if not metric.greater_is_better}
    assert less == {"loss", "log_loss", "mse", "rmse", "mae"}
    assert metrics_of("classification")[0] == "accuracy" and metrics_of("regression")[0] == "r2"
    assert not METRICS["roc_auc"].is_better(0.8, 0.8) and METRICS["roc_auc"].is_better(0.81, 0.8)
    assert not METRICS["roc_auc"].is_better(0.81, 0.8, 0.02) and METRICS["rmse"].is_better(1.0, 1.1)
