"""Training on a real cluster: the bits of an inline run, nothing left behind, errors that say what to do."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from processes import started

from jobs.__main__ import main
from jobs.minicluster.cluster import Cluster
from nnlib.storage import storage
from nnlib.storage.hdfs.hadoop_user import hadoop_user as user

HOME = "hdfs:///user/tests"
DATA = f"{HOME}/data sets/some digits"  # names with spaces are names
SMALL = ("--set", "model.hidden=[16]", "--set", "train.epochs=1", "--set", "train.epochs_per_round=1")


@pytest.fixture(scope="module")
def cluster(used_hadoop: Cluster, digits: Path) -> Cluster:
    """The cluster with a dataset in HDFS."""
    storage(DATA).write_all({path.name: path.read_bytes() for path in sorted(digits.iterdir())})
    return used_hadoop


@pytest.fixture(autouse=True)
def inside(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def configuration(folder: Path, name: str = "tiny") -> str:
    path = folder / f"{name}.yaml"
    path.write_text(f"name: {name}\nworkers: 2\ndata:\n  path: {DATA}\n", encoding="utf-8")
    return str(path)


def train(capfd: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capfd.readouterr()
    code = main(["train", *arguments, "--json"])
    out, err = capfd.readouterr()
    assert code == 0, err
    result: dict[str, Any] = json.loads(out.splitlines()[-1])
    return result


def scratch_files() -> list[str]:
    """What is left in the folder of the runs' scratch folders."""
    return storage(f"hdfs:///user/{user()}/.nnjobs/runs").names()


@pytest.mark.parametrize(
    ("workers", "reducers", "uber", "rounds"),
    [
        (2, 1, "auto", 2),
        (2, 2, "off", 1),
        pytest.param(4, 2, "off", 3, marks=pytest.mark.full),
        pytest.param(8, 3, "off", 1, marks=pytest.mark.full),
        pytest.param(1, 1, "on", 2, marks=pytest.mark.full),
    ],
)
def test_the_bits_of_an_inline_run(
    workers: int, reducers: int, uber: str, rounds: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = configuration(tmp_path)
    keys = [*SMALL, "--set", f"workers={workers}", "--set", f"reducers={reducers}", "--set", f"train.epochs={rounds}"]
    run = f"{HOME}/runs/a run, {workers} x {reducers} {uber}"
    inline = train(capfd, config, *keys, "--run-dir", str(tmp_path / "inline"))
    cluster = train(capfd, config, *keys, "-r", "hadoop", "--set", f"runtime.hadoop.uber={uber}", "--run-dir", run)
    assert cluster["model_sha256"] == inline["model_sha256"]
    assert cluster["trials"] == inline["trials"]
    assert scratch_files() == []
    events = [json.loads(line) for line in storage(run).read("events.jsonl").splitlines()]
    jobs = [event for event in events if event["event"] == "job"]
    assert [job["uber"] for job in jobs] == [uber != "off"] * (rounds + 1)
    assert jobs[0]["counters"]["examples"] == 3500  # counted by Hadoop, from the tasks' own lines
    (nodes,) = [event["nodes"] for event in events if event["event"] == "nodes"]
    assert nodes[0]["numerics"] and nodes[0]["cores"] and nodes[0]["free_mb"]


@pytest.mark.full
def test_eight_workers_on_one_slot(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Containers so large that only one besides the master fits: workers take turns."""
    config = configuration(tmp_path)
    keys = [*SMALL, "--set", "workers=8"]
    inline = train(capfd, config, *keys, "--run-dir", str(tmp_path / "inline"))
    one = ("--set", "runtime.hadoop.uber=off", "--set", "runtime.hadoop.memory_mb=2048")
    cluster = train(capfd, config, *keys, *one, "-r", "hadoop", "--run-dir", f"{HOME}/runs/slots")
    assert cluster["model_sha256"] == inline["model_sha256"]


@pytest.mark.full
def test_a_python_that_is_not_there(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = configuration(tmp_path)
    arguments = [*SMALL, "-r", "hadoop", "--python-bin", "/no/such/python", "--run-dir", f"{HOME}/runs/no python"]
    assert main(["train", config, *arguments]) == 4
    error = capfd.readouterr().err
    assert "a node has no Python /no/such/python" in error
    assert "what to do: leave out runtime.hadoop.python_bin" in error
    assert scratch_files() == []


def test_a_crash_shows_its_traceback(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    crash = tmp_path / "crash.sh"
    program = "import sys; print('nnjobs: worker 1 on here', file=sys.stderr); raise ValueError('a bug')"
    crash.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{program}"\n', encoding="utf-8")
    crash.chmod(0o755)
    config = configuration(tmp_path)
    keys = [*SMALL, "--set", "runtime.hadoop.uber=on", "--python-bin", str(crash)]
    assert main(["train", config, *keys, "-r", "hadoop", "--run-dir", f"{HOME}/runs/crash"]) == 4
    error = capfd.readouterr().err
    for part in (
        "application application_",
        "worker 1",
        "part-00001.parquet",
        "Traceback",
        "a bug",
    ):
        assert part in error, error
    # On a busy machine the history server may still lack so short a job: then the log's node is all that is known.
    assert any(known in error for known in ("attempt attempt_", "task task_", "node ")), error
    assert len([line for line in error.splitlines() if line.strip()]) < 30
    assert scratch_files() == []


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.full)])
def test_interrupted(number: int, tmp_path: Path, cluster: Cluster) -> None:
    config = configuration(tmp_path, name="stopped")
    hang = tmp_path / "hang.sh"  # its tasks never end by themselves: the interrupt always meets them
    hang.write_text("#!/bin/sh\nexec sleep 3600\n", encoding="utf-8")
    hang.chmod(0o755)
    command = [sys.executable, "-m", "jobs", "train", config, *SMALL, "-r", "hadoop", "--python-bin", str(hang)]
    run = f"{HOME}/runs/interrupted {number}"
    with started([*command, "--run-dir", run], stderr=subprocess.PIPE, text=True) as process:
        _until(lambda: "nnjobs stopped round 1/1" in applications(cluster, "ACCEPTED,RUNNING"))
        process.send_signal(number)
        _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert "nnjobs train --resume --run-dir 'hdfs://" in error
    _until(lambda: "nnjobs stopped round 1/1" not in applications(cluster, "NEW,SUBMITTED,ACCEPTED,RUNNING"))
    assert scratch_files() == []


@pytest.mark.full
def test_a_quorum_goes_on_without_a_worker_whose_shard_is_lost(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Worker 1's task crashes on every attempt; the other three make the round, and everything says so."""
    lame = tmp_path / "lame.sh"
    lame.write_text(
        "#!/bin/sh\n"
        'case "$*" in *--mapper*) input=$(cat); case $input in *\'"worker":1}\'*) exit 9;; esac;\n'
        f'printf "%s\\n" "$input" | exec {sys.executable} "$@";; *) exec {sys.executable} "$@";; esac\n',
        encoding="utf-8",
    )
    lame.chmod(0o755)
    keys = [*SMALL, "--set", "workers=4", "--set", "sync.min_workers=3", "--set", "runtime.retries=0"]
    run = f"{HOME}/runs/quorum"
    keys += ["--set", "runtime.hadoop.uber=off", "--python-bin", str(lame), "-r", "hadoop", "--run-dir", run]
    result = train(capfd, configuration(tmp_path), *keys)
    assert result["trials"][0]["missing"]["workers"] == [1]
    ledger = json.loads(storage(run).read("rounds/000001/ledger.json"))
    assert ledger["trials"][0]["missing"] == [1]
    assert len(ledger["trials"][0]["examples"]) == 3


def applications(cluster: Cluster, states: str) -> list[str]:
    """Names of the applications in these states."""
    port = cluster.settings.ports["resourcemanager_http"]
    address = f"http://localhost:{port}/ws/v1/cluster/apps?states={states}"
    with urllib.request.urlopen(address, timeout=30) as answer:
        return [app["name"] for app in (json.load(answer)["apps"] or {}).get("app", [])]


def _until(condition: Any) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come about in two minutes")
