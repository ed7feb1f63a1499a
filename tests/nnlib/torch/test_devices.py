"""What runs on a device is what runs on the CPU, up to rounding: shown on two devices that are played on the CPU."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from images import torch_config, write_images

torch = pytest.importorskip("torch")

import played_devices  # noqa: E402
from played_devices import PlayedTable  # noqa: E402

from jobs.driver import driver  # noqa: E402
from jobs.driver.device import with_device  # noqa: E402
from jobs.driver.verification import verify  # noqa: E402
from nnlib.config.devices import DEVICES, parse_device  # noqa: E402
from nnlib.config.schema import Config  # noqa: E402
from nnlib.core import forks  # noqa: E402
from nnlib.core.errors import ConfigError, JobError  # noqa: E402
from nnlib.run.directory import RunDirectory  # noqa: E402
from nnlib.run.ledger import LedgerLine  # noqa: E402
from nnlib.torch import factories  # noqa: E402
from nnlib.torch.devices import deal_device  # noqa: E402

PLAYED = {"runtime__device": "played"}


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> PlayedTable:
    table = PlayedTable()
    monkeypatch.setitem(DEVICES, "played", played_devices.LINE)
    monkeypatch.setattr(played_devices, "TABLE", table)
    return table


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_images(tmp_path_factory.mktemp("images") / "data", 90, shards=3)


def final_model(run: Path) -> dict[str, Any]:
    directory = RunDirectory.open(str(run))
    spec = directory.spec()
    return spec.model(spec.trials[0]).layout.split(directory.final_models(spec)[0])


def train(data: str, run: Path, **changes: Any) -> Any:
    return driver.train(torch_config(data, run, **{"workers": 3, "runtime__device": "cpu", **changes}))


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"train__l2": 0.3},
    "momentum": {"train__optimizer_state": "average"},
    "nesterov": {"train__clip_norm": 0.5},
    "adam": {"train__lr": 0.003, "train__optimizer_state": "average"},
    "adamw": {"train__lr": 0.003, "train__weight_decay": 0.1},
    "rmsprop": {"train__lr": 0.001, "train__centered": True, "train__momentum": 0.5, "train__micro_batch": 5},
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_ends_where_it_does_on_the_cpu(
    data: str, tmp_path: Path, table: PlayedTable, optimizer: str
) -> None:
    # No convolutions: theirs are rounded by another order of their kernels, and some steps divide by small gradients.
    changes = {"factory": "torch-mlp", "train__optimizer": optimizer, "train__epochs": 2, **OPTIMIZERS[optimizer]}
    train(data, tmp_path / "cpu", **changes)
    assert not table.sent
    train(data, tmp_path / "device", **changes, **PLAYED)
    ours, theirs = final_model(tmp_path / "device"), final_model(tmp_path / "cpu")
    assert ours.keys() == theirs.keys() and table.sent
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-4, atol=2e-6, err_msg=name)


def test_norms_dropout_and_gradient_averages_are_those_of_the_cpu(
    data: str, tmp_path: Path, table: PlayedTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*, shape: tuple[int, ...], outputs: int) -> Any:
        flat = torch.nn.Flatten()
        layers = [torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Dropout(0.5), flat]
        return torch.nn.Sequential(*layers, torch.nn.Linear(4 * 36, outputs))

    monkeypatch.setitem(factories.ZOO, "drawn", f"{__name__}:build")
    monkeypatch.setitem(globals(), "build", build)
    monkeypatch.setattr(factories, "load_named", lambda reference: build)
    for name, changes in {
        "rounds": {},
        "batch": {"sync__mode": "collective", "sync__every": "batch", "train__optimizer": "momentum"},
    }.items():
        for where, device in {"cpu": {}, "device": PLAYED}.items():
            config = {"factory": "drawn", "train__class_weights": "balanced", "train__epochs": 2, **changes, **device}
            train(data, tmp_path / f"{name}-{where}", **config)
        ours, theirs = final_model(tmp_path / f"{name}-device"), final_model(tmp_path / f"{name}-cpu")
        assert "1.running_var" in theirs and theirs["1.num_batches_tracked"] > 0
        for array in theirs:
            np.testing.assert_allclose(ours[array], theirs[array], rtol=2e-4, atol=2e-6, err_msg=array)


def test_the_bits_are_the_same_in_rounds_and_collective_and_are_verified(
    data: str, tmp_path: Path, table: PlayedTable
) -> None:
    hashes = {
        name: train(data, tmp_path / name, train__optimizer="adam", train__lr=0.003, **changes, **PLAYED).model_sha256
        for name, changes in {"rounds": {}, "collective": {"sync__mode": "collective"}}.items()
    }
    assert len(set(hashes.values())) == 1
    directory = RunDirectory.open(str(tmp_path / "rounds"))
    line = LedgerLine.parse(directory.rounds(directory.spec()).log.ledger(1))
    assert [name.partition("-")[0] for name in line.numerics] == ["played"]
    assert verify(str(tmp_path / "rounds"), every=True).recomputed == [0, 1, 2]

    table.devices = 0
    found = verify(str(tmp_path / "rounds"))
    assert found.problems == [] and found.recomputed == []
    assert "other device: the run was computed on played" in found.notes[0]


def test_local_tasks_take_turns_on_the_devices_to_the_same_bits(
    data: str, tmp_path: Path, table: PlayedTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(played_devices.REGISTERS, "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(played_devices.__file__).parent))
    hashes = {
        train(data, tmp_path / runner, train__epochs=2, runtime__runner=runner, **PLAYED).model_sha256
        for runner in ("inline", "local")
    }
    assert len(hashes) == 1
    sent = {index for index, _ in table.sent}
    assert sent == {0}  # the inline runner's; local tasks' tables are their own


def test_rows_are_sent_while_a_step_computes_and_draws_are_seeded_by_the_step(
    data: str, tmp_path: Path, table: PlayedTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed, ahead = table.seed, []

    def seeding(index: int, value: int) -> None:
        """A step begins: it waits until the next batch is sent, too, or none comes any more."""
        seed(index, value)
        sent = 2 * (len(table.seeds) + 1)  # x and y of this and the next batch
        deadline = time.monotonic() + 1.0
        while len(table.sent) < sent and time.monotonic() < deadline:
            time.sleep(0.001)
        ahead.append(len(table.sent) >= sent)

    monkeypatch.setattr(table, "seed", seeding)
    train(data, tmp_path / "run", workers=1, train__epochs=1, train__epochs_per_round=1, **PLAYED)
    seeds = [value for _, value in table.seeds]
    assert len(set(seeds)) == len(seeds) > 2
    assert all(ahead[:-1])


def test_devices_are_dealt_to_workers_in_turn(table: PlayedTable) -> None:
    dealt = [deal_device("played", worker, one_for_all=False) for worker in range(4)]
    assert [device.name for device in dealt if device] == ["played:0", "played:1", "played:0", "played:1"]
    (shared, wanted) = deal_device("played", 1, one_for_all=True), deal_device("played:1", 2, one_for_all=True)
    assert shared and wanted and (shared.index, wanted.index) == (0, 1)
    assert deal_device("cpu", 1, one_for_all=False) is None
    with pytest.raises(JobError, match=r"there is no played:2 on .*: it has 2 of that kind"):
        deal_device("played:2", 0, one_for_all=False)
    table.devices = 0
    with pytest.raises(JobError, match="there is no played on"):
        deal_device("played", 0, one_for_all=True)


def test_a_device_that_is_not_there_is_refused_before_the_first_round(
    data: str, tmp_path: Path, table: PlayedTable
) -> None:
    table.devices = 1
    with pytest.raises(JobError, match=r"there is no played:1 on .*: it has 1") as refused:
        train(data, tmp_path / "run", runtime__device="played:1")
    assert refused.value.exit_code == 4
    assert not (tmp_path / "run" / "rounds").exists()


def test_auto_is_resolved_and_recorded(
    data: str, tmp_path: Path, table: PlayedTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nnlib.config.devices.DEVICES", {"played": played_devices.LINE})
    for module in ("jobs.driver.device", "nnlib.torch.devices", "nnlib.config.identity"):
        monkeypatch.setattr(f"{module}.DEVICES", {"played": played_devices.LINE})
    config = torch_config(data, None)
    assert config.runtime.device == "auto" and with_device(config).runtime.device == "played"
    remote = torch_config(data, None, runtime__runner="hadoop")
    assert with_device(remote).runtime.device == "cpu"
    asked = torch_config(data, None, runtime__runner="hadoop", runtime__hadoop__gpus=1)
    assert with_device(asked).runtime.device == "played"
    table.devices = 0
    assert with_device(config).runtime.device == "cpu"
    mlp = Config.model_validate({"data": {"path": data}})
    table.devices = 2
    assert with_device(mlp).runtime.device == "cpu"


def test_a_group_larger_than_its_devices_is_refused(data: str, table: PlayedTable) -> None:
    settings: dict[str, Any] = {"sync__mode": "collective", "runtime__runner": "local", "workers": 4, **PLAYED}
    with pytest.raises(ConfigError, match="all 4 workers of a collective job compute at once, but 2 devices with 1"):
        with_device(torch_config(data, None, **settings))
    assert with_device(torch_config(data, None, **settings, runtime__workers_per_gpu=2))


def test_numpy_models_are_the_cpus(data: str) -> None:
    with pytest.raises(ValueError, match=r"runtime\.device: cuda is not for model\.kind: mlp: the CPU computes it"):
        Config.model_validate({"data": {"path": data}, "runtime": {"device": "cuda"}})
    with pytest.raises(ValueError, match=r"runtime\.hadoop\.gpus is 2, but the CPU computes the model"):
        Config.model_validate({"data": {"path": data}, "runtime": {"hadoop": {"gpus": 2}}})
    with pytest.raises(ValueError, match=r"there is no device 'gpu'; there are auto, cpu, cuda, mps, and cuda:N"):
        Config.model_validate({"data": {"path": data}, "runtime": {"device": "gpu"}})
    assert parse_device("cuda:3") == ("cuda", 3) and parse_device("mps") == ("mps", None)
    for wrong in ("cuda:", "cuda:-1", "cuda:x", "cpu:0", "auto:1", "cuda:99999"):
        with pytest.raises(ValueError, match=r"device|number"):
            parse_device(wrong)


def test_too_little_memory_is_one_line_with_what_fits(data: str, tmp_path: Path, table: PlayedTable) -> None:
    table.largest = 7 * 64 * 4  # seven images of 8 x 8
    with pytest.raises(JobError, match=r"played:0 \(played device\) has 8 MB and is out of memory") as short:
        train(data, tmp_path / "run", train__batch_size=16, split__train=1.0, **PLAYED)
    assert "in a step of 16 rows at once; 4 fit (they take 3 MB)" in short.value.message
    assert "train.micro_batch to 4" in str(short.value.hint) and short.value.exit_code == 4
    assert "\n" not in short.value.message
    table.largest = 10
    with pytest.raises(JobError, match="not even a step of one row fits"):
        train(data, tmp_path / "other", train__batch_size=16, split__train=1.0, **PLAYED)


def test_an_operation_whose_bits_do_not_repeat_is_named(
    data: str, tmp_path: Path, table: PlayedTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Scattered(torch.nn.Module):  # type: ignore[misc,name-defined,unused-ignore]
        def __init__(self, outputs: int) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(64, outputs)

        def forward(self, x: Any) -> Any:
            flat = x.flatten(1)
            places = torch.zeros(1, dtype=torch.int64, device=flat.device)
            spread = torch.zeros_like(flat).put_(places, flat.reshape(-1)[:1].detach(), accumulate=False)
            return self.linear(flat + spread)

    monkeypatch.setattr(factories, "load_named", lambda reference: lambda *, shape, outputs: Scattered(outputs))
    with pytest.raises(ConfigError, match=r"on played put_ gives other bits every time") as refused:
        train(data, tmp_path / "run", **PLAYED)
    assert "runtime.numerics to loose" in str(refused.value.hint)
    train(data, tmp_path / "loose", train__epochs=1, runtime__numerics="loose", **PLAYED)
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_run_goes_on_with_another_device_only_where_bits_may_differ(
    data: str, tmp_path: Path, table: PlayedTable
) -> None:
    run = tmp_path / "run"
    train(data, run, train__epochs=2, **PLAYED)
    more = torch_config(data, run, workers=3, train__epochs=4)
    elsewhere = torch_config(data, run, workers=3, train__epochs=4, runtime__device="cpu")
    with pytest.raises(ConfigError, match=r"runtime\.device was played, is cpu: it computes other bits"):
        driver.train(elsewhere, resume=True)
    driver.train(more, resume=True)  # auto: as it was
    assert RunDirectory.open(str(run)).spec().config.runtime.device == "played"
    loose = torch_config(data, run, workers=3, train__epochs=6, runtime__device="cpu", runtime__numerics="loose")
    driver.train(loose, resume=True)
    assert RunDirectory.open(str(run)).spec().config.runtime.device == "cpu"
    found = verify(str(run))
    assert found.problems == [] and "other kernel" in found.notes[0]


def test_no_process_forks_that_has_used_a_device(table: PlayedTable) -> None:
    device = deal_device("played", 0, one_for_all=True)
    assert device is not None
    if (child := forks.fork()) == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    device.send(np.zeros(3, np.float32))
    with pytest.raises(JobError, match="this process has used a played device, so it must not fork"):
        forks.fork()
