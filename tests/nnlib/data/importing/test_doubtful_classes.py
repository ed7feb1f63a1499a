"""Whole numbers that may be a numeric target: the import says so, and says what to type."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes, load_wine

from jobs.__main__ import main
from nnlib.core.notes import NnjobsNote
from nnlib.data.importing.import_dataset import from_arrays

Capture = pytest.CaptureFixture[str]


def said(path: Path, capsys: Capture, *more: str) -> str:
    """Import and return what stands on standard error."""
    capsys.readouterr()
    assert main(["data", "import", str(path), "-o", f"{path}-d", "--overwrite", *more]) == 0
    return capsys.readouterr().err


@pytest.mark.parametrize("kind", ["int", "float"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_numeric_target_of_few_rows_a_value(kind: str, suffix: str, tmp_path: Path, capsys: Capture) -> None:
    frame = load_diabetes(as_frame=True).frame
    assert (len(frame), frame["target"].nunique()) == (442, 214)
    frame["target"] = frame["target"].astype(kind)
    path = tmp_path / f"diabetes.{suffix}"
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    text = said(path, capsys, "--label", "target")
    rare = (frame["target"].value_counts() < 10).sum()
    assert f"214 whole numbers in 442 rows are taken as classes, {rare} of them with fewer than 10 rows" in text
    assert "--task regression" in text
    assert "--task classification" in text
    assert "classification, 214 classes" in text
    for more in (("--task", "regression"), ("--task", "classification"), ("--map-label", "25=26")):
        assert "taken as" not in said(path, capsys, "--label", "target", *more)
    assert "taken as classes" in said(path, capsys, "--label", "target", "-r", "inline")


def test_classes_are_left_alone(tmp_path: Path, capsys: Capture) -> None:
    for name in ("digits", "iris"):
        assert main(["data", "import", name, "-o", str(tmp_path / name)]) == 0
        assert "taken as" not in capsys.readouterr().err
    frames = {
        "wine": load_wine(as_frame=True).frame,
        "few digits": pd.DataFrame({"x": np.arange(30), "target": np.arange(30) % 10}),
        "faces": pd.DataFrame({"x": np.arange(400), "target": np.arange(400) % 40}),
        "text": pd.DataFrame({"x": np.arange(60), "target": [f"person {row // 2}" for row in range(60)]}),
        "fractions": pd.DataFrame({"x": np.arange(60), "target": np.arange(60) / 4}),
        "prices": pd.DataFrame({"x": np.arange(3000), "target": np.arange(3000)}),
    }
    for name, frame in frames.items():
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
        assert "taken as" not in said(tmp_path / f"{name}.csv", capsys, "--label", "target"), name


def test_very_many_classes(tmp_path: Path, capsys: Capture) -> None:
    rows = np.arange(22_000)
    pd.DataFrame({"x": rows, "target": rows % 1100}).to_csv(tmp_path / "ids.csv", index=False)
    text = said(tmp_path / "ids.csv", capsys, "--label", "target")
    assert "1,100 whole numbers are taken as a numeric target" in text
    assert "--task classification" in text


def test_in_python_it_is_a_warning(tmp_path: Path) -> None:
    X, y = load_diabetes(return_X_y=True)
    with pytest.warns(NnjobsNote, match="214 whole numbers"):
        from_arrays(X, y.astype(int), str(tmp_path / "d"))
