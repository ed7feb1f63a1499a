"""A task of several workers: their processes, what they give, and what becomes of all when one fails."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

import pytest
from processes import started, wait_until_gone
from product import ROOT

from jobs.collective.forked_workers import WorkerEndedError, fork_workers
from jobs.runners.lines import decode_record
from nnlib.config.schema import Config
from nnlib.data.dataset import Dataset
from nnlib.run.ledger import canonical
from nnlib.run.planner import make_spec
from nnlib.run.spec import WorkerPlan


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_lines_are_worked_on_at_once_and_given_in_their_order() -> None:
    """Every process waits for the one behind it: one after the other, they would wait for ever."""
    pipes = [os.pipe() for _ in range(3)]

    def work(line: bytes, output: BinaryIO) -> None:
        index = int(line)
        if index < 2:
            assert os.read(pipes[index + 1][0], 1) == b"."
        output.write(b"%d by %d\n" % (index, os.getpid()))
        os.write(pipes[index][1], b".")

    output = io.BytesIO()
    fork_workers([b"0\n", b"1\n", b"2\n"], work, output)
    given = [line.split(b" by ") for line in output.getvalue().splitlines()]
    assert [index for index, _ in given] == [b"0", b"1", b"2"]
    assert len({process for _, process in given} | {b"%d" % os.getpid()}) == 4


@pytest.mark.parametrize("way", ["exception", "exit", "signal"])
def test_one_that_fails_ends_all_and_nothing_is_given(way: str, capfd: pytest.CaptureFixture[str]) -> None:
    def work(line: bytes, output: BinaryIO) -> None:
        output.write(line)
        if line != b"1":
            Path(line.decode()).write_text(str(os.getpid()))
            time.sleep(3600)
        while not all(Path(name).exists() and Path(name).read_text() for name in "02"):
            time.sleep(0.01)
        if way == "signal":
            os.kill(os.getpid(), signal.SIGKILL)
        if way == "exit":
            sys.exit(7)
        raise ValueError("a bug")

    output = io.BytesIO()
    with pytest.raises(WorkerEndedError) as ended:
        fork_workers([b"0", b"1", b"2"], work, output)
    assert ended.value.index == 1
    words = {"exception": "with code 1", "exit": "with code 7", "signal": "by SIGKILL"}
    assert str(ended.value) == f"ended {words[way]}"
    assert ("ValueError: a bug" in capfd.readouterr().err) == (way == "exception")
    assert output.getvalue() == b""
    for name in "02":
        with pytest.raises(ProcessLookupError):
            os.kill(int(Path(name).read_text()), 0)


def test_they_end_with_their_parent(tmp_path: Path) -> None:
    program = (
        "import io, os, time\nfrom pathlib import Path\nfrom jobs.collective.forked_workers import fork_workers\n"
        "def work(line, output):\n"
        "    Path(line.decode()).write_text(str(os.getpid()))\n    time.sleep(3600)\n"
        "fork_workers([b'a', b'b'], work, io.BytesIO())\n"
    )
    with started([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(ROOT)}) as parent:
        marks = [tmp_path / name for name in "ab"]
        while not all(mark.exists() and mark.read_text() for mark in marks):
            time.sleep(0.01)
            assert parent.poll() is None
        parent.kill()
        assert all(wait_until_gone(int(mark.read_text())) for mark in marks)


def task(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """A collective job's map task as a cluster runs it, with the lines of two workers."""
    lines = b"".join(WorkerPlan(worker, (worker,)).to_line().encode() + b"\n" for worker in (3, 1))
    command = [sys.executable, "-m", "jobs.collective.collective_job", "--mapper", "--report", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, input=lines, capture_output=True, cwd=tmp_path, env=environment, check=False)


def write_spec(blobs: str, folder: Path) -> None:
    config = Config.model_validate({"name": "tiny", "workers": 4, "data": {"path": blobs}, "model": {"hidden": [4]}})
    spec, _ = make_spec(config, Dataset.open(blobs))
    (folder / "spec.json").write_bytes(canonical(spec.to_json()))


def test_a_task_with_two_lines_is_two_workers(blobs: str, tmp_path: Path) -> None:
    write_spec(blobs, tmp_path)
    done = task(tmp_path, "--phase", "preflight", "--spec", "spec.json", "--check-node")
    assert done.returncode == 0, done.stderr
    records = [decode_record(line.partition(b"\t")[2]) for line in done.stdout.splitlines()]
    assert [worker for worker, _ in records] == [3, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["spec.json"]


def test_a_worker_that_fails_is_named_in_the_log(blobs: str, tmp_path: Path) -> None:
    write_spec(blobs, tmp_path)
    options = ["--phase", "collective", "--spec", "spec.json", "--run-dir", str(tmp_path / "nowhere"), "--folder", "f"]
    done = task(tmp_path, *options, "--lease", "l")
    assert done.returncode == 1
    assert re.search(rb"^nnjobs: worker [13] on \S+ ended with code 1$", done.stderr, re.MULTILINE), done.stderr
    assert b"there is no run directory" in done.stderr
    assert done.stdout == b""
