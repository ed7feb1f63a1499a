"""A driver killed before any change in S3, and resumed, ends in the objects of a run that was never disturbed."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest
from kill_points import changes_of, config, in_child
from s3_service import BUCKET, FaultyService

from jobs.driver import driver
from nnlib.core.errors import StorageError
from nnlib.storage import storage

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

RUN = f"s3://{BUCKET}/runs"


def objects(s3: FaultyService, under: str) -> dict[str, bytes]:
    """What two runs of the same bits share."""
    client, found = s3.client(), {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"runs/{under}/"):
        for entry in page.get("Contents", ()):
            name = entry["Key"].removeprefix(f"runs/{under}/")
            if name.startswith(("rounds/", "final/", "metrics.jsonl")):
                found[name] = client.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read()
    return found


def points(total: int, request: pytest.FixtureRequest, sample: int) -> list[int]:
    if request.config.getoption("--full"):
        return list(range(total))
    return sorted({*range(0, total, max(1, total // sample)), 1, total - 1})


@pytest.mark.parametrize("mode", ["rounds", "collective"])
def test_killed_before_any_change_and_resumed(
    s3: FaultyService, blobs: str, tmp_path: Path, request: pytest.FixtureRequest, mode: str
) -> None:
    def train(name: str) -> None:
        driver.train(config(blobs, Path("unused"), mode).model_copy(update={"run_dir": f"{RUN}/{name}"}), resume=True)

    total = changes_of(partial(train, "whole"), tmp_path / "count")
    assert total > 30
    expected = objects(s3, "whole")
    assert "final/metrics.json" in expected
    for point in points(total, request, 6):
        assert in_child(partial(train, f"run-{point}"), point) in (-signal.SIGKILL, 0), point
        assert in_child(partial(train, f"run-{point}")) == 0, point
        assert objects(s3, f"run-{point}") == expected, point


def test_a_large_file_killed_at_any_part_is_swept(s3: FaultyService, tmp_path: Path) -> None:
    data = bytes(20 << 20)
    work = partial(lambda: storage(f"{RUN}/large").write("file", data))
    total = changes_of(work, tmp_path / "count")
    assert total == 5  # begin, three parts, complete
    for point in range(total):
        storage(f"{RUN}/large").delete("file")
        assert in_child(work, point) == -signal.SIGKILL
        assert not storage(f"{RUN}/large").exists("file")
        storage(f"{RUN}/large").sweep()
        assert not s3.client().list_multipart_uploads(Bucket=BUCKET).get("Uploads")


def test_listings_that_lag_cost_no_bits(s3: FaultyService, blobs: str, tmp_path: Path) -> None:
    """S3's listings are up to date; those of another service may lag. A run that is resumed with them ends in the same
    bits, or stops with a clear error."""

    def train(name: str) -> None:
        driver.train(config(blobs, Path("unused")).model_copy(update={"run_dir": f"{RUN}/{name}"}), resume=True)

    train("whole")
    expected = objects(s3, "whole")
    stale = {"do": "stale", "method": "GET", "query": "list-type", "seconds": 2}
    s3.fail(stale)
    for point in (12, 24, 40):
        s3.fail(stale)
        name = f"stale-{point}"
        in_child(partial(train, name), point)
        try:
            train(name)
        except StorageError as error:
            assert error.hint
            s3.fail()
            train(name)
        s3.fail()
        assert objects(s3, name) == expected, point


def test_two_drivers_of_one_run(s3: FaultyService, blobs: str) -> None:
    from nnlib.core.errors import BusyError
    from nnlib.run.lease import RunLock

    run = storage(f"{RUN}/locked")
    with RunLock(run), pytest.raises(BusyError, match="process"), RunLock(storage(run.root)):
        pass
    with RunLock(run):
        pass
