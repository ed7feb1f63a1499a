"""A worker's rows: the same batches, bit for bit, whether rows are held in memory, converted ahead or read again."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from shards import write_dataset

from nnlib.config.schema import Split
from nnlib.core.errors import ConfigError
from nnlib.core.seeds import Purpose, generator, hash_key
from nnlib.data.batches import Batch
from nnlib.data.dataset import Dataset
from nnlib.data.decoded_rows import BLOCKS, CONVERTED
from nnlib.data.sampling import epoch_order, sample_mask
from nnlib.data.scaling import FeatureStats, Scaler
from nnlib.data.shard_reader import label_chunks
from nnlib.data.split.fitting import fit_split_rules
from nnlib.data.split.rule import TEST, TRAIN, VALIDATION, SplitRule
from nnlib.data.worker_data import WorkerData

ROWS, FEATURES, SHARDS, GROUP = 700, 12, 3, 32
LARGE = 10**9
SMALL = 2000  # bytes: far less than the rows take, enough for windows of 40 rows


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    BLOCKS.clear()
    CONVERTED.clear()
    yield
    BLOCKS.clear()
    CONVERTED.clear()


def made(where: Path, dtype: str, **keywords: Any) -> tuple[Dataset, Any, Any]:
    rng = np.random.default_rng(5)
    if dtype == "uint8":
        x: Any = rng.integers(0, 256, (ROWS, FEATURES), dtype=np.uint8)
        keywords = {"scale": 1 / 255, "offset": -0.5, **keywords}
    else:
        x = rng.normal(3, 2, (ROWS, FEATURES)).astype(np.float32)
    y = rng.integers(0, 4, ROWS)
    dataset = write_dataset(where, x, y, shards=SHARDS, row_group_rows=GROUP, classes=4, dtype=dtype, **keywords)
    return dataset, x, y


def split_of(dataset: Dataset, **keywords: Any) -> SplitRule:
    split = Split(**{"train": 0.6, "validation": 0.1, **keywords})
    (rule,) = fit_split_rules(label_chunks(dataset), split, [(0, 0)], seed=0, classes=4)
    return rule


def copied(batches: Iterator[Batch]) -> list[tuple[bytes, bytes, bytes, tuple[int, ...]]]:
    """What the batches held, copied, for their buffers are used again."""
    return [(batch.x.tobytes(), batch.y.tobytes(), batch.row.tobytes(), batch.x.shape) for batch in batches]


def fitted(data: WorkerData, rule: SplitRule, kind: Any) -> Scaler | None:
    return Scaler.from_stats(kind, FeatureStats.merged(data.feature_stats(rule, shard) for shard in range(SHARDS)))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("kind", ["none", "standard", "minmax"])
@pytest.mark.parametrize("fraction", [1.0, 0.7])
def test_memory_cannot_change_a_bit(tmp_path: Path, dtype: str, kind: str, fraction: float) -> None:
    dataset, _, _ = made(tmp_path, dtype)
    rule = split_of(dataset)
    held = ROWS * (FEATURES * np.dtype(dtype).itemsize + 16)
    everything = []
    for memory in (SMALL, held, LARGE):  # read again; held as stored, converted batch by batch; converted ahead
        with WorkerData(dataset, range(SHARDS), [1], memory_bytes=memory) as data:
            assert (data.rows.block is None) == (memory == SMALL)
            trial = data.trial(rule, fitted(data, rule, kind), "float32")
            sample = trial.sample(fraction, hash_key(1, Purpose.SAMPLE, epoch=5))
            epochs = [
                copied(sample.batches(generator(1, Purpose.ORDER, epoch=epoch), window_rows=40, batch_size=16))
                for epoch in range(2)
            ]
            counts = [sample.rows, trial.train_rows]
            scored = [copied(trial.score_batches(part)) for part in (TEST, VALIDATION, TRAIN)]
            everything.append([*counts, *epochs, copied(sample.chunks(50)), *scored])
    assert everything[0] == everything[1] == everything[2]
    assert everything[0][2] != everything[0][3]  # two epochs


@pytest.mark.parametrize("memory", [SMALL, LARGE])
def test_batches_are_the_rows_in_the_stated_order(tmp_path: Path, memory: int) -> None:
    """Against a plain gather from the arrays the dataset was written from."""
    dataset, x, y = made(tmp_path, "float32")
    rule = split_of(dataset)
    shards = [np.arange(shard, ROWS, SHARDS) for shard in range(SHARDS)]
    stored = np.concatenate(shards)
    chosen = rule.parts(stored, y[stored], {}) == TRAIN
    key = hash_key(2, Purpose.SAMPLE)
    drawn = set(stored[chosen][sample_mask(stored[chosen], 0.9, key)].tolist())
    groups = [
        np.array([row for row in shard[start : start + GROUP].tolist() if row in drawn])
        for shard in shards
        for start in range(0, len(shard), GROUP)
    ]
    expected = []
    for window in epoch_order([len(group) for group in groups], 37, generator(2, Purpose.ORDER)):
        together = np.concatenate([groups[group][start:stop] for group, start, stop in window.pieces])
        expected += together[window.permutation].tolist()
    with WorkerData(dataset, range(SHARDS), range(SHARDS), memory_bytes=memory) as data:
        sample = data.trial(rule, None, "float32").sample(0.9, key)
        seen = []
        sizes = []
        for batch in sample.batches(generator(2, Purpose.ORDER), window_rows=37, batch_size=16):
            np.testing.assert_array_equal(batch.x, x[batch.row])
            np.testing.assert_array_equal(batch.y, y[batch.row])
            assert batch.x.flags.c_contiguous
            seen += batch.row.tolist()
            sizes.append(len(batch.row))
        assert seen == expected
        assert sample.rows == len(seen) == int(np.floor(0.9 * chosen.sum() + 0.5))
        assert sizes == [16] * (len(seen) // 16) + [len(seen) % 16][: len(seen) % 16]
        rows = [row for batch in sample.chunks(50) for row in batch.row.tolist()]
        assert rows == np.concatenate(groups).tolist()


def test_workers_share_the_rows_among_them(tmp_path: Path) -> None:
    """Independent workers train on every row once; shared ones on the same rows; all score every row once."""
    dataset, _, _ = made(tmp_path, "uint8")
    rule = split_of(dataset)
    trained, shared, scored = [], [], []
    for worker in range(SHARDS):
        one = WorkerData(dataset, [worker], [worker], memory_bytes=LARGE).trial(rule, None, "float32")
        all_ = WorkerData(dataset, range(SHARDS), [worker], memory_bytes=LARGE).trial(rule, None, "float32")
        key, rng = hash_key(0, Purpose.SAMPLE), generator(0, Purpose.ORDER)
        trained += [row for batch in one.sample().chunks() for row in batch.row.tolist()]
        shared.append(copied(all_.sample(0.9, key).batches(rng, window_rows=100, batch_size=32)))
        scored += [row for batch in all_.score_batches(TEST) for row in batch.row.tolist()]
    assert shared[0] == shared[1] == shared[2]
    assert len(set(trained)) == len(trained) == 420
    assert len(set(scored)) == len(scored) == 210
    assert not set(trained) & set(scored)


def test_scoring_uses_fixed_chunks(tmp_path: Path) -> None:
    x, y = np.arange(2500, dtype=np.float32)[:, None], np.zeros(2500)
    dataset = write_dataset(tmp_path, x, y, row_group_rows=300)
    (rule,) = fit_split_rules(label_chunks(dataset), Split(train=0.04), [(0, 0)], seed=0, classes=None)
    for memory in (SMALL, LARGE):
        with WorkerData(dataset, [0], [0], memory_bytes=memory) as data:
            trial = data.trial(rule, None, "float64")
            assert [len(batch.row) for batch in trial.score_batches(TEST)] == [1024, 1024, 352]
            assert [len(batch.row) for batch in trial.sample().chunks()] == [100]
            assert next(trial.score_batches(TEST)).x.dtype == np.float64


@pytest.mark.parametrize("memory", [SMALL, LARGE])
def test_a_worker_without_training_rows(tmp_path: Path, memory: int) -> None:
    dataset, _, _ = made(tmp_path, "uint8", extra={"part": ["test"] * ROWS})
    split = Split(column="part")
    (rule,) = fit_split_rules(label_chunks(dataset, ["part"]), split, [(0, 0)], seed=0, classes=4)
    with WorkerData(dataset, [0], [0], memory_bytes=memory, extra_columns=rule.columns) as data:
        trial = data.trial(rule, None, "float32")
        for sample in (trial.sample(), trial.sample(0.5, (1, 2))):
            assert sample.rows == trial.train_rows == 0
            assert list(sample.batches(generator(0, Purpose.ORDER), window_rows=10, batch_size=4)) == []
            assert list(sample.chunks()) == []
        assert data.feature_stats(rule, 0).count == 0
        assert sum(len(batch.row) for batch in trial.score_batches(TEST)) == dataset.shards[0].rows


def test_a_window_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    dataset, _, _ = made(tmp_path, "float32")
    rule = split_of(dataset)
    with WorkerData(dataset, [0], [0], memory_bytes=SMALL) as data:
        sample = data.trial(rule, None, "float32").sample()
        with pytest.raises(ConfigError, match=r"window of 100 rows takes 4800 bytes.*\n.*window_rows to 41 or less"):
            sample.batches(generator(0, Purpose.ORDER), window_rows=100, batch_size=4)


def test_memory_stays_small_for_a_shard_ten_times_larger(tmp_path: Path) -> None:
    rows, features, memory = 40_000, 128, 500_000
    x = np.random.default_rng(0).integers(0, 256, (rows, features), dtype=np.uint8)
    dataset = write_dataset(tmp_path, x, np.zeros(rows), row_group_rows=1000, dtype="uint8", scale=1 / 255)
    del x
    assert dataset.shards[0].rows * features > 10 * memory
    (rule,) = fit_split_rules(label_chunks(dataset), Split(), [(0, 0)], seed=0, classes=None)
    arrow = pa.proxy_memory_pool(pa.default_memory_pool())
    before = pa.default_memory_pool()
    assert arrow is not None
    pa.set_memory_pool(arrow)
    tracemalloc.start()
    try:
        with WorkerData(dataset, [0], [0], memory_bytes=memory) as data:
            sample = data.trial(rule, None, "float32").sample(0.9, (1, 2))
            batches = sample.batches(generator(0, Purpose.ORDER), window_rows=3000, batch_size=64)
            assert sum(len(batch.row) for batch in batches) == sample.rows == 25_200
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)
    assert peak < 2_000_000  # a window is 384 kB; besides: permutations, one batch, pyarrow's Python side
    assert arrow.max_memory() < 4_000_000  # one row group, decompressed and decoded
