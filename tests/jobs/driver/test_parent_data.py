"""A run that starts from another one's weights, on a dataset with other features or classes, or in another order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jobs.__main__ import main

Capture = pytest.CaptureFixture[str]


def imported(place: Path, frame: pd.DataFrame, name: str) -> str:
    frame.to_csv(place / f"{name}.csv", index=False)
    address = str(place / name)
    assert main(["data", "import", str(place / f"{name}.csv"), "-o", address, "--label", "y"]) == 0
    return address


@pytest.fixture
def frame(tmp_path: Path) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((60, 2))
    frame = pd.DataFrame(x, columns=["a", "b"]).assign(y=np.where(x[:, 0] > 0, "no", "yes"))
    data = imported(tmp_path, frame, "first")
    (tmp_path / "c.yaml").write_text(f"data: {{path: {data}}}\ntrain: {{epochs: 2}}\nmodel: {{hidden: [3]}}\n")
    assert main(["train", str(tmp_path / "c.yaml"), "--run-dir", str(tmp_path / "run"), "--quiet"]) == 0
    return frame


@pytest.mark.parametrize(
    ("columns", "classes", "code", "says"),
    [
        (["a", "b", "y"], {}, 0, ""),
        (["b", "a", "y"], {}, 2, "learnt the features in another order: a, b; here they are b, a"),
        (["a", "b", "y"], {"no": "yes", "yes": "zebra"}, 2, "learnt the classes in another order: no, yes; here"),
        (["a", "b", "y"], {"no": "maybe"}, 0, "are no, yes, here maybe, yes: their weights are taken by position"),
    ],
)
def test_weights_stay_with_their_features_and_classes(
    tmp_path: Path,
    frame: pd.DataFrame,
    capsys: Capture,
    columns: list[str],
    classes: dict[str, str],
    code: int,
    says: str,
) -> None:
    data = imported(tmp_path, frame[columns].assign(y=frame["y"].replace(classes)), "second")
    capsys.readouterr()
    options = ["--set", f"data.path={data}", "--from", str(tmp_path / "run"), "--run-dir", str(tmp_path / "next")]
    assert main(["train", str(tmp_path / "c.yaml"), "--quiet", *options]) == code
    told = capsys.readouterr().err
    assert says in told
    assert says or "note" not in told
    assert (tmp_path / "next/spec.json").exists() == (code == 0)


def test_other_names_are_said(tmp_path: Path, frame: pd.DataFrame, capsys: Capture) -> None:
    data = imported(tmp_path, frame.rename(columns={"b": "c"}), "second")
    options = ["--set", f"data.path={data}", "--from", str(tmp_path / "run"), "--run-dir", str(tmp_path / "next")]
    assert main(["train", str(tmp_path / "c.yaml"), "--quiet", *options]) == 0
    assert "are a, b, here a, c: their weights are taken by position" in capsys.readouterr().err
