"""A driver killed at any change to the disk, and resumed, ends in the files of a run that was never disturbed.

`nnlib.storage.fault_hook.step` is called before every single change (creating, writing through, renaming, linking,
deleting, syncing a directory): the test counts the changes of a run, then kills the process (SIGKILL) before each of
them. What is "after" one change is "before" the next.
"""

from __future__ import annotations

import os
import shutil
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from kill_points import changes_of, config, in_child, kill_points
from runs import deterministic_files
from shards import write_dataset

from jobs.driver import driver
from nnlib.core.errors import DataError
from nnlib.data.dataset import MANIFEST, Dataset
from nnlib.data.importing.import_dataset import from_arrays

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 120)
    x = (rng.normal(size=(3, 4))[y] + rng.normal(size=(120, 4))).astype(np.float32)
    where = tmp_path_factory.mktemp("data") / "set"
    write_dataset(where, x, y, shards=2, classes=3)
    return str(where)


@pytest.mark.parametrize("mode", ["rounds", "collective"])
def test_killed_before_any_change_and_resumed(
    dataset: str, tmp_path: Path, request: pytest.FixtureRequest, mode: str
) -> None:
    whole = tmp_path / "whole"
    total = changes_of(lambda: driver.train(config(dataset, whole, mode), resume=True), tmp_path / "count")
    assert total > 60
    expected = deterministic_files(whole)
    for point in kill_points(total, request):
        run = tmp_path / "run"
        code = in_child(partial(driver.train, config(dataset, run, mode), resume=True), point)
        assert code in (-signal.SIGKILL, 0), point  # journals are written by the clock: the last points may not be met
        assert in_child(partial(driver.train, config(dataset, run, mode), resume=True)) == 0, point
        assert deterministic_files(run) == expected, point
        shutil.rmtree(run)


def test_an_import_over_a_dataset_killed_anywhere_can_be_repeated(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(100, 3)).astype(np.float32), rng.integers(0, 2, 100)
    output, foreign = tmp_path / "output", b"the user's"
    work = partial(from_arrays, x, y, str(output), shards=2, overwrite=True)

    def old() -> None:
        shutil.rmtree(output, ignore_errors=True)
        from_arrays(x, y, str(output), shards=4)
        (output / "part-00007.parquet").write_bytes(foreign)

    old()
    total = changes_of(work, tmp_path / "count")
    expected = {path.name: path.read_bytes() for path in output.iterdir()}
    assert sorted(expected) == ["dataset.json", "part-00000.parquet", "part-00001.parquet", "part-00007.parquet"]
    for point in kill_points(total, request):
        old()
        assert in_child(work, point) == -signal.SIGKILL
        assert (output / "part-00007.parquet").read_bytes() == foreign
        assert in_child(work) == 0, point
        assert {path.name: path.read_bytes() for path in output.iterdir()} == expected, point


def test_killed_again_and_again(dataset: str, tmp_path: Path) -> None:
    """A run that is killed a few changes after every resume still arrives, at the same bits."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    driver.train(config(dataset, whole))
    for _ in range(60):
        code = in_child(lambda: driver.train(config(dataset, run), resume=True), 90)
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert code == 0
    assert deterministic_files(run) == deterministic_files(whole)


def test_an_import_killed_anywhere_leaves_no_dataset_or_a_whole_one(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(200, 3)).astype(np.float32), rng.integers(0, 2, 200)
    whole = tmp_path / "whole"
    total = changes_of(lambda: from_arrays(x, y, str(whole), shards=3), tmp_path / "count")
    expected = {path.name: path.read_bytes() for path in whole.iterdir()}
    for point in kill_points(total, request):
        output = tmp_path / "output"
        assert in_child(partial(from_arrays, x, y, str(output), shards=3), point) == -signal.SIGKILL
        if not (output / MANIFEST).exists():
            with pytest.raises(DataError):
                Dataset.open(str(output))
            assert in_child(partial(from_arrays, x, y, str(output), shards=3)) == 0  # the same command just works
            assert not [path.name for path in output.iterdir() if path.name.startswith(".")]
        found = {path.name: path.read_bytes() for path in output.iterdir() if not path.name.startswith(".")}
        assert found == expected, point
        shutil.rmtree(output)
