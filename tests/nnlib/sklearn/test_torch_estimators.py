"""Estimators of torch modules: scikit-learn's own checks, arguments of the factory, images, the bits of the driver."""

from __future__ import annotations

import doctest
import pickle
from pathlib import Path
from typing import Any
from unittest import SkipTest

import numpy as np
import pytest
from images import CLASSES, bars, torch_config

pytest.importorskip("sklearn", "1.6")
torch = pytest.importorskip("torch")

import torch_nets  # noqa: E402
from sklearn.base import clone  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

from jobs.driver import driver  # noqa: E402
from nnlib.data.importing.import_dataset import from_arrays  # noqa: E402
from nnlib.inference.trained_model import TrainedModel  # noqa: E402
from nnlib.sklearn import NNJobsTorchClassifier, NNJobsTorchRegressor, torch_classifier, torch_regressor  # noqa: E402

SMALL: dict[str, Any] = {"max_iter": 2, "random_state": 3, "learning_rate_init": 0.01}


@parametrize_with_checks([NNJobsTorchClassifier(), NNJobsTorchRegressor()])  # type: ignore[untyped-decorator]
def test_scikit_learns_own_checks(estimator: Any, check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole of `check_estimator` at the default parameters; none may be skipped or expected to fail."""
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")  # without it the check of array API dispatch skips itself
    try:
        check(estimator)
    except SkipTest as skipped:
        pytest.fail(f"skipped: {skipped}")


def images(rows: int = 60) -> tuple[Any, Any]:
    x, y = bars(rows)
    return x.reshape(rows, 8, 8), y


def test_a_fit_is_a_run_of_the_driver_bit_for_bit(tmp_path: Path) -> None:
    X, y = images()
    from_arrays(X, y, f"{tmp_path}/data", shards=2, dtype="float32")
    settings = torch_config(
        f"{tmp_path}/data",
        tmp_path / "run",
        "resnet-small",
        workers=2,
        seed=3,
        split__train=1.0,
        model__arguments={"width": 4},
        train={"optimizer": "adam", "lr": 0.01, "l2": 0.0001, "epochs": 2, "epochs_per_round": 1},
    )
    run = driver.train(settings)
    model = NNJobsTorchClassifier("resnet-small", module__width=4, workers=2, epochs_per_round=1, **SMALL).fit(X, y)
    assert model.model_sha256_ == run.model_sha256
    flat = X.reshape(len(X), -1)
    trained = TrainedModel.load(f"{tmp_path}/run").predict_proba(flat)
    for rows in (X, X[:, None], flat):
        assert np.array_equal(model.predict_proba(rows), trained)
    module = model.module_
    assert not module.training and "1.running_var" in module.state_dict()
    copy = pickle.loads(pickle.dumps(model))  # noqa: S301  (our own bytes)
    assert np.array_equal(copy.predict_proba(X), trained)
    with pytest.raises(ValueError, match="rows of X have the shape"):
        model.predict(X.reshape(-1, 4, 16))


def test_the_factorys_arguments_are_parameters() -> None:
    model = NNJobsTorchClassifier(module__hidden=[4], module__dropout=0.1)
    assert model.get_params()["module__hidden"] == [4]
    assert clone(model).get_params() == model.get_params()
    model.set_params(module__hidden=[5], max_iter=1)
    assert model.get_params()["module__hidden"] == [5] and model.max_iter == 1
    with pytest.raises(ValueError, match="no parameter hidden"):
        clone(NNJobsTorchClassifier(hidden=[4])).fit(*bars(20))
    with pytest.raises(ValueError, match="widht"):
        NNJobsTorchClassifier(module__widht=4, **SMALL).fit(*bars(20))


def test_a_search_tries_arguments() -> None:
    X, y = bars(60)
    search = GridSearchCV(NNJobsTorchClassifier(**SMALL), {"module__hidden": [[3], [4, 4]]}, cv=2).fit(X, y)
    first = next(search.best_estimator_.module_.parameters())
    assert tuple(first.shape) == (search.best_params_["module__hidden"][0], 64)


def test_a_factory_may_be_a_function_of_a_file() -> None:
    X, y = bars(40)
    by_function = NNJobsTorchClassifier(torch_nets.build_everything, module__width=4, **SMALL).fit(X, y)
    named = NNJobsTorchClassifier(
        "torch_nets:build_everything", files=[torch_nets.__file__], module__width=4, **SMALL
    ).fit(X, y)
    assert by_function.model_sha256_ == named.model_sha256_
    state, other = by_function.module_.state_dict(), named.module_.state_dict()
    assert all(torch.equal(state[name], other[name]) for name in state) and "frozen.weight" in state
    copy = pickle.loads(pickle.dumps(by_function))  # noqa: S301  (our own bytes)
    assert np.array_equal(copy.predict_proba(X), named.predict_proba(X))
    with pytest.raises(ValueError, match="frozen parameters is trained by one fit"):
        by_function.partial_fit(X, y)
    for refused in (lambda shape, outputs: None, torch.nn.Sequential(torch.nn.Linear(2, 2))):
        with pytest.raises(ValueError, match="cannot be imported by tasks"):
            NNJobsTorchClassifier(refused, **SMALL).fit(X, y)


def test_partial_fit_goes_on_with_the_running_statistics() -> None:
    X, y = images()
    model = NNJobsTorchClassifier("resnet-small", module__width=4, **SMALL)
    model.partial_fit(X, y, classes=range(CLASSES))
    first = int(model.module_.state_dict()["1.num_batches_tracked"])
    model.partial_fit(X, y)
    assert model.n_iter_ == 2 and int(model.module_.state_dict()["1.num_batches_tracked"]) == 2 * first > 0


def test_a_shape_makes_images_of_rows() -> None:
    X, y = bars(40)
    model = NNJobsTorchClassifier("simple-cnn", shape=(8, 8), **SMALL).fit(X, y)
    assert model.predict(X.reshape(-1, 1, 8, 8)).tolist() == model.predict(X).tolist()
    with pytest.raises(ValueError, match=r"is a row of 63 values, but X has 64"):
        model.set_params(shape=(7, 9)).fit(X, y)


@pytest.mark.parametrize("kind", [NNJobsTorchClassifier, NNJobsTorchRegressor])
def test_every_parameter_is_documented(kind: Any) -> None:
    for name in kind().get_params():
        assert f"    {name} : " in (kind.__doc__ or "")


@pytest.mark.parametrize("module", [torch_classifier, torch_regressor])
def test_examples_run(module: Any) -> None:
    failed, tried = doctest.testmod(module)
    assert tried > 3
    assert not failed
