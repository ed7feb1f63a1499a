"""Storage on a real HDFS keeps every promise that local files keep."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_storage import StorageContract

from nnlib.storage import Storage, storage


class TestHdfsStorage(StorageContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Storage]:
        place = storage(f"hdfs:///nnjobs-tests/{uuid.uuid4().hex} with space", private=True)
        yield place
        place.delete("")
