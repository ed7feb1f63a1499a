"""The scaling study: end to end through the command, resumable, its numbers by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.__main__ import main
from jobs.experiments.scaling import Timing
from jobs.experiments.scaling_study import study_timings
from nnlib.config.schema import Config
from nnlib.data.synthetic import SynthOptions, synthesize
from nnlib.run.directory import EVENTS
from nnlib.simulate.reference_times import REFERENCE_TIMES
from nnlib.simulate.speedup import efficiency, improvement, speedup

CONFIG = """
name: scale-kfold
data: {{path: {data}}}
split: {{folds: 3}}
model: {{hidden: [4]}}
train: {{epochs: 2, epochs_per_round: 1}}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scale")
    synthesize(str(folder / "data"), SynthOptions(kind="blobs", rows=120, features=5, classes=3, shards=4))
    path = folder / "kfold.yaml"
    path.write_text(CONFIG.format(data=folder / "data"))
    return path


def scale(config: Path, output: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    assert main(["scale", str(config), "-r", "inline", "-o", str(output), "--json", *more]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return result


def test_the_words_of_a_study_by_hand() -> None:
    assert improvement(200.0, 150.0) == 25.0
    assert improvement(200.0, 300.0) == -50.0
    assert speedup(200.0, 50.0) == 4.0
    assert efficiency(200.0, 50.0, 8) == 0.5


def test_the_published_improvements_are_those_of_the_formula_where_it_was_kept() -> None:
    kfold, deep = REFERENCE_TIMES["scale-kfold"], REFERENCE_TIMES["scale-mlp3"]
    assert [round(value, 2) for value in kfold.improvements()] == [0.0, 4.08, 12.98, 69.41]
    above = zip(kfold.seconds, kfold.seconds[1:], strict=False)
    assert [round(improvement(before, after), 2) for before, after in above] == list(kfold.stated[1:])
    assert [round(value, 2) for value in deep.improvements()[1:]] == list(deep.stated[1:])


def test_a_study_end_to_end_then_kept(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "study"
    result = scale(config, output, capsys, "--workers", "2")
    one, two = result["points"]
    assert (one["workers"], two["workers"]) == (1, 2), "one worker is always measured"
    assert (one["improvement"], one["speedup"], one["efficiency"]) == (0.0, 1.0, 1.0)
    assert two["improvement"] == pytest.approx(100 * (one["seconds"] - two["seconds"]) / one["seconds"])
    assert two["efficiency"] == pytest.approx(two["speedup"] / 2)
    assert result["trials"] == 3
    assert 0.0 <= two["test_accuracy"] <= 1.0
    assert two["test_accuracy_sd"] is not None
    assert [point["workers"] for point in result["published"]["points"]] == [1, 2, 4, 8]
    assert json.loads((output / "scale.json").read_text())["points"] == result["points"]

    before = {path: path.stat().st_mtime_ns for path in output.glob("workers-*/**/*") if path.is_file()}
    again = scale(config, output, capsys, "--workers", "1,2")
    assert again["points"] == result["points"]
    assert {path: path.stat().st_mtime_ns for path in before} == before, "a finished run is not touched"


def test_an_interrupted_run_goes_on_and_its_time_is_that_of_its_rounds(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "study"
    short = ["train", str(config), "--run-dir", str(output / "workers-1"), "--set", "train.epochs=1", "-q"]
    assert main(short) == 0
    one = scale(config, output, capsys, "--workers", "1")["points"][0]
    records = [json.loads(line) for line in (output / "workers-1" / EVENTS).read_text().splitlines()]
    rounds = [record["seconds"] for record in records if record["event"] == "round"]
    assert len(rounds) == 2
    assert one["resumed"]
    assert one["seconds"] == pytest.approx(sum(rounds), abs=1e-3)


def test_other_settings_are_not_mixed(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scale(config, tmp_path, capsys, "--workers", "1")
    arguments = ["scale", str(config), "-o", str(tmp_path), "--workers", "1", "--set", "train.epochs=1"]
    assert main(arguments) == 2
    assert "another configuration" in capsys.readouterr().err


def test_more_workers_than_shards_are_refused_before_the_first_run(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["scale", str(config), "-o", str(tmp_path / "none"), "--workers", "1,8"]) == 2
    assert "4 shards" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_repeats_count_by_their_median() -> None:
    def timing(workers: int, seconds: float) -> Timing:
        return Timing(workers, seconds, seconds, 100.0, 0.9, None, None, 0, False, "runs/x")

    config = Config.model_validate({"data": {"path": "data"}})
    runs = [[timing(1, 10.0), timing(1, 30.0), timing(1, 12.0)], [timing(4, 6.0), timing(4, 3.0), timing(4, 2.0)]]
    one, four = study_timings(config, runs).points
    assert (one.seconds, four.seconds) == (12.0, 3.0)
    assert (four.speedup, four.efficiency, four.improvement) == (4.0, 1.0, 75.0)
