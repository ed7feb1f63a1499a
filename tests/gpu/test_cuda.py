"""Runs on a real GPU: the bits repeat on every runner, and are the CPU's up to rounding."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from images import torch_config, write_images

torch = pytest.importorskip("torch")
if not torch.cuda.device_count():
    pytest.skip("tests/gpu: this machine has no GPU", allow_module_level=True)

from jobs.commands.devices import describe_devices  # noqa: E402
from jobs.driver import driver  # noqa: E402
from jobs.driver.verification import verify  # noqa: E402
from nnlib.core import forks  # noqa: E402
from nnlib.core.errors import ConfigError, JobError  # noqa: E402
from nnlib.run.directory import RunDirectory  # noqa: E402
from nnlib.torch import factories  # noqa: E402
from nnlib.torch.cuda import TABLE, WORKSPACE  # noqa: E402
from nnlib.torch.devices import deal_device  # noqa: E402

CUDA = {"runtime__device": "cuda"}
ADAM = {"train__optimizer": "adam", "train__lr": 0.003}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_images(tmp_path_factory.mktemp("images") / "data", 240, shards=4)


def train(data: str, run: Path, factory: str = "simple-cnn", **changes: Any) -> str:
    return str(driver.train(torch_config(data, run, factory, **{"workers": 2, **ADAM, **changes})).model_sha256)


def final_model(run: Path) -> dict[str, Any]:
    directory = RunDirectory.open(str(run))
    spec = directory.spec()
    return spec.model(spec.trials[0]).layout.split(directory.final_models(spec)[0])


@pytest.mark.parametrize("factory", ["simple-cnn", "resnet-small"])
def test_the_bits_are_the_same_on_every_runner_and_are_verified(data: str, tmp_path: Path, factory: str) -> None:
    together = {"sync__mode": "collective", "runtime__workers_per_gpu": 2}
    hashes = {
        "inline": train(data, tmp_path / "inline", factory, **CUDA),
        "again": train(data, tmp_path / "again", factory, **CUDA),
        "local": train(data, tmp_path / "local", factory, runtime__runner="local", **CUDA),
        "collective": train(data, tmp_path / "collective", factory, **together, **CUDA),
    }
    train(data, tmp_path / "resumed", factory, train__epochs=2, **CUDA)
    longer = torch_config(data, tmp_path / "resumed", factory, workers=2, **ADAM, **CUDA)
    hashes["resumed"] = str(driver.train(longer, resume=True).model_sha256)
    assert len(set(hashes.values())) == 1, hashes
    assert verify(str(tmp_path / "local"), every=True).problems == []


def test_it_ends_where_the_cpu_does(data: str, tmp_path: Path) -> None:
    for name in ("cuda", "cpu"):
        train(data, tmp_path / name, runtime__device=name, train__epochs=2)
    ours, theirs = final_model(tmp_path / "cuda"), final_model(tmp_path / "cpu")
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-2, atol=2e-4, err_msg=name)


def test_gradients_are_averaged_step_by_step(data: str, tmp_path: Path) -> None:
    steps: dict[str, Any] = {"sync__mode": "collective", "sync__every": "batch", "train__epochs": 2}
    hashes = {train(data, tmp_path / str(number), **steps, **CUDA) for number in range(2)}
    assert len(hashes) == 1


def test_settings_and_generators_are_given_back(data: str, tmp_path: Path) -> None:
    states = torch.cuda.get_rng_state(0), torch.default_generator.get_state()
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark
    train(data, tmp_path / "run", train__epochs=1, **CUDA)
    assert torch.equal(torch.cuda.get_rng_state(0), states[0])
    assert torch.equal(torch.default_generator.get_state(), states[1])
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark) == before
    assert not torch.are_deterministic_algorithms_enabled() and os.environ[WORKSPACE]


def test_what_is_sent_may_be_overwritten_at_once() -> None:
    device = deal_device("cuda:0", 0, one_for_all=True)
    assert device is not None
    array = np.arange(1 << 20, dtype=np.float32)
    sent = device.send(array)
    array[:] = -1.0
    assert torch.equal(sent.cpu(), torch.arange(1 << 20, dtype=torch.float32))


def test_too_little_memory_is_one_line_with_what_fits(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = TABLE.facts(0)
    eighth = (facts.free or 0) // 8

    class Wide(torch.nn.Module):  # type: ignore[misc,name-defined,unused-ignore]
        """Takes an eighth of the device for every row."""

        def __init__(self, outputs: int) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(64, outputs)

        def forward(self, x: Any) -> Any:
            flat = x.flatten(1)
            if flat.device.type == "cuda" and self.training:
                torch.empty(len(flat) * eighth, dtype=torch.uint8, device=flat.device)
            return self.linear(flat)

    monkeypatch.setattr(factories, "load_named", lambda reference: lambda *, shape, outputs: Wide(outputs))
    with pytest.raises(JobError, match=r"is out of memory in a step of 16 rows at once; 4 fit"):
        train(data, tmp_path / "run", workers=1, **CUDA)


def test_an_operation_whose_bits_do_not_repeat_is_named(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*, shape: tuple[int, ...], outputs: int) -> Any:
        pool = torch.nn.AdaptiveAvgPool2d(3)  # its backward adds in any order
        return torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), pool, torch.nn.Flatten(), torch.nn.Linear(36, outputs))

    monkeypatch.setattr(factories, "load_named", lambda reference: build)
    with pytest.raises(ConfigError, match=r"adaptive_avg_pool2d.*gives other bits every time"):
        train(data, tmp_path / "run", **CUDA)


def test_no_process_forks_that_has_used_a_gpu() -> None:
    TABLE.facts(0)
    with pytest.raises(JobError, match="has used a cuda device"):
        forks.fork()


def test_the_command_lists_it() -> None:
    found = describe_devices()
    assert found["auto"] == "cuda" and found["devices"][0]["device"] == "cuda:0"
    assert found["devices"][0]["memory_bytes"] > found["devices"][0]["free_bytes"] > 0


def test_an_epoch_is_about_as_quick_as_a_plain_loop(data: str, tmp_path: Path) -> None:
    """Not a measurement: only that nothing waits for the device at every step."""
    began = time.perf_counter()
    train(data, tmp_path / "run", workers=1, train__epochs=8, train__epochs_per_round=8, **CUDA)
    assert time.perf_counter() - began < 60
