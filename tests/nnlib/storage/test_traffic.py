"""What a run sends to storage on other machines: counted, reported, and in each round little more than its model."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow.fs
import pytest
from driver_experiment import CLASSES, blobs, config
from shards import write_dataset

from jobs.driver import driver
from nnlib.run.directory import EVENTS, SPEC, RunDirectory
from nnlib.run.journal import Journal
from nnlib.storage.hdfs import storage as hdfs
from nnlib.storage.hdfs.client import FileStatus
from nnlib.storage.hdfs.storage import HdfsStorage
from nnlib.storage.local import LocalStorage
from nnlib.storage.traffic import PROCESS

ROUNDS = 50


class Folder:
    """An `nnlib.storage.hdfs.client.HdfsClient` on this machine's files, which keeps account of what it was given."""

    ranged = True

    def __init__(self) -> None:
        self.given: list[tuple[str, int]] = []

    def status(self, path: str) -> FileStatus | None:
        found = Path(path)
        return FileStatus(found.name, found.is_dir(), found.stat().st_size) if found.exists() else None

    def list(self, path: str) -> list[FileStatus]:
        folder = Path(path)
        found = [self.status(str(entry)) for entry in folder.iterdir()] if folder.is_dir() else []
        return [status for status in found if status is not None]

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        return Path(path).read_bytes()[offset : None if length is None else offset + length]

    def upload(self, path: str, data: bytes | BinaryIO, *, private: bool) -> None:
        if not isinstance(data, bytes):
            data.seek(0)
        content = data if isinstance(data, bytes) else data.read()
        self.mkdirs(str(Path(path).parent), private=private)
        Path(path).write_bytes(content)
        self.given.append((path, len(content)))

    def rename(self, source: str, target: str, *, overwrite: bool, id: int = 0) -> None:
        Path(source).replace(target)

    def sweep(self, path: str) -> None:
        self.delete(path)

    def mkdirs(self, path: str, *, private: bool) -> None:
        os.makedirs(path, exist_ok=True)  # noqa: PTH103

    def delete(self, path: str, *, wait: bool = True) -> None:
        if Path(path).exists():
            files = pyarrow.fs.LocalFileSystem()
            (files.delete_dir if Path(path).is_dir() else files.delete_file)(path)


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Folder:
    client = Folder()
    monkeypatch.setattr(hdfs, "client_of", lambda place: client)
    return client


def test_a_round_sends_little_more_than_its_model(
    tmp_path: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with views as fresh as their growth allows."""
    monkeypatch.setattr(HdfsStorage, "journal_seconds", 0.0)
    write_dataset(tmp_path / "data", *blobs(200), shards=4, row_group_rows=16, classes=CLASSES)
    address = f"hdfs://test{tmp_path}/run"
    changes: dict[str, Any] = {"model__hidden": [2000], "train__epochs": ROUNDS, "train__epochs_per_round": 1}
    driver.train(config(str(tmp_path / "data"), address, workers=2, **changes))
    run = RunDirectory.open(address)
    events = [json.loads(line) for line in run.storage.read(EVENTS).splitlines()]
    told = [event["uploaded_bytes"] for event in events if event["event"] == "round"]
    model = run.storage.size(f"rounds/{ROUNDS:06d}/model.safetensors")
    assert len(told) == ROUNDS
    assert all(model <= amount for amount in told)
    assert sum(told[1:]) <= 1.5 * model * (ROUNDS - 1)
    before = next(event["uploaded_bytes"] for event in events if event["event"] == "start")
    first = next(index for index, (path, _) in enumerate(folder.given) if "/run/.spec.json." in path) + 1
    last = max(index for index, (path, _) in enumerate(folder.given) if f"/rounds/{ROUNDS:06d}/" in path)
    given = sum(amount for _, amount in folder.given[first : last + 1])
    assert abs(before + sum(told) - given) < 1000  # the lock is renewed by a thread of its own
    views = [amount for path, amount in folder.given if ".metrics.jsonl." in path]
    assert len(views) < ROUNDS / 2


@pytest.mark.parametrize("growth", [0.125, 0.5])
def test_a_journal_is_sent_in_proportion_to_its_lines(
    growth: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each writing of s bytes comes with g s new ones, so all together are at most (1 + 1 / g) times the lines."""
    monkeypatch.setattr(LocalStorage, "journal_seconds", 0.0)
    monkeypatch.setattr(LocalStorage, "journal_growth", growth)
    monkeypatch.setattr(LocalStorage, "journal_latest_seconds", 1e9)
    store = LocalStorage(tmp_path)
    store.write(SPEC, b"{}")
    written: list[int] = []
    monkeypatch.setattr(store, "write", lambda name, data: written.append(len(data)))
    journal = Journal(store, "log")
    for number in range(2000):
        journal.line(f"line {number:06d}")
    assert len(written) > 10
    assert written == sorted(set(written))
    assert sum(written) <= (1 + 1 / growth) * 2000 * len("line 000000\n")
    journal.flush()
    assert written[-1] == 2000 * len("line 000000\n")


@pytest.mark.parametrize(
    ("seconds", "size", "new", "due"),
    [
        (1.9, 100, 100, False),
        (2.0, 100, 0, True),  # files of this machine
        (29.0, 0, 100, False),
        (31.0, 800, 99, False),
        (31.0, 800, 100, True),
        (601.0, 800, 1, True),
    ],
)
def test_when_a_journal_is_due(seconds: float, size: int, new: int, due: bool, tmp_path: Path, folder: Folder) -> None:
    local = seconds <= 2.0
    place = LocalStorage(tmp_path) if local else HdfsStorage(f"hdfs://test{tmp_path}")
    assert place.journal_is_due(seconds, size, new) is due


def test_each_storage_counts_what_is_sent_to_it_and_the_process_counts_all(tmp_path: Path, folder: Folder) -> None:
    before = PROCESS.uploaded_bytes, PROCESS.requests
    one, two = (HdfsStorage(f"hdfs://test{tmp_path}/{name}") for name in "ab")
    one.write_all({"x": b"123", "y": b"4567"})
    with two.writing("z") as stream:
        stream.write(b"89")
    assert two.read("z") == b"89"
    assert (one.traffic.uploaded_bytes, two.traffic.uploaded_bytes) == (7, 2)
    assert (one.traffic.requests, two.traffic.requests) == (4, 3)  # an upload and a renaming each, and the reading
    assert (PROCESS.uploaded_bytes, PROCESS.requests) == (before[0] + 9, before[1] + 7)
    here = LocalStorage(tmp_path)
    here.write("here", b"1")
    assert here.traffic.uploaded_bytes == here.traffic.requests == 0
