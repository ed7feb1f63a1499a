"""Feature scaling: equal to numpy and scikit-learn, whatever the pieces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save
from shards import write_dataset
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from nnlib.config.schema import Split
from nnlib.core.errors import DataError, MismatchError
from nnlib.data.scaling import FeatureStats, Scaler
from nnlib.data.shard_reader import label_chunks
from nnlib.data.split.fitting import fit_split_rules
from nnlib.data.split.rule import TRAIN
from nnlib.data.worker_data import WorkerData

FITTED: dict[Any, Any] = {"standard": StandardScaler, "minmax": MinMaxScaler}


def table(rows: int = 300) -> np.ndarray:
    """Features of very different sizes; the third is constant."""
    rng = np.random.default_rng(2)
    return np.stack(
        [rng.normal(1e6, 1, rows), rng.normal(0, 1e-8, rows), np.full(rows, 0.1), rng.integers(0, 256, rows)], axis=1
    )


def stats_of(x: np.ndarray, cuts: list[int]) -> FeatureStats:
    return FeatureStats.merged(FeatureStats.of(part) for part in np.split(x, cuts))


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 300), max_size=6).map(sorted))
def test_merged_statistics_are_those_of_all_rows(cuts: list[int]) -> None:
    x = table()
    stats = stats_of(x, cuts)
    assert stats.count == 300
    np.testing.assert_allclose(stats.mean, x.mean(axis=0), rtol=1e-13, atol=1e-22)
    np.testing.assert_allclose(stats.m2, x.var(axis=0) * 300, rtol=1e-8, atol=1e-22)
    np.testing.assert_array_equal(stats.low, x.min(axis=0))
    np.testing.assert_array_equal(stats.high, x.max(axis=0))


@pytest.mark.parametrize("kind", ["standard", "minmax"])
def test_equals_scikit_learn(kind: Any) -> None:
    x = table()
    scaler = Scaler.from_stats(kind, stats_of(x, [100, 110]))
    assert scaler is not None
    expected = FITTED[kind]().fit_transform(x)
    np.testing.assert_allclose((x - scaler.shift) * scaler.factor, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["standard", "minmax"])
def test_a_constant_feature_becomes_zero(kind: Any) -> None:
    x = np.full((7, 1), 0.1)
    scaler = Scaler.from_stats(kind, stats_of(x, [3]))
    assert scaler is not None
    assert scaler.factor.tolist() == [1.0]
    np.testing.assert_allclose((x - scaler.shift) * scaler.factor, 0.0, atol=1e-16)


def test_none_is_no_scaler_and_no_rows_are_refused() -> None:
    assert Scaler.from_stats("none", FeatureStats.zero(3)) is None
    with pytest.raises(DataError, match="no training rows"):
        Scaler.from_stats("standard", FeatureStats.zero(3))
    with pytest.raises(MismatchError, match="3 features cannot be merged with 2"):
        FeatureStats.zero(3).merge(FeatureStats.zero(2))


def test_round_trips_through_safetensors() -> None:
    stats = stats_of(table(), [5])
    scaler = Scaler.from_stats("minmax", stats)
    assert scaler is not None
    again = Scaler.from_arrays(load(save(scaler.to_arrays())) | {"weights": np.zeros(2)})
    assert again is not None
    assert again.kind == "minmax"
    assert again.shift.tobytes() == scaler.shift.tobytes()
    assert again.factor.tobytes() == scaler.factor.tobytes()
    assert Scaler.from_arrays({"weights": np.zeros(2)}) is None
    back = FeatureStats.from_arrays(load(save(stats.to_arrays())))
    assert (back.count, back.m2.tobytes()) == (stats.count, stats.m2.tobytes())


def test_a_dataset_is_scaled_by_its_training_rows(tmp_path: Path) -> None:
    """From shards to batches, against scikit-learn fitted on the same rows; no worker's share changes a bit."""
    rng = np.random.default_rng(4)
    x, y = rng.integers(0, 256, (600, 5), dtype=np.uint8), rng.integers(0, 3, 600)
    dataset = write_dataset(tmp_path, x, y, shards=4, classes=3, dtype="uint8", scale=1 / 255, row_group_rows=50)
    (rule,) = fit_split_rules(label_chunks(dataset), Split(), [(0, 0)], seed=0, classes=3)
    train = rule.parts(np.arange(600), y, {}) == TRAIN
    fits: list[Scaler] = []
    for groups in ([[0, 1, 2, 3]], [[0, 1], [2, 3]], [[0], [1], [2], [3]]):
        stats: dict[int, FeatureStats] = {}
        for group in groups:
            with WorkerData(dataset, group, group, memory_bytes=10**6) as data:
                stats |= {shard: data.feature_stats(rule, shard) for shard in group}
        scaler = Scaler.from_stats("standard", FeatureStats.merged(stats[shard] for shard in range(4)))
        assert scaler is not None
        fits.append(scaler)
    assert len({(scaler.shift.tobytes(), scaler.factor.tobytes()) for scaler in fits}) == 1
    scaler = fits[0]
    oracle = StandardScaler().fit(x[train] / 255)
    np.testing.assert_allclose(scaler.shift, oracle.mean_, rtol=1e-13)
    np.testing.assert_allclose(1 / scaler.factor, oracle.scale_, rtol=1e-13)
    with WorkerData(dataset, range(4), [0], memory_bytes=10**6) as data:
        for batch in data.trial(rule, scaler, "float32").sample().chunks():
            np.testing.assert_allclose(batch.x, oracle.transform(x[batch.row] / 255), atol=1e-5)
