"""A user's module with trained, tied and frozen parameters and all kinds of buffers goes through whole runs."""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from images import torch_config, write_images
from safetensors.numpy import load_file
from user_nets import FROZEN, TIED, write_nets

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

import nnlib  # noqa: E402
from jobs.driver import driver  # noqa: E402
from jobs.driver.verification import verify  # noqa: E402
from jobs.runners.local.chaos import Chaos  # noqa: E402
from nnlib.config import code_trust  # noqa: E402
from nnlib.config.schema import Config  # noqa: E402
from nnlib.core.errors import ConfigError, MismatchError, UsageError  # noqa: E402
from nnlib.run.checkpoint import TrialState  # noqa: E402
from nnlib.run.directory import RunDirectory  # noqa: E402
from nnlib.run.spec import assign_shards  # noqa: E402
from nnlib.torch.user_code import import_file  # noqa: E402
from nnlib.training.local_result import RoundStart  # noqa: E402
from nnlib.training.local_training import local_training  # noqa: E402
from nnlib.training.worker_round import worker_data  # noqa: E402
from nnlib.training.worker_trial import WorkerTrial  # noqa: E402

WORKERS, ROWS, EPOCHS, BATCH = 3, 120, 3, 7
COLLECTIVE = {"sync__mode": "collective", "checkpoint__every": 1}
MODES: dict[str, dict[str, Any]] = {
    "rounds": {},
    "collective": COLLECTIVE,
    "rounded": {"sync__precision": "int8"},
    "feedback": {**COLLECTIVE, "sync__precision": "int8", "sync__error_feedback": True},
    "overlap": {**COLLECTIVE, "sync__overlap": 1, "sync__overlap_drain": 2},
    "gradients": {**COLLECTIVE, "sync__every": "batch"},
    "outer": {"sync__outer__kind": "nesterov", "sync__outer__momentum": 0.5, "sync__outer__lr": 0.7},
}


@pytest.fixture(autouse=True)
def own_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(code_trust, "_here", set())


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_images(tmp_path_factory.mktemp("data") / "bars", ROWS, shards=WORKERS)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_nets(tmp_path_factory.mktemp("nets"))


def settings(dataset: str, run: Path, files: list[str], mode: str = "rounds", **changes: Any) -> Config:
    fixed = {
        "workers": WORKERS,
        "model__files": files,
        "train__epochs": EPOCHS,
        "train__epochs_per_round": 1,
        "train__batch_size": BATCH,
        "checkpoint__keep": "all",
    }
    return torch_config(dataset, run, "nets:build", **(fixed | MODES[mode] | changes))


def forget(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Be a machine that has seen no code."""
    shutil.rmtree(tmp_path / "state", ignore_errors=True)
    monkeypatch.setattr(code_trust, "_here", set())


def arrays_of(run: Path, round_: int) -> dict[str, Any]:
    directory = RunDirectory.open(str(run))
    spec = directory.spec()
    state: TrialState = directory.rounds(spec).load(round_).trials[0]
    return spec.model(spec.trials[0]).layout.split(state.model)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_keeps_what_is_frozen_and_verifies(
    dataset: str, files: list[str], tmp_path: Path, mode: str
) -> None:
    driver.train(settings(dataset, tmp_path / "run", files, mode))
    found = verify(str(tmp_path / "run"), every=True)
    assert (found.problems, found.notes) == ([], [])
    assert found.recomputed == list(range(EPOCHS + 1))

    spec = RunDirectory.open(str(tmp_path / "run")).spec()
    rows = max(spec.trials[0].train_rows)
    first, last = arrays_of(tmp_path / "run", 0), arrays_of(tmp_path / "run", EPOCHS)
    assert not FROZEN & last.keys() and TIED[1] not in last and TIED[0] in last
    assert last["6.order"].tolist() == [5, 4, 3, 2, 1, 0] and last["6.order"].dtype == np.int64
    assert int(last["2.num_batches_tracked"]) == EPOCHS * math.ceil(rows / BATCH)
    assert not np.array_equal(first["2.running_mean"], last["2.running_mean"])
    assert not np.array_equal(first[TIED[0]], last[TIED[0]])
    stored = load_file(tmp_path / "run/frozen.safetensors")
    assert stored.keys() == {f"0.{name}" for name in FROZEN}
    assert json.loads((tmp_path / "run/rounds/000000/ledger.json").read_text())["frozen"]["sets"] == [0]


def test_buffers_travel_exactly_and_no_outer_step_moves_them(dataset: str, files: list[str], tmp_path: Path) -> None:
    """After the first round, which all begin alike, the buffers are those of plain averaging, the weights are not."""
    for mode in ("rounds", "rounded", "feedback", "outer", "collective"):
        driver.train(settings(dataset, tmp_path / mode, files, mode, train__epochs=1))
    plain = arrays_of(tmp_path / "rounds", 1)
    for mode, exact in {"rounded": False, "feedback": False, "outer": False, "collective": True}.items():
        arrays = arrays_of(tmp_path / mode, 1)
        for name in ("2.running_mean", "2.running_var", "2.num_batches_tracked", "6.order"):
            assert np.array_equal(arrays[name], plain[name]), (mode, name)
        assert np.array_equal(arrays["1.weight"], plain["1.weight"]) == exact


def test_a_round_is_the_average_of_what_the_workers_have(dataset: str, files: list[str], tmp_path: Path) -> None:
    driver.train(settings(dataset, tmp_path / "run", files, train__epochs=1))
    directory = RunDirectory.open(str(tmp_path / "run"))
    spec = directory.spec()
    layout = spec.model(spec.trials[0]).layout
    start = directory.rounds(spec).load(0).trials[0].model
    states, rows = [], []
    for plan in assign_shards([shard.rows for shard in spec.dataset.shards], WORKERS):
        with worker_data(spec, plan) as data:
            work = WorkerTrial.of(spec, spec.trials[0], plan.worker, data)
            result = next(local_training(work, RoundStart(start, 0, range(1))))
        buffers = layout.buffer_views(result.buffers)
        states.append({**layout.views(result.partial.weights), **buffers})
        rows.append(result.rows)
    averaged = arrays_of(tmp_path / "run", 1)
    for name, array in averaged.items():
        values = [state[name].astype(np.float64) for state in states]
        if array.dtype == np.int64:
            assert np.array_equal(array, np.max(values, axis=0))
        else:
            expected = np.zeros(array.shape)
            for value, count in zip(values, rows, strict=True):
                expected += value * count
            assert np.array_equal(array, (expected / sum(rows)).astype(array.dtype)), name


def test_one_worker_is_a_plain_loop_over_the_module(dataset: str, files: list[str], tmp_path: Path) -> None:
    driver.train(settings(dataset, tmp_path / "run", files, workers=1, train__batch_size=16))
    directory = RunDirectory.open(str(tmp_path / "run"))
    spec = directory.spec()
    trial = spec.trials[0]
    module = import_file(spec.sources, "nets").build(shape=(1, 8, 8), outputs=3)
    state = {name: torch.tensor(array) for name, array in arrays_of(tmp_path / "run", 0).items()}
    state |= {name: torch.tensor(np.array(array)) for name, array in spec.frozen_arrays(trial).items()}
    state[TIED[1]] = state[TIED[0]]
    module.load_state_dict(state)
    module.train()
    (plan,) = assign_shards([shard.rows for shard in spec.dataset.shards], 1)
    with worker_data(spec, plan) as data:
        work = WorkerTrial.of(spec, trial, 0, data)
        for epoch in range(EPOCHS):
            for batch in work.draw_batches(epoch).epoch(epoch):
                module.zero_grad()
                x = torch.tensor(batch.x).reshape(-1, 1, 8, 8)
                functional.cross_entropy(module(x), torch.tensor(batch.y)).backward()  # type: ignore[no-untyped-call]
                with torch.no_grad():
                    for tensor in module.parameters():
                        if tensor.requires_grad:
                            tensor -= 0.05 * tensor.grad
    expected = module.state_dict()
    for name, array in arrays_of(tmp_path / "run", EPOCHS).items():
        assert np.array_equal(array, expected[name].numpy()), name
    x = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)
    with torch.inference_mode():
        wanted = torch.softmax(module.eval()(torch.tensor(x).reshape(-1, 1, 8, 8)), dim=1).numpy()
    np.testing.assert_allclose(nnlib.load(str(tmp_path / "run")).predict_proba(x), wanted, atol=1e-6)


def test_runners_and_modes_agree_and_a_run_goes_on(dataset: str, files: list[str], tmp_path: Path) -> None:
    ways: dict[str, dict[str, Any]] = {
        "inline": {},
        "collective": {"mode": "collective"},
        "local": {"runtime__runner": "local", "runtime__cores": 2},
        "slices": {"sync__slice_elements": 1, "reducers": 3},
    }
    hashes = {
        name: driver.train(settings(dataset, tmp_path / name, files, **changes)).model_sha256
        for name, changes in ways.items()
    }
    assert len(set(hashes.values())) == 1
    faults = Chaos(2, kill=0.4, twin=0.4, truncate=0.2, reorder=1.0)
    faulty = driver.train(settings(dataset, tmp_path / "faulty", files, **ways["local"]), chaos=faults)
    assert faulty.model_sha256 == hashes["inline"]
    assert '"fault": "kill"' in (tmp_path / "faulty" / "events.jsonl").read_text("utf-8")
    driver.train(settings(dataset, tmp_path / "parts", files, train__epochs=1))
    longer = driver.train(settings(dataset, tmp_path / "parts", files), resume=True)
    assert longer.model_sha256 == hashes["inline"]


def test_a_changed_file_ends_a_resume(dataset: str, tmp_path: Path) -> None:
    files = write_nets(tmp_path / "nets")
    driver.train(settings(dataset, tmp_path / "run", files, train__epochs=1))
    Path(files[1]).write_text(Path(files[1]).read_text() + "\n# changed\n")
    with pytest.raises(ConfigError, match=r"blocks\.py has changed since the run began"):
        driver.train(settings(dataset, tmp_path / "run", files), resume=True)
    config = RunDirectory.open(str(tmp_path / "run")).config()  # the run's own files are as they were
    longer = config.model_copy(update={"train": config.train.model_copy(update={"epochs": 2})})
    assert driver.train(longer, resume=True).rounds == 2


def test_another_run_gives_its_frozen_parameters_too(dataset: str, files: list[str], tmp_path: Path) -> None:
    driver.train(settings(dataset, tmp_path / "first", files, split__seeds=[0, 1]))
    first = load_file(tmp_path / "first/frozen.safetensors")
    assert set(first) == {f"{trial}.{name}" for trial in (0, 1) for name in FROZEN}  # each trial has drawn its own
    driver.train(
        settings(dataset, tmp_path / "next", files, split__seeds=[0, 1], seed=7), start_from=str(tmp_path / "first")
    )
    assert (tmp_path / "next/frozen.safetensors").read_bytes() == (tmp_path / "first/frozen.safetensors").read_bytes()
    found = verify(str(tmp_path / "next"), every=True)
    assert found.problems == [] and "from elsewhere" in found.notes[0]


def test_arguments_are_swept(dataset: str, files: list[str], tmp_path: Path) -> None:
    sweep = {"model.arguments.width": [3, 5]}
    result = driver.train(settings(dataset, tmp_path / "run", files, sweep=sweep))
    spec = RunDirectory.open(str(tmp_path / "run")).spec()
    shapes = [spec.frozen_arrays(trial)["4.weight"].shape for trial in spec.trials]
    assert shapes == [(3, 3), (5, 5)] and len(result.trials) == 2
    assert verify(str(tmp_path / "run"), every=True).problems == []


def test_code_that_is_not_trusted_is_not_imported(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobs.__main__ import main

    mark = tmp_path / "imported"
    text = f"open({str(mark)!r}, 'a').close()\n"
    files = write_nets(tmp_path / "nets", text + Path(write_nets(tmp_path / "plain")[0]).read_text())
    run = str(tmp_path / "run")
    driver.train(settings(dataset, tmp_path / "run", files, train__epochs=1))
    shutil.rmtree(tmp_path / "nets")
    mark.unlink()
    forget(monkeypatch, tmp_path)
    monkeypatch.setattr("nnlib.torch.user_code._packages", {})
    for name in [name for name in sys.modules if name.startswith("_nnjobs_")]:
        monkeypatch.delitem(sys.modules, name)
    commands: list[list[str]] = [
        ["verify", run],
        ["predict", run, dataset, "-o", str(tmp_path / "p.csv")],
        ["predict", run, dataset, "-o", str(tmp_path / "parts"), "-r", "inline"],
        ["export", run, "--format", "safetensors", "-o", str(tmp_path / "m.safetensors")],
        ["report", run, "-o", str(tmp_path / "report")],
        ["train", "--resume", "--run-dir", run, "--set", "train.epochs=2"],
        ["train", f"{run}/config.yaml", "--run-dir", str(tmp_path / "new")],
    ]
    for command in commands:
        assert main(command) == 2, command
        assert not mark.exists(), command
    with pytest.raises(UsageError, match=r"run .*: brings code .* trust yet: blocks\.py, nets\.py, hash"):
        nnlib.load(run)
    assert not mark.exists()
    nnlib.load(run, trust_code=True)
    assert mark.exists()
    for command in commands[:2]:
        assert main(command) == 0, command


def test_code_that_was_altered_is_named(dataset: str, files: list[str], tmp_path: Path) -> None:
    driver.train(settings(dataset, tmp_path / "run", files, train__epochs=1))
    for change in (lambda path: path.write_text("x = 1\n"), Path.unlink):
        change(tmp_path / "run/code/blocks.py")
        with pytest.raises(MismatchError, match=r"blocks\.py"):
            nnlib.load(str(tmp_path / "run"), trust_code=True)


def test_frozen_parameters_that_were_altered_are_named(dataset: str, files: list[str], tmp_path: Path) -> None:
    driver.train(settings(dataset, tmp_path / "run", files, train__epochs=1))
    path = tmp_path / "run/frozen.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    (problem,) = verify(str(tmp_path / "run")).problems
    assert "frozen.safetensors" in problem
    with pytest.raises(MismatchError, match=r"frozen\.safetensors"):
        nnlib.load(str(tmp_path / "run")).predict(np.zeros((1, 64), np.float32))
