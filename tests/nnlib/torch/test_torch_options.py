"""Training options of torch models, each against a plain torch loop over the same batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from collective_experiment import substance
from images import torch_config, write_images
from shards import write_dataset

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from jobs.driver import driver  # noqa: E402
from nnlib.config.schema import Config  # noqa: E402
from nnlib.run.directory import RunDirectory  # noqa: E402
from nnlib.run.spec import assign_shards, initial_vector  # noqa: E402
from nnlib.torch.zoo.mlp import build_mlp  # noqa: E402
from nnlib.torch.zoo.simple import SimpleCNN  # noqa: E402
from nnlib.training.worker_round import worker_data  # noqa: E402
from nnlib.training.worker_trial import WorkerTrial  # noqa: E402

Step = Callable[[Any, Any, Any, int, int], None]
"""A plain step: module, optimizer, batch, number of the step in the run, steps of an epoch."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_images(tmp_path_factory.mktemp("images") / "set", 90, shards=2)


class PlainSGD:
    """w -= lr g, without the fused multiply-add of torch.optim.SGD, which rounds once less."""

    def __init__(self, module: nn.Module) -> None:
        self.parameters, self.rate = list(module.parameters()), 0.05

    def zero_grad(self) -> None:
        for tensor in self.parameters:
            tensor.grad = None

    def step(self) -> None:
        with torch.no_grad():
            for tensor in self.parameters:
                assert tensor.grad is not None
                tensor.sub_(self.rate * tensor.grad)


def pixels(batch: Any) -> Any:
    return torch.tensor(batch.x).reshape(-1, 1, 8, 8)


def trained_and_plain(
    settings: Config, module: nn.Module, optimizer_of: Callable[[nn.Module], Any], step_of: Step
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays of a run of one worker, and those of a loop of ``step_of`` over its batches. As in the run, a round of
    two epochs begins with a fresh optimizer."""
    driver.train(settings)
    run = RunDirectory.open(str(settings.run_dir))
    spec = run.spec()
    trial = spec.trials[0]
    layout = spec.model(trial).layout
    (trained,) = run.final_models(spec)
    for name, view in layout.views(initial_vector(spec, trial)).items():
        module.get_parameter(name).data.copy_(torch.tensor(view))
    module.train()
    (plan,) = assign_shards([shard.rows for shard in spec.dataset.shards], 1)
    done = 0
    with worker_data(spec, plan) as data:
        work = WorkerTrial.of(spec, trial, 0, data)
        for start in range(0, settings.train.epochs, 2):
            optimizer, batches = optimizer_of(module), work.draw_batches(start)
            for epoch in (start, start + 1):
                for batch in batches.epoch(epoch):
                    optimizer.zero_grad()
                    step_of(module, optimizer, batch, done, batches.steps)
                    done += 1
    expected = {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}
    return layout.split(trained), expected


def smoothed(module: Any, optimizer: Any, batch: Any, done: int, steps: int) -> None:
    functional.cross_entropy(module(pixels(batch)), torch.tensor(batch.y), label_smoothing=0.2).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def accumulated(module: Any, optimizer: Any, batch: Any, done: int, steps: int) -> None:
    """Parts of 5 rows of 16, the last of 1 (and at an epoch's end of fewer): all divided by the rows of the step."""
    x, y = pixels(batch), torch.tensor(batch.y)
    for part in range(0, len(y), 5):
        losses = functional.cross_entropy(module(x[part : part + 5]), y[part : part + 5], reduction="none")
        (losses.sum() / len(y)).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def rounded(module: Any, optimizer: Any, batch: Any, done: int, steps: int) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        z = module(pixels(batch))
    assert z.dtype == torch.bfloat16
    functional.cross_entropy(z.float(), torch.tensor(batch.y)).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def warmed_up(module: Any, optimizer: Any, batch: Any, done: int, steps: int) -> None:
    warmup = 5
    rate = 0.05 * (done + 1) / (warmup + 1) if done < warmup else 0.05 * 0.5 ** ((done - warmup) / steps)
    optimizer.rate = rate
    functional.cross_entropy(module(pixels(batch)), torch.tensor(batch.y)).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


EXACT: dict[str, tuple[dict[str, Any], Step]] = {
    "smoothed labels": ({"label_smoothing": 0.2}, smoothed),
    "micro-batches": ({"micro_batch": 5}, accumulated),
    "bfloat16": ({"precision": "bfloat16"}, rounded),
    "by step": ({"schedule": {"kind": "exponential", "gamma": 0.5, "by": "step", "warmup_steps": 5}}, warmed_up),
}


@pytest.mark.parametrize("name", EXACT)
def test_an_option_is_a_plain_loops_bit_for_bit(images: str, tmp_path: Path, name: str) -> None:
    train, step = EXACT[name]
    changes = {f"train__{key}": value for key, value in train.items()}
    settings = torch_config(images, tmp_path / "run", workers=1, **changes)
    arrays, expected = trained_and_plain(settings, SimpleCNN(1, 8, 8, 3), PlainSGD, step)
    for array_name, array in arrays.items():
        assert np.array_equal(array, expected[array_name]), array_name


def test_clipping_weight_decay_and_adamw_are_torchs_up_to_rounding(images: str, tmp_path: Path) -> None:
    """AdamW's decay of weights alone, the L2 term of the loss behind the clipping."""
    changes: dict[str, Any] = {
        "optimizer": "adamw",
        "lr": 0.01,
        "weight_decay": 0.3,
        "clip_norm": 0.5,
        "epsilon": 1e-4,
        "l2": 0.8,
    }
    changes = {f"train__{key}": value for key, value in changes.items()}
    settings = torch_config(images, tmp_path / "run", workers=1, **changes)

    def optimizer_of(module: nn.Module) -> Any:
        weights = [tensor for tensor in module.parameters() if tensor.ndim >= 2]
        biases = [tensor for tensor in module.parameters() if tensor.ndim < 2]
        groups = [{"params": weights, "weight_decay": 0.3}, {"params": biases, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=0.01, eps=1e-4)

    def step_of(module: Any, optimizer: Any, batch: Any, done: int, steps: int) -> None:
        functional.cross_entropy(module(pixels(batch)), torch.tensor(batch.y)).backward()  # type: ignore[no-untyped-call]
        norms.append(float(torch.nn.utils.clip_grad_norm_(module.parameters(), 0.5)))
        with torch.no_grad():
            for tensor in optimizer.param_groups[0]["params"]:
                tensor.grad += 0.8 / rows * tensor
        optimizer.step()

    rows, norms = 63, list[float]()
    arrays, expected = trained_and_plain(settings, SimpleCNN(1, 8, 8, 3), optimizer_of, step_of)
    assert RunDirectory.open(str(tmp_path / "run")).spec().trials[0].objective_rows == rows
    assert min(norms) < 0.5 < max(norms)
    for name, array in arrays.items():
        np.testing.assert_allclose(array, expected[name], rtol=2e-3, atol=2e-5, err_msg=name)


def test_hubers_loss_of_numeric_targets(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(80, 5)).astype(np.float32)
    y = x @ rng.normal(size=5) + rng.standard_t(1.5, size=80)
    write_dataset(tmp_path / "data", x, y, shards=2)
    settings = torch_config(
        str(tmp_path / "data"),
        tmp_path / "run",
        "torch-mlp",
        workers=1,
        data__target_scale="none",
        train__loss="huber",
        train__huber_delta=0.5,
    )

    def step_of(module: Any, optimizer: Any, batch: Any, done: int, steps: int) -> None:
        z = module(torch.tensor(batch.x))[:, 0]
        functional.huber_loss(z, torch.tensor(batch.y).float(), delta=0.5).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    module = build_mlp(shape=(5,), outputs=1)
    arrays, expected = trained_and_plain(settings, module, PlainSGD, step_of)
    for name, array in arrays.items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_averaged_gradients_are_clipped_and_micro_batches_add_up(images: str, tmp_path: Path) -> None:
    """`sync.every: batch` over two workers of the same rows takes the steps of one worker."""
    found = []
    for workers, micro_batch in ((1, None), (2, None), (2, 3)):
        run = tmp_path / f"{workers}-{micro_batch}"
        changes: dict[str, Any] = {"train__clip_norm": 0.2, "train__micro_batch": micro_batch, "workers": workers}
        changes |= {"sampling__streams": "shared", "sync": {"mode": "collective", "every": "batch"}}
        driver.train(torch_config(images, run, **changes))
        (model,) = RunDirectory.open(str(run)).final_models(RunDirectory.open(str(run)).spec())
        found.append(model.vector)
    for each in found[1:]:
        np.testing.assert_allclose(each, found[0], rtol=1e-3, atol=1e-5)


def test_kept_optimizers_go_on_after_a_stop(images: str, tmp_path: Path) -> None:
    keys: dict[str, Any] = {"train__optimizer": "adam", "train__lr": 0.01, "train__optimizer_state": "keep"}
    keys |= {"sync": {"mode": "collective", "overlap": 1, "overlap_drain": 2}, "workers": 2}
    driver.train(torch_config(images, tmp_path / "whole", **keys, train__epochs=8))
    for epochs in (4, 8):
        driver.train(torch_config(images, tmp_path / "run", **keys, train__epochs=epochs), resume=True)
    assert substance(tmp_path / "run") == substance(tmp_path / "whole")


def test_a_float64_model_refuses_bfloat16(images: str) -> None:
    with pytest.raises(ValueError, match=r"train\.precision: bfloat16 needs model\.dtype: float32"):
        torch_config(images, None, train__precision="bfloat16", model__dtype="float64")
