"""Rows held in memory: decoded once a process, bounded, shared, given up when others need the room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from shards import write_dataset

from nnlib.data.dataset import Dataset
from nnlib.data.decoded_rows import BLOCKS, CONVERTED, ShardRows, SizedCache
from nnlib.data.feature_converter import Converter

ROWS, FEATURES, SHARDS = 120, 6, 3
LARGE = 10**9


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    BLOCKS.clear()
    CONVERTED.clear()
    yield
    BLOCKS.clear()
    CONVERTED.clear()


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    x = np.arange(ROWS * FEATURES).reshape(ROWS, FEATURES) % 251
    return write_dataset(tmp_path, x.astype(np.uint8), np.zeros(ROWS), shards=SHARDS, dtype="uint8", scale=0.5)


def converter() -> Converter:
    return Converter(0.5, 0.0, None, "float32")


def test_rows_are_decoded_once_a_process(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ShardRows(dataset, [0, 1], memory_bytes=LARGE)
    monkeypatch.setattr("nnlib.data.decoded_rows.ShardReader", None)
    again = ShardRows(dataset, [1, 0, 1], memory_bytes=LARGE)
    assert again.block is first.block
    assert first.convert(converter()) is again.convert(converter())


def test_held_rows_lie_in_storage_order_and_cannot_be_written(dataset: Dataset) -> None:
    rows = ShardRows(dataset, [2, 0], memory_bytes=LARGE)
    assert rows.block is not None and isinstance(rows.block.x, np.ndarray)
    assert rows.block.row.tolist() == [*range(0, ROWS, 3), *range(2, ROWS, 3)]
    assert [group.shard for group in rows.groups] == [0] * 4 + [2] * 4
    assert [group.number for group in rows.groups_of([2])] == [0, 1, 2, 3]
    assert rows.block.x.ctypes.data % 64 == 0
    with pytest.raises(ValueError, match="read-only"):
        rows.block.x[0] = 0
    converted = rows.convert(converter())
    assert converted is not None
    np.testing.assert_array_equal(converted, rows.block.x * np.float32(0.5))


def test_labels_are_the_same_held_or_read(dataset: Dataset) -> None:
    held, read = (ShardRows(dataset, range(SHARDS), memory_bytes=memory) for memory in (LARGE, 100))
    assert held.groups == read.groups
    for shards in ([0, 1, 2], [1]):
        ours, theirs = ([labels.row.tolist() for labels in rows.labels(shards)] for rows in (held, read))
        assert ours == theirs
    read.close()


def test_memory_is_bounded_over_all_holders(dataset: Dataset) -> None:
    one = dataset.shards[0].rows * (FEATURES + 16)
    copy = dataset.shards[0].rows * FEATURES * 4
    for limit in (one, 2 * one, 2 * one + copy):
        BLOCKS.clear()
        CONVERTED.clear()
        for shard in range(SHARDS):
            rows = ShardRows(dataset, [shard], memory_bytes=limit)
            assert rows.block is not None
            rows.convert(converter())
            assert BLOCKS.size + CONVERTED.size <= limit
            assert (CONVERTED.size > 0) == (limit > 2 * one and shard < 2)
    assert ShardRows(dataset, [0], memory_bytes=one - 1).block is None


def test_a_cache_gives_up_what_was_used_longest_ago() -> None:
    cache: SizedCache[str] = SizedCache()
    for name in ("a", "b", "a", "c"):
        assert cache.get(name, 10, 20, lambda made=name: made) == name  # type: ignore[misc]
    assert cache.get("a", 10, 20, lambda: "made again") == "a"
    assert cache.get("b", 10, 20, lambda: "made again") == "made again"
    assert cache.size == 20
