"""Exported files through other programs' eyes: onnxruntime, torch and bare numpy find what we predict."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from shards import write_dataset

import nnlib.export
from jobs.__main__ import main
from nnlib.config.schema import Config
from nnlib.core.errors import NnjobsError, UsageError
from nnlib.data.dataset import Dataset
from nnlib.data.scaling import FeatureStats, Scaler
from nnlib.evaluation.statistics import over_splits
from nnlib.export import EXPORTERS, export, exporter, npz_file, safetensors_file
from nnlib.export.network import Network
from nnlib.inference.trained_model import TrainedModel
from nnlib.models.functions import ACTIVATIONS
from nnlib.run.directory import RunDirectory
from nnlib.run.ledger import digest
from nnlib.run.model_file import unpack
from nnlib.run.planner import make_spec
from nnlib.run.spec import JobSpec

ROWS, FEATURES, CLASSES = 1000, 9, 4
OUTPUTS = ("softmax", "sigmoid", "linear")
SCALINGS = ("none", "standard", "minmax")
CASES = [
    *itertools.product(sorted(ACTIVATIONS), OUTPUTS, SCALINGS, ("float32", "uint8"), ("float32",), ([12, 7],)),
    *itertools.product(["tanh"], OUTPUTS, ["standard"], ["uint8"], ["float64"], ([12], [])),
    *itertools.product(["relu"], OUTPUTS, ["none"], ["float32"], ["float32"], [[]]),
]
"""Every activation, output, scaling and stored dtype; besides float64 models and ones without a hidden layer."""


READERS = {"onnx": ("onnx", "onnxruntime"), "safetensors": ("torch",), "npz": ()}


Plans = dict[tuple[str, bool], JobSpec]


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> Plans:
    """By stored dtype and whether there are classes: features of unlike sizes, one of them constant."""
    rng = np.random.default_rng(7)
    made = {}
    for dtype, classes in itertools.product(("float32", "uint8"), (True, False)):
        if dtype == "uint8":
            x, scale, offset = rng.integers(0, 256, (ROWS, FEATURES)).astype(np.uint8), 1 / 255, -0.5
        else:
            x = (rng.normal(size=(ROWS, FEATURES)) * rng.uniform(0.1, 3, FEATURES) + 1).astype(np.float32)
            scale, offset = 1.0, 0.0
        x[:, 3] = 5
        y = rng.integers(0, CLASSES, ROWS) if classes else rng.normal(size=ROWS)
        where = tmp_path_factory.mktemp("data") / f"{dtype}-{classes}"
        dataset = write_dataset(
            where, x, y, dtype=dtype, scale=scale, offset=offset, classes=CLASSES if classes else None
        )
        made[dtype, classes], _ = make_spec(Config.model_validate({"data": {"path": dataset.address}}), dataset)
    return made


def stored_rows(dataset: Dataset) -> Any:
    import pyarrow.parquet as pq

    column = pq.read_table(Path(dataset.address) / dataset.shards[0].name)["x"].combine_chunks()
    return column.values.to_numpy().reshape(ROWS, FEATURES)


def values_of(dataset: Dataset) -> Any:
    """The rows as the card says: value = stored * scale + offset."""
    stored = stored_rows(dataset)
    if dataset.x_dtype == "float32":
        return stored
    return stored.astype(np.float32) * np.float32(dataset.x_scale) + np.float32(dataset.x_offset)


def trained(
    plans: Plans,
    activation: str = "relu",
    output: str = "softmax",
    scaling: str = "standard",
    stored: str = "float32",
    dtype: str = "float32",
    hidden: Any = (5,),
) -> TrainedModel:
    """A model with random weights and biases: agreement does not ask how good they are."""
    spec = plans[stored, output != "linear"]
    config = Config.model_validate(
        {
            "data": {"path": spec.dataset.address, "scale": scaling},
            "model": {"hidden": list(hidden), "activation": activation, "output": output, "dtype": dtype},
        }
    )
    trial = replace(spec.trials[0], scaler=Scaler.from_stats(scaling, FeatureStats.of(values_of(spec.dataset))))  # type: ignore[arg-type]
    spec = JobSpec(config, spec.dataset, (trial,))
    size = spec.model(trial).layout.size
    return TrainedModel(spec, trial, np.random.default_rng(3).normal(0, 0.5, size).astype(dtype))


def expected(model: TrainedModel, values: Any) -> Any:
    return model.predict_proba(values) if model.classes else model.predict(values)


def run_usage(format_: str, model: TrainedModel, folder: Path) -> dict[str, Any]:
    """Write the file and execute what its card tells a reader to; the names that leaves behind."""
    network, kind = Network.of(model), exporter(format_)
    file = folder / f"model.{format_}"
    file.write_bytes(kind.encode(network))
    names: dict[str, Any] = {"x": values_of(model.spec.dataset).copy()}
    exec(kind.usage(network, str(file)), names)  # noqa: S102  (what the card prints must work)
    return names


@pytest.mark.parametrize("format_", EXPORTERS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_every_reader_agrees_on_1000_rows(plans: Plans, case: tuple[Any, ...], format_: str, tmp_path: Path) -> None:
    for package in READERS[format_]:
        pytest.importorskip(package)
    model = trained(plans, *case)
    ours = expected(model, values_of(model.spec.dataset))
    names = run_usage(format_, model, tmp_path)
    theirs = np.asarray(names["probabilities" if model.classes else "prediction"])
    assert theirs.shape == ours.shape and len(ours) == ROWS
    assert np.allclose(theirs, ours, rtol=0 if model.classes else 1e-5, atol=1e-5)
    if "label" in names:
        first, second = np.sort(ours, axis=1)[:, :-3:-1].T
        clear = first - second > 2e-5
        assert names["label"].dtype == np.int64 and clear.mean() > 0.99
        assert np.array_equal(names["label"][clear], ours.argmax(axis=1)[clear])
        assert np.array_equal(names["label"], theirs.argmax(axis=1))


@pytest.mark.parametrize("output", OUTPUTS)
def test_the_card_says_how_stored_integers_become_values(plans: Plans, output: str) -> None:
    model = trained(plans, output=output, stored="uint8")
    dataset = model.spec.dataset
    text = Network.of(model).input_meaning
    assert text.endswith(f"value = stored * {1 / 255!r} + -0.5")
    assert np.allclose(expected(model, stored_rows(dataset)), expected(model, values_of(dataset)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("format_", EXPORTERS)
def test_files_describe_themselves_and_have_equal_bytes(plans: Plans, format_: str) -> None:
    if format_ == "onnx":
        pytest.importorskip("onnx")
    network = Network.of(trained(plans, stored="uint8"))
    data = exporter(format_).encode(network)
    assert data == exporter(format_).encode(Network.of(trained(plans, stored="uint8")))
    description = json.loads(json.dumps(network.description()))
    assert "value = stored * 0.00392" in description["input"] and "+ -0.5" in description["input"]
    if format_ == "onnx":
        import onnx

        model = onnx.load_model_from_string(data)
        entries = {entry.key: entry.value for entry in model.metadata_props}
        assert json.loads(entries["nnjobs"]) == description
        for name in ("classes", "columns", "feature_names"):
            assert json.loads(entries[name]) == description[name]
        assert json.loads(entries["classes"]) == ["0", "1", "2", "3"]
        assert description["input"] in model.doc_string
        assert [node.op_type for node in model.graph.node] == [
            "Sub",
            "Mul",
            "Gemm",
            "Relu",
            "Gemm",
            "Softmax",
            "ArgMax",
        ]
    elif format_ == "npz":
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            assert json.loads(str(arrays["description"])) == description
            assert {name: arrays[name].shape for name in arrays if name != "description"} == shapes(network)
    else:
        arrays = unpack(data, "model.safetensors")
        assert {name: array.shape for name, array in arrays.items()} == shapes(network)
        length = int.from_bytes(data[:8], "little")
        assert json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["nnjobs"]) == description


def shapes(network: Network) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in network.arrays.items()}


def test_numbers_by_hand(plans: Plans) -> None:
    network = Network.of(trained(plans))
    assert network.widths == (9, 5, 4) and network.dtype == np.float32
    assert shapes(network) == {
        "scaling.shift": (9,),
        "scaling.factor": (9,),
        "layer0.weight": (9, 5),
        "layer0.bias": (5,),
        "layer1.weight": (5, 4),
        "layer1.bias": (4,),
    }


def test_a_model_above_2_gib_is_sent_to_another_format(plans: Plans, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    from nnlib.export import onnx_file

    monkeypatch.setattr(onnx_file, "LIMIT", 100)
    with pytest.raises(UsageError, match="safetensors"):
        onnx_file.encode(Network.of(trained(plans)))


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "nnlib.export.onnx_file", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UsageError, match=r"need the package onnx[\s\S]*nnjobs\[export\]"):
        exporter("onnx")
    with pytest.raises(UsageError, match="one of onnx, npz, safetensors"):
        exporter("pickle")


def test_another_kind_of_model_is_refused(plans: Plans, monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained(plans)
    monkeypatch.setattr("nnlib.export.network.MLP", ModuleType)
    with pytest.raises(UsageError, match="only perceptrons and torch modules"):
        Network.of(model)


@pytest.fixture(scope="module")
def run(plans: Plans, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three splits."""
    where = tmp_path_factory.mktemp("runs")
    (where / "c.yaml").write_text(
        f"name: small\nseed: 5\ndata: {{path: '{plans['float32', True].dataset.address}', scale: minmax}}\n"
        "split: {seeds: [4, 8, 6]}\ntrain: {epochs: 2, epochs_per_round: 1}\nmodel: {hidden: [5]}\n"
    )
    assert main(["train", str(where / "c.yaml"), "--run-dir", str(where / "run"), "-q"]) == 0
    return where / "run"


def test_the_command(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(run), "--format", "npz", "--trial", "1", "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert captured.err.startswith("run-trial1.npz (")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "run-trial1.npz",
        "run-trial1.npz.card.json",
        "run-trial1.npz.card.md",
    ]
    data = (tmp_path / "run-trial1.npz").read_bytes()
    assert result["sha256"] == hashlib.sha256(data).hexdigest() and result["bytes"] == len(data)
    with np.load("run-trial1.npz", allow_pickle=False) as arrays:
        wanted = RunDirectory.open(str(run)).final_arrays()
        assert np.array_equal(arrays["layer0.weight"], wanted["1.layer0.weight"])
        shift = TrainedModel.load(str(run), trial=1).trial.scaler.shift  # type: ignore[union-attr]
        assert np.array_equal(arrays["scaling.shift"], shift.astype(np.float32))


def test_the_card(run: Path, tmp_path: Path) -> None:
    export(str(run), "safetensors", str(tmp_path / "m.safetensors"), trial=2)
    card = json.loads((tmp_path / "m.safetensors.card.json").read_text())
    directory = RunDirectory.open(str(run))
    final = directory.final()
    assert final is not None
    assert card["licence"] is None and card["training"]["seed"] == 5
    assert card["training"]["split"] == 6 and card["training"]["split_seeds"] == [4, 8, 6]
    assert card["data"]["classes"] == dict(zip("0123", directory.spec().dataset.class_counts, strict=True))
    assert [column["name"] for column in card["data"]["encoding"]["columns"]] == ["x"]
    assert card["ledger"] == {"round": 2, "sha256": digest(directory.rounds(directory.spec()).log.ledger(2))}
    assert card["versions"]["trained"]["numpy"] == np.__version__
    test = dict(card["metrics"]["test"])
    low, high = test.pop("accuracy_interval")
    scored = final.trials[2].test
    assert test == {**scored.values(), **scored.to_json()} and low < test["accuracy"] < high
    accuracies = [entry.test.value("accuracy") or 0.0 for entry in final.trials]
    several = card["metrics"]["trials"]["accuracy"]
    assert several["trials"] == 3 and several["mean"] == pytest.approx(np.mean(accuracies))
    assert several["sd"] == pytest.approx(np.std(accuracies, ddof=1))
    assert several["interval"] == pytest.approx(over_splits(accuracies, 300 / 700))

    page = (tmp_path / "m.safetensors.card.md").read_text()
    assert page.startswith("# small\n")
    for text in (card["file"]["sha256"], card["ledger"]["sha256"], "nn.Sequential", "Licence: (to be filled in"):
        assert text in page
    private = (str(run), str(tmp_path), str(Path.home()))
    assert not any(text in page + json.dumps(card) for text in private)


def test_an_unfinished_run_is_exported_unscored(run: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("final"))
    export(str(tmp_path / "run"), "npz", str(tmp_path / "m.npz"))
    assert json.loads((tmp_path / "m.npz.card.json").read_text())["metrics"] is None
    assert "not been scored" in (tmp_path / "m.npz.card.md").read_text()


def test_names_from_data_stay_names_in_the_page(plans: Plans) -> None:
    from nnlib.export.card import _table

    assert _table(("a",), [("x | <b>\n`y`",)]).splitlines()[2] == "| x \\| \\<b\\> \\`y\\` |"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--format", "pickle"], 2),
        ([], 2),
        (["--format", "npz", "--trial", "9"], 2),
        (["--format", "npz", "-o", "folder/"], 2),
        (["--format", "npz", "-o", "taken"], 4),
    ],
)
def test_what_fails_leaves_nothing(
    run: Path, arguments: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    assert main(["export", str(run), *arguments]) == code
    assert [path.name for path in tmp_path.rglob("*")] == ["taken"]
    assert main(["export", "nowhere", "--format", "npz"]) == 2


@pytest.mark.parametrize("failing", [".card.md", ".card.json", ".npz"])
def test_a_write_that_fails_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    import nnlib.storage.fault_hook

    def full(action: str, path: Path) -> None:
        if action == "sync" and path.name.partition(failing)[1] and path.name.split(failing)[1].endswith(".tmp"):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(nnlib.storage.fault_hook, "step", full)
    with pytest.raises(NnjobsError, match="No space"):
        export(str(run), "npz", str(tmp_path / "m.npz"))
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_help_of_the_command_loads_no_numpy() -> None:
    import subprocess

    code = (
        "import sys; from jobs.__main__ import main; main(['export', '--help']); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "safetensors" in done.stdout and not {"numpy", "onnx", "pyarrow"} & set(done.stderr.split())


def test_a_new_format_is_one_file_and_one_line(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("nnlib.export.text_file")
    module.encode = lambda network: str(network.widths).encode()  # type: ignore[attr-defined]
    module.usage = lambda network, name: f"open({name!r})"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nnlib.export.text_file", module)
    monkeypatch.setitem(nnlib.export.EXPORTERS, "text", "nnlib.export.text_file")
    export(str(run), "text", str(tmp_path / "m.text"))
    assert (tmp_path / "m.text").read_bytes() == b"(9, 5, 4)"
    assert {"encode", "usage"} <= set(dir(npz_file)) & set(dir(safetensors_file))


def test_only_trials_of_the_same_settings_are_averaged(plans: Plans, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        f"data: {{path: '{plans['float32', True].dataset.address}'}}\nsplit: {{seeds: [1, 2]}}\n"
        "sweep: {train.lr: [0.1, 0.001]}\ntrain: {epochs: 1}\n"
    )
    assert main(["train", str(tmp_path / "c.yaml"), "--run-dir", str(tmp_path / "run"), "-q"]) == 0
    spec = RunDirectory.open(str(tmp_path / "run")).spec()
    for trial in spec.trials:
        export(str(tmp_path / "run"), "npz", str(tmp_path / "m"), trial=trial.index)
        card = json.loads((tmp_path / "m.card.json").read_text())
        assert card["training"]["config"]["train.lr"] == trial.overrides["train.lr"]
        assert card["training"]["split_seeds"] == [1, 2] and card["metrics"]["trials"]["accuracy"]["trials"] == 2
