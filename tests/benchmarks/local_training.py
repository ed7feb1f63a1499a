"""Speed of local training on one thread: a small net against torch eager, a large one against numpy's own sgemm.

    python tests/benchmarks/local_training.py

Both sides of a ratio are measured in turns in this process, and each side's best time counts. All is repeated: every
ratio is recorded, the median decides, so a lucky run cannot stand for the rest.
"""

from __future__ import annotations

import os

THREADS = "1"
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ[_variable] = THREADS  # read when the libraries load, so before their imports

import itertools  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))
from record import record  # noqa: E402

from nnlib.config.training import model_section, train_section  # noqa: E402
from nnlib.core.layout import aligned_empty  # noqa: E402
from nnlib.models import build_model  # noqa: E402
from nnlib.models.mlp import MLP  # noqa: E402
from nnlib.optim import build_optimizer  # noqa: E402

SMALL, SMALL_ROWS, SMALL_BATCH = (400, 100, 10), 3_500, 64
LARGE, LARGE_ROWS, LARGE_BATCH = (784, 1_024, 1_024, 10), 5_120, 256
LR, MOMENTUM = 0.05, 0.9
GEMM = 2_048
REPEATS = 5
AT_LEAST = {"small_vs_torch": 2.0, "large_vs_sgemm": 0.85}

Epoch = Callable[[], object]


def data(widths: Sequence[int], rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.random((rows, widths[0]), dtype=np.float32)
    return x, rng.integers(0, widths[-1], rows), rng.permutation(rows)


def numpy_epoch(widths: Sequence[int], rows: int, batch: int) -> Epoch:
    """One epoch of SGD with momentum, gathering shuffled batches."""
    x, y, order = data(widths, rows)
    config = model_section(hidden=list(widths[1:-1]))
    model = build_model(config, shape=(widths[0],), outputs=widths[-1], task="classification")
    assert isinstance(model, MLP)
    flat = model.initial(np.random.default_rng(1))
    gradient = aligned_empty(flat.size, flat.dtype)
    bound = model.bind(flat, gradient, batch)
    optimizer = build_optimizer(train_section(optimizer="momentum", momentum=MOMENTUM), model.layout)
    assert not optimizer.minimizes
    x_rows = aligned_empty(batch * widths[0], np.float32).reshape(batch, widths[0])
    y_rows = np.empty(batch, y.dtype)

    def epoch() -> None:
        for start in range(0, rows, batch):
            chosen = order[start : start + batch]
            xs, ys = x_rows[: len(chosen)], y_rows[: len(chosen)]
            np.take(x, chosen, axis=0, out=xs, mode="clip")
            np.take(y, chosen, out=ys, mode="clip")
            bound.loss_and_gradient(xs, ys)
            optimizer.step(flat, gradient, LR, 0.0)

    return epoch


def torch_epoch(widths: Sequence[int], rows: int, batch: int) -> Epoch:
    """The same in torch eager."""
    torch.set_num_threads(int(THREADS))
    x, y, order = (torch.from_numpy(array) for array in data(widths, rows))
    layers: list[torch.nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.SGD(network.parameters(), lr=LR, momentum=MOMENTUM)
    loss = torch.nn.CrossEntropyLoss()

    def epoch() -> None:
        for start in range(0, rows, batch):
            chosen = order[start : start + batch]
            optimizer.zero_grad()
            loss(network(x[chosen]), y[chosen]).backward()
            optimizer.step()

    return epoch


def sgemm() -> Epoch:
    rng = np.random.default_rng(0)
    a, b = (rng.random((GEMM, GEMM), dtype=np.float32) for _ in range(2))
    out = np.empty_like(a)
    return lambda: np.matmul(a, b, out=out)


def best_seconds(first: Epoch, second: Epoch, *, turns: int, epochs: int = 1) -> tuple[float, float]:
    """The least seconds of an epoch of either, measured in turns of ``epochs`` after a burn-in of one turn each."""
    best = [float("inf"), float("inf")]
    for turn in range(turns + 1):
        for which, epoch in enumerate((first, second)):
            for _ in range(epochs):
                start = time.perf_counter()
                epoch()
                if turn:
                    best[which] = min(best[which], time.perf_counter() - start)
    return best[0], best[1]


def flops(widths: Sequence[int], rows: int) -> int:
    """Of the matrix products really done: forward, weight gradient, input gradient except the first layer's."""
    products = [inputs * outputs for inputs, outputs in itertools.pairwise(widths)]
    return rows * (6 * sum(products) - 2 * products[0])


def measure() -> dict[str, float]:
    """Both nets once: rates, and the two ratios."""
    small, eager = best_seconds(
        numpy_epoch(SMALL, SMALL_ROWS, SMALL_BATCH),
        torch_epoch(SMALL, SMALL_ROWS, SMALL_BATCH),
        turns=5,
        epochs=10,
    )
    large, gemm = best_seconds(numpy_epoch(LARGE, LARGE_ROWS, LARGE_BATCH), sgemm(), turns=8)
    rate, peak = flops(LARGE, LARGE_ROWS) / large, 2 * GEMM**3 / gemm
    return {
        "small_examples_per_second": round(SMALL_ROWS / small),
        "torch_examples_per_second": round(SMALL_ROWS / eager),
        "small_vs_torch": round(eager / small, 3),
        "large_examples_per_second": round(LARGE_ROWS / large),
        "large_gflop_per_second": round(rate / 1e9, 1),
        "sgemm_gflop_per_second": round(peak / 1e9, 1),
        "large_vs_sgemm": round(rate / peak, 3),
    }


def main() -> int:
    runs = [measure() for _ in range(REPEATS)]
    medians = {name: statistics.median(run[name] for run in runs) for name in AT_LEAST}
    held = all(medians[name] >= least for name, least in AT_LEAST.items())
    result: dict[str, Any] = {
        "small": {"net": SMALL, "batch": SMALL_BATCH, "rows": SMALL_ROWS, "torch": torch.__version__},
        "large": {"net": LARGE, "batch": LARGE_BATCH, "rows": LARGE_ROWS, "sgemm": GEMM},
        "load_average": os.getloadavg()[0],
        "runs": runs,
        "medians": medians,
        "at_least": AT_LEAST,
        "held": held,
    }
    print(record("local_training", result).read_text(encoding="utf-8"), end="")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
