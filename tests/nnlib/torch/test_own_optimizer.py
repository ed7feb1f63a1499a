"""torch's own optimizers on flat vectors: the bits of torch's plain loop, and a state that can be kept and restored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from images import torch_config, write_images

torch = pytest.importorskip("torch")

from jobs.driver import driver  # noqa: E402
from nnlib.config.kinds import TORCH_OPTIMIZERS  # noqa: E402
from nnlib.config.training import train_section  # noqa: E402
from nnlib.core.entries import parameter  # noqa: E402
from nnlib.core.errors import ConfigError  # noqa: E402
from nnlib.core.layout import Layout  # noqa: E402
from nnlib.optim import build_optimizer  # noqa: E402

LAYOUT = Layout.build([parameter("w", (3, 2), decays=True), parameter("b", (2,), decays=False)], "float32")
OPTIONS: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9, "dampening": 0.1, "weight_decay": 0.01},
    "Adam": {"betas": [0.8, 0.95], "amsgrad": True},
    "AdamW": {"weight_decay": 0.1},
}
STEPS = 6


def optimizer_of(name: str, **keys: Any) -> Any:
    options = OPTIONS.get(name, {})
    return build_optimizer(train_section(optimizer=f"torch:{name}", options=options, **keys), LAYOUT)


def gradients() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.normal(size=LAYOUT.size).astype(np.float32) for _ in range(STEPS)]


def rate(step: int) -> float:
    return 0.1 / (step + 1)


def plain_loop(name: str) -> np.ndarray:
    """The same by torch alone: only matrices decay."""
    start = np.linspace(-1.0, 1.0, LAYOUT.size).astype(np.float32)
    weights = [torch.nn.Parameter(torch.tensor(view)) for view in LAYOUT.views(start).values()]
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in OPTIONS.get(name, {}).items()}
    groups = [{"params": weights[:1]}, {"params": weights[1:], "weight_decay": 0.0}]
    optimizer = getattr(torch.optim, name)(groups, lr=rate(0), foreach=False, **options)
    for step, gradient in enumerate(gradients()):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        for weight, view in zip(weights, LAYOUT.views(gradient).values(), strict=True):
            weight.grad = torch.tensor(view)
        optimizer.step()
    return np.concatenate([weight.detach().numpy().reshape(-1) for weight in weights])


@pytest.mark.parametrize("name", TORCH_OPTIMIZERS)
def test_steps_have_the_bits_of_a_plain_loop(name: str) -> None:
    """Also where another process goes on from the state in the middle."""
    flat = np.linspace(-1.0, 1.0, LAYOUT.size).astype(np.float32)
    optimizer = optimizer_of(name)
    assert sum(entry.size for entry in optimizer.state_arrays) == optimizer.state.size
    for step, gradient in enumerate(gradients()):
        if step == STEPS // 2:
            state, flat, optimizer = optimizer.state.copy(), flat.copy(), optimizer_of(name)
            optimizer.state[:] = state
        optimizer.step(flat, gradient, rate(step), 0.0)
    assert np.array_equal(flat, plain_loop(name))


@pytest.mark.parametrize("name", ["SGD", "NAdam", "Rprop"])
def test_a_reset_starts_afresh(name: str) -> None:
    first, again = (np.ones(LAYOUT.size, np.float32) for _ in range(2))
    optimizer = optimizer_of(name)
    optimizer.step(first, gradients()[0], 0.1, 0.0)
    optimizer.step(first.copy(), gradients()[1], 0.1, 0.0)
    optimizer.reset()
    optimizer.step(again, gradients()[0], 0.1, 0.0)
    assert np.array_equal(first, again)


def test_the_l2_term_and_the_options_count_matrices() -> None:
    flat = np.ones(LAYOUT.size, np.float32)
    optimizer_of("SGD").step(flat, np.zeros(LAYOUT.size, np.float32), 1.0, 0.5)
    assert flat.tolist() == pytest.approx([1.0 - (0.5 + 0.01)] * 6 + [1.0] * 2)
    flat = np.ones(LAYOUT.size, np.float32)
    optimizer_of("SGD", decay="all").step(flat, np.zeros(LAYOUT.size, np.float32), 1.0, 0.5)
    assert flat.tolist() == pytest.approx([1.0 - (0.5 + 0.01)] * 8)


@pytest.mark.parametrize("options", [{"beta": 0.9}, {"lr": 1.0}, {"betas": [2.0, 0.9]}])
def test_options_that_torch_does_not_take(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="options"):
        build_optimizer(train_section(optimizer="torch:Adam", options=options), LAYOUT)


def test_runs_keep_and_average_its_state(tmp_path: Path) -> None:
    """A state that is kept is that of one worker's longer rounds; kept or averaged, a resumed run has the same bits."""
    dataset = write_images(tmp_path / "data", 60, shards=2)
    common: dict[str, Any] = {"train__optimizer": "torch:AdamW", "train__lr": 0.01, "sync__mode": "collective"}

    def sha(name: str, **changes: Any) -> str:
        keys = {**common, "workers": 2, "checkpoint__every": 1, **changes}
        return str(driver.train(torch_config(dataset, tmp_path / name, "simple-nn", **keys)).model_sha256)

    alone = {"workers": 1, "train__optimizer_state": "keep"}
    short = sha("short rounds", **alone, train__epochs_per_round=1)
    assert short == sha("one round", **alone, train__epochs_per_round=4)
    for state in ("keep", "average"):
        whole = sha(f"{state} whole", train__optimizer_state=state)
        sha(f"{state} half", train__optimizer_state=state, train__epochs=2)
        half = torch_config(
            dataset, tmp_path / f"{state} half", "simple-nn",
            **common, workers=2, checkpoint__every=1, train__optimizer_state=state,
        )  # fmt: skip
        assert driver.train(half, resume=True).model_sha256 == whole
