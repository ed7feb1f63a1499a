"""Where a rename cannot overwrite (libhdfs, hadoop fs), the promises of a storage hold all the same.

libhdfs needs a Hadoop: Arrow's file system of this machine stands in for HDFS's, with HDFS's rename.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow.fs
import pytest
from storage_contract import StorageContract

from nnlib.core.errors import StorageError
from nnlib.storage import Storage
from nnlib.storage.hdfs.hadoop_config import HdfsAddress
from nnlib.storage.hdfs.libhdfs import LibHdfs
from nnlib.storage.hdfs.rename_replace import ASIDE
from nnlib.storage.hdfs.storage import HdfsStorage

PLACE = HdfsAddress("hdfs", "test", (), "ann", False, None, "native", 1.0)


class HdfsLike:
    """A file system whose rename fails where the target exists."""

    def __init__(self) -> None:
        self._files = pyarrow.fs.LocalFileSystem()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    def move(self, source: str, target: str) -> None:
        os.link(source, target)
        Path(source).unlink()


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> LibHdfs:
    monkeypatch.delenv("HADOOP_HOME", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    return LibHdfs(PLACE, HdfsLike())


class TestPlainRenames(StorageContract):
    @pytest.fixture
    def store(self, tmp_path: Path, client: LibHdfs) -> Storage:
        return HdfsStorage(f"hdfs://test{tmp_path}/root of it", client=client)


def test_a_file_that_is_being_replaced_is_there(tmp_path: Path, client: LibHdfs) -> None:
    """Killed between the two renames: readers meet the old file, and a sweep puts it back."""
    store = HdfsStorage(f"hdfs://test{tmp_path}", client=client)
    store.write("folder/x", b"old")
    (tmp_path / "folder/x").rename(tmp_path / f"folder/.x.0123abcd{ASIDE}")
    (tmp_path / "folder/.x.4567abcd.tmp").write_bytes(b"new")
    assert store.read("folder/x") == b"old" and store.exists("folder/x") and store.size("folder/x") == 3
    assert store.create("folder/x", b"another") is False
    store.sweep()
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == ["x"]
    assert store.read("folder/x") == b"old"

    (tmp_path / f"folder/.x.0123abcd{ASIDE}").write_bytes(b"older")  # killed after both: the old one goes
    store.sweep()
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == ["x"]
    assert store.read("folder/x") == b"old"


def test_a_sweep_of_some_names_leaves_the_others(tmp_path: Path, client: LibHdfs) -> None:
    store = HdfsStorage(f"hdfs://test{tmp_path}", client=client)
    (tmp_path / "deep").mkdir()
    for name in (".a.0123abcd.tmp", ".b.0123abcd.tmp", "deep/.a.0123abcd.tmp", ".a.tmp"):
        (tmp_path / name).write_bytes(b"")
    store.sweep(of=lambda name: name == "a")
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == [".a.tmp", ".b.0123abcd.tmp", "deep/.a.0123abcd.tmp"]


def test_a_directory_is_not_renamed_into(tmp_path: Path, client: LibHdfs) -> None:
    store = HdfsStorage(f"hdfs://test{tmp_path}", client=client)
    store.write("folder/x", b"")
    with pytest.raises(StorageError, match="is a directory"):
        store.write("folder", b"y")
    assert store.create("folder", b"y") is False
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["folder", "folder/x"]
