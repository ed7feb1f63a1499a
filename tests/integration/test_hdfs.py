"""Datasets and run directories in a real HDFS: the promises of local files, and the bits of a local run."""

from __future__ import annotations

import json
import os
import posixpath
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kill_points import changes_of, config, in_child
from storage_contract import StorageContract

from jobs.__main__ import main
from jobs.driver import driver
from nnlib.config.schema import Config
from nnlib.core.errors import DataError, StorageError
from nnlib.core.events import Event, RoundDone
from nnlib.data.dataset import Dataset
from nnlib.data.importing.import_dataset import from_arrays, import_dataset
from nnlib.data.importing.import_options import ImportOptions
from nnlib.storage import LocalStorage, Storage, storage
from nnlib.storage.hdfs.storage import HdfsStorage
from nnlib.storage.hdfs.webhdfs import WebHdfs

pytestmark = pytest.mark.usefixtures("hadoop_env")


@pytest.fixture
def folder(hadoop_env: dict[str, str]) -> Iterator[str]:
    """The address of an empty directory, with a space in its name."""
    address = f"hdfs:///nnjobs tests/{uuid.uuid4().hex}"
    yield address
    storage(address).delete("")


@pytest.mark.full
class TestHdfsStorage(StorageContract):
    @pytest.fixture
    def store(self, folder: str) -> Storage:
        return storage(folder, private=True)


@pytest.mark.full
def test_hadoop_fs_keeps_the_promises_too(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNJOBS_HDFS_CLIENT", "cli")
    store = storage(folder, private=True)
    store.write("a b/x", b"old")
    store.write("a b/x", b"new")
    assert store.create("a b/y", b"first") is True
    assert store.create("a b/y", b"second") is False
    assert (store.read("a b/x"), store.read("a b/y"), store.size("a b/y")) == (b"new", b"first", 5)
    assert store.names("a b") == ["x", "y"] and store.names("a b/x") == store.names("none") == []
    with pytest.raises(StorageError, match="no such file"):
        store.read("none")
    with store.open("a b/x") as stream:
        stream.seek(1)
        assert stream.read() == b"ew"
    store.delete("a b")
    assert store.names() == []


def files_of(place: Storage, under: str = "") -> dict[str, bytes]:
    """All files below a directory, but those that tell times, hosts and addresses."""
    found: dict[str, bytes] = {}
    names = place.names(under)
    if not names and under:
        return {under: place.read(under)}
    for name in names:
        if name not in ("log", "events.jsonl", "status.json", "config.yaml", "spec.json", "lock"):
            found |= files_of(place, posixpath.join(under, name))
    return found


def entries(store: HdfsStorage, path: str) -> list[str]:
    """Everything below a path, temporary files too."""
    return [
        below
        for entry in store._client.list(path)
        for below in ([entry.name, *entries(store, f"{path}/{entry.name}")] if entry.directory else [entry.name])
    ]


def samples() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 120)
    return (rng.normal(size=(3, 4))[y] + rng.normal(size=(120, 4))).astype(np.float32), y


def remote_config(dataset: str, run: str, tmp_path: Path, **keys: Any) -> Config:
    plain = config(dataset, Path("run")).model_dump(mode="json") | {"run_dir": run}
    plain["runtime"] |= {"cache_dir": str(tmp_path / "cache"), **keys}
    return Config.model_validate(plain)


@pytest.mark.parametrize("runner", ["inline", pytest.param("local", marks=pytest.mark.full)])
def test_the_same_bits_as_on_local_disk(folder: str, tmp_path: Path, runner: str) -> None:
    from_arrays(*samples(), str(tmp_path / "set"), shards=2)
    from_arrays(*samples(), f"{folder}/set", shards=2)
    assert files_of(storage(f"{folder}/set")) == files_of(LocalStorage(tmp_path / "set"))
    driver.train(config(str(tmp_path / "set"), tmp_path / "run"))
    result = driver.train(remote_config(f"{folder}/set", f"{folder}/run", tmp_path, runner=runner))
    place = storage(f"{folder}/run")
    assert result.run_dir == place.root
    assert files_of(place) == files_of(LocalStorage(tmp_path / "run"))
    assert isinstance(place, HdfsStorage)
    assert not [name for name in entries(place, place._path) if name.endswith(".tmp")]
    status = place._client._call("GET", "GETFILESTATUS", place._path).json()  # type: ignore[attr-defined]
    assert status["FileStatus"]["permission"] == "700"


def test_every_command_takes_addresses(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x, y = samples()
    lines = ["a,b,c,d,label", *(",".join(map(str, [*row, f"class {label}"])) for row, label in zip(x, y, strict=True))]
    raw = storage(f"{folder}/raw")
    raw.write("part-1.csv", "\n".join(lines[:61]).encode())
    raw.write("part-2.csv", "\n".join([lines[0], *lines[61:]]).encode())
    raw.write("_SUCCESS", b"")

    def run(*arguments: str) -> dict[str, Any]:
        capsys.readouterr()
        assert main([*arguments, "--json"] if arguments[0] != "data" else [*arguments]) == 0
        out = capsys.readouterr().out.strip()
        return json.loads(out.splitlines()[-1]) if out.startswith("{") else {}

    run("data", "import", f"{folder}/raw", "-o", f"{folder}/set", "--label", "label", "--shards", "3")
    (tmp_path / "all.csv").write_text("\n".join(lines))
    run("data", "import", str(tmp_path / "all.csv"), "-o", str(tmp_path / "set"), "--label", "label", "--shards", "3")
    remote, local = Dataset.open(f"{folder}/set"), Dataset.open(str(tmp_path / "set"))
    assert [shard.sha256 for shard in remote.shards] == [shard.sha256 for shard in local.shards]
    run("data", "verify", f"{folder}/set")
    assert run("data", "info", f"{folder}/set", "--json")["rows"] == 120

    (tmp_path / "c.yaml").write_text(f"data: {{path: '{folder}/set'}}\nworkers: 3\ntrain: {{epochs: 2}}\n")
    trained = run("train", str(tmp_path / "c.yaml"), "--run-dir", f"{folder}/run")
    for source in (f"{folder}/set", f"{folder}/raw/part-1.csv"):
        done = run("predict", f"{folder}/run", source, "-o", f"{folder}/out/predictions.parquet")
        assert storage(folder).exists("out/predictions.parquet") and done["rows"] in (60, 120)
    resumed = run("train", str(tmp_path / "c.yaml"), "--resume", "--run-dir", f"{folder}/run")
    assert resumed["model_sha256"] == trained["model_sha256"]
    assert main(["verify", f"{folder}/run"]) == 0
    assert main(["report", f"{folder}/run", "-o", f"{folder}/page.html"]) == 0
    assert main(["export", f"{folder}/run", "--format", "npz", "-o", f"{folder}/model.npz"]) == 0
    assert {"page.html", "figures", "model.npz"} <= set(storage(folder).names())
    raw.write("bad.csv", b"a,b,c,d,label\n1,2,x,4,k\n")
    with pytest.raises(DataError) as caught:
        import_dataset([f"{folder}/raw/bad.csv"], f"{folder}/bad", ImportOptions(label="label", features=("c",)))
    assert caught.value.where["file"] == f"{folder}/raw/bad.csv"
    assert storage(f"{folder}/bad").names() == []


@pytest.mark.full
def test_killed_before_any_change_and_resumed(folder: str, tmp_path: Path) -> None:
    """Every eighth change to HDFS: a run of some hundred takes a minute each on a slow cluster."""
    from_arrays(*samples(), f"{folder}/set", shards=2)

    def train(name: str) -> Any:
        return driver.train(remote_config(f"{folder}/set", f"{folder}/{name}", tmp_path), resume=True)

    total = changes_of(lambda: train("whole"), tmp_path / "count")
    expected = files_of(storage(f"{folder}/whole"))
    for point in sorted({*range(0, total, 8), 1, total - 1}):
        code = in_child(lambda: train("run"), point)
        assert code in (-9, 0), point  # journals are written by the clock: the last points may not be met
        assert in_child(lambda: train("run")) == 0, point
        place = storage(f"{folder}/run")
        assert files_of(place) == expected, point
        assert isinstance(place, HdfsStorage)
        assert not [name for name in entries(place, place._path) if name.endswith(".tmp")], point
        place.delete("")


@pytest.mark.full
def test_the_namenode_restarts_in_the_middle_of_a_run(folder: str, tmp_path: Path, fragile: Any) -> None:
    from_arrays(*samples(), f"{folder}/set", shards=2)
    expected = driver.train(remote_config(f"{folder}/set", f"{folder}/whole", tmp_path))
    restarter: list[threading.Thread] = []

    def listen(event: Event) -> None:
        if isinstance(event, RoundDone) and event.round == 2:
            fragile.kill_daemon("namenode")
            restarter.append(threading.Thread(target=fragile.start_daemon, args=("namenode",)))
            restarter[0].start()  # the run goes on meanwhile, and waits where it needs HDFS

    result = driver.train(remote_config(f"{folder}/set", f"{folder}/run", tmp_path), listen=listen)
    restarter[0].join()
    assert result.model_sha256 == expected.model_sha256
    assert files_of(storage(f"{folder}/run")) == files_of(storage(f"{folder}/whole"))


def test_a_quota_that_is_used_up_can_be_gone_on_from(folder: str, tmp_path: Path) -> None:
    from_arrays(*samples(), f"{folder}/set", shards=2)
    expected = driver.train(remote_config(f"{folder}/set", f"{folder}/whole", tmp_path))
    store = storage(f"{folder}/run", private=True)
    store.write("here", b"")
    assert isinstance(store, HdfsStorage) and isinstance(store._client, WebHdfs)
    quota = {"namespacequota": "16"}  # directories and files
    store._client._call("PUT", "SETQUOTA", store._path, quota)
    with pytest.raises(StorageError, match="quota is used up") as caught:
        driver.train(remote_config(f"{folder}/set", f"{folder}/run", tmp_path))
    assert caught.value.exit_code == 4 and "--resume" in str(caught.value)
    store._client._call("PUT", "SETQUOTA", store._path, {"namespacequota": "1000000"})
    store.delete("here")
    result = driver.train(remote_config(f"{folder}/set", f"{folder}/run", tmp_path), resume=True)
    assert result.model_sha256 == expected.model_sha256
    assert files_of(store) == files_of(storage(f"{folder}/whole"))


def test_later_rounds_do_not_read_hdfs_again(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from_arrays(*samples(), f"{folder}/set", shards=2)
    opened: list[str] = []
    read = WebHdfs.read

    def counted(self: WebHdfs, path: str, offset: int = 0, length: int | None = None) -> bytes:
        opened.append(path)
        return read(self, path, offset, length)

    monkeypatch.setattr(WebHdfs, "read", counted)
    driver.train(remote_config(f"{folder}/set", f"{folder}/run", tmp_path))
    shards = [path for path in opened if path.endswith(".parquet")]
    assert len(shards) == 2 and len(set(shards)) == 2
    assert len(os.listdir(tmp_path / "cache")) >= 2
