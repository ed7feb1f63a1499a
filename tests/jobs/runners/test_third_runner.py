"""A new runner is one file and one line: it trains, in rounds and as a group, and predicts, to the bits of inline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from driver_experiment import CLASSES, blobs, config
from product import ROOT
from runs import deterministic_files
from shards import write_dataset
from shuffling_runner import SHUFFLING, ShufflingSession

from jobs.batch.predict import predict
from jobs.driver import driver
from jobs.driver.verification import verify
from nnlib.config.runners import RUNNERS
from nnlib.config.schema import Config, Runtime
from nnlib.core.errors import ConfigError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    where = tmp_path_factory.mktemp("data") / "blobs"
    write_dataset(where, *blobs(400), shards=8, row_group_rows=16, classes=CLASSES)
    return str(where)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The one line in the table of runners; the phases of the jobs that the runner ran."""
    monkeypatch.setitem(RUNNERS, "shuffling", SHUFFLING)
    phases: list[str] = []
    run = ShufflingSession.run

    def counted(session: ShufflingSession, job: Any) -> Any:
        phases.append(job.phase)
        return run(session, job)

    monkeypatch.setattr(ShufflingSession, "run", counted)
    return phases


CHANGES: dict[str, dict[str, Any]] = {
    "rounds": {"model__hidden": [300, 300], "reducers": 3, "data__scale": "standard"},
    "collective": {"sync__mode": "collective"},
}


@pytest.mark.parametrize("mode", CHANGES)
def test_it_trains_to_the_bits_of_inline(mode: str, dataset: str, tmp_path: Path, registered: list[str]) -> None:
    changes = CHANGES[mode] | {"train__epochs": 2, "train__epochs_per_round": 1}
    results = {
        runner: driver.train(config(dataset, tmp_path / runner, runtime__runner=runner, **changes))
        for runner in ("inline", "shuffling")
    }
    expected = {"rounds": ["scale", "train", "train", "score"], "collective": ["collective"]}[mode]
    assert registered == expected
    assert results["shuffling"].model_sha256 == results["inline"].model_sha256
    assert deterministic_files(tmp_path / "shuffling") == deterministic_files(tmp_path / "inline")
    if mode == "rounds":
        assert verify(str(tmp_path / "inline"), every=True, runner="shuffling").problems == []


def test_it_predicts_to_the_bits_of_inline(dataset: str, tmp_path: Path, registered: list[str]) -> None:
    run = str(tmp_path / "run")
    driver.train(config(dataset, Path(run), train__epochs=1))
    for runner in ("inline", "shuffling"):
        predict(run, dataset, str(tmp_path / runner), Runtime(runner=runner), tasks=3)
    assert registered == ["predict"]
    parts = {path.name: path.read_bytes() for path in (tmp_path / "inline").iterdir()}
    assert parts == {path.name: path.read_bytes() for path in (tmp_path / "shuffling").iterdir()}


def test_the_command_and_the_configuration_know_it(dataset: str, tmp_path: Path) -> None:
    program = ROOT / "tests" / "helpers" / "shuffling_runner.py"
    experiment = config(dataset, tmp_path / "run", train__epochs=1).model_dump(mode="json", exclude_unset=True)
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(experiment))

    def nnjobs(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(program), "train", str(tmp_path / "experiment.yaml"), "--json", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    done = nnjobs("-r", "shuffling")
    assert done.returncode == 0, done.stderr
    plain = driver.train(config(dataset, tmp_path / "plain", train__epochs=1))
    assert json.loads(done.stdout.splitlines()[-1])["model_sha256"] == plain.model_sha256
    assert "runner: shuffling" in (tmp_path / "run" / "config.yaml").read_text()
    for option in (("-r", "shufling"), ("--set", "runtime.runner=shufling")):
        refused = nnjobs(*option, "--run-dir", str(tmp_path / "other"))
        assert refused.returncode == 2
        assert "shuffling" in refused.stderr  # one of those that there are


def test_a_name_that_is_not_in_the_table_is_refused(dataset: str, tmp_path: Path) -> None:
    unknown: Config = config(dataset, tmp_path / "run", runtime__runner="no such runner")
    with pytest.raises(ConfigError, match="there is no runner no such runner; there are inline, local, hadoop"):
        driver.train(unknown)
    assert not (tmp_path / "run").exists()
