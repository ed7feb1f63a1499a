"""Torch modules as files: torch, bare numpy and onnxruntime find what we predict."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from images import CLASSES, bars, torch_config
from shards import write_dataset

torch = pytest.importorskip("torch")

from jobs.__main__ import main  # noqa: E402
from jobs.driver import driver  # noqa: E402
from nnlib.config.schema import Config  # noqa: E402
from nnlib.core.errors import MismatchError, UsageError  # noqa: E402
from nnlib.core.layout import ModelState  # noqa: E402
from nnlib.data.scaling import FeatureStats, Scaler  # noqa: E402
from nnlib.data.target_scaling import TargetScaler  # noqa: E402
from nnlib.export import export, exporter, network_of  # noqa: E402
from nnlib.export.torch_network import TorchNetwork  # noqa: E402
from nnlib.inference.trained_model import TrainedModel  # noqa: E402
from nnlib.run.model_file import unpack  # noqa: E402
from nnlib.run.planner import make_spec  # noqa: E402
from nnlib.run.spec import JobSpec, initial_buffers, initial_frozen, initial_vector, with_frozen  # noqa: E402
from nnlib.torch.factories import ZOO  # noqa: E402

ROWS = 60
CASES: dict[str, dict[str, Any]] = {
    "images": {"factory": "simple-cnn", "scale": "standard", "stored": "uint8"},
    "numbers": {"factory": "torch-mlp", "arguments": {"hidden": [5], "dropout": 0.5}, "scale": "none", "classes": None},
    "everything": {"factory": "everything", "arguments": {"width": 4}, "scale": "minmax"},
    "residual": {"factory": "resnet-small", "arguments": {"width": 4}, "scale": "none"},
    "sigmoids": {"factory": "simple-nn", "scale": "standard", "output": "sigmoid"},
    "precise": {"factory": "torch-mlp", "scale": "standard", "dtype": "float64"},
}
BY_ONNX = [
    "images",
    "numbers",
    *(pytest.param(name, marks=pytest.mark.full) for name in ("everything", "residual", "sigmoids", "precise")),
]
"""torch's exporter takes seconds, so that two cases stand for all."""


@pytest.fixture(autouse=True)
def nets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ZOO, "everything", "torch_nets:build_everything")
    monkeypatch.setitem(ZOO, "impatient", "torch_nets:build_impatient")


def values_of(model: TrainedModel) -> Any:
    """Rows of feature values (ROWS, features), as the model's dataset might have them."""
    dataset = model.spec.dataset
    x = bars(ROWS, seed=5)[0]
    if dataset.x_dtype == "uint8":
        return np.clip(x * 100 + 100, 0, 255).astype(np.uint8) * np.float32(dataset.x_scale)
    return x


def trained(
    where: Path,
    factory: str,
    *,
    scale: str,
    arguments: dict[str, Any] | None = None,
    classes: int | None = CLASSES,
    stored: str = "float32",
    output: str = "auto",
    dtype: str = "float32",
) -> TrainedModel:
    """A model of first numbers, with statistics as if it had seen rows: agreement does not ask how good it is."""
    x, y = bars(ROWS)
    x[:, 3] = 0.5
    stored_x = np.clip(x * 100 + 100, 0, 255).astype(np.uint8) if stored == "uint8" else x
    unit = 1 / 255 if stored == "uint8" else 1.0
    targets = y if classes else 100.0 + 3.0 * y
    shape = (1, 8, 8) if factory in ("simple-cnn", "resnet-small") else None
    dataset = write_dataset(where, stored_x, targets, dtype=stored, scale=unit, classes=classes, shape=shape)
    config = Config.model_validate(
        {
            "data": {"path": dataset.address, "scale": scale},
            "model": {
                "kind": "torch",
                "factory": factory,
                "arguments": arguments or {},
                "output": output,
                "dtype": dtype,
            },
        }
    )
    spec, _ = make_spec(config, dataset)
    scaler = Scaler.from_stats(scale, FeatureStats.of(stored_x * np.float32(unit)))  # type: ignore[arg-type]
    target = None if classes else TargetScaler(103.0, 2.5)
    trial = replace(spec.trials[0], scaler=scaler, target=target)
    spec = JobSpec(config, spec.dataset, (trial,))
    spec = with_frozen(spec, [initial_frozen(spec, trial)])
    rng = np.random.default_rng(0)
    buffers = tuple(
        vector if vector.dtype.kind == "i" else (vector + rng.uniform(0.1, 1.0, vector.shape)).astype(vector.dtype)
        for vector in initial_buffers(spec, trial)
    )
    return TrainedModel(spec, trial, initial_vector(spec, trial), buffers)


def run_usage(format_: str, model: TrainedModel, folder: Path) -> dict[str, Any]:
    """Write the file and execute what its card tells a reader to; the names that leaves behind."""
    network, kind = network_of(model), exporter(format_, of_torch=True)
    file = folder / f"model.{format_}"
    file.write_bytes(kind.encode(network))
    names: dict[str, Any] = {"x": values_of(model).copy()}
    exec(kind.usage(network, str(file)), names)  # noqa: S102  (what the card prints must work)
    return names


def check(model: TrainedModel, names: dict[str, Any]) -> None:
    values = values_of(model)
    ours = model.predict_proba(values) if model.classes else model.predict(values)
    theirs = np.asarray(names["probabilities" if model.classes else "prediction"])
    assert theirs.shape == ours.shape and theirs.dtype == ours.dtype
    assert np.allclose(theirs, ours, rtol=1e-5, atol=1e-5) and np.ptp(ours) > 0.01


@pytest.mark.parametrize("format_", ["safetensors", "npz"])
@pytest.mark.parametrize("case", CASES)
def test_torch_finds_what_we_predict(case: str, format_: str, tmp_path: Path) -> None:
    model = trained(tmp_path / "data", **CASES[case])
    check(model, run_usage(format_, model, tmp_path))
    again = exporter(format_, of_torch=True).encode(network_of(trained(tmp_path / "data", **CASES[case])))
    assert again == (tmp_path / f"model.{format_}").read_bytes()


@pytest.mark.parametrize("case", BY_ONNX)
def test_onnxruntime_finds_what_we_predict(case: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    model = trained(tmp_path / "data", **CASES[case])
    with warnings.catch_warnings(action="error"):
        names = run_usage("onnx", model, tmp_path)
    assert capfd.readouterr() == ("", "")
    check(model, names)
    if model.classes:
        assert names["label"].dtype == np.int64
        assert np.array_equal(names["label"], names["probabilities"].argmax(axis=1))
    data = (tmp_path / "model.onnx").read_bytes()
    assert b"site-packages" not in data and str(Path(__file__).parent).encode() not in data  # no stack traces
    graph = onnx.load_model_from_string(data)
    entries = {entry.key: entry.value for entry in graph.metadata_props}
    description = network_of(model).description()
    assert json.loads(entries["nnjobs"]) == description and description["input"] in graph.doc_string
    assert json.loads(entries["classes"]) == description["classes"]
    (features,) = graph.graph.input
    assert [each.dim_param or each.dim_value for each in features.type.tensor_type.shape.dim] == ["rows", 64]


@pytest.mark.full
def test_equal_modules_give_equal_graphs(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    made = {
        exporter("onnx", of_torch=True).encode(network_of(trained(tmp_path / "data", **CASES["images"])))
        for _ in range(2)
    }
    assert len(made) == 1


@pytest.mark.full
def test_a_module_that_has_no_graph_is_refused_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    model = trained(tmp_path / "data", "impatient", scale="none")
    with pytest.raises(UsageError, match=r"torch cannot export this module to ONNX: .*\n.*safetensors"):
        exporter("onnx", of_torch=True).encode(network_of(model))


def test_a_graph_that_computes_something_else_is_no_file(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from nnlib.export.torch_onnx_file import _check

    x = bars(4)[0]
    dataset = write_dataset(tmp_path / "data", x, bars(4)[1], classes=CLASSES)
    config = Config.model_validate({"data": {"path": dataset.address}, "split": {"train": 1.0}})
    spec, _ = make_spec(config, dataset)
    model = TrainedModel(spec, spec.trials[0], *ModelState(initial_vector(spec, spec.trials[0])))
    data = exporter("onnx").encode(network_of(model))
    _check(data, x, model.predict_proba(x))
    with pytest.raises(MismatchError, match=r"up to 0\.5 apart: no file is written"):
        _check(data, x, model.predict_proba(x) + np.float32(0.5))


def test_the_file_is_the_modules_state(tmp_path: Path) -> None:
    """Tied arrays once; frozen ones and counters of their own types; what is said of them by hand."""
    model = trained(tmp_path / "data", **CASES["everything"])
    network = network_of(model)
    assert isinstance(network, TorchNetwork)
    assert network.tied == {"second.weight": "first.weight"}
    assert network.counts == {"trained": 4 + 4 + 16 + 4 + 4 + 4 * 3 + 3, "frozen": 64 * 4 + 4, "buffers": 4 + 4 + 1 + 4}
    arrays = unpack(exporter("safetensors", of_torch=True).encode(network), "model.safetensors")
    state = model.module.state_dict()
    assert arrays.keys() == state.keys() - {"second.weight"}
    for name, array in arrays.items():
        assert np.array_equal(array, state[name].numpy()) and array.dtype == state[name].numpy().dtype, name
    assert arrays["order"].dtype == np.int64 and "norm.running_mean" in arrays


def test_names_that_npz_needs_for_itself_are_refused(tmp_path: Path) -> None:
    network = network_of(trained(tmp_path / "data", **CASES["everything"]))
    assert isinstance(network, TorchNetwork)
    taken = replace(network, arrays={**network.arrays, "file": np.zeros(1)})
    with pytest.raises(UsageError, match="cannot hold an array named file"):
        exporter("npz", of_torch=True).encode(taken)


def test_the_command_and_its_card(tmp_path: Path) -> None:
    x, y = bars(ROWS)
    write_dataset(tmp_path / "data", x, y, shards=4, classes=CLASSES)
    config = torch_config(str(tmp_path / "data"), tmp_path / "run", "torch-mlp", model__arguments={"hidden": [5]})
    driver.train(config)
    output = str(tmp_path / "m.safetensors")
    assert main(["export", str(tmp_path / "run"), "--format", "safetensors", "-o", output]) == 0
    card = json.loads((tmp_path / "m.safetensors.card.json").read_text())
    assert card["model"]["factory"] == "torch-mlp" and card["model"]["arguments"] == {"hidden": [5]}
    assert card["model"]["parameters"] == card["model"]["counts"]["trained"] == 64 * 5 + 5 + 5 * 3 + 3
    page = (tmp_path / "m.safetensors.card.md").read_text()
    assert "The torch module torch-mlp(hidden=\\[5\\]) for classification, of rows of shape (64) and 3 outputs" in page
    assert "from nnlib.torch.zoo.mlp import build_mlp" in page
    with pytest.raises(UsageError, match="there is no format 'pickle'"):
        export(str(tmp_path / "run"), "pickle")
