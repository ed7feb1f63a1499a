"""The estimators: scikit-learn's own checks, and that a fit is a run of the driver, bit for bit."""

from __future__ import annotations

import doctest
import pickle
import warnings
from pathlib import Path
from typing import Any
from unittest import SkipTest

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("sklearn", "1.6")

from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_iris, make_regression
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from jobs.driver import driver
from nnlib.config.schema import Config
from nnlib.core.errors import DataError
from nnlib.core.notes import NnjobsNote
from nnlib.core.run_result import RunResult
from nnlib.data.importing.import_dataset import from_arrays
from nnlib.inference.trained_model import TrainedModel
from nnlib.sklearn import NNJobsClassifier, NNJobsRegressor, classifier, regressor

Estimator = type[NNJobsClassifier] | type[NNJobsRegressor]
ESTIMATORS: list[Estimator] = [NNJobsClassifier, NNJobsRegressor]
SMALL: dict[str, Any] = {"hidden_layer_sizes": (5,), "max_iter": 6, "random_state": 3}


@parametrize_with_checks([NNJobsClassifier(), NNJobsRegressor()])  # type: ignore[untyped-decorator]
def test_scikit_learns_own_checks(estimator: Any, check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole of `check_estimator` at the default parameters; none may be skipped or expected to fail."""
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")  # without it the check of array API dispatch skips itself
    try:
        check(estimator)
    except SkipTest as skipped:
        pytest.fail(f"skipped: {skipped}")


def iris(*, words: bool = False) -> tuple[Any, Any]:
    X, y = load_iris(return_X_y=True)
    return X.astype(np.float32), np.array(["setosa", "versicolor", "virginica"])[y] if words else y


def drive(where: Path, X: Any, y: Any, *, workers: int = 1, **sections: Any) -> RunResult:
    """`jobs.driver.driver.train` of the same arrays, imported as anybody would."""
    from_arrays(X, y, f"{where}/data", shards=workers, dtype="float32")
    document: dict[str, Any] = {
        "data": {"path": f"{where}/data"},
        "run_dir": f"{where}/run",
        "workers": workers,
        "seed": 3,
        "split": {"train": 1.0},
        "model": {"hidden": [5]},
        "train": {"optimizer": "adam", "lr": 0.001, "l2": 0.0001, "epochs": 6, "epochs_per_round": 6},
    }
    for name, section in sections.items():
        document[name] = document.get(name, {}) | section
    return driver.train(Config.model_validate(document))


def test_a_fit_is_a_run_of_the_driver_bit_for_bit(tmp_path: Path) -> None:
    X, y = iris(words=True)
    run = drive(tmp_path, X, y)
    model = NNJobsClassifier(**SMALL).fit(X, y)
    assert model.model_sha256_ == run.model_sha256
    assert model.classes_.tolist() == ["setosa", "versicolor", "virginica"]
    trained = TrainedModel.load(f"{tmp_path}/run")
    assert np.array_equal(model.predict_proba(X), trained.predict_proba(X))
    assert np.array_equal(model.predict(X), trained.predict(X))


@pytest.mark.parametrize("runner", ["inline", "local"])
def test_workers_scaling_and_other_keys_reach_the_driver(tmp_path: Path, runner: str) -> None:
    X, y = iris()
    run = drive(
        tmp_path,
        X,
        y,
        workers=3,
        data={"scale": "standard"},
        sync={"outer": {"kind": "nesterov", "lr": 0.7, "momentum": 0.5}},
        train={"optimizer": "momentum", "lr": 0.02, "epochs_per_round": 2, "class_weights": {"1": 2.0}},
    )
    model = NNJobsClassifier(
        **SMALL,
        workers=3,
        runner=runner,
        scale="standard",
        solver="momentum",
        learning_rate_init=0.02,
        epochs_per_round=2,
        class_weight={1: 2.0},
        config={"sync.outer": {"kind": "nesterov", "lr": 0.7}, "sync.outer.momentum": 0.5},
    ).fit(X, y)
    assert model.model_sha256_ == run.model_sha256
    assert np.array_equal(model.predict_proba(X), TrainedModel.load(f"{tmp_path}/run").predict_proba(X))
    assert model.n_iter_ == len(model.loss_curve_) == 6


def test_a_regression_is_a_run_too(tmp_path: Path) -> None:
    X, y = make_regression(60, 3, noise=1.0, random_state=0)
    X, y = X.astype(np.float32), y / y.std()
    run = drive(tmp_path, X, y, train={"optimizer": "lbfgs"})
    model = NNJobsRegressor(**SMALL, solver="lbfgs").fit(X, y)
    assert model.model_sha256_ == run.model_sha256
    predicted = TrainedModel.load(f"{tmp_path}/run").predict(X)
    assert np.array_equal(model.predict(X), predicted.astype(np.float32))
    assert model.n_iter_ == 6
    assert len(model.loss_curve_) == 1  # the objective at the end of the one round


def test_random_state_decides_the_bits() -> None:
    X, y = iris()

    def sha(random_state: Any) -> str:
        return str(NNJobsClassifier(**SMALL | {"random_state": random_state, "max_iter": 1}).fit(X, y).model_sha256_)

    assert sha(0) == sha(0) == sha(np.int64(0))
    assert sha(np.random.RandomState(0)) == sha(np.random.RandomState(0))
    assert len({sha(0), sha(1), sha(np.random.RandomState(0)), sha(None), sha(None)}) == 5


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_the_first_partial_fit_is_an_epoch_of_fit(kind: Estimator) -> None:
    X, y = iris()
    options = SMALL | {"max_iter": 1}
    whole = kind(**options).fit(X, y)
    if kind is NNJobsClassifier:
        part = NNJobsClassifier(**options).partial_fit(X, y, classes=[2, 1, 0])
    else:
        part = kind(**options).partial_fit(X, y)
    assert part.model_sha256_ == whole.model_sha256_


def test_partial_fit_goes_on_from_the_weights_there_are(tmp_path: Path) -> None:
    X, y = iris()
    model = NNJobsClassifier(**SMALL | {"random_state": np.random.RandomState(0)}, scale="minmax")
    model.partial_fit(X[y < 2], y[y < 2], classes=[0, 1, 2])
    start, scaler = model._flat(), model.scaler_
    state = np.random.RandomState(0)
    _, second = state.randint(np.iinfo(np.int32).max), state.randint(np.iinfo(np.int32).max)
    model.partial_fit(X[y > 0], y[y > 0])
    assert (model.n_iter_, len(model.loss_curve_)) == (2, 2)
    assert model.scaler_ is scaler  # the features the weights know

    assert scaler is not None
    scaled = (X[y > 0] - scaler.shift.astype(np.float32)) * scaler.factor.astype(np.float32)
    from_arrays(scaled, y[y > 0], f"{tmp_path}/data", dtype="float32", classes=("0", "1", "2"))
    config = Config.model_validate(
        {
            "data": {"path": f"{tmp_path}/data"},
            "run_dir": f"{tmp_path}/run",
            "seed": second,
            "split": {"train": 1.0},
            "model": {"hidden": [5]},
            "train": {"optimizer": "adam", "lr": 0.001, "l2": 0.0001, "epochs": 1, "epochs_per_round": 1},
        }
    )
    assert driver.train(config, start_from=[start]).model_sha256 == model.model_sha256_


def test_partial_fit_learns_from_batches_that_lack_classes() -> None:
    X, y = iris()
    X = StandardScaler().fit_transform(X)
    model = NNJobsClassifier((16,), solver="momentum", learning_rate_init=0.05, batch_size=10, random_state=0)
    for _ in range(8):
        for first, second in ((0, 1), (1, 2), (2, 0)):
            batch = (y == first) | (y == second)
            model.partial_fit(X[batch], y[batch], classes=[0, 1, 2])
    assert model.score(X, y) > 0.8
    assert model.n_iter_ == 24
    model.partial_fit(X[:1], y[:1])  # one row of one class


def test_partial_fits_of_one_seed_draw_different_orders() -> None:
    model = NNJobsClassifier(**SMALL)
    seeds = {model._seed(epochs) for epochs in range(4)}
    assert len(seeds) == 4
    assert model._seed(0) == 3
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_partial_fit_says_what_is_wrong() -> None:
    X, y = iris()
    model = NNJobsClassifier(**SMALL)
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        model.partial_fit(X, y)
    with pytest.raises(ValueError, match=r"labels that are not among the classes \[0 1\]: \[2\]"):
        model.partial_fit(X, y, classes=[0, 1])
    model.partial_fit(X, y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="not those of the first call"):
        model.partial_fit(X, y, classes=[0, 1, 2, 3])
    with pytest.raises(ValueError, match="does not support early_stopping"):
        model.set_params(early_stopping=True).partial_fit(X, y)


def test_an_import_refuses_labels_beyond_the_declared_classes(tmp_path: Path) -> None:
    X, y = iris()
    with pytest.raises(DataError, match="label '2' is none of the 2 classes declared"):
        from_arrays(X, y, f"{tmp_path}/data", classes=("0", "1"))
    assert not list(tmp_path.rglob("dataset.json"))
    dataset = from_arrays(X[:60], y[:60], f"{tmp_path}/data", classes=("2", "1", "0"))
    assert dataset.classes == ("2", "1", "0")
    assert dataset.class_counts == (0, 10, 50)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_warm_start_goes_on(kind: Estimator) -> None:
    X, y = iris()
    cold = kind(**SMALL).fit(X, y)
    warm = kind(**SMALL, warm_start=True).fit(X, y)
    assert warm.model_sha256_ == cold.model_sha256_
    warm.fit(X, y)
    assert warm.n_iter_ == 12
    assert warm.loss_curve_[:6] == cold.loss_curve_
    assert warm.loss_ is not None and cold.loss_ is not None
    assert warm.loss_ < cold.loss_
    cold.fit(X, y)
    assert cold.n_iter_ == 6
    with pytest.raises(ValueError, match="expected a vector of"):
        warm.set_params(hidden_layer_sizes=(6,)).fit(X, y)


def test_warm_start_refuses_other_classes() -> None:
    X, y = iris()
    model = NNJobsClassifier(**SMALL, warm_start=True).fit(X, y)
    with pytest.raises(ValueError, match="goes on with the classes"):
        model.fit(X[:100], y[:100])


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_early_stopping_keeps_a_model_before_the_end(kind: Estimator) -> None:
    X, y = iris()
    options: dict[str, Any] = {"early_stopping": True, "validation_fraction": 0.2, "n_iter_no_change": 3, "tol": 0.01}
    model = kind((8,), max_iter=500, epochs_per_round=1, learning_rate_init=0.02, random_state=0, **options).fit(X, y)
    assert 3 < model.n_iter_ < 500
    assert model.score(X, y) > 0.8
    with pytest.raises(ValueError, match="holds out no row"):
        kind(early_stopping=True).fit(X[48:52], y[48:52])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate_init": -1.0}, r"^learning_rate_init \(train\.lr\): got -1\.0; allowed: a number above 0"),
        ({"solver": "adamm"}, r"^solver \(train\.optimizer\): .*did you mean adam"),
        ({"hidden_layer_sizes": (5, 0)}, r"^hidden_layer_sizes \(model\.hidden\)\[1\]: got 0"),
        ({"max_iter": "many"}, r"^max_iter \(train\.epochs\): got \"many\""),
        ({"activation": np.sin}, r"^activation \(model\.activation\): "),
        ({"workers": 0}, r"^workers: got 0"),
        ({"random_state": -1}, r"^random_state \(seed\): got -1"),
        ({"config": {"train.lr": 0.1}}, r"^config: train\.lr is set .* use the parameter learning_rate_init"),
        ({"config": {"train": {"lr": 0.1}}}, r"^config: train is set by NNJobsClassifier itself$"),
        ({"config": {"split.train": 0.5}}, r"^config: split\.train is set"),
        ({"config": {"sync.outre": 1}}, r"^config: .*unknown key; did you mean sync\.outer"),
        ({"class_weight": {7: 2.0}}, r"^class_weight names 7"),
        ({"class_weight": {1: -2.0}}, r"^class_weight \(train\.class_weights\.1\): got -2\.0"),
    ],
)
def test_bad_parameters_are_named_and_fit_nothing(options: dict[str, Any], message: str) -> None:
    model = NNJobsClassifier(**SMALL | options)
    with pytest.raises(ValueError, match=message):
        model.fit(*iris())
    with pytest.raises(NotFittedError):
        model.predict(iris()[0])


def test_divergence_says_what_to_change() -> None:
    X, y = make_regression(60, 3, random_state=0)
    model = NNJobsRegressor(solver="sgd", learning_rate_init=100.0, random_state=0)
    with pytest.raises(ValueError, match=r"diverged.*worker 0.*learning_rate_init"):
        model.fit(X, 1000.0 * y)


def test_class_weights_shift_the_decision() -> None:
    rng = np.random.default_rng(0)
    y = (np.arange(300) % 10 == 0).astype(int)
    X = rng.normal(y[:, None], 1.5, (300, 2))

    def recall(**options: Any) -> float:
        model = NNJobsClassifier((4,), learning_rate_init=0.01, random_state=0, max_iter=30, **options).fit(X, y)
        return float(np.mean(model.predict(X)[y == 1]))

    assert recall() < 0.3 < recall(class_weight="balanced")
    assert recall(class_weight={1: 9.0}) > 0.3
    assert recall(class_weight={1: 1000.0}) == 1.0


def test_more_workers_than_rows_is_a_worker_a_row() -> None:
    X, y = iris()
    few = NNJobsClassifier(**SMALL, workers=64, epochs_per_round=2).fit(X[49:52], y[49:52])
    assert (
        few.model_sha256_
        == NNJobsClassifier(**SMALL, workers=3, epochs_per_round=2).fit(X[49:52], y[49:52]).model_sha256_
    )


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_copies_predict_alike(kind: Estimator) -> None:
    X, y = iris()
    model = kind(**SMALL, scale="standard").fit(X, y)
    copy = pickle.loads(pickle.dumps(model))  # noqa: S301  (our own bytes)
    assert np.array_equal(copy.predict(X), model.predict(X))
    again = clone(model).fit(X, y)
    assert again.model_sha256_ == model.model_sha256_
    for mine, other in zip(model.coefs_, again.coefs_, strict=True):
        assert np.array_equal(mine, other)


def test_predictions_follow_the_weights() -> None:
    X, y = iris()
    model = NNJobsClassifier(**SMALL).fit(X, y)
    model.intercepts_[-1][...] = [0.0, 0.0, 1e6]
    assert set(model.predict(X)) == {2}


def test_verbose_prints_a_line_a_round(capsys: pytest.CaptureFixture[str]) -> None:
    model = NNJobsRegressor(**SMALL, epochs_per_round=3, verbose=True).fit(*iris())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 3 of 6", "epoch 6 of 6"]
    assert lines[-1].endswith(f"training loss {model.loss_:.6g}")


def test_works_in_pipelines_searches_and_cross_validation() -> None:
    X, y = iris(words=True)
    model = make_pipeline(
        StandardScaler(), NNJobsClassifier((8,), learning_rate_init=0.01, max_iter=40, workers=2, random_state=0)
    )
    assert cross_val_score(model, X, y, cv=3).mean() > 0.9
    grid = {
        "nnjobsclassifier__hidden_layer_sizes": [(), (8,)],
        "nnjobsclassifier__alpha": np.array([0.0, 100.0]),
    }
    search = GridSearchCV(model, grid, cv=2).fit(X, y)
    assert search.best_params_["nnjobsclassifier__alpha"] == 0.0
    assert search.score(X, y) > 0.9
    assert search.predict(X[:1])[0] == "setosa"

    X, y = make_regression(100, 4, noise=5.0, random_state=0)
    regression = TransformedTargetRegressor(
        NNJobsRegressor((), solver="lbfgs", random_state=0), transformer=StandardScaler()
    )
    assert cross_val_score(regression, X, y, cv=3).min() > 0.95


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_every_parameter_is_documented(kind: Estimator) -> None:
    for name in kind().get_params():
        assert f"    {name} : " in (kind.__doc__ or "")


@pytest.mark.parametrize("module", [classifier, regressor])
def test_examples_run(module: Any) -> None:
    failed, tried = doctest.testmod(module)
    assert tried > 3
    assert not failed


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize("library", ["pandas", "polars", "table", "batch"])
def test_columns_have_names_as_in_scikit_learn(kind: Estimator, library: str) -> None:
    module = pytest.importorskip(library) if library in ("pandas", "polars") else None
    x, y = load_iris(return_X_y=True)
    names = ["a", "b", "c", "d"]

    def frame(order: list[str]) -> Any:
        columns = {name: x[:, names.index(name)] for name in order}
        if module is not None:
            return module.DataFrame(columns)
        return pa.table(columns) if library == "table" else pa.RecordBatch.from_pydict(columns)

    model = kind(**SMALL).fit(frame(names), y)
    assert model.feature_names_in_.tolist() == names
    with warnings.catch_warnings(action="error"):
        np.testing.assert_array_equal(model.predict(frame(names)), kind(**SMALL).fit(x, y).predict(x))
    for other in (names[::-1], names[:3]):
        with pytest.raises(ValueError, match="feature names should match"):
            model.predict(frame(other))
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        model.predict(x)


def test_features_that_float32_merges_are_said_in_the_words_of_scikit_learn() -> None:
    x = 1.7e9 + np.arange(60.0)[:, None]
    y = (np.arange(60) > 30).astype(int)
    with pytest.warns(NnjobsNote, match="set scale='standard'$"):
        NNJobsClassifier((3,), max_iter=1).fit(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NnjobsNote)
        NNJobsClassifier((3,), max_iter=1).fit(StandardScaler().fit_transform(x), y)
        NNJobsClassifier((3,), max_iter=1, scale="standard").fit(x, y)
