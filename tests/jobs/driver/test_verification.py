"""`nnjobs verify`: an honest run verifies, and whatever is altered is found and named."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file
from shards import write_dataset

from jobs.commands.cli import cli
from jobs.driver import driver
from jobs.driver.verification import verify
from nnlib.config.schema import Config
from nnlib.core import numerics
from nnlib.core.errors import ConfigError


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 5 rounds and 2 trials that keeps the models of its last 2 rounds."""
    place = tmp_path_factory.mktemp("verify")
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 240)
    x = (rng.normal(size=(3, 5))[y] + rng.normal(size=(240, 5))).astype(np.float32)
    write_dataset(place / "data", x, y, shards=4, classes=3)
    driver.train(
        Config.model_validate(
            {
                "data": {"path": str(place / "data"), "scale": "standard"},
                "run_dir": str(place / "run"),
                "workers": 2,
                "model": {"hidden": [4]},
                "split": {"seeds": [0, 1], "validation": 0.1},
                "train": {"epochs": 5, "epochs_per_round": 1, "keep": "best"},
                "sync": {"outer": {"kind": "nesterov", "lr": 0.8, "momentum": 0.5}},
                "checkpoint": {"keep": 2},
            }
        )
    )
    return place


@pytest.fixture
def run(honest: Path, tmp_path: Path) -> Path:
    """A copy to tamper with; its spec still points to the module's dataset."""
    return Path(shutil.copytree(honest / "run", tmp_path / "run"))


def test_an_honest_run_verifies_whole(honest: Path) -> None:
    found = verify(str(honest / "run"), every=True)
    assert found.problems == []
    assert found.notes == []
    assert found.recomputed == [0, 1, 2, 3, 4, 5]
    assert found.ledger == hashlib.sha256((honest / "run/rounds/000005/ledger.json").read_bytes()).hexdigest()


def test_one_round_is_recomputed_from_the_nearest_kept_model(honest: Path) -> None:
    assert verify(str(honest / "run")).recomputed == [5]
    told: list[str] = []
    found = verify(
        str(honest / "run"), round_=2, runner="local", listen=lambda event: told.append(getattr(event, "text", ""))
    )
    assert found.problems == [] and found.recomputed == [2]
    assert told[0] == "recomputing 2 rounds from the model of round 0, a job each (-r local)"


def test_a_runner_that_cannot_read_the_data_says_nothing_of_the_run(honest: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read a dataset on this machine"):
        verify(str(honest / "run"), runner="hadoop")


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def edit(path: Path, change: Callable[[Any], None]) -> None:
    data = json.loads(path.read_bytes())
    change(data)
    path.write_text(json.dumps(data, sort_keys=True, separators=(",", ":")) + "\n")


@pytest.mark.parametrize(
    "name", ["model.safetensors", "state.safetensors", "trials.json", "metrics.json", "ledger.json"]
)
def test_a_damaged_file_is_named(run: Path, name: str) -> None:
    path = run / "rounds" / "000005" / name
    flip(path, len(path.read_bytes()) // 2)
    assert any(f"rounds/000005/{name}" in problem for problem in verify(str(run)).problems)


def test_a_missing_file_or_round_is_named(run: Path) -> None:
    (run / "rounds/000003/metrics.json").unlink()
    shutil.rmtree(run / "rounds/000001")
    problems = "\n".join(verify(str(run)).problems)
    assert "rounds/000003/metrics.json is missing" in problems
    assert "round 1 is missing" in problems


def forge(run: Path, round_: int, name: str, data: bytes) -> None:
    """Replace a file of a round and make its manifest and its ledger line agree: a careful forger."""
    folder = run / "rounds" / f"{round_:06d}"
    (folder / name).write_bytes(data)
    hashed = hashlib.sha256(data).hexdigest()
    edit(folder / "ledger.json", lambda line: line["files"].update({name: hashed}))
    line = (folder / "ledger.json").read_bytes()

    def agree(manifest: Any) -> None:
        manifest["files"][name] = {"bytes": len(data), "sha256": hashed}
        manifest["files"]["ledger.json"] = {"bytes": len(line), "sha256": hashlib.sha256(line).hexdigest()}

    edit(folder / "manifest.json", agree)


def forged_model(run: Path, round_: int) -> bytes:
    arrays = load_file(run / "rounds" / f"{round_:06d}" / "model.safetensors")
    arrays["0.layer0.weight"] = arrays["0.layer0.weight"] + np.float32(1e-6)
    save_file(arrays, run / "forged")
    return (run / "forged").read_bytes()


def test_a_forged_model_in_the_middle_breaks_the_chain(run: Path) -> None:
    forge(run, 4, "model.safetensors", forged_model(run, 4))
    assert any("line 5 is not chained to line 4" in problem for problem in verify(str(run)).problems)


def test_a_forged_last_model_is_found_by_recomputing(run: Path) -> None:
    forge(run, 5, "model.safetensors", forged_model(run, 5))
    problems = verify(str(run)).problems
    assert any(
        "round 5: recomputing gives another" in problem and "model.safetensors" in problem for problem in problems
    )


def test_forged_metrics_of_the_last_round_are_found_by_recomputing(run: Path) -> None:
    data = json.loads((run / "rounds/000005/metrics.json").read_bytes())
    data["trials"][0]["test"]["accuracy"] = 1.0
    forge(run, 5, "metrics.json", (json.dumps(data, sort_keys=True, separators=(",", ":")) + "\n").encode())
    assert any("metrics.json" in problem for problem in verify(str(run)).problems)


def test_forged_final_scores_and_models_are_found(run: Path) -> None:
    edit(run / "final/metrics.json", lambda final: final["trials"][0]["test"].update(accuracy=1.0))
    assert verify(str(run)).problems == ["final/metrics.json: recomputing gives other scores"]
    arrays = load_file(run / "final/model.safetensors")
    arrays["1.layer0.bias"] = arrays["1.layer0.bias"] + np.float32(1)
    save_file(arrays, run / "final/model.safetensors")
    assert any("final/model.safetensors" in problem for problem in verify(str(run)).problems)


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("config", lambda spec: spec["config"]["train"].update(lr=0.04)),
        ("trials", lambda spec: spec["trials"][0]["rule"]["key"].reverse()),
        ("seed", lambda spec: spec["config"].update(seed=7)),
    ],
)
def test_a_changed_spec_is_found(run: Path, key: str, change: Callable[[Any], None]) -> None:
    edit(run / "spec.json", change)
    assert any(key in problem and "spec.json" in problem for problem in verify(str(run)).problems)


def test_an_altered_shard_is_named(honest: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(honest, tmp_path / "copy"))
    edit(copy / "run/spec.json", lambda spec: spec["dataset"].update(address=str(copy / "data")))
    assert verify(str(copy / "run")).problems == []
    flip(copy / "data/part-00002.parquet", 100)
    assert any("part-00002.parquet" in problem for problem in verify(str(copy / "run")).problems)


def test_another_kernel_is_said_not_cried(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numerics, "fingerprint", lambda: "0123456789abcdef")
    found = verify(str(run))
    assert found.problems == []
    assert found.recomputed == []
    assert "other kernel" in found.notes[0]


def test_the_command_ends_with_3_and_names_what_differs(run: Path) -> None:
    assert CliRunner().invoke(cli, ["verify", str(run)]).exit_code == 0
    flip(run / "rounds/000004/trials.json", 5)
    result = CliRunner().invoke(cli, ["verify", str(run), "--json"])
    assert "rounds/000004/trials.json" in json.loads(result.stdout.splitlines()[-1])["problems"][0]
    assert getattr(result.exception, "exit_code", result.exit_code) == 3
