"""Target scaling: a regression learns targets of mean 0 and deviation 1; all that it says is in the target's units."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnlib
from jobs.__main__ import main
from nnlib.config.identity import config_hash
from nnlib.config.load import load_config
from nnlib.core.errors import ConfigError, MismatchError
from nnlib.data.dataset import Dataset
from nnlib.data.importing.import_dataset import from_arrays
from nnlib.data.scaling import FeatureStats
from nnlib.data.split.rule import TRAIN
from nnlib.data.target_scaling import TargetScaler
from nnlib.run.directory import RunDirectory
from nnlib.run.planner import make_spec

ROWS = 240
SHIFT, SPREAD = 2.0e5, 8.0e4
"""Of the targets below: those of house prices, say."""


def problem(seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Features, shape (ROWS, 3) float32, and targets around `SHIFT`."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((ROWS, 3)).astype(np.float32)
    y = x @ [1.0, -0.5, 0.2] + 0.3 * np.sin(3.0 * x[:, 0]) + 0.05 * rng.standard_normal(ROWS)
    return x, SHIFT + SPREAD * y


def dataset(folder: Path, y: np.ndarray[Any, Any], x: np.ndarray[Any, Any] | None = None, name: str = "ds") -> str:
    """Write the problem's features with targets ``y`` as a dataset of 4 shards."""
    address = str(folder / name)
    from_arrays(problem()[0] if x is None else x, y, address, shards=4, task="regression")
    return address


def train(folder: Path, path: str, run: str, *overrides: str) -> dict[str, Any]:
    """Train by the command line; return the metrics of the final model, as the run stores them."""
    config = {"data": {"path": path}, "model": {"hidden": [16]}, "train": {"epochs": 10}, "workers": 2}
    (folder / "c.yaml").write_text(json.dumps(config))
    sets = [part for override in overrides for part in ("--set", override)]
    assert main(["train", str(folder / "c.yaml"), "--run-dir", str(folder / run), *sets]) == 0
    metrics: dict[str, Any] = json.loads((folder / run / "final" / "metrics.json").read_text())
    return metrics


def scores(metrics: dict[str, Any]) -> dict[str, Any]:
    """The test scores of the only trial."""
    found: dict[str, Any] = metrics["trials"][0]["test"]
    return found


def trained_loss(folder: Path, run: str) -> list[float]:
    """Training losses of all epochs of worker 0, as the rounds record them."""
    directory = RunDirectory.open(str(folder / run))
    store = directory.rounds(directory.spec())
    losses: list[float] = []
    for round_ in store.rounds()[1:]:
        training = store.log.metrics(round_).trials[0].training
        losses += [] if training is None else training.workers[0].losses
    return losses


def test_the_scaler_by_hand() -> None:
    y = np.array([1.0, 2.0, 3.0, 6.0])
    scaler = TargetScaler.from_stats(FeatureStats.of(y[:, None]))
    assert scaler.shift == 3.0 and scaler.spread == pytest.approx(np.sqrt(14.0 / 4.0))
    assert np.allclose(scaler.scale(y), (y - 3.0) / np.sqrt(3.5), rtol=1e-15)
    assert np.allclose(scaler.restore(scaler.scale(y)), y, rtol=1e-15)
    assert TargetScaler.from_arrays(scaler.to_arrays()) == scaler
    assert TargetScaler.from_arrays({}) is None
    with pytest.raises(MismatchError):
        TargetScaler.from_arrays({"target.shift": np.array([0.0]), "target.spread": np.array([0.0])})


def test_a_constant_target_keeps_its_unit() -> None:
    scaler = TargetScaler.from_stats(FeatureStats.of(np.full((5, 1), 0.1)))
    assert scaler.spread == 1.0 and scaler.shift == pytest.approx(0.1)


def test_the_scaler_is_fitted_to_the_training_rows_alone(tmp_path: Path) -> None:
    _, y = problem()
    path = dataset(tmp_path, y)
    spec, _ = make_spec(load_config(None, [f"data.path={path}", "split.seeds=[0, 1]"]), Dataset.open(path))
    assert spec.config.data.target_scale == "standard"
    for trial in spec.trials:
        rows = np.arange(ROWS)
        train = y[trial.rule.parts(rows, y, {}) == TRAIN]
        assert trial.target is not None and 0 < len(train) < ROWS
        assert trial.target.shift == pytest.approx(train.mean(), rel=1e-14)
        assert trial.target.spread == pytest.approx(train.std(), rel=1e-13)
    for workers in (2, 4):
        config = load_config(None, [f"data.path={path}", f"workers={workers}", "split.seeds=[0, 1]"])
        others, _ = make_spec(config, Dataset.open(path))
        assert [trial.target for trial in others.trials] == [trial.target for trial in spec.trials]


@pytest.mark.parametrize("optimizer", ["momentum", "lbfgs"])
@pytest.mark.parametrize("mode", ["rounds", "collective", "batch"])
def test_a_run_equals_one_on_targets_scaled_by_hand(tmp_path: Path, mode: str, optimizer: str) -> None:
    if mode == "batch" and optimizer == "lbfgs":
        pytest.skip("takes no steps")
    modes = {
        "rounds": [],
        "collective": ["sync.mode=collective"],
        "batch": ["sync.mode=collective", "sync.every=batch"],
    }
    x, y = problem()
    options = [*modes[mode], f"train.optimizer={optimizer}"]
    ours = train(tmp_path, dataset(tmp_path, y), "ours", *options)
    target = nnlib.load(str(tmp_path / "ours")).trial.target
    assert target is not None
    by_hand = dataset(tmp_path, (y - target.shift) / target.spread, name="hand")
    theirs = train(tmp_path, by_hand, "theirs", *options, "data.target_scale=none")
    assert ours["model_sha256"] == theirs["model_sha256"]
    predicted = nnlib.load(str(tmp_path / "ours")).predict(x)
    assert predicted.dtype == np.float64
    expected = nnlib.load(str(tmp_path / "theirs")).predict(x) * target.spread + target.shift
    assert np.allclose(predicted, expected, rtol=1e-6, atol=1e-6 * SPREAD)
    one, two = scores(ours), scores(theirs)
    for name, factor in (("loss", target.spread**2), ("mse", target.spread**2), ("mae", target.spread), ("r2", 1.0)):
        assert one[name] == pytest.approx(two[name] * factor, rel=1e-6), name
    losses = trained_loss(tmp_path, "ours"), trained_loss(tmp_path, "theirs")
    assert losses[0] and np.allclose(losses[0], np.array(losses[1]) * target.spread**2, rtol=1e-6)


def test_large_targets_are_learnt_as_well_as_by_scikit_learn(tmp_path: Path) -> None:
    from sklearn.neural_network import MLPRegressor

    x, y = problem()
    options = ("train.optimizer=adam", "train.lr=0.01", "train.epochs=100", "workers=1", "split.train=0.7")
    ours = scores(train(tmp_path, dataset(tmp_path, y), "run", *options))
    model = nnlib.load(str(tmp_path / "run"))
    is_train = model.trial.rule.parts(np.arange(ROWS), y, {}) == TRAIN
    mean, deviation = y[is_train].mean(), y[is_train].std()
    theirs = MLPRegressor(
        hidden_layer_sizes=(16,), alpha=0.0, learning_rate_init=0.01, batch_size=32, max_iter=100, random_state=0
    )
    theirs.fit(x[is_train], (y[is_train] - mean) / deviation)
    r2 = theirs.score(x[~is_train], (y[~is_train] - mean) / deviation)
    assert r2 > 0.95 and ours["r2"] > r2 - 0.02
    error = model.predict(x[~is_train]) - y[~is_train]
    assert ours["mse"] == pytest.approx(np.mean(error**2), rel=1e-6)
    assert ours["mae"] == pytest.approx(np.mean(np.abs(error)), rel=1e-6)
    assert ours["loss"] == pytest.approx(np.mean(error**2) / 2.0, rel=1e-5)
    assert ours["r2"] == pytest.approx(1.0 - np.sum(error**2) / np.sum((y[~is_train] - y[~is_train].mean()) ** 2))


def test_every_way_of_predicting_is_in_own_units(tmp_path: Path) -> None:
    pd: Any = pytest.importorskip("pandas")
    x, y = problem()
    path = dataset(tmp_path, y)
    train(tmp_path, path, "run", "workers=1")
    run = str(tmp_path / "run")
    expected = nnlib.load(run).predict(x)
    np.savez(tmp_path / "rows.npz", X=x, y=y)
    for source, options in ((path, ()), (str(tmp_path / "rows.npz"), ())):
        assert main(["predict", run, source, "-o", str(tmp_path / "p.parquet"), *options]) == 0
        predicted = pd.read_parquet(tmp_path / "p.parquet").sort_values("row")
        assert np.array_equal(predicted.prediction.to_numpy(), expected)
    assert main(["predict", run, path, "-o", str(tmp_path / "parts"), "-r", "inline"]) == 0
    parts = pd.concat([pd.read_parquet(file) for file in sorted((tmp_path / "parts").glob("*.parquet"))])
    assert np.allclose(parts.sort_values("row").prediction, expected, atol=1e-6 * SPREAD)
    for format_ in ("npz", "safetensors"):
        assert main(["export", run, "--format", format_, "-o", str(tmp_path / f"m.{format_}")]) == 0
    model = np.load(tmp_path / "m.npz")
    hidden = np.maximum(x @ model["layer0.weight"] + model["layer0.bias"], 0)
    values = (hidden @ model["layer1.weight"] + model["layer1.bias"])[:, 0].astype(np.float64)
    assert np.allclose(values * model["target.spread"] + model["target.shift"], expected, atol=1e-6 * SPREAD)
    card = (tmp_path / "m.npz.card.md").read_text()
    assert "target scaling" in card and "target.spread" in card
    onnxruntime = pytest.importorskip("onnxruntime")
    assert main(["export", run, "--format", "onnx", "-o", str(tmp_path / "m.onnx")]) == 0
    (found,) = onnxruntime.InferenceSession(str(tmp_path / "m.onnx")).run(None, {"features": x})
    assert found.dtype == np.float64 and np.allclose(found, expected, atol=1e-6 * SPREAD)
    assert main(["report", run, "-o", str(tmp_path / "report.html")]) == 0


def test_verify_and_resume(tmp_path: Path) -> None:
    _, y = problem()
    path = dataset(tmp_path, y)
    whole = train(tmp_path, path, "whole")
    train(tmp_path, path, "parts", "train.epochs=5")
    command = ["train", "--resume", str(tmp_path / "c.yaml"), "--run-dir", str(tmp_path / "parts")]
    assert main(command) == 0
    assert json.loads((tmp_path / "parts/final/metrics.json").read_text()) == whole
    assert main(["verify", str(tmp_path / "parts")]) == 0
    spec = json.loads((tmp_path / "parts/spec.json").read_text())
    spec["trials"][0]["target"]["target.shift"]["values"][0] += 1.0
    (tmp_path / "parts/spec.json").write_text(json.dumps(spec))
    assert main(["verify", str(tmp_path / "parts")]) != 0


def test_early_stopping_is_by_the_loss_in_own_units(tmp_path: Path) -> None:
    """``min_delta`` in own units: a fall of the loss by less than the targets' variance never counts."""
    _, y = problem()
    stop = ("split.validation=0.2", "train.stop.patience=2", "train.epochs_per_round=1", "workers=1")
    path = dataset(tmp_path, y)
    patient = train(tmp_path, path, "patient", *stop, f"train.stop.min_delta={1e-6 * SPREAD**2}")
    hasty = train(tmp_path, path, "hasty", *stop, f"train.stop.min_delta={10.0 * SPREAD**2}")
    assert patient["trials"][0]["round"] == 10 and hasty["trials"][0]["round"] < 5


def test_none_is_as_before_and_auto_leaves_classes_alone(tmp_path: Path) -> None:
    x, _ = problem()
    labels = (x[:, 0] > 0).astype(int)
    from_arrays(x, labels, str(tmp_path / "classes"), shards=4)
    with pytest.raises(ConfigError, match="classes"):
        path = f"data.path={tmp_path / 'classes'}"
        make_spec(load_config(None, [path, "data.target_scale=standard"]), Dataset.open(str(tmp_path / "classes")))
    spec, _ = make_spec(load_config(None, [path]), Dataset.open(str(tmp_path / "classes")))
    assert spec.config.data.target_scale == "none" and spec.trials[0].target is None
    assert "target" not in spec.trials[0].to_json()
    hashes = {
        kind: config_hash(load_config(None, ["data.path=/d", f"data.target_scale={kind}"]), "data")
        for kind in ("auto", "none", "standard")
    }
    assert hashes["auto"] == hashes["none"] != hashes["standard"]


def test_weights_for_unscaled_targets_go_on_with_those(tmp_path: Path) -> None:
    x, y = problem()
    path = dataset(tmp_path, y / SPREAD)
    for scale in ("none", "standard"):
        train(tmp_path, path, scale, f"data.target_scale={scale}")
        command = ["train", str(tmp_path / "c.yaml"), "--run-dir", str(tmp_path / f"more-{scale}")]
        assert main([*command, "--from", str(tmp_path / scale), "--set", "train.lr=1e-9"]) == 0
        more, before = (nnlib.load(str(tmp_path / name)) for name in (f"more-{scale}", scale))
        assert more.spec.config.data.target_scale == scale
        assert np.allclose(more.predict(x), before.predict(x), rtol=1e-4)


def test_a_sweep_compares_both(tmp_path: Path) -> None:
    _, y = problem()
    metrics = train(tmp_path, dataset(tmp_path, y / SPREAD), "run", "sweep.data.target_scale=[none, auto]")
    first, second = (trial["test"] for trial in metrics["trials"])
    assert first["r2"] != second["r2"]
    models = [nnlib.load(str(tmp_path / "run"), trial=index) for index in (0, 1)]
    assert models[0].trial.target is None and models[1].trial.target is not None


def test_the_estimator_answers_in_own_units() -> None:
    from sklearn.model_selection import cross_val_score

    from nnlib.sklearn import NNJobsRegressor

    x, y = problem()
    keys: dict[str, Any] = {"hidden_layer_sizes": (16,), "random_state": 0, "learning_rate_init": 0.01}
    model = NNJobsRegressor(max_iter=60, **keys).fit(x, y)
    assert model.score(x, y) > 0.95 and cross_val_score(model, x, y).mean() > 0.9
    by_hand = NNJobsRegressor(max_iter=60, target_scale="none", **keys).fit(x, (y - y.mean()) / y.std())
    assert np.allclose(model.predict(x), by_hand.predict(x) * y.std() + y.mean(), atol=1e-5 * SPREAD)
    assert np.allclose(model.loss_curve_, np.array(by_hand.loss_curve_) * y.var(), rtol=1e-6)
    times = NNJobsRegressor(max_iter=60, **keys).fit(x, 1.7e9 + y / SPREAD)
    assert times.score(x, 1.7e9 + y / SPREAD) > 0.95  # float32 would give all rows the same answer
    more = NNJobsRegressor(**keys)
    for _ in range(60):
        more.partial_fit(x, y)
    assert more.score(x, y) > 0.95 and more.loss_curve_[-1] < 0.1 * y.var()
    again = NNJobsRegressor(max_iter=5, warm_start=True, early_stopping=True, **keys).fit(x, y).fit(x, y)
    assert again.n_iter_ > 5 and again.target_scaler_ is not None
    assert again.target_scaler_.shift == pytest.approx(SHIFT, rel=0.1)
