"""Accuracy of the convolutional nets, by one worker and by four.

    python tests/benchmarks/torch_accuracy.py [--splits N] [--epochs N] [digits] [fashion] [resnet]

digits: `configs/cnn.yaml` on 3,500 of 5,000 digits of 28 x 28, tested on the others. fashion: three epochs of 60,000
images of Fashion-MNIST, tested on its 10,000, with two seeds. resnet: `resnet-small` on the digits, half the epochs.
One worker takes steps of as many rows as four together. Seeds and kernels alone decide the numbers.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from children import ROOT, nnjobs
from record import record

CNN = ROOT / "configs" / "cnn.yaml"
FASHION = ROOT / "configs" / "fashion.yaml"
LOSES = 1.0
FASHION_LOSES = 0.7


class Experiment(NamedTuple):
    """A configuration and what four workers and one set in it; ``least``: the accuracy that one worker must reach."""

    config: Path
    source: str
    common: tuple[str, ...]
    one: tuple[str, ...]
    seeds: tuple[int, ...]
    least: float
    loses: float


def experiments(splits: int, epochs: int) -> dict[str, Experiment]:
    many = f"split.seeds={list(range(splits))}"
    one = ("workers=1", "train.batch_size=32")
    return {
        "digits": Experiment(CNN, "digits28", (many, f"train.epochs={epochs}"), one, (0,), 0.967, LOSES),
        "fashion": Experiment(
            FASHION, "fashion-mnist", (), ("workers=1", "train.batch_size=16"), (0, 1), 0.90, FASHION_LOSES
        ),
        "resnet": Experiment(
            CNN,
            "digits28",
            (many, "model.factory=resnet-small", f"train.epochs={max(1, epochs // 2)}", "train.batch_size=16"),
            one,
            (0,),
            0.0,
            LOSES,
        ),
    }


def accuracy(experiment: Experiment, settings: Sequence[str], folder: Path) -> float:
    """Train and return the mean accuracy over the test rows of all splits."""
    run = tempfile.mkdtemp(dir=folder)
    chosen = [f"data.path={folder / experiment.source}", *experiment.common, *settings]
    flags = [part for setting in chosen for part in ("--set", setting)]
    done = nnjobs("train", experiment.config, *flags, "--run-dir", f"{run}/run", "--json", folder=folder)
    return float(done.result["test_accuracy"])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="digits, fashion, resnet; none: all")
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args(arguments)
    known = experiments(options.splits, options.epochs)
    held = True
    found: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for key in options.names or known:
            experiment = known[key]
            if not (folder / experiment.source).exists():
                nnjobs("data", "import", experiment.source, "-o", experiment.source, "--shards", "8", folder=folder)
            ones, fours = [], []
            for seed in experiment.seeds:
                ones.append(accuracy(experiment, [*experiment.one, f"seed={seed}"], folder))
                fours.append(accuracy(experiment, [f"seed={seed}"], folder))
            points = max(100 * (one - four) for one, four in zip(ones, fours, strict=True))
            is_held = min(ones) >= experiment.least and points <= experiment.loses
            held = held and is_held
            found[key] = {"one": ones, "four": fours, "loses_points": round(points, 2), "held": is_held}
    print(record("torch_accuracy", {**found, "held": held}).read_text("utf-8"))
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
