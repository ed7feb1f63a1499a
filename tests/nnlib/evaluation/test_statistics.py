"""Statistics against hand-worked numbers, scipy and scikit-learn; what is not defined is None, not an error."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy import stats as scipy_stats
from sklearn import metrics as oracle

from nnlib.evaluation.statistics import (
    calibration_error,
    class_scores,
    compare,
    holm,
    most_confused,
    over_splits,
    reliability,
    summarize,
    verdict,
    wilson,
)
from nnlib.run.score_summary import ClassificationSummary
from nnlib.training.calibration import CALIBRATION_BINS, Calibration
from nnlib.training.scores import ClassificationScore

FIRST = [0.90, 0.91, 0.93, 0.92, 0.94]
SECOND = [0.92, 0.92, 0.95, 0.95, 0.96]


def test_summary_by_hand() -> None:
    summary = summarize([1.0, 2.0, 3.0])
    half = 4.302653 / math.sqrt(3)  # t(2; 0.975), sd 1
    assert (summary.n, summary.missing, summary.mean, summary.sd) == (3, 0, 2.0, 1.0)
    assert summary.interval == pytest.approx((2 - half, 2 + half), rel=1e-6)
    assert (summary.low, summary.high) == (1.0, 3.0)


def test_summary_leaves_out_what_is_missing() -> None:
    summary = summarize([None, 0.5, math.nan, 0.7, math.inf])
    assert (summary.n, summary.missing) == (2, 3) and summary.mean == pytest.approx(0.6)
    one = summarize([0.5, None])
    assert (one.n, one.mean, one.sd, one.interval) == (1, 0.5, None, None)
    none = summarize([None])
    assert (none.n, none.missing, none.mean, none.interval) == (0, 1, None, None)
    assert summarize([0.5, 0.5, 0.5]).interval == (0.5, 0.5)


def test_corrected_t_by_hand() -> None:
    # Differences 0.02, 0.01, 0.02, 0.03, 0.02: mean 0.02, s^2 = 2e-4 / 4; with 30/70 the factor is 1/5 + 3/7.
    found = compare(FIRST, SECOND, 30 / 70)
    t = 0.02 / math.sqrt((1 / 5 + 3 / 7) * 0.00005)
    assert found.difference == pytest.approx(0.02)
    assert found.t == pytest.approx(t) == pytest.approx(3.5675, abs=1e-4)
    assert found.p == pytest.approx(2 * stats.t.sf(t, 4)) == pytest.approx(0.02344, abs=1e-4)
    assert found.effect == pytest.approx(0.02 / math.sqrt(0.00005))
    assert verdict(found) == "higher"
    assert verdict(compare(SECOND, FIRST, 30 / 70)) == "lower"
    assert found.interval is not None and found.interval[0] > 0.0


@pytest.mark.parametrize("seed", range(5))
def test_without_the_correction_it_is_the_paired_t_test(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.normal(0.9, 0.01, (2, 12))
    found = compare(first.tolist(), second.tolist(), 0.0)
    theirs = stats.ttest_rel(second, first)
    assert (found.t, found.p) == pytest.approx((theirs.statistic, theirs.pvalue))
    assert found.interval == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    assert found.wilcoxon_p == pytest.approx(stats.wilcoxon(second, first).pvalue)


def test_the_correction_asks_for_more() -> None:
    plain, corrected = compare(FIRST, SECOND, 0.0), compare(FIRST, SECOND, 0.9)
    assert plain.p is not None and corrected.p is not None and plain.p < 0.05 < corrected.p
    assert verdict(corrected) == "not distinguishable"


def test_wilcoxon_by_hand() -> None:
    # Five differences of one sign: each of the 2^5 signings is equally likely, two of them are as extreme.
    assert compare([0.0] * 5, [1.0, 2.0, 3.0, 4.0, 5.0], 0.5).wilcoxon_p == pytest.approx(2 / 32)
    # The same with ties that binary fractions break in the last bits: 0.3 - 0.1 is not 0.2.
    broken = compare([0.1, 0.0, 0.5, 0.1], [0.3, 0.2, 0.8, 0.2], 0.5).wilcoxon_p
    assert broken == compare([0.0] * 4, [2.0, 2.0, 3.0, 1.0], 0.5).wilcoxon_p


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ([], [], "no common split was scored"),
        ([None, 0.5], [0.5, math.nan], "no common split was scored"),
        ([0.5], [0.6], "one common split: nothing can be said"),
        ([0.5], [0.5], "equal on the one common split"),
        ([0.5, 0.6], [0.5, 0.6], "equal on every split"),
        ([0.1, 0.2, 0.3], [0.2, 0.3, 0.4], "the same difference on every split: a test has no variance to judge by"),
    ],
)
def test_comparisons_that_cannot_be_tested(first: list[Any], second: list[Any], words: str) -> None:
    found = compare(first, second, 0.4)
    assert (found.t, found.p, found.effect) == (None, None, None)
    assert found.missing == len(first) - found.n
    assert verdict(found) == words


def test_samples_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError):
        compare([0.5], [0.5, 0.6], 0.4)


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1, never falling.
    assert holm([0.04, 0.01, None, 0.03, 0.02]) == pytest.approx([0.06, 0.04, None, 0.06, 0.06])
    assert holm([0.7, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    found = compare(FIRST, SECOND, 30 / 70)
    assert verdict(found, 0.06) == "not distinguishable"


def test_class_scores_equal_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 5, 500)
    guess = np.where(rng.random(500) < 0.7, y, rng.integers(0, 4, 500))  # class 4 is predicted only when right
    counts = ClassificationSummary(500, 0.5, 0.5, confusion=oracle.confusion_matrix(y, guess).tolist()).class_counts
    assert counts is not None
    precision, recall, f1, support = oracle.precision_recall_fscore_support(y, guess)
    for index, found in enumerate(class_scores(*counts)):
        assert (found.precision, found.recall, found.f1) == pytest.approx((precision[index], recall[index], f1[index]))
        assert found.rows == support[index]
    rows, hits, predicted = counts
    by_class = ClassificationSummary(500, 0.5, 0.5, class_rows=rows, class_hits=hits, class_predicted=predicted)
    assert by_class.class_counts == counts
    assert ClassificationSummary(0, None, None).class_counts is None


def test_classes_without_rows_or_predictions() -> None:
    empty, never_guessed, no_rows = class_scores([0, 4, 0], [0, 0, 0], [0, 0, 4])
    assert (empty.precision, empty.recall, empty.f1) == (None, None, None)
    assert (never_guessed.precision, never_guessed.recall, never_guessed.f1) == (None, 0.0, 0.0)
    assert (no_rows.precision, no_rows.recall, no_rows.f1) == (0.0, None, 0.0)


def test_most_confused_pairs() -> None:
    pairs = most_confused([[8, 2, 0], [2, 5, 3], [0, 0, 0]])
    assert [(pair.true, pair.predicted, pair.rows) for pair in pairs] == [(1, 2, 3), (0, 1, 2), (1, 0, 2)]
    assert [pair.share for pair in pairs] == [0.3, 0.2, 0.2]
    assert most_confused([[8, 2], [3, 5]], limit=1)[0].rows == 3
    assert most_confused([[1, 0], [0, 1]]) == []


def test_calibration_by_hand() -> None:
    # Bins of 1/15: 0.5 falls into the eighth, (7/15, 8/15]; 14/15 ends the last but one, 1 the last.
    calibration = Calibration()
    confidence = np.array([0.5, 0.5, 1.0, 14 / 15, np.nan])
    calibration.add(confidence, np.array([True, False, True, True, True]))
    table = reliability(calibration.summary())
    assert [(k, each.rows, each.accuracy) for k, each in enumerate(table) if each.rows] == [
        (7, 2, 0.5),
        (13, 1, 1.0),
        (14, 1, 1.0),
    ]
    assert table[7].confidence == 0.5 and table[0].confidence is None
    assert calibration_error(table) == pytest.approx((2 * 0 + 1 * (1 - 14 / 15) + 0) / 4)
    assert calibration_error(reliability(Calibration().summary())) is None


def test_calibration_equals_a_plain_computation_and_merges() -> None:
    rng = np.random.default_rng(1)
    outputs = rng.dirichlet(np.ones(4) * 0.4, 3000).astype(np.float32)
    y = rng.integers(0, 4, 3000)
    confidence, hit = outputs.max(axis=1).astype(np.float64), outputs.argmax(axis=1) == y
    expected = 0.0
    for low, high in zip(np.arange(15) / 15, (np.arange(15) + 1) / 15, strict=True):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            expected += inside.mean() * abs(hit[inside].mean() - confidence[inside].mean())
    scores = [ClassificationScore(4) for _ in range(3)]
    for start in range(0, 3000, 100):
        part = slice(start, start + 100)
        scores[start // 1000].add(outputs[part], np.zeros(100), y[part])
    total = ClassificationScore(4)
    for score in scores:
        total.merge(ClassificationScore.from_json(score.to_json(), 4))
    table = reliability(total.calibration.summary())
    assert len(table) == CALIBRATION_BINS
    assert calibration_error(table) == pytest.approx(expected, rel=1e-9)
    bins = np.clip(np.ceil(confidence * 15).astype(int) - 1, 0, 14)
    shown = [each for each in table if each.rows]
    true, _ = oracle_curve(hit, bins)
    assert [each.accuracy for each in shown] == pytest.approx(true)


def oracle_curve(hit: Any, bins: Any) -> tuple[list[float], list[int]]:
    """Accuracy and rows of every bin that has rows, from the rows themselves."""
    present = sorted(set(bins.tolist()))
    return [float(hit[bins == k].mean()) for k in present], [int((bins == k).sum()) for k in present]


def test_wilson_of_a_published_example() -> None:
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(29, 29) == pytest.approx((0.8830, 1.0), abs=5e-5)


@pytest.mark.parametrize("hits", [0, 1, 7, 19, 20])
def test_wilson_agrees_with_scipy(hits: int) -> None:
    theirs = scipy_stats.binomtest(hits, 20).proportion_ci(0.9, method="wilson")
    assert wilson(hits, 20, 0.9) == pytest.approx((theirs.low, theirs.high))


def test_over_splits_by_hand() -> None:
    # mean 2, s^2 1, t(2; 0.975) = 4.302653; uncorrected it is the interval of three independent values.
    half = 4.302653 * math.sqrt((1 / 3 + 0.25) * 1)
    assert over_splits([1, 2, 3], 0.25) == pytest.approx((2 - half, 2 + half), rel=1e-6)
    plain = scipy_stats.t.interval(0.95, 2, loc=2, scale=scipy_stats.sem([1, 2, 3]))
    assert over_splits([1, 2, 3], 0.0) == pytest.approx(plain)
    assert over_splits([0.5, 0.5], 0.4) == (0.5, 0.5)
