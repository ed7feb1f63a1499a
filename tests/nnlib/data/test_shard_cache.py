"""Shards of a dataset elsewhere are read once per node, and a cached copy is trusted no more than the original."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from shards import write_dataset

from nnlib.core.errors import MismatchError, StorageError
from nnlib.data import dataset as dataset_module
from nnlib.data import shard_cache as cache_module
from nnlib.data.dataset import Dataset
from nnlib.data.shard_cache import ShardCache, default_folder
from nnlib.data.shard_reader import _VERIFIED, ShardReader
from nnlib.storage import LocalStorage, Storage


class Elsewhere(LocalStorage):
    """Stands for a storage that is not this machine's; counts what is opened."""

    is_remote = True

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.opened: list[str] = []

    def open(self, name: str) -> BinaryIO:
        self.opened.append(name)
        return super().open(name)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Dataset, Elsewhere]:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 4)).astype(np.float32), rng.integers(0, 3, 60)
    write_dataset(tmp_path / "set", x, y, shards=3, classes=3)
    dataset = Dataset.open(str(tmp_path / "set"))
    files = Elsewhere(tmp_path / "set")

    def storage(address: str) -> Storage:
        return files

    monkeypatch.setattr(dataset_module, "storage", storage)
    monkeypatch.setattr(cache_module, "default_folder", lambda: tmp_path / "cache")
    _VERIFIED.clear()
    return dataset, files


def read_all(dataset: Dataset, cache: ShardCache | None = None) -> list[bytes]:
    contents = []
    for shard in range(len(dataset.shards)):
        with ShardReader(dataset, shard, cache=cache) as reader:
            contents.append(b"".join(reader.row_group(index).x.tobytes() for index in range(len(reader.group_rows))))
    return contents


def test_a_shard_is_read_once(elsewhere: tuple[Dataset, Elsewhere], tmp_path: Path) -> None:
    dataset, files = elsewhere
    first = read_all(dataset)
    assert files.opened == [shard.name for shard in dataset.shards]
    assert read_all(dataset) == first
    assert len(files.opened) == 3
    kept = {path.name for path in (tmp_path / "cache").iterdir() if not path.name.startswith(".")}
    assert kept == {shard.sha256 for shard in dataset.shards}


def test_a_damaged_copy_is_fetched_again(elsewhere: tuple[Dataset, Elsewhere], tmp_path: Path) -> None:
    dataset, files = elsewhere
    first = read_all(dataset)
    for damage in (
        lambda data: data[:-1],
        lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:],
        lambda _: b"",
    ):
        path = tmp_path / "cache" / dataset.shards[1].sha256
        path.write_bytes(damage(path.read_bytes()))
        _VERIFIED.clear()
        assert read_all(dataset) == first
    assert files.opened[3:] == [dataset.shards[1].name] * 3


def test_a_damaged_original_is_not_kept(elsewhere: tuple[Dataset, Elsewhere], tmp_path: Path) -> None:
    dataset, _ = elsewhere
    path = tmp_path / "set" / dataset.shards[0].name
    data = path.read_bytes()
    path.write_bytes(data[:50] + bytes([data[50] ^ 1]) + data[51:])
    with pytest.raises(MismatchError, match="SHA-256") as caught:
        ShardReader(dataset, 0)
    assert caught.value.where["shard"] == dataset.shards[0].name
    assert [path.name for path in (tmp_path / "cache").iterdir() if not path.name.startswith(".lock")] == []
    path.unlink()
    with pytest.raises(MismatchError, match="not there"):
        ShardReader(dataset, 0)


def test_what_was_used_longest_ago_makes_room(elsewhere: tuple[Dataset, Elsewhere], tmp_path: Path) -> None:
    dataset, files = elsewhere
    cache = ShardCache(str(tmp_path / "small"), 1)
    shards = [replace(shard, bytes=(400 << 10)) for shard in dataset.shards]  # two fit into a MB, three do not

    def use(index: int) -> None:
        shard = shards[index]
        with cache.open(files, shard):
            path = tmp_path / "small" / shard.sha256
            if path.stat().st_size < shard.bytes:
                os.truncate(path, shard.bytes)

    for index in (0, 1, 0, 2):  # 1 is the one used longest ago when 2 comes
        use(index)
    kept = {path.name for path in (tmp_path / "small").iterdir()} & {shard.sha256 for shard in shards}
    assert kept == {shards[0].sha256, shards[2].sha256}
    with ShardCache(str(tmp_path / "none"), 0).open(files, dataset.shards[0]) as stream:
        assert len(stream.read()) == dataset.shards[0].bytes
    assert not (tmp_path / "none").exists()


def test_of_many_at_once_one_fetches(elsewhere: tuple[Dataset, Elsewhere], tmp_path: Path) -> None:
    dataset, files = elsewhere
    cache, gate = ShardCache(str(tmp_path / "shared")), threading.Barrier(6)

    def use(_: int) -> bytes:
        gate.wait()
        with cache.open(files, dataset.shards[0]) as stream:
            return stream.read()

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(use, range(6)))) == 1
    assert len(files.opened) == 1


def test_without_room_shards_are_read_directly(elsewhere: tuple[Dataset, Elsewhere], tmp_path: Path) -> None:
    dataset, files = elsewhere
    (tmp_path / "file").write_bytes(b"")
    cache = ShardCache(str(tmp_path / "file" / "below"))
    assert read_all(dataset, cache) == read_all(dataset, ShardCache(str(tmp_path / "fine")))

    def broken(name: str) -> BinaryIO:
        raise StorageError("the service is away", file=name)

    files.open = broken  # type: ignore[method-assign]
    with pytest.raises(StorageError, match="away"):
        read_all(dataset, ShardCache(str(tmp_path / "other")))


def test_where_entries_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = tmp_path / "usercache" / "ann"
    (user / "appcache" / "application_1").mkdir(parents=True)
    monkeypatch.setenv("LOCAL_DIRS", f"/nowhere/usercache/ann/appcache/application_1,{user}/appcache/application_1")
    assert default_folder() == user / "nnjobs-shards"  # outlives the application's own folder
    monkeypatch.setenv("LOCAL_DIRS", "")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert default_folder() == tmp_path / f"nnjobs-shards-{os.getuid()}"
