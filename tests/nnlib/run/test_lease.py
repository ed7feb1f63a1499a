"""One driver at a time: the second is told who holds the run, a dead one's lock is taken over, on any storage."""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import started
from product import ROOT
from shards import write_dataset

from jobs.driver import driver
from nnlib.config.schema import Config
from nnlib.core.errors import MismatchError, StorageError
from nnlib.run.lease import RunLock
from nnlib.storage import LocalStorage, lease


def newest(place: LocalStorage) -> dict[str, Any]:
    return dict(json.loads(place.read(f"lock/{place.names('lock')[-1]}")))


def forge(place: LocalStorage, **facts: Any) -> None:
    """A lock file as another driver would have left it."""
    record = {
        "host": platform.node(),
        "process": os.getpid(),
        "started": None,
        "since": time.time() - 60,
        "until": time.time() + 60,
        "released": False,
    }
    place.write("lock/000004.json", json.dumps(record | facts).encode())


def test_the_second_is_told_who_and_since_when(tmp_path: Path) -> None:
    place = LocalStorage(tmp_path)
    with RunLock(place):
        with pytest.raises(StorageError) as caught, RunLock(place):
            pass
        text = str(caught.value)
        assert f"process {os.getpid()} on {platform.node()}" in text
        assert re.search(r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", text)
        assert caught.value.exit_code == 4
    with RunLock(place):  # given back
        assert newest(place)["process"] == os.getpid()


def test_of_many_at_once_one_gets_it(tmp_path: Path) -> None:
    place, got, refused = LocalStorage(tmp_path), [], []
    together, done = threading.Barrier(8), threading.Event()

    def try_it(number: int) -> None:
        together.wait()
        try:
            with RunLock(place):
                got.append(number)
                done.wait(10)
        except StorageError:
            refused.append(number)

    threads = [threading.Thread(target=try_it, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    while len(refused) < 7 and any(thread.is_alive() for thread in threads):
        time.sleep(0.01)
    done.set()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 7)


def test_a_dead_process_of_this_host_is_taken_over_at_once(tmp_path: Path) -> None:
    with started([sys.executable, "-c", ""]) as dead:
        dead.wait()
    place = LocalStorage(tmp_path)
    forge(place, process=dead.pid)
    with RunLock(place):
        assert newest(place)["process"] == os.getpid()
        assert place.names("lock")[-1] == "000005.json"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system does not say when a process started")
def test_a_process_number_that_was_used_again_is_no_holder(tmp_path: Path) -> None:
    place = LocalStorage(tmp_path)
    forge(place, started="another-boot/1")  # our own number, but a process that started at another time
    with RunLock(place):
        assert newest(place)["started"] != "another-boot/1"


def test_another_host_holds_it_as_long_as_its_lease(tmp_path: Path) -> None:
    place = LocalStorage(tmp_path)
    forge(place, host="elsewhere", process=1)
    with pytest.raises(StorageError, match="process 1 on elsewhere"), RunLock(place):
        pass
    forge(place, host="elsewhere", process=1, until=time.time() - 1)
    with RunLock(place):
        assert newest(place)["host"] == platform.node()


def test_a_live_holder_renews_its_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.02)
    place = LocalStorage(tmp_path)
    with RunLock(place, lease_seconds=5.0):
        first = newest(place)["until"]
        for _ in range(500):
            if newest(place)["until"] > first:
                break
            time.sleep(0.01)
        assert newest(place)["until"] > first
    assert newest(place)["released"]


def test_what_is_no_lock_file_is_not_guessed_at(tmp_path: Path) -> None:
    place = LocalStorage(tmp_path)
    place.write("lock/000000.json", b"{}")
    with pytest.raises(MismatchError, match="not a lock file"), RunLock(place):
        pass


def test_a_second_driver_is_refused_and_a_killed_one_followed(tmp_path: Path) -> None:
    """Through the command: while one trains, the other ends with 4; when the first is killed, the other goes on to
    the bits of a run that had no trouble."""
    rng = np.random.default_rng(0)
    write_dataset(tmp_path / "data", rng.normal(size=(60, 3)), rng.integers(0, 2, 60), shards=2, classes=2)
    values = {
        "data": {"path": str(tmp_path / "data")},
        "run_dir": str(tmp_path / "run"),
        "workers": 2,
        "model": {"hidden": [3]},
        "train": {"epochs": 120, "epochs_per_round": 1},
    }
    (tmp_path / "c.yaml").write_text(json.dumps(values))
    command = [sys.executable, "-m", "jobs", "train", "c.yaml", "--resume", "--run-dir", str(tmp_path / "run")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with started(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as first:
        assert first.stderr is not None
        for line in first.stderr:
            if line.startswith("round"):
                break
        first.send_signal(signal.SIGSTOP)  # alive and holding the lock, however fast this machine trains
        second = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert second.returncode == 4
        assert f"process {first.pid} on {platform.node()}" in second.stderr
    third = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert third.returncode == 0, third.stderr
    whole = Config.model_validate({**values, "run_dir": str(tmp_path / "whole")})
    driver.train(whole)
    model = "final/model.safetensors"
    assert (tmp_path / "run" / model).read_bytes() == (tmp_path / "whole" / model).read_bytes()
