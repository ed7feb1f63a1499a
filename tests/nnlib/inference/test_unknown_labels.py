"""Rows whose label or category the model does not know are predicted, left out of the score, and counted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import accuracy_score, r2_score

import nnlib
from jobs.__main__ import main
from nnlib.core.notes import NnjobsNote

ROWS = 200
Capture = pytest.CaptureFixture[str]


@dataclass
class Scene:
    """A folder with a run for classes, one for a numeric target, and the rows they were trained on."""

    folder: Path
    rows: pd.DataFrame


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("unknown")
    random = np.random.default_rng(3)
    rows = pd.DataFrame(random.standard_normal((ROWS, 3)).round(3), columns=["a", "b", "c"])
    rows["soil"] = random.choice(["clay", "sand"], ROWS)
    rows["kind"] = np.where(rows["a"] + rows["b"] > 0, "oak", "fir")
    rows["height"] = (rows["a"] * 2 + rows["c"]).round(3)
    for name, label, more in (("kinds", "kind", ["--unknown-category", "ignore"]), ("heights", "height", [])):
        rows.drop(columns="kind" if label == "height" else "height").to_csv(folder / f"{name}.csv", index=False)
        imported = ["data", "import", str(folder / f"{name}.csv"), "-o", str(folder / name), "--label", label, *more]
        assert main([*imported, "--categorical", "soil", "--shards", "2"]) == 0
        (folder / f"{name}.yaml").write_text(
            f"data: {{path: {folder / name}, scale: standard}}\ntrain: {{epochs: 4}}\n"
        )
        assert main(["train", str(folder / f"{name}.yaml"), "--run-dir", str(folder / f"{name}-run")]) == 0
    return Scene(folder, rows)


def predicted(
    scene: Scene, run: str, source: Path | str, capsys: Capture, *more: str
) -> tuple[pd.DataFrame, dict[str, Any], str]:
    """Predict with the command; return the rows' predictions in order, the JSON line and what was said."""
    capsys.readouterr()
    output = scene.folder / "out.parquet"
    command = ["predict", str(scene.folder / f"{run}-run"), str(source), "-o", str(output), "--json", *more]
    assert main(command) == 0
    said = capsys.readouterr()
    return pq.read_table(output).to_pandas().sort_values("row"), json.loads(said.out), said.err


def test_unseen_and_missing_labels(scene: Scene, capsys: Capture, tmp_path: Path) -> None:
    rows = scene.rows.drop(columns="height")
    labels = rows["kind"].astype(object).copy()
    labels[5:17] = "elm"
    labels[20:23] = None
    rows.drop(columns="kind").to_csv(tmp_path / "bare.csv", index=False)
    rows.assign(kind=labels).to_csv(tmp_path / "odd.csv", index=False)
    rows.assign(kind=labels).to_parquet(tmp_path / "odd.parquet")
    rows.assign(kind="").to_csv(tmp_path / "empty.csv", index=False)
    bare, facts, said = predicted(scene, "kinds", tmp_path / "bare.csv", capsys)
    assert "labelled_rows" not in facts
    assert "not scored" not in said
    for name in ("odd.csv", "odd.parquet"):
        odd, facts, said = predicted(scene, "kinds", tmp_path / name, capsys)
        assert odd.equals(bare) or all(np.array_equal(odd[c].to_list(), bare[c].to_list()) for c in odd)
        scored = labels.isin(["oak", "fir"])
        assert facts["labelled_rows"] == scored.sum() == ROWS - 15
        assert facts["test_accuracy"] == pytest.approx(accuracy_score(labels[scored], bare["class"][scored]))
        assert (facts["unknown_labels"], facts["missing_labels"], facts["rows"]) == (12, 3, ROWS)
        assert "12 rows have a label the model does not know: predicted, not scored" in said
        assert "3 rows have no label: predicted, not scored" in said
    empty, facts, said = predicted(scene, "kinds", tmp_path / "empty.csv", capsys)
    assert empty["class"].to_list() == bare["class"].to_list()
    assert facts["missing_labels"] == ROWS
    assert "test_accuracy" not in facts


def test_targets_that_are_no_numbers(scene: Scene, capsys: Capture, tmp_path: Path) -> None:
    rows = scene.rows.drop(columns="kind")
    targets = rows["height"].astype(object).copy()
    targets[0] = None
    targets[7] = "tall"
    targets[9] = float("inf")
    rows.assign(height=targets).to_csv(tmp_path / "odd.csv", index=False)
    rows.assign(height=targets.map(lambda value: None if value is None else str(value))).to_parquet(
        tmp_path / "odd.parquet"
    )
    scored = np.ones(ROWS, bool)
    scored[[0, 7, 9]] = False
    for name in ("odd.csv", "odd.parquet"):
        odd, facts, said = predicted(scene, "heights", tmp_path / name, capsys)
        assert facts["labelled_rows"] == ROWS - 3
        assert facts["test_r2"] == pytest.approx(r2_score(rows["height"][scored], odd["prediction"][scored]), abs=1e-6)
        assert "3 rows have a target that is missing or no number: predicted, not scored" in said


def test_a_dataset_with_other_classes(scene: Scene, capsys: Capture, tmp_path: Path) -> None:
    rows = scene.rows.drop(columns="height")
    rows.assign(kind=rows["kind"].where(rows.index % 4 > 0, "elm")).to_csv(tmp_path / "odd.csv", index=False)
    command = ["data", "import", str(tmp_path / "odd.csv"), "-o", str(tmp_path / "odd"), "--label", "kind"]
    assert main([*command, "--categorical", "soil", "--shards", "3"]) == 0
    one, facts, said = predicted(scene, "kinds", tmp_path / "odd", capsys)
    scored = rows.index % 4 > 0
    assert facts["unknown_labels"] == ROWS // 4
    assert facts["test_accuracy"] == pytest.approx(accuracy_score(rows["kind"][scored], one["class"][scored]))
    assert "50 rows have a label the model does not know: predicted, not scored" in said
    command = ["predict", str(scene.folder / "kinds-run"), str(tmp_path / "odd"), "-o", str(tmp_path / "parts")]
    for _ in range(2):  # the second time all parts are there already
        assert main([*command, "-r", "inline", "--json"]) == 0
        done = capsys.readouterr()
        same = ("test_accuracy", "unknown_labels", "labelled_rows", "rows")
        assert {key: json.loads(done.out)[key] for key in same} == pytest.approx({key: facts[key] for key in same})
        assert "50 rows have a label the model does not know: predicted, not scored" in done.err


def test_a_dataset_of_another_task_is_predicted(scene: Scene, capsys: Capture) -> None:
    _, facts, said = predicted(scene, "kinds", scene.folder / "heights", capsys)
    assert (facts["rows"], facts["unknown_labels"]) == (ROWS, ROWS)
    assert f"{ROWS} rows have a label the model does not know" in said
    _, facts, said = predicted(scene, "heights", scene.folder / "kinds", capsys)
    assert (facts["rows"], facts["unknown_labels"]) == (ROWS, ROWS)


def test_unseen_categories(scene: Scene, capsys: Capture, tmp_path: Path) -> None:
    rows = scene.rows.drop(columns=["height", "kind"])
    rows.loc[3:6, "soil"] = "peat"
    rows.to_csv(tmp_path / "odd.csv", index=False)
    odd, facts, said = predicted(scene, "kinds", tmp_path / "odd.csv", capsys)
    assert facts["unknown_categories"] == {"soil": 4}
    assert "column 'soil': 4 rows have a category the model does not know" in said
    with pytest.warns(NnjobsNote, match="column 'soil': 4 rows have a category the model does not know"):
        by_frame = nnlib.load(str(scene.folder / "kinds-run")).predict_proba(rows)
    assert np.array_equal(by_frame, np.stack(odd["probabilities"]))
    whole, _, _ = predicted(scene, "kinds", scene.folder / "kinds.csv", capsys)
    changed = np.array([a != b for a, b in zip(odd["probability"], whole["probability"], strict=True)])
    assert changed[3:7].any()
    assert changed.sum() == changed[3:7].sum()
    assert (
        main(["predict", str(scene.folder / "heights-run"), str(tmp_path / "odd.csv"), "-o", str(tmp_path / "p")]) == 3
    )
    assert "--unknown-category ignore" in capsys.readouterr().err


def test_ignored_categories_have_all_indicators_0(scene: Scene) -> None:
    import pyarrow as pa

    from nnlib.data.dataset import Dataset

    encoding = Dataset.open(str(scene.folder / "kinds")).encoding
    assert encoding.unknown_category == "ignore"
    columns = {"a": pa.array([1.0, 2.0]), "b": pa.array([0.0, 0.0]), "c": pa.array([0.0, 0.0])}
    x = encoding.encode(columns | {"soil": pa.array(["sand", "peat"])})
    assert x.tolist() == [[1, 0, 0, 0, 1], [2, 0, 0, 0, 0]]
    manifest = json.loads((scene.folder / "heights" / "dataset.json").read_text())
    assert "unknown_category" not in manifest["encoding"]
