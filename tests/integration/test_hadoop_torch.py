"""Torch modules on a real cluster: the bits of an inline run, in rounds and in a group."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from images import write_images

pytest.importorskip("torch")

from jobs.__main__ import main
from jobs.minicluster.cluster import Cluster
from jobs.runners.hadoop import pack
from nnlib.storage import storage

HOME = "hdfs:///user/tests/torch"
DATA = f"{HOME}/bars"


@pytest.fixture(scope="module")
def cluster(used_hadoop: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """The cluster with images in HDFS."""
    local = tmp_path_factory.mktemp("images") / "bars"
    write_images(local, 120, shards=2)
    storage(DATA).write_all({path.name: path.read_bytes() for path in sorted(local.iterdir())})
    return used_hadoop


@pytest.fixture(autouse=True)
def inside(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bars.yaml").write_text(
        f"name: bars\nworkers: 2\ndata: {{path: {DATA}}}\nsplit: {{train: 0.8}}\n"
        "model: {kind: torch, factory: resnet-small, arguments: {width: 4}}\n"
        "train: {optimizer: adam, lr: 0.01, epochs: 2, epochs_per_round: 1, batch_size: 16}\n",
        encoding="utf-8",
    )


def train(capfd: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capfd.readouterr()
    code = main(["train", "bars.yaml", *arguments, "--json"])
    out, err = capfd.readouterr()
    assert code == 0, err
    result: dict[str, Any] = json.loads(out.splitlines()[-1])
    return result


ON_NODES = ("-r", "hadoop", "--set", f"runtime.hadoop.python_bin={sys.executable}")


def test_a_cluster_trains_to_the_bits_of_an_inline_run(capfd: pytest.CaptureFixture[str]) -> None:
    inline = train(capfd, "--run-dir", "inline")
    rounds = train(capfd, *ON_NODES, "--run-dir", f"{HOME}/runs/rounds")
    together = train(capfd, *ON_NODES, "--set", "sync.mode=collective", "--run-dir", f"{HOME}/runs/together")
    assert rounds["model_sha256"] == together["model_sha256"] == inline["model_sha256"]
    assert rounds["trials"] == together["trials"] == inline["trials"]

    here = main(["predict", "inline", DATA, "-o", "here.csv"])
    there = main(["predict", f"{HOME}/runs/rounds", DATA, "-o", "there.csv"])
    assert (here, there) == (0, 0)
    lines = Path("here.csv").read_text("utf-8").splitlines()
    assert len(lines) == 121 and lines == Path("there.csv").read_text("utf-8").splitlines()


@pytest.mark.full
def test_nodes_without_torch_get_a_packed_one(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The whole environment: gigabytes are packed, sent once and unpacked by the node."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    inline = train(capfd, "--run-dir", "inline")
    code = main(["train", "bars.yaml", "-r", "hadoop", "--set", "sync.mode=collective", "--run-dir", f"{HOME}/packed"])
    _, err = capfd.readouterr()
    assert code == 0, err
    assert "packing the tasks' environment with torch (" in err
    assert json.loads(storage(f"{HOME}/packed").read("final/metrics.json"))["model_sha256"] == inline["model_sha256"]
    (archive,) = pack.cache_folder().glob("*.tar.gz")
    assert archive.stat().st_size > 100_000_000
