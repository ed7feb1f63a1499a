from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlib.data.importing.shard_assignment import LabelShardAssigner, assign_rows, bucket_of, order_hash, part_edges

FIXED = settings(derandomize=True, deadline=None, max_examples=60)
ROWS = st.integers(0, 400)
SHARDS = st.integers(1, 23)
SEEDS = st.integers(0, 2**40)


@FIXED
@given(ROWS, SHARDS, SEEDS)
def test_every_row_goes_to_one_shard_and_shards_are_balanced(rows: int, shards: int, seed: int) -> None:
    assigned = assign_rows(np.arange(rows), shards, seed)
    assert assigned.shape == (rows,)
    sizes = np.bincount(assigned, minlength=shards)
    assert len(sizes) == shards
    assert sizes.max() - sizes.min() <= 1


@FIXED
@given(ROWS, SHARDS, SEEDS, st.integers(1, 50))
def test_assignment_does_not_depend_on_chunks(rows: int, shards: int, seed: int, chunk: int) -> None:
    ids = np.arange(rows)
    parts = [assign_rows(ids[start : start + chunk], shards, seed) for start in range(0, rows, chunk)]
    assert np.array_equal(np.concatenate([np.empty(0, np.int64), *parts]), assign_rows(ids, shards, seed))


def test_every_block_is_permuted_differently() -> None:
    blocks = assign_rows(np.arange(4 * 1000), 4, 1).reshape(1000, 4)
    assert (np.sort(blocks, axis=1) == np.arange(4)).all()
    assert len({tuple(block) for block in blocks.tolist()}) == 24
    assert not np.array_equal(blocks, assign_rows(np.arange(4000), 4, 2).reshape(1000, 4))


@FIXED
@given(st.lists(st.integers(0, 4), min_size=1, max_size=200), SHARDS, st.integers(1, 30))
def test_by_label_cuts_the_sorted_rows(labels: list[int], shards: int, chunk: int) -> None:
    y = np.array(labels, np.int32)
    assigner = LabelShardAssigner(np.bincount(y, minlength=5).tolist(), shards)
    assigned = np.concatenate([assigner.assign(y[start : start + chunk]) for start in range(0, len(y), chunk)])
    edges = part_edges(len(y), shards)
    order = np.argsort(y, kind="stable")
    for shard in range(shards):
        assert sorted(order[edges[shard] : edges[shard + 1]]) == np.flatnonzero(assigned == shard).tolist()


@FIXED
@given(ROWS, SEEDS, st.integers(1, 12))
def test_sorted_buckets_one_after_another_are_sorted(rows: int, seed: int, buckets: int) -> None:
    hashes = order_hash(np.arange(rows), seed)
    assert len(np.unique(hashes)) == rows
    bucket = bucket_of(hashes, buckets)
    assert ((bucket >= 0) & (bucket < buckets)).all()
    assert (np.diff(bucket[np.argsort(hashes)]) >= 0).all()
