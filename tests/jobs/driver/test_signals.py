"""Ctrl-C and kill: what is committed is kept, nothing is left behind, and the printed line resumes to the same bits."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from processes import started
from product import ROOT
from shards import write_dataset

from jobs.driver import driver
from nnlib.config.load import load_config
from nnlib.core.events import Event, Note

EXPERIMENT = """
name: long
workers: 2
data: {{path: {data}}}
run_dir: {run}
model: {{hidden: [3]}}
train: {{epochs: 400, epochs_per_round: 1}}
"""


def test_an_interrupted_group_says_what_is_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    write_dataset(tmp_path / "data", rng.normal(size=(60, 3)), rng.integers(0, 2, 60), shards=2, classes=2)
    text = EXPERIMENT.format(data=tmp_path / "data", run=tmp_path / "run")
    (tmp_path / "long.yaml").write_text(f"{text}sync: {{mode: collective}}\n")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("jobs.mapreduce.launcher.RoundLauncher.launch", interrupted)
    told: list[Event] = []
    with pytest.raises(KeyboardInterrupt):
        driver.train(load_config(tmp_path / "long.yaml", []), listen=told.append)
    assert Note("the newest commit is of round 0 (checkpoint.every: 30s)", "warning") in told


@pytest.mark.parametrize("runner", ["inline", "local"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.full)])
def test_an_interrupted_run_says_how_to_go_on(tmp_path: Path, number: signal.Signals, runner: str) -> None:
    rng = np.random.default_rng(0)
    write_dataset(tmp_path / "data", rng.normal(size=(60, 3)), rng.integers(0, 2, 60), shards=2, classes=2)
    text = EXPERIMENT.format(data=tmp_path / "data", run=tmp_path / "run")
    (tmp_path / "long.yaml").write_text(text)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with started(
        [sys.executable, "-m", "jobs", "train", "long.yaml", "-r", runner],
        cwd=tmp_path,
        env={**environment, "TMPDIR": str(temporary)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("round"):
                break
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        rest = process.stderr.read()
        assert process.wait(30) == 130
        assert psutil.wait_procs(children, timeout=10)[1] == []
    resume = re.search(r"nnjobs (train --resume --run-dir \S+)", rest)
    assert resume is not None, rest
    assert list(temporary.iterdir()) == []

    # Going on from there ends in the bits of a run never stopped.
    command = [sys.executable, "-m", "jobs", *resume[1].split(), "-r", "inline", "--quiet"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0
    whole = load_config(tmp_path / "long.yaml", [f"run_dir={tmp_path / 'whole'}"])
    driver.train(whole)
    model = "final/model.safetensors"
    assert (tmp_path / "run" / model).read_bytes() == (tmp_path / "whole" / model).read_bytes()


@pytest.mark.parametrize(
    ("ignored", "number"),
    [("INT", signal.SIGTERM), pytest.param("INT HUP", signal.SIGTERM, marks=pytest.mark.full),
     pytest.param("TERM", signal.SIGINT, marks=pytest.mark.full)],
)  # fmt: skip
def test_signals_that_the_shell_ignores_stay_ignored(tmp_path: Path, ignored: str, number: signal.Signals) -> None:
    """A script's ``nnjobs train ... &`` has SIGINT ignored: Ctrl-C for the script leaves it alone; SIGTERM ends it."""
    rng = np.random.default_rng(0)
    write_dataset(tmp_path / "data", rng.normal(size=(60, 3)), rng.integers(0, 2, 60), shards=2, classes=2)
    text = EXPERIMENT.format(data=tmp_path / "data", run=tmp_path / "run")
    (tmp_path / "long.yaml").write_text(text)
    script = f"trap '' {ignored}; exec \"$@\""
    with started(
        ["/bin/bash", "-c", script, "bash", sys.executable, "-m", "jobs", "train", "long.yaml", "-r", "local"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        rounds = (line for line in process.stderr if line.startswith("round"))
        next(rounds)
        for name in ignored.split():
            os.killpg(process.pid, signal.Signals[f"SIG{name}"])  # as a terminal does, with all that belong to it
        next(rounds)
        next(rounds)
        os.killpg(process.pid, number)
        rest = process.stderr.read()
        assert process.wait(60) == 130
    assert "nnjobs train --resume --run-dir" in rest
    assert "Traceback" not in rest and "trying again" not in rest
