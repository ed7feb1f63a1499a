"""``nnjobs simulate``, end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.__main__ import main
from nnlib.data.synthetic import SynthOptions, synthesize


def test_the_command_predicts_checks_and_advises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    synthesize(str(tmp_path / "data"), SynthOptions(kind="blobs", rows=400, features=5, classes=3, shards=4))
    config = tmp_path / "tiny.yaml"
    config.write_text(
        f"name: tiny\ndata: {{path: {tmp_path / 'data'}}}\nmodel: {{hidden: [4]}}\n"
        "train: {epochs: 3, epochs_per_round: 1}\n"
    )
    arguments = ["simulate", str(config), "--seconds", "1", "--workers", "1..64", "--stragglers", "0.2"]
    assert main([*arguments, "--check", "1,2", "-o", str(tmp_path / "check"), "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert [point["workers"] for point in result["points"]] == list(range(1, 65))
    assert result["calibration"]["workers"] == [1, 3]
    assert [(point["workers"], point["held_out"]) for point in result["check"]] == [(1, False), (2, True)]
    assert all(point["measured_seconds"] > 0 for point in result["check"])
    assert result["distribute"] is False, "one process gains nothing by dividing the data"
    assert "do not distribute this" in captured.err
    assert [period["epochs"] for period in result["epochs_per_round"]["periods"]] == [1, 2, 3]


def test_wrong_usage_is_refused_before_anything_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text("data: {path: nowhere}\n")
    assert main(["simulate", str(config), "--workers", "many"]) == 2
    assert "--workers wants numbers" in capsys.readouterr().err
    synthesize(str(tmp_path / "data"), SynthOptions(kind="blobs", rows=40, features=5, classes=3, shards=4))
    config.write_text(f"data: {{path: {tmp_path / 'data'}}}\n")
    for option in ("--check", "--calibrate-on"):
        assert main(["simulate", str(config), option, "5"]) == 2
        captured = capsys.readouterr()
        assert "4 shards" in captured.err and "calibrating" not in captured.err
