"""Local conjugate gradients (400-25-10, sigmoids, 3150 rows) against the same scipy CG over a plain float64 numpy loss.

    python tests/benchmarks/conjugate_gradient.py

Both do rounds of 5 iterations from the same weights on the same rows, in turns; the time of an iteration counts, and
the evaluations of the objective it took are recorded beside it.
"""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # read when numpy loads

import statistics  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
from scipy.optimize import minimize  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))
from record import record  # noqa: E402

from nnlib.config.schema import Config  # noqa: E402
from nnlib.core.layout import ModelState  # noqa: E402
from nnlib.data.dataset import Dataset  # noqa: E402
from nnlib.data.importing.import_dataset import import_dataset  # noqa: E402
from nnlib.data.importing.import_options import ImportOptions  # noqa: E402
from nnlib.data.worker_data import WorkerData  # noqa: E402
from nnlib.run.planner import make_spec  # noqa: E402
from nnlib.run.spec import initial_vector  # noqa: E402
from nnlib.training.local_result import RoundStart  # noqa: E402
from nnlib.training.local_training import local_training  # noqa: E402
from nnlib.training.worker_trial import WorkerTrial  # noqa: E402

LAMBDA, HIDDEN, ITERATIONS, ROUNDS, REPEATS = 0.6987, 25, 5, 12, 5
TARGET = 0.7


def settings(path: str) -> Config:
    return Config.model_validate(
        {
            "data": {"path": path},
            "split": {"train": 0.63},  # 3150 rows: what a 90 % sample of 3500 leaves
            "model": {"hidden": [HIDDEN], "activation": "sigmoid", "output": "sigmoid", "init": "normal"},
            "train": {
                "optimizer": "cg",
                "l2": LAMBDA,
                "epochs": ITERATIONS * ROUNDS,
                "epochs_per_round": ITERATIONS,
            },
        }
    )


def plain_loss(x: Any, targets: Any) -> Any:
    """The objective as a careful reader would write it: float64, bias columns, allocating freely."""
    rows, inputs = x.shape
    cut = inputs * HIDDEN

    def loss(point: Any) -> tuple[float, Any]:
        first = point[:cut].reshape(inputs, HIDDEN)
        first_bias = point[cut : cut + HIDDEN]
        second = point[cut + HIDDEN : cut + HIDDEN + HIDDEN * 10].reshape(HIDDEN, 10)
        second_bias = point[cut + HIDDEN + HIDDEN * 10 :]
        hidden = 1.0 / (1.0 + np.exp(-(x @ first + first_bias)))
        output = 1.0 / (1.0 + np.exp(-(hidden @ second + second_bias)))
        clipped = np.clip(output, 1e-12, 1.0 - 1e-12)
        value = -np.sum(targets * np.log(clipped) + (1.0 - targets) * np.log(1.0 - clipped)) / rows
        value += LAMBDA / (2 * rows) * (np.sum(first * first) + np.sum(second * second))
        delta = (output - targets) / rows
        back = (delta @ second.T) * hidden * (1.0 - hidden)
        gradient = np.concatenate(
            [
                (x.T @ back + LAMBDA / rows * first).ravel(),
                back.sum(axis=0),
                (hidden.T @ delta + LAMBDA / rows * second).ravel(),
                delta.sum(axis=0),
            ]
        )
        return float(value), gradient

    return loss


def measure() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/digits"
        import_dataset(["digits"], path, ImportOptions(shards=1))
        spec, _ = make_spec(settings(path), Dataset.open(path))
        trial = spec.trials[0]
        data = WorkerData(spec.dataset, (0,), (0,), memory_bytes=1 << 28).trial(trial.rule, None, "float32")
        chunks = [(batch.x.copy(), batch.y.copy()) for batch in data.sample().chunks()]
        x = np.concatenate([own for own, _ in chunks]).astype(np.float64)
        y = np.concatenate([own for _, own in chunks])
        start = initial_vector(spec, trial)
        ours, theirs, values = [], [], []
        for _ in range(REPEATS):
            began = time.perf_counter()
            flow = local_training(
                WorkerTrial(spec, trial, 0, data), RoundStart(ModelState(start), 0, range(ITERATIONS))
            )
            result, evaluations = next(flow), 0
            for round_ in range(1, ROUNDS):
                evaluations += result.evaluations
                epochs = range(round_ * ITERATIONS, (round_ + 1) * ITERATIONS)
                result = flow.send(RoundStart(ModelState(result.partial.weights), round_, epochs))
            ours.append((time.perf_counter() - began) / (ITERATIONS * ROUNDS))
            evaluations += result.evaluations

            loss, point, calls = plain_loss(x, np.eye(10)[y]), start.astype(np.float64), 0
            began = time.perf_counter()
            for _ in range(ROUNDS):
                found = minimize(loss, point, jac=True, method="CG", options={"maxiter": ITERATIONS, "gtol": 0.0})
                point, calls = found.x, calls + found.nfev
            theirs.append((time.perf_counter() - began) / (ITERATIONS * ROUNDS))
            values.append((result.losses[-1], float(found.fun)))
        ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
        return {
            "rows": len(x),
            "ours_ms": [round(1e3 * seconds, 3) for seconds in ours],
            "plain_ms": [round(1e3 * seconds, 3) for seconds in theirs],
            "ours_evaluations": evaluations,
            "plain_evaluations": calls,
            "objective": {"ours": values[-1][0], "plain": values[-1][1]},
            "ratios": [round(ratio, 3) for ratio in ratios],
            "ratio": round(statistics.median(ratios), 3),
            "target": TARGET,
            "holds": statistics.median(ratios) <= TARGET,
        }


if __name__ == "__main__":
    result = measure()
    print(result)
    print(record("conjugate_gradient", result))
