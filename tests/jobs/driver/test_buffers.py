"""A model with buffers goes through whole runs: trained, resumed, verified, started from, predicted with, exported."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import buffered_model
import numpy as np
import pytest
from buffered_model import LARGE
from driver_experiment import blobs, config
from safetensors.numpy import load, load_file
from shards import write_dataset

import nnlib
from jobs.driver import driver
from jobs.driver.verification import verify
from nnlib.config.kinds import MODELS, ModelKind
from nnlib.config.schema import Config
from nnlib.core.errors import MismatchError, UsageError
from nnlib.core.run_result import RunResult
from nnlib.export import export
from nnlib.run.directory import RunDirectory
from nnlib.run.model_file import model_digest
from nnlib.run.spec import assign_shards
from nnlib.training.local_result import RoundStart
from nnlib.training.local_training import local_training
from nnlib.training.worker_round import worker_data
from nnlib.training.worker_trial import WorkerTrial

WORKERS, ROWS, BATCH = 3, 180, 8
EPOCHS = 4
COLLECTIVE = {"sync__mode": "collective", "checkpoint__every": 1}
MODES: dict[str, dict[str, Any]] = {
    "rounds": {},
    "collective": COLLECTIVE,
    "rounded": {"sync__precision": "int8"},
    "feedback": {**COLLECTIVE, "sync__precision": "int8", "sync__error_feedback": True},
    "overlap": {**COLLECTIVE, "sync__overlap": True, "sync__overlap_drain": 2},
    "gradients": {**COLLECTIVE, "sync__every": "batch"},
    "outer": {"sync__outer__kind": "nesterov", "sync__outer__momentum": 0.5, "train__keep": "best"},
    "state": {"train__optimizer": "adam", "train__optimizer_state": "average", "train__lr": 0.1},
}


@pytest.fixture(autouse=True)
def buffered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Perceptrons have buffers in these tests: the table's line names another factory."""
    monkeypatch.setitem(
        MODELS._kinds, "mlp", ModelKind(f"{buffered_model.__name__}:build", MODELS["mlp"].options, "with buffers")
    )
    yield


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    x, y = blobs(ROWS)
    where = tmp_path_factory.mktemp("data") / "blobs"
    write_dataset(where, x + 3.0, y, shards=WORKERS, classes=3)
    return str(where)


def settings(dataset: str, run: Path, mode: str, **changes: Any) -> Config:
    fixed = {
        "workers": WORKERS,
        "train__epochs": EPOCHS,
        "train__epochs_per_round": 1,
        "train__batch_size": BATCH,
        "split__validation": 0.2,
        "checkpoint__keep": "all",
        "runtime__runner": "inline",
    }
    return config(dataset, run, **(fixed | MODES[mode] | changes))


def train(dataset: str, run: Path, mode: str, **changes: Any) -> RunResult:
    return driver.train(settings(dataset, run, mode, **changes))


def batches_of(run: RunDirectory) -> list[int]:
    """Mini-batches of an epoch, by worker."""
    return [-(-rows // BATCH) for rows in run.spec().trials[0].train_rows]


@pytest.mark.parametrize("mode", MODES)
def test_buffers_are_combined_round_by_round(dataset: str, tmp_path: Path, mode: str) -> None:
    result = train(dataset, tmp_path / "run", mode)
    run = RunDirectory.open(str(tmp_path / "run"))
    spec = run.spec()
    store = run.rounds(spec)
    layout = spec.model(spec.trials[0]).layout
    steps = max(batches_of(run))
    for round_ in (span[-1] for span in store.log.spans()):
        arrays = layout.split(store.load(round_).trials[0].model)
        assert arrays["features.batches"].dtype == np.int64
        assert int(arrays["features.batches"]) == LARGE + steps * round_  # the largest count of the workers
        assert arrays["features.used"].tolist() == [False, True, True, True, True, True]
        assert arrays["features.mean"].dtype == np.float32
        assert (np.abs(arrays["features.mean"] - 3.0) < 2.0).all() == (round_ > 0)
    kept = run.final_models(spec)
    assert result.model_sha256 == model_digest(kept)
    stored = load_file(tmp_path / "run/final/model.safetensors")
    assert {"0.features.mean", "0.features.batches", "0.features.used"} < set(stored)
    assert (result.test_accuracy or 0.0) > 0.5


@pytest.mark.parametrize("mode", MODES)
def test_verify_recomputes_every_round(dataset: str, tmp_path: Path, mode: str) -> None:
    train(dataset, tmp_path / "run", mode)
    found = verify(str(tmp_path / "run"), every=True)
    assert (found.problems, found.notes) == ([], [])
    assert found.recomputed == list(range(EPOCHS + 1))


def test_a_round_averages_what_the_workers_have(dataset: str, tmp_path: Path) -> None:
    """One round of one worker alone gives its own buffers; of all, their mean by examples."""
    means, rows = [], []
    train(dataset, tmp_path / "all", "rounds", train__epochs=1)
    together = RunDirectory.open(str(tmp_path / "all"))
    spec = together.spec()
    layout = spec.model(spec.trials[0]).layout
    start = together.rounds(spec).load(0).trials[0].model
    for plan in assign_shards([shard.rows for shard in spec.dataset.shards], WORKERS):
        with worker_data(spec, plan) as data:
            work = WorkerTrial.of(spec, spec.trials[0], plan.worker, data)
            result = next(local_training(work, RoundStart(start, 0, range(1))))
        means.append(layout.buffer_views(result.buffers)["features.mean"].astype(np.float64))
        rows.append(result.rows)
    expected = np.average(means, axis=0, weights=rows).astype(np.float32)
    got = layout.split(together.rounds(spec).load(1).trials[0].model)["features.mean"]
    assert got.tobytes() == expected.tobytes()


def test_rounds_and_collective_give_the_same_bits(dataset: str, tmp_path: Path) -> None:
    hashes = {train(dataset, tmp_path / mode, mode).model_sha256 for mode in ("rounds", "collective")}
    assert len(hashes) == 1


def test_a_run_goes_on_with_its_buffers(dataset: str, tmp_path: Path) -> None:
    whole = train(dataset, tmp_path / "whole", "rounds")
    train(dataset, tmp_path / "parts", "rounds", train__epochs=2)
    longer = driver.train(settings(dataset, tmp_path / "parts", "rounds"), resume=True)
    assert longer.model_sha256 == whole.model_sha256
    driver.train(settings(dataset, tmp_path / "child", "rounds"), start_from=str(tmp_path / "whole"))
    runs = [RunDirectory.open(str(tmp_path / name)) for name in ("child", "whole")]
    first, last = runs[0].rounds(runs[0].spec()).load(0), runs[1].final_models(runs[1].spec())
    assert model_digest([first.trials[0].model]) == model_digest(last)


def test_predictions_and_exports_have_the_buffers(dataset: str, tmp_path: Path) -> None:
    train(dataset, tmp_path / "run", "rounds")
    run = RunDirectory.open(str(tmp_path / "run"))
    model = nnlib.load(str(tmp_path / "run"))
    arrays = run.spec().model(run.spec().trials[0]).layout.split(model.state)
    x, _ = blobs(ROWS)
    centred = (x[:20] + 3.0 - arrays["features.mean"]) * arrays["features.used"]
    z = np.maximum(centred @ arrays["layer0.weight"] + arrays["layer0.bias"], 0)
    z = z @ arrays["layer1.weight"] + arrays["layer1.bias"]
    expected = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict_proba(x[:20] + 3.0), expected, rtol=1e-4, atol=1e-6)
    for format_ in ("npz", "safetensors"):
        out = tmp_path / f"model.{format_}"
        export(str(tmp_path / "run"), format_, str(out))
        data = out.read_bytes()
        stored = dict(np.load(io.BytesIO(data))) if format_ == "npz" else load(data)
        for name, array in arrays.items():
            assert stored[name].dtype == array.dtype and stored[name].shape == array.shape
            assert stored[name].tobytes() == array.tobytes()
        assert int(stored["features.batches"]) > LARGE
    pytest.importorskip("onnx")
    with pytest.raises(UsageError, match="buffers"):
        export(str(tmp_path / "run"), "onnx", str(tmp_path / "model.onnx"))


def test_a_buffer_that_workers_changed_apart_ends_the_run(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = buffered_model.Training.state

    def changed(learner: Any) -> Any:
        state = plain(learner)
        state.buffers[2][2] ^= learner._setup.worker == 1
        return state

    monkeypatch.setattr(buffered_model.Training, "state", changed)
    for mode in ("rounds", "collective"):
        with pytest.raises(MismatchError, match=r"buffer features\.used must be the same"):
            train(dataset, tmp_path / mode, mode)
        assert not (tmp_path / mode / "spec.json").exists()  # no round was committed: nothing is left of the run
