"""The splitting study: end to end through the command, resumable; its recombined nets are models like any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs.__main__ import main
from nnlib.core.partition import Partition
from nnlib.data.synthetic import SynthOptions, synthesize
from nnlib.run.directory import RunDirectory
from nnlib.splitting.affinity import activation_affinity, weight_affinity
from nnlib.splitting.cuts import cut_affinity

CONFIG = """
name: cut
workers: 4
data: {{path: {data}}}
split: {{train: 0.7, seeds: [0, 1]}}
sampling: {{streams: shared}}
model: {{hidden: [4, 3]}}
train: {{epochs: 2, epochs_per_round: 2, batch_size: 16}}
splitting: {{methods: [all, spectral-weights, least-cut-activations], whole_epochs: 6, rows: 50}}
"""
STATED = ("sweep.train.lr=[0.1, 0.2]", "split.train_range=[0, 0.5]", "train.subnets.partition=aabb-aba")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cut")
    synthesize(str(folder / "data"), SynthOptions(kind="blobs", rows=300, features=5, classes=3, shards=4))
    path = folder / "cut.yaml"
    path.write_text(CONFIG.format(data=folder / "data"))
    return path


@pytest.fixture(scope="module")
def study(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("study") / "out"
    assert main(["split-study", str(config), "-o", str(output)]) == 0
    return output


def test_a_study_end_to_end(config: Path, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in study.glob("*/rounds/**/*") if path.is_file()}
    assert before
    assert main(["split-study", str(config), "-o", str(study), "--json"]) == 0  # nothing is trained again
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result == json.loads((study / "splitting.json").read_text())
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (result["nets"], result["partitions"]) == (2, 9)  # 4 units and 3 units: 3 ways each
    assert [method["method"] for method in result["methods"]] == ["all", "spectral-weights", "least-cut-activations"]
    assert all(method["compared"]["n"] == 2 for method in result["methods"])
    assert 0.0 < result["work"] < 1.0
    table = pq.read_table(study / "splitting.parquet").to_pylist()
    assert len(table) == 2 * (1 + result["partitions"])
    scores = [row["score"] for row in table if row["split"] == 0 and "all" in row["methods"]]
    assert len(scores) == result["methods"][0]["partitions"]


def test_scores_are_those_of_the_run_and_properties_those_of_the_whole_net(study: Path) -> None:
    rows = pq.read_table(study / "splitting.parquet").to_pylist()
    split, whole = (RunDirectory.open(str(study / name)) for name in ("split", "whole"))
    final, first = split.final(), whole.final()
    assert final is not None and first is not None
    for row in rows:
        assert row["score"] == final.trials[row["trial"]].test.value("accuracy")
        assert row["before"] == first.trials[row["split"]].test.value("accuracy")
    spec = whole.spec()
    model: Any = spec.model(spec.trials[1])
    affinity = weight_affinity(model, whole.final_models(spec)[1])
    assert np.count_nonzero(affinity) == 2 * 4 * 3
    mine = [row for row in rows if row["split"] == 1 and row["partition"] is not None]
    cut = cut_affinity(affinity, [Partition.parse(row["partition"]) for row in mine])
    np.testing.assert_allclose([row["cut_weight"] for row in mine], cut / (affinity.sum() / 2))
    start = split.rounds(split.spec()).load(0).trials
    assert start[0].weights.tobytes() == start[-2].weights.tobytes(), "all trials of a net start from it"


def test_the_rows_of_the_two_runs_have_none_in_common(study: Path) -> None:
    before, after = (RunDirectory.open(str(study / name)).spec() for name in ("whole", "split"))
    assert before.train_rows(before.trials[0]) + after.train_rows(after.trials[0]) == 210
    assert before.trials[0].test_rows == (sum(after.trials[0].test_rows),)


def test_a_recombined_net_is_a_model_like_any_other(study: Path, tmp_path: Path, config: Path) -> None:
    run = str(study / "split")
    assert main(["verify", run]) == 0
    assert main(["export", run, "--trial", "3", "--format", "npz", "-o", str(tmp_path / "model.npz")]) == 0
    predict = ["predict", run, str(config.parent / "data"), "-o", str(tmp_path / "p.parquet"), "--trial", "3"]
    assert main(predict) == 0
    assert pq.read_table(tmp_path / "p.parquet").num_rows == 300


@pytest.mark.parametrize("override", STATED)
def test_what_a_study_sets_itself(config: Path, tmp_path: Path, override: str, capsys: Any) -> None:
    assert main(["split-study", str(config), "-o", str(tmp_path / "out"), "--set", override]) == 2
    assert "sets this key itself" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_too_few_workers_are_refused_at_once(config: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["split-study", str(config), "-o", str(tmp_path / "out"), "--set", "workers=2"]) == 2
    assert "4 sub-nets train at once" in capsys.readouterr().err


def test_a_regression_with_one_hidden_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = np.random.default_rng(0).normal(size=(200, 4))
    rows = np.column_stack([x, x @ [1.0, -2.0, 0.5, 0.0]])
    np.savetxt(tmp_path / "rows.csv", rows, delimiter=",", header="a,b,c,d,y", comments="")
    source = ["data", "import", str(tmp_path / "rows.csv"), "-o", str(tmp_path / "data"), "--label", "y"]
    assert main([*source, "--shards", "2"]) == 0
    text = CONFIG.format(data=tmp_path / "data").replace("[4, 3]", "[4]").replace("workers: 4", "workers: 2")
    (tmp_path / "c.yaml").write_text(text + "\n")
    settings = ["--set", "splitting.methods=[all]", "--set", "train.subnets.alternate=rounds"]
    assert main(["split-study", str(tmp_path / "c.yaml"), "-o", str(tmp_path / "out"), "--json", *settings]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["metric"], result["partitions"], result["chance"]) == ("r2", 3, None)


def test_dead_units_have_no_covariance(study: Path) -> None:
    whole = RunDirectory.open(str(study / "whole"))
    spec = whole.spec()
    model: Any = spec.model(spec.trials[0])
    state = whole.final_models(spec)[0]
    state.vector[model.layout.entries[0].range] = 0.0
    state.vector[model.layout.entries[1].range] = -1.0
    affinity = activation_affinity(model, state, np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32))
    assert affinity.max() == 0.0
