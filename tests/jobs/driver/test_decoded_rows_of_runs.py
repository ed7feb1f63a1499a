"""Runs whose tasks share decoded rows have the models of runs that decode their rows themselves, also after faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from driver_experiment import config, model_hash
from shards import write_dataset

from jobs.driver import driver
from jobs.runners.local.chaos import Chaos
from nnlib.data.decoded_cache import LEAST_BYTES

ROWS, FEATURES = 12_000, 400
SETTINGS = {
    "workers": 2,
    "train__epochs": 2,
    "train__epochs_per_round": 1,
    "train__batch_size": 512,
    "sampling__window_rows": 1000,
}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Rows of which each of two workers has more than what is kept at least."""
    assert ROWS // 2 * FEATURES * 4 > LEAST_BYTES
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(ROWS, FEATURES)).astype(np.float32), rng.integers(0, 3, ROWS)
    where = tmp_path_factory.mktemp("large") / "rows"
    write_dataset(where, x, y, shards=4, row_group_rows=1000, classes=3)
    return str(where)


def test_runs_share_decoded_rows_whatever_happens_to_them(large: str, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "decoded"
    kept: dict[str, Any] = {**SETTINGS, "runtime__cache_dir": str(folder.parent), "runtime__runner": "local"}
    expected = model_hash(large, tmp_path / "plain", **SETTINGS, runtime__decoded_mb=0)
    assert model_hash(large, tmp_path / "local", **kept) == expected
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    assert len(files) == 4
    whole = [path.read_bytes() for path in files]
    files[0].write_bytes(whole[0][:5000])
    files[1].write_bytes(whole[1][:9000] + bytes([whole[1][9000] ^ 4]) + whole[1][9001:])
    files[2].unlink()
    inode = files[3].stat().st_ino
    done = driver.train(config(large, tmp_path / "chaos", **kept), chaos=Chaos(2, kill=0.5, twin=0.5, truncate=0.3))
    assert done.model_sha256 == expected
    assert [path.read_bytes() for path in files] == whole
    assert files[3].stat().st_ino == inode  # it was good, so nobody decoded it again
    others: tuple[dict[str, Any], ...] = ({"sync__mode": "collective"}, {"runtime__memory_mb": 2})
    for number, other in enumerate(others):  # mapped for the whole job; read from the file by row groups
        assert model_hash(large, tmp_path / f"other-{number}", **{**kept, **other}) == expected
    assert files[3].stat().st_ino == inode
