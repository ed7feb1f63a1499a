"""Does training in sub-nets ever win? One wide net, the digits, in several ways of the same epochs: accuracy and work.

    python tests/benchmarks/splitting_ways.py [--splits N] [--epochs N] [--width N] [--folder DIR]

A net of two hidden layers trains whole; on divided data, averaged every epoch; in two sub-nets that alternate every
epoch; in two and four sub-nets that exchange nothing and become an ensemble at the end. As a control, a net as wide as
one sub-net trains alone. Processor seconds of an epoch are those of one worker's training, measured alone: they
hold on a busy machine, too. What an exchange takes is not in them. Runs that are finished in ``--folder`` are not
repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # read when the libraries load, so before their imports

import numpy as np  # noqa: E402
from record import record  # noqa: E402

from jobs.__main__ import main as nnjobs  # noqa: E402
from jobs.driver import driver  # noqa: E402
from nnlib.config.schema import Config  # noqa: E402
from nnlib.config.sweep import applied  # noqa: E402
from nnlib.models.mlp import MLP  # noqa: E402
from nnlib.run.directory import RunDirectory  # noqa: E402
from nnlib.run.metrics_view import metrics_lines  # noqa: E402

FEATURES, CLASSES, ROWS, BATCH = 400, 10, 3500, 64


@dataclass(frozen=True)
class Way:
    """A way of training: its keys (dotted), the width of what one worker trains, the part of the rows it sees."""

    workers: int
    width: int
    part: float
    keys: dict[str, Any] = field(default_factory=dict)


def ways(width: int, epochs: int) -> dict[str, Way]:
    """All ways by name."""

    def subnets(groups: int, **options: Any) -> dict[str, Any]:
        layer = "".join(letter * (width // groups) for letter in "abcd"[:groups])
        return {"train.subnets": {"partition": f"{layer}-{layer}", "rescale": True, **options}}

    once = {"train.epochs_per_round": epochs}
    ensemble = {"alternate": "none", "between": "zero"}
    return {
        "whole": Way(1, width, 1.0),
        "divided data, 2 workers": Way(2, width, 0.5, {"sampling.streams": "independent"}),
        "2 sub-nets, alternating": Way(2, width // 2, 1.0, subnets(2, alternate="rounds")),
        "2 sub-nets, no exchange": Way(2, width // 2, 1.0, {**subnets(2, **ensemble), **once}),
        "4 sub-nets, no exchange": Way(4, width // 4, 1.0, {**subnets(4, **ensemble), **once}),
        "divided data, 4 workers": Way(4, width, 0.25, {"sampling.streams": "independent"}),
        "a net of half the width": Way(1, width // 2, 1.0, {"model.hidden": [width // 2] * 2}),
        "a net of a quarter of the width": Way(1, width // 4, 1.0, {"model.hidden": [width // 4] * 2}),
    }


def accuracies(way: Way, name: str, folder: Path, splits: int, epochs: int, width: int) -> dict[int, list[float]]:
    """Train in a way, or read what it gave: epoch -> test accuracy of each split."""
    values: dict[str, Any] = {
        "name": "ways",
        "data": {"path": str(folder / "digits")},
        "run_dir": str(folder / name.replace(" ", "-").replace(",", "")),
        "workers": way.workers,
        "model": {"hidden": [width, width]},
        "split": {"train": 0.7, "seeds": list(range(splits))},
        "train": {"lr": 0.02, "momentum": 0.9, "batch_size": BATCH, "epochs": epochs, "epochs_per_round": 1},
        "sampling": {"streams": "shared"},
    }
    config = Config.model_validate(applied(values, way.keys))
    driver.train(config, resume=True)
    run = RunDirectory.open(str(config.run_dir))
    store, found = run.rounds(run.spec()), dict[int, list[float]]()
    for line in metrics_lines(store, store.rounds(), run.final()):
        if line.scores is not None and line.epoch:
            found.setdefault(line.epoch, []).append(float(line.scores.test.value("accuracy") or 0.0))
    return found


def epoch_seconds(width: int, rows: int, repeats: int = 7) -> float:
    """Processor seconds of an epoch of one net's training by momentum: the least of several."""
    rng = np.random.default_rng(0)
    x, y = rng.random((rows, FEATURES), np.float32), rng.integers(0, CLASSES, rows)
    model = MLP([FEATURES, width, width, CLASSES], activation="relu", loss="softmax", init="he", dtype="float32")
    flat = model.initial(rng)
    gradient, velocity = np.zeros_like(flat), np.zeros_like(flat)
    bound, least = model.bind(flat, gradient, BATCH), float("inf")
    for _ in range(repeats):
        began = time.process_time()
        for start in range(0, rows, BATCH):
            bound.loss_and_gradient(x[start : start + BATCH], y[start : start + BATCH])
            velocity *= 0.9
            velocity -= 0.02 * gradient
            flat += velocity
        least = min(least, time.process_time() - began)
    return least


def measure(splits: int, epochs: int, width: int, folder: Path) -> dict[str, Any]:
    """All ways; each compared with the whole net at its end."""
    command = ["data", "import", "digits", "-o", str(folder / "digits"), "--shards", "8"]
    if not (folder / "digits").exists() and (code := nnjobs(command)):
        raise SystemExit(code)
    rows: dict[str, Any] = {}
    for name, way in ways(width, epochs).items():
        found = accuracies(way, name, folder, splits, epochs, width)
        rows[name] = {
            "workers": way.workers,
            "seconds_an_epoch": round(epoch_seconds(way.width, round(way.part * ROWS)), 4),
            "accuracy": {epoch: round(statistics.fmean(values), 5) for epoch, values in found.items()},
            "splits": found[epochs],
        }
    whole = rows["whole"]["accuracy"][epochs]
    for row in rows.values():
        row["seconds"] = round(epochs * row["seconds_an_epoch"], 3)
        row["to_whole"] = round(row["accuracy"][epochs] - whole, 5)
    best = rows["2 sub-nets, no exchange"]
    return {
        "splits": splits,
        "epochs": epochs,
        "width": width,
        "ways": rows,
        "load": round(os.getloadavg()[0], 2),
        "loss": round(-best["to_whole"], 5),
        "ratio": round(best["seconds"] / rows["whole"]["seconds"], 3),
        "held": best["to_whole"] >= 0.0 and best["seconds"] < rows["whole"]["seconds"],
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--folder", type=Path)
    chosen = parser.parse_args(arguments)
    with ExitStack() as stack:
        folder = chosen.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nnjobs-bench-")))
        result = measure(chosen.splits, chosen.epochs, chosen.width, folder)
    record("splitting_ways", result)
    print(json.dumps(result))
    return 0 if result["held"] else 1


if __name__ == "__main__":
    sys.exit(main())
