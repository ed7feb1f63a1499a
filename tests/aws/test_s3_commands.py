"""Everything that is read and written may lie in S3: the commands, with every runner that needs no cluster."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from product import ROOT
from s3_service import BUCKET, FaultyService

from jobs.__main__ import main
from nnlib.storage import storage
from nnlib.storage.traffic import PROCESS

ROOM = f"s3://{BUCKET}/a room"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def rows(path: Path) -> Path:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 240)
    x = rng.normal(size=(3, 4))[y] + rng.normal(0.0, 0.5, (240, 4))
    lines = [",".join([*(f"{value:.3f}" for value in row), f"class {label}"]) for row, label in zip(x, y, strict=True)]
    path.write_text("\n".join(["a,b,c,d,label", *lines]) + "\n")
    return path


def experiment(path: Path, data: str, **changes: Any) -> str:
    keys: dict[str, Any] = {
        "name": "in-s3",
        "data": {"path": data},
        "workers": 8,
        "model": {"hidden": [5]},
        "train": {"epochs": 3, "epochs_per_round": 1},
        "checkpoint": {"keep": 1},
        "runtime": {"cores": 2, "cache_dir": str(path / "cache")},
    }
    (path / "experiment.yaml").write_text(yaml.safe_dump(keys | changes))
    return str(path / "experiment.yaml")


def done(*arguments: str) -> None:
    assert main([str(each) for each in arguments]) == 0


def result(capfd: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capfd.readouterr()
    done(*arguments, "--json")
    found: dict[str, Any] = json.loads(capfd.readouterr().out.splitlines()[-1])
    return found


def test_a_life_in_s3(s3: FaultyService, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = rows(tmp_path / "rows.csv")
    storage(ROOM).write("rows.csv", source.read_bytes())
    done("data", "import", f"{ROOM}/rows.csv", "-o", f"{ROOM}/data", "--label", "label", "--shards", "8")
    done("data", "verify", f"{ROOM}/data")
    done("data", "import", str(source), "-o", "data", "--label", "label", "--shards", "8")
    for name in storage("data").names():
        assert name == "dataset.json" or storage("data").read(name) == storage(f"{ROOM}/data").read(name)

    here = result(capfd, "train", experiment(tmp_path, "data"), "-r", "inline", "--run-dir", "run")
    config = experiment(tmp_path, f"{ROOM}/data")
    run = f"{ROOM}/runs/first one"
    there = result(capfd, "train", config, "-r", "inline", "--run-dir", run)
    assert there["model_sha256"] == here["model_sha256"]
    assert there["run_dir"] == run

    s3.fail()
    done("train", config, "-r", "local", "--run-dir", f"{ROOM}/runs/local", "--set", "train.epochs=2")
    text = capfd.readouterr().err
    assert re.search(r"requests to S3: \d+ that write or list, \d+ that read", text)
    seen = [entry["path"] for entry in s3.seen()]
    first, second = (seen.index(f"/{BUCKET}/a room/runs/local/rounds/00000{n}/manifest.json", n) for n in (1, 2))
    events = [json.loads(line) for line in storage(f"{ROOM}/runs/local").read("events.jsonl").splitlines()]
    counts = [sum(event["requests"].values()) for event in events if event["event"] == "round"]
    assert counts[1] <= 40 and 0 < second - first <= 40

    more = ("--resume", "--run-dir", f"{ROOM}/runs/local", "--set", "train.epochs=3")
    resumed = result(capfd, "train", config, "-r", "local", *more)
    assert resumed["model_sha256"] == here["model_sha256"]
    assert s3_counts_are_the_services(s3, capfd, config)

    done("verify", run)
    done("predict", run, f"{ROOM}/data", "-o", f"{ROOM}/predicted", "-r", "local")
    done("predict", run, f"{ROOM}/rows.csv", "-o", f"{ROOM}/predicted.csv")
    done("predict", "run", str(source), "-o", "predicted.csv")
    assert storage(ROOM).read("predicted.csv") == Path("predicted.csv").read_bytes()
    done("report", run, "run", "-o", f"{ROOM}/page.html")
    assert b"in-s3" in storage(ROOM).read("page.html")
    done("export", run, "-o", f"{ROOM}/model.npz", "--format", "npz")
    assert storage(ROOM).size("model.npz") > 0
    done("status", run)


def s3_counts_are_the_services(s3: FaultyService, capfd: pytest.CaptureFixture[str], config: str) -> bool:
    """Whether a run counts as many requests as the service saw, but for a few after the count."""
    s3.fail()
    PROCESS.take_priced()
    capfd.readouterr()
    done("train", config, "-r", "inline", "--run-dir", f"{ROOM}/runs/counted")
    match = re.search(r"requests to S3: (\d+) that write or list, (\d+) that read, (\d+) free", capfd.readouterr().err)
    assert match is not None
    return len(s3.seen()) - 12 <= sum(map(int, match.groups())) <= len(s3.seen())


@pytest.mark.parametrize("mode", ["rounds", "collective"])
def test_a_group_in_s3_computes_the_same_bits(
    s3: FaultyService, tmp_path: Path, capfd: pytest.CaptureFixture[str], mode: str
) -> None:
    done("data", "import", str(rows(tmp_path / "rows.csv")), "-o", f"{ROOM}/data", "--label", "label", "--shards", "3")
    config = experiment(tmp_path, f"{ROOM}/data", workers=3)
    here = result(capfd, "train", config, "-r", "inline", "--run-dir", "run")
    options = ("-r", "local", "--set", f"sync.mode={mode}", "--run-dir", f"{ROOM}/run")
    assert result(capfd, "train", config, *options)["model_sha256"] == here["model_sha256"]


def test_the_sdk_is_imported_only_for_s3(tmp_path: Path) -> None:
    code = (
        "import sys; from jobs.__main__ import main\n"
        f"assert main(['data', 'synth', '-o', {str(tmp_path / 'data')!r}, '--rows', '50']) == 0\n"
        f"assert main(['data', 'info', {str(tmp_path / 'data')!r}]) == 0\n"
        "assert not {'boto3', 'botocore', 'nnlib.storage.s3.storage'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_without_the_sdk_an_address_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "botocore").mkdir()
    (tmp_path / "botocore" / "__init__.py").write_text("raise ModuleNotFoundError('no', name='botocore')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nfrom jobs.__main__ import main\n"
    code += "sys.exit(main(['data', 'info', 's3://bucket/data']))"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
    assert answer.returncode == 2
    assert "pip install 'nnjobs[aws]'" in answer.stderr
