"""What an earlier version made stays good: its runs are verified, resumed, predicted with, exported and reported.

The numbers below are those of the version that made the runs (`tests/fixtures/before_rooms`).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from product import ROOT
from safetensors.numpy import load_file

from jobs.__main__ import main
from nnlib.core import numerics

FIXTURES = ROOT / "tests/fixtures/before_rooms"


@dataclass(frozen=True)
class Earlier:
    """A run of the earlier version: its dataset, its rounds, and what that version made of it."""

    dataset: str
    rounds: int
    loss: float
    """Loss of trial 0 on the whole dataset."""
    grown: int
    """Rounds after going on to 12 epochs."""
    grown_model: str
    """Start of the SHA-256 of the model after that."""


RUNS = {
    "rounds": Earlier("points", 3, 0.2595993544935574, 6, "bf3ab72f7f83bfd9"),
    "collective": Earlier("points", 6, 0.5484735882051036, 12, "cd649b7424cec85a"),
    "regression": Earlier("heights", 2, 12.637004578808302, 4, "af302da5a5f129ed"),
    "sweep": Earlier("points", 2, 1.021283043402005, 6, "2320eb535db41354"),
}

pytestmark = pytest.mark.parametrize("name", RUNS)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A copy of the earlier version's folder, whose runs name the copy's datasets."""
    copy = Path(shutil.copytree(FIXTURES, tmp_path / "copy"))
    for file in [*copy.glob("runs/*/config.yaml"), *copy.glob("runs/*/spec.json")]:
        file.write_text(file.read_text("utf-8").replace("/fixtures", str(copy)), "utf-8")
    return copy


def nnjobs(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """The JSON line of a command that must succeed."""
    capsys.readouterr()
    code = main([*arguments, "--json"])
    output = capsys.readouterr()
    assert code == 0, output.err
    line: dict[str, Any] = json.loads(output.out.splitlines()[-1])
    return line


def is_same_kernel(name: str) -> bool:
    """Whether this machine computes the bits of the machine that made the run."""
    lines = sorted(FIXTURES.glob(f"runs/{name}/rounds/*/ledger.json"))
    kernels = {kernel for line in lines[1:] for kernel in json.loads(line.read_text().splitlines()[0])["numerics"]}
    return kernels == {numerics.fingerprint()}


def round_files(run: Path, rounds: int) -> dict[str, str]:
    """SHA-256 of every file of the first rounds."""
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((run / "rounds").rglob("*.*"))
        if int(path.parent.name) <= rounds
    }


def test_it_verifies(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = nnjobs(capsys, "verify", str(place / "runs" / name), "--all")
    assert found["verified"] and found["rounds"] == RUNS[name].rounds
    if is_same_kernel(name):
        assert found["recomputed"] == list(range(RUNS[name].rounds + 1)) and found["notes"] == []
    else:
        assert any("other kernel" in note for note in found["notes"])


def test_it_goes_on_as_the_earlier_version_would(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    earlier, run = RUNS[name], place / "runs" / name
    before = round_files(run, earlier.rounds)
    result = nnjobs(
        capsys, "train", "--resume", "--run-dir", str(run), "--set=train.epochs=12", "--set=runtime.numerics=loose"
    )
    assert result["rounds"] == earlier.grown
    after = round_files(run, earlier.rounds)
    assert after.items() <= before.items()  # old models are dropped as new ones are kept
    ledgers = {file for file in before if file.endswith("ledger.json")}
    assert ledgers and ledgers <= after.keys()
    if is_same_kernel(name):
        assert result["model_sha256"].startswith(earlier.grown_model)


def test_it_predicts(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, dataset = str(place / "runs" / name), RUNS[name].dataset
    whole, rows = str(place / "whole.parquet"), str(place / "rows.parquet")
    scored = nnjobs(capsys, "predict", run, str(place / dataset), "-o", whole)
    assert scored["rows"] == scored["labelled_rows"] == 90
    assert scored["test_loss"] == pytest.approx(RUNS[name].loss, rel=1e-5)
    assert nnjobs(capsys, "predict", run, str(place / f"{dataset}.csv"), "-o", rows)["rows"] == 90
    assert pq.read_table(rows).num_rows == pq.read_table(whole).num_rows == 90


def test_it_exports(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = place / "runs" / name, place / "out"
    final = {key[2:]: value for key, value in load_file(run / "final/model.safetensors").items() if key[:2] == "0."}
    assert final
    for format_ in ("npz", "safetensors"):
        nnjobs(capsys, "export", str(run), "--format", format_, "-o", f"{out}.{format_}")
    with np.load(f"{out}.npz", allow_pickle=False) as stored:
        arrays = {"npz": {key: stored[key] for key in stored.files}, "safetensors": load_file(f"{out}.safetensors")}
    for found in arrays.values():
        for key, value in final.items():
            np.testing.assert_array_equal(found[key], value)
    pytest.importorskip("onnx")
    exported = nnjobs(capsys, "export", str(run), "--format", "onnx", "-o", f"{out}.onnx")
    assert exported["bytes"] == Path(f"{out}.onnx").stat().st_size


def test_it_is_reported(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    page = Path(nnjobs(capsys, "report", str(place / "runs" / name), "-o", str(place / "page.html"))["output"])
    assert "<title>" in page.read_text("utf-8") and name in page.read_text("utf-8")


def test_its_configuration_trains_the_same_again(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, again = place / "runs" / name, place / "again"
    nnjobs(capsys, "train", str(run / "config.yaml"), "--run-dir", str(again))
    first, second = ((path / "rounds/000000/ledger.json").read_text().splitlines()[0] for path in (run, again))
    assert json.loads(first) == json.loads(second)
    if is_same_kernel(name):
        assert (again / "final/model.safetensors").read_bytes() == (run / "final/model.safetensors").read_bytes()
