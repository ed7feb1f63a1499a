"""Files in S3 do what every storage promises, and what S3 alone needs."""

from __future__ import annotations

from pathlib import Path

import pytest
from s3_service import BUCKET, FaultyService
from storage_contract import StorageContract

from nnlib.storage import Storage, storage


class TestS3Storage(StorageContract):
    has_directories = False

    @pytest.fixture
    def store(self, tmp_path: Path, s3: FaultyService) -> Storage:
        return storage(f"s3://{BUCKET}/a folder/of tests")
