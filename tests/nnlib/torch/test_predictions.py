"""What comes out of a run of a torch module: its predictions, on any runner, and the module itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from images import CLASSES, bars, torch_config, write_images
from shards import write_dataset

torch = pytest.importorskip("torch")

import nnlib  # noqa: E402
from jobs.batch.predict import predict  # noqa: E402
from jobs.driver import driver  # noqa: E402
from nnlib.config.schema import Config, Runtime  # noqa: E402
from nnlib.core.errors import UsageError  # noqa: E402
from nnlib.inference.prediction_file import predict_to_parquet  # noqa: E402
from nnlib.run.directory import RunDirectory  # noqa: E402
from nnlib.torch.model import TorchModel  # noqa: E402
from nnlib.torch.zoo.mlp import build_mlp  # noqa: E402
from nnlib.torch.zoo.resnet import build_resnet  # noqa: E402

ROWS, SHARDS = 120, 4


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a net with batch normalization, ``run``, on scaled images, ``data``."""
    where = tmp_path_factory.mktemp("images")
    write_images(where / "data", ROWS, shards=SHARDS)
    driver.train(torch_config(str(where / "data"), where / "run", "resnet-small", data__scale="standard"))
    return where


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a perceptron with dropout, ``run``, that learns numbers far from 0 from ``data``."""
    where = tmp_path_factory.mktemp("values")
    x = bars(ROWS)[0][:, :9]
    write_dataset(where / "data", x, 500.0 + 20.0 * x[:, 0], shards=SHARDS)
    arguments = {"hidden": [16], "dropout": 0.5}
    driver.train(torch_config(str(where / "data"), where / "run", "torch-mlp", model__arguments=arguments))
    return where


def test_the_module_has_the_numbers_of_the_run(images: Path) -> None:
    model = nnlib.load(str(images / "run"))
    module = model.module
    directory = RunDirectory.open(str(images / "run"))
    (final,) = directory.final_models(directory.spec())
    expected = model.spec.model(model.trial).layout.split(final)
    state = module.state_dict()
    assert state.keys() == expected.keys() and "1.running_var" in state
    for name, array in expected.items():
        assert np.array_equal(state[name].numpy(), array), name
    assert not module.training and not any(part.training for part in module.modules())


def test_predictions_are_those_of_the_module(images: Path) -> None:
    """A net built here, with the numbers of the run: batch normalization by the averaged statistics."""
    x, _ = bars(ROWS, seed=1)
    model = nnlib.load(str(images / "run"))
    net = build_resnet(shape=(1, 8, 8), outputs=CLASSES).eval()
    net.load_state_dict(model.module.state_dict())
    scaler = model.trial.scaler
    assert scaler is not None
    scaled = (x - scaler.shift.astype(np.float32)) * scaler.factor.astype(np.float32)
    assert np.array_equal(model.converted(x), scaled)
    with torch.no_grad():
        expected = torch.softmax(net(torch.from_numpy(scaled).view(-1, 1, 8, 8)), dim=1).numpy()
    ours = model.predict_proba(x)
    assert ours.dtype == np.float32 and np.allclose(ours, expected, rtol=0, atol=1e-6)
    assert np.array_equal(model.predict(x), ours.argmax(axis=1))


def test_what_a_user_does_to_the_module_changes_no_prediction(images: Path) -> None:
    x, _ = bars(8)
    model = nnlib.load(str(images / "run"))
    before = model.predict_proba(x)
    with torch.no_grad():
        for tensor in model.module.parameters():
            tensor.zero_()
    assert np.array_equal(model.predict_proba(x), before)


def test_dropout_is_off_and_targets_are_in_their_own_units(values: Path) -> None:
    x = bars(ROWS, seed=2)[0][:, :9]
    model = nnlib.load(str(values / "run"))
    net = build_mlp([16], dropout=0.5, shape=(9,), outputs=1).eval()
    net.load_state_dict(model.module.state_dict())
    target = model.trial.target
    assert target is not None
    with torch.no_grad():
        expected = net(torch.from_numpy(x))[:, 0].double().numpy() * target.spread + target.shift
    ours = model.predict(x)
    assert ours.dtype == np.float64 and np.allclose(ours, expected, rtol=1e-6)
    assert np.array_equal(ours, model.predict(x)) and abs(ours.mean() - 500.0) < 20.0
    with pytest.raises(UsageError, match="use predict"):
        model.predict_proba(x)


@pytest.mark.parametrize("run", ["images", "values"])
def test_a_row_alone_gets_its_prediction_among_others(run: str, request: pytest.FixtureRequest) -> None:
    where: Path = request.getfixturevalue(run)
    model = nnlib.load(str(where / "run"))
    x = bars(150, seed=3)[0][:, : model.features]
    outputs = model.predict_proba if model.classes else model.predict
    alone = np.concatenate([outputs(x[row : row + 1]) for row in (0, 70, 149)])
    assert np.allclose(outputs(x)[[0, 70, 149]], alone, rtol=2e-6, atol=1e-6)


def parts(folder: Path) -> Any:
    return pa.concat_tables([pq.read_table(folder / f"part-{shard:05d}.parquet") for shard in range(SHARDS)])


@pytest.mark.parametrize("run", ["images", "values"])
def test_a_job_predicts_what_a_process_does(run: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    where: Path = request.getfixturevalue(run)
    names = str(where / "run"), str(where / "data")
    whole = predict_to_parquet(*names, str(tmp_path / "one.parquet"))
    parted = predict(*names, str(tmp_path / "parts"), Runtime(), tasks=3)
    assert parts(tmp_path / "parts").equals(pq.read_table(tmp_path / "one.parquet"))
    score = "test_accuracy" if run == "images" else "test_r2"
    assert parted[score] == pytest.approx(whole[score], rel=1e-12)


@pytest.mark.full
def test_processes_of_their_own_predict_the_same(images: Path, tmp_path: Path) -> None:
    names = str(images / "run"), str(images / "data")
    predict(*names, str(tmp_path / "inline"), Runtime(), tasks=1)
    predict(*names, str(tmp_path / "local"), Runtime.model_validate({"runner": "local"}), tasks=2)
    for path in sorted((tmp_path / "inline").iterdir()):
        assert path.read_bytes() == (tmp_path / "local" / path.name).read_bytes(), path.name


def test_a_model_of_numpy_has_no_module(tmp_path: Path) -> None:
    write_images(tmp_path / "data", 30)
    document = {"data": {"path": str(tmp_path / "data")}, "run_dir": str(tmp_path / "run"), "train": {"epochs": 1}}
    driver.train(Config.model_validate(document))
    model = nnlib.load(str(tmp_path / "run"))
    assert not hasattr(model, "module")
    with pytest.raises(AttributeError, match="a model of kind mlp has no torch module"):
        _ = model.module


def test_operations_by_hand() -> None:
    """Two for each multiplication: outputs * inputs of a layer, for each of its positions, three times."""
    model = TorchModel("simple-cnn", {}, shape=(1, 8, 8), outputs=3, loss="softmax", dtype="float32")
    first, second = 64 * 32 * 9, 16 * 64 * 32 * 9
    forward = 2 * (first + second + 128 * 256 + 64 * 128 + 3 * 64)
    assert model.row_operations == 3 * forward
    narrow = TorchModel("torch-mlp", {"hidden": [5]}, shape=(4,), outputs=2, loss="softmax", dtype="float32")
    assert narrow.row_operations == 6 * (4 * 5 + 5 + 5 * 2 + 2)
