"""How rows are divided among workers."""

from __future__ import annotations

from dataclasses import replace

from cost_cases import EIGHT


def test_workers_get_whole_shards_or_equal_parts() -> None:
    uneven = replace(EIGHT, shard_rows=(300, 200, 100))
    assert uneven.row_fractions(2).tolist() == [400 / 600, 200 / 600]
    assert uneven.row_fractions(5).tolist() == [0.2] * 5
