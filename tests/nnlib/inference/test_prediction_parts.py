"""Predictions as parts: the rows and bits of one file, made once, and never mixed with those of something else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shards import write_dataset

from jobs.__main__ import main
from jobs.batch.predict import predict
from jobs.driver import driver
from nnlib.config.schema import Config, Runtime
from nnlib.core import numerics
from nnlib.core.errors import JobError, MismatchError, UsageError
from nnlib.data.dataset import Dataset
from nnlib.inference.prediction_file import predict_to_parquet
from nnlib.inference.prediction_parts import SUMMARY, Prediction, part_name
from nnlib.inference.trained_model import TrainedModel

ROWS, FEATURES, CLASSES, SHARDS = 240, 5, 3, 4


def trained(where: Path, classes: int | None) -> tuple[str, str]:
    """A run and the dataset it was made from."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ROWS, FEATURES)).astype(np.float32)
    y: Any = x @ rng.standard_normal(FEATURES)
    if classes is not None:
        y = np.digitize(y, [-1.0, 1.0])
    write_dataset(where / "data", x, y, shards=SHARDS, row_group_rows=25, classes=classes)
    document: dict[str, Any] = {
        "data": {"path": str(where / "data"), "scale": "standard"},
        "run_dir": str(where / "run"),
        "split": {"seeds": [0, 1]},
        "model": {"hidden": [6]},
        "train": {"epochs": 2, "epochs_per_round": 2},
    }
    driver.train(Config.model_validate(document))
    return str(where / "run"), str(where / "data")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return trained(tmp_path_factory.mktemp("classes"), CLASSES)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_any_runner_and_number_of_tasks_makes_the_same_files(run: tuple[str, str], tmp_path: Path) -> None:
    made = {}
    for runner, tasks in (("inline", 1), ("inline", 3), ("local", 2)):
        output = tmp_path / f"{runner}-{tasks}"
        result = predict(*run, str(output), Runtime.model_validate({"runner": runner}), tasks=tasks)
        assert (result["parts"], result["made"], result["rows"]) == (SHARDS, SHARDS, ROWS)
        made[runner, tasks] = files(output)
    assert len({json.dumps(sorted(map(str, each.items()))) for each in made.values()}) == 1
    assert list(made["inline", 1]) == [*(part_name(shard) for shard in range(SHARDS)), SUMMARY]


@pytest.mark.parametrize("classes", [CLASSES, None])
def test_the_parts_together_are_the_one_file(tmp_path: Path, classes: int | None) -> None:
    model, data = trained(tmp_path, classes)
    whole = predict_to_parquet(model, data, str(tmp_path / "one.parquet"), trial=1)
    parted = predict(model, data, str(tmp_path / "parts"), Runtime(), trial=1)
    tables = [pq.read_table(tmp_path / "parts" / part_name(shard)) for shard in range(SHARDS)]
    assert pa.concat_tables(tables).equals(pq.read_table(tmp_path / "one.parquet"))
    scores = {key: value for key, value in whole.items() if key.startswith("test_")}
    assert parted["labelled_rows"] == whole["labelled_rows"] == ROWS
    assert {key: parted[key] for key in scores} == pytest.approx(scores, rel=1e-12)


def test_only_what_is_missing_is_made(run: tuple[str, str], tmp_path: Path) -> None:
    output, told = tmp_path / "parts", list[str]()
    first = predict(*run, str(output), Runtime())
    whole = files(output)
    (output / part_name(2)).unlink()
    (output / SUMMARY).unlink()
    (output / f".{part_name(2)}.00000000.tmp").write_bytes(b"half")  # as a killed task leaves it
    before = {path.name: path.stat().st_mtime_ns for path in output.glob("part-*")}
    again = predict(*run, str(output), Runtime(), note=told.append)
    assert again == {**first, "made": 1}
    assert told == ["3 of 4 parts are there already"]
    assert files(output) == whole
    assert {name: os.stat(output / name).st_mtime_ns for name in before} == before  # noqa: PTH116


def test_a_folder_with_other_predictions_is_left_alone(run: tuple[str, str], tmp_path: Path) -> None:
    output = tmp_path / "parts"
    predict(*run, str(output), Runtime(), trial=0)
    before = files(output)
    with pytest.raises(MismatchError, match="no predictions of this model for this dataset"):
        predict(*run, str(output), Runtime(), trial=1)
    assert files(output) == before
    (output / part_name(1)).write_bytes(b"PAR1 and no more")
    with pytest.raises(MismatchError, match=r"no predictions") as error:
        predict(*run, str(output), Runtime())
    assert error.value.where["file"].endswith(part_name(1))


def test_parts_of_two_kernels_are_not_joined(
    run: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "parts"
    predict(*run, str(output), Runtime())
    (output / part_name(0)).unlink()
    monkeypatch.setattr(numerics, "fingerprint", lambda: "another")
    with pytest.raises(JobError, match="different bits"):
        predict(*run, str(output), Runtime())
    result = predict(*run, str(output), Runtime(numerics="loose"))
    assert result["rows"] == ROWS
    assert len(json.loads((output / SUMMARY).read_text())["numerics"]) == 2


def test_what_tasks_read_is_what_was_meant(run: tuple[str, str], tmp_path: Path) -> None:
    prediction = Prediction(TrainedModel.load(run[0], trial=1), Dataset.open(run[1]), str(tmp_path))
    again = Prediction.from_files(*prediction.to_files(), "weights")
    assert again.identity == prediction.identity
    assert again.dataset.fingerprint == prediction.dataset.fingerprint
    other = Prediction(TrainedModel.load(run[0], trial=0), prediction.dataset, str(tmp_path))
    assert other.identity != prediction.identity


def test_the_command(run: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = str(tmp_path / "parts")
    assert main(["predict", *run, "-o", output, "-r", "inline", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["output"], result["parts"]) == (output, SHARDS)
    (tmp_path / "raw.csv").write_text("a,b\n1,2\n")
    for arguments, message in (
        ([str(tmp_path / "raw.csv"), "-o", output, "-r", "inline"], "must be a dataset"),
        ([run[1], "-o", output, "--set", "runtime.retries=1"], "choose a runner for it with -r"),
        ([run[1], "-o", output, "-r", "inline", "--set", "train.lr=1"], "only keys of runtime"),
        ([run[1], "-o", output, "-r", "hadoop"], "nodes of a cluster do not see a dataset"),
    ):
        assert main(["predict", run[0], *arguments]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("runner", [None, "inline", "local", "hadoop"])
def test_a_dataset_that_is_not_there(
    run: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], runner: str | None
) -> None:
    for missing in (f"file://{tmp_path}/none", f"file://{tmp_path}/none/"):
        arguments = ["predict", run[0], missing, "-o", f"file://{tmp_path}/out"]
        assert main([*arguments, *(["-r", runner] if runner else [])]) == 3
        assert missing.rstrip("/") in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_task_that_fails_leaves_the_other_parts(
    run: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Prediction.write_part

    def failing(self: Prediction, shard: int) -> None:
        if shard == 2:
            raise UsageError("no")
        write(self, shard)

    monkeypatch.setattr(Prediction, "write_part", failing)
    output = tmp_path / "parts"
    with pytest.raises(UsageError, match="no"):
        predict(*run, str(output), Runtime(), tasks=SHARDS)
    assert sorted(files(output)) == [part_name(shard) for shard in (0, 1, 3)]
    monkeypatch.undo()
    assert predict(*run, str(output), Runtime())["made"] == 1
