"""Predicting, evaluating and importing on a real cluster: the files and numbers of one process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from failures import ENDED, applications, wait_until
from processes import started

from jobs.__main__ import main
from jobs.minicluster.cluster import Cluster
from nnlib.inference.prediction_parts import SUMMARY, part_name
from nnlib.storage import storage
from nnlib.storage.hdfs.hadoop_user import hadoop_user as user

HOME = "hdfs:///user/tests/jobs"
DATA = f"{HOME}/data sets/some digits"  # names with spaces are names
SHARDS = 8
IMPORT = ("--label", "y", "--categorical", "colour", "--nulls", "mean", "--shards", "3", "--row-group-rows", "50")


@pytest.fixture(scope="module")
def cluster(used_hadoop: Cluster, digits: Path) -> Cluster:
    """The cluster with a dataset in HDFS."""
    storage(DATA).write_all({path.name: path.read_bytes() for path in sorted(digits.iterdir())})
    return used_hadoop


@pytest.fixture(autouse=True)
def inside(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def hang(tmp_path: Path) -> str:
    """A Python for tasks that never end: an interrupt always meets them."""
    path = tmp_path / "hang.sh"
    path.write_text("#!/bin/sh\nexec sleep 3600\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def done(capfd: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> tuple[dict[str, Any], str]:
    """What a command printed as JSON (if it did), and what it said."""
    capfd.readouterr()
    found = main(list(arguments))
    out, err = capfd.readouterr()
    assert found == code, err
    return json.loads(out.splitlines()[-1]) if out.strip() else {}, err


def files(address: str) -> dict[str, bytes]:
    place = storage(address)
    return {name: place.read(name) for name in place.names()}


def scratch_files() -> list[str]:
    """What is left in the folder of the commands' scratch folders."""
    return storage(f"hdfs:///user/{user()}/.nnjobs/runs").names()


def running(cluster: Cluster) -> set[object]:
    """The names of the applications that have not ended."""
    return {app["name"] for app in applications(cluster) if app["state"] not in ENDED}


def interrupted(cluster: Cluster, name: str, *arguments: str) -> str:
    """Start a command, send it Ctrl-C when its job is on the cluster; what it said."""
    command = [sys.executable, "-m", "jobs", *arguments]
    with started(command, stderr=subprocess.PIPE, text=True) as process:
        there = f"the job {name!r} runs, or its command has ended"
        wait_until(lambda: process.poll() is not None or name in running(cluster), there)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    wait_until(lambda: name not in running(cluster), "the job has ended")
    return str(error)


@pytest.fixture
def trained(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """A run on this machine."""
    config = tmp_path / "tiny.yaml"
    config.write_text(f"name: tiny\ndata:\n  path: {DATA}\n", encoding="utf-8")
    small = ("--set", "model.hidden=[16]", "--set", "train.epochs=1", "--set", "train.epochs_per_round=1")
    run = str(tmp_path / "run")
    done(capfd, "train", str(config), *small, "--run-dir", run)
    return run


def test_predicting(tmp_path: Path, trained: str, capfd: pytest.CaptureFixture[str]) -> None:
    run, here, there = trained, str(tmp_path / "parts"), f"{HOME}/my predictions"
    one, _ = done(capfd, "predict", run, DATA, "-o", here, "-r", "inline", "--json")
    place = storage(there)  # as a command that was cut short leaves it: some parts whole, and of one a half
    for shard in range(SHARDS - 2):
        place.write(part_name(shard), (tmp_path / "parts" / part_name(shard)).read_bytes())
    job, told = done(capfd, "predict", run, DATA, "-o", there, "-r", "hadoop", "--tasks", "2", "--json")
    assert f"{SHARDS - 2} of {SHARDS} parts are there already" in told
    assert (job["made"], job["parts"]) == (2, SHARDS)
    assert files(there) == files(here)
    same = ("rows", "labelled_rows", "test_accuracy", "test_loss")
    assert {key: job[key] for key in same} == {key: one[key] for key in same}
    assert SUMMARY in files(there)
    assert scratch_files() == []


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """CSV files with missing values; not all have all colours and labels."""
    rng = np.random.default_rng(2)
    folder = tmp_path / "raw"
    folder.mkdir()
    for number, rows in enumerate((40, 3, 400)):
        lines = ["a,colour,y"]
        for row in range(rows):
            a = "" if row % 9 == number else f"{rng.normal():.6f}"
            lines.append(f"{a},c{rng.integers(0, number + 2)},{'uvw'[rng.integers(0, number + 1)]}")
        (folder / f"some rows {number}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def put(folder: Path, address: str) -> None:
    storage(address).write_all({path.name: path.read_bytes() for path in sorted(folder.iterdir())})
    storage(address).write("_SUCCESS", b"")


def test_importing(tmp_path: Path, raw: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source, output = f"{HOME}/raw files", f"{HOME}/imported here"
    put(raw, source)
    here = sorted(str(path) for path in raw.iterdir())
    done(capfd, "data", "import", *here, "-o", str(tmp_path / "one"), *IMPORT)
    done(capfd, "data", "import", source, "-o", output, *IMPORT, "-r", "hadoop")
    assert files(output) == files(str(tmp_path / "one"))
    assert scratch_files() == []


@pytest.mark.full
def test_importing_in_containers_of_their_own(tmp_path: Path, raw: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source, output = f"{HOME}/raw files 2", f"{HOME}/imported there"
    put(raw, source)
    done(capfd, "data", "import", source, "-o", str(tmp_path / "one"), *IMPORT, "--by-label")
    done(
        capfd, "data", "import", source, "-o", output, *IMPORT, "--by-label",
        *("-r", "hadoop", "--set", "runtime.hadoop.uber=off"),
    )  # fmt: skip
    assert files(output) == files(str(tmp_path / "one"))


@pytest.mark.full
def test_a_bad_row_is_named_and_leaves_nothing(tmp_path: Path, raw: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source, output = f"{HOME}/bad files", f"{HOME}/not imported"
    path = raw / "some rows 1.csv"
    path.write_text(path.read_text() + "seven,c0,u\n", encoding="utf-8")
    put(raw, source)
    _, told = done(capfd, "data", "import", source, "-o", output, *IMPORT, "-r", "hadoop", code=3)
    for part in ("some rows 1.csv", "row 4", "column a", "'seven' is not a number"):
        assert part in told
    assert files(output) == {}
    assert scratch_files() == []


@pytest.mark.full
def test_what_is_interrupted_leaves_nothing(cluster: Cluster, trained: str, raw: Path, hang: str) -> None:
    source, output = f"{HOME}/raw files 3", f"{HOME}/interrupted"
    put(raw, source)
    by_hanging_tasks = ("-o", output, "-r", "hadoop", "--python-bin", hang)
    interrupted(cluster, "nnjobs import survey", "data", "import", source, *IMPORT, *by_hanging_tasks)
    interrupted(cluster, "nnjobs tiny predict", "predict", trained, DATA, *by_hanging_tasks)
    assert files(output) == {}
    assert scratch_files() == []


@pytest.mark.full
def test_evaluating(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "compared.yaml"
    lines = (
        "name: compared",
        f"data: {{path: '{DATA}'}}",
        "split: {seeds: [0, 1, 2]}",
        "model: {hidden: [8]}",
        "train: {epochs: 2, epochs_per_round: 1}",
        "evaluate: {workers: [2], epochs: [1, 2]}",
    )
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    one, _ = done(capfd, "evaluate", str(config), "-o", str(tmp_path / "here"), "--no-report", "--json")
    output = f"{HOME}/evaluated there"
    cluster, _ = done(capfd, "evaluate", str(config), "-o", output, "-r", "hadoop", "--json")
    assert numbers(cluster) == numbers(one)
    assert cluster["comparisons"] == one["comparisons"]
    assert {"results.json", "results.parquet", "report.html"} <= set(storage(output).names())
    before = jobs_of(f"{output}/independent-2")
    assert before == ["train 0", "train 1", "score 2"]  # each carries all three splits
    again, _ = done(
        capfd, "evaluate", str(config), "-o", output, "--set", "runtime.runner=hadoop", "--no-report", "--json"
    )
    assert numbers(again) == numbers(one)
    assert jobs_of(f"{output}/independent-2") == before
    assert scratch_files() == []


def jobs_of(run: str) -> list[str]:
    """The jobs that a run has had, as its events tell."""
    events = [json.loads(line) for line in storage(run).read("events.jsonl").splitlines()]
    return [event["job"] for event in events if event["event"] == "job"]


def numbers(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The scores, without times and places."""
    return [
        {key: value for key, value in score.items() if key not in ("seconds", "run_dir")} for score in result["scores"]
    ]
