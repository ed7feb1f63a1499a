"""Fixed periods against ``epochs_per_round: auto`` over ten splits: accuracy, rounds, and time by what a round costs.

    python tests/benchmarks/periods.py [--splits N] [--epochs N] [--periods N ...] [--costs C ...]

`configs/digits-8-workers.yaml`. Times are in epochs: training, and `cost` epochs for every round, simulated, since here
a round costs next to nothing. Each cost stands for a kind of cluster; auto is told it by ``sync.round_cost``.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from children import ROOT, nnjobs
from record import record

CONFIG = ROOT / "configs" / "digits-8-workers.yaml"
PERIODS = (1, 2, 5, 10, 20, 50)
COSTS = (0.3, 3.0, 30.0)
"""Of a round, in epochs: processes on one machine, a job on a busy cluster, a job that starts containers."""
LOSS_AT_MOST = 0.005
"""Mean accuracy that auto may lose against the best fixed period that takes no longer."""


def trained(settings: list[str], data: Path, splits: int, epochs: int, run: Path) -> dict[str, Any]:
    """Test accuracy of each split, and the epochs of each round."""
    settings = [*settings, f"data.path={data}", f"split.seeds={list(range(splits))}", f"train.epochs={epochs}"]
    options = [part for setting in settings for part in ("--set", setting)]
    done = nnjobs("train", CONFIG, *options, "--run-dir", run, "--json", folder=run.parent)
    ledger = [json.loads((folder / "ledger.json").read_bytes()) for folder in sorted((run / "rounds").iterdir())[1:]]
    lengths = [line["epochs"][1] - line["epochs"][0] for line in ledger]
    return {"accuracy": [trial["test_accuracy"] for trial in done.result["trials"]], "lengths": lengths}


def told(found: dict[str, Any], costs: Sequence[float]) -> dict[str, Any]:
    values, lengths = found["accuracy"], found["lengths"]
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return {
        "accuracy": round(statistics.mean(values), 5),
        "standard_error": round(error, 5),
        "rounds": len(lengths),
        "lengths": lengths,
        "time": {f"{cost:g}": round(sum(lengths) + cost * len(lengths), 1) for cost in costs},
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--periods", type=int, nargs="+", default=PERIODS)
    parser.add_argument("--costs", type=float, nargs="+", default=COSTS)
    chosen = parser.parse_args(arguments)
    cases = {f"fixed {length}": [f"train.epochs_per_round={length}"] for length in chosen.periods}
    cases |= {f"auto {cost:g}": ["train.epochs_per_round=auto", f"sync.round_cost={cost}"] for cost in chosen.costs}
    figures: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "digits"
        nnjobs("data", "import", "digits", "-o", data, "--shards", "8", folder=folder)
        for case, settings in cases.items():
            run = folder / case.replace(" ", "-")
            found = trained(settings, data, chosen.splits, chosen.epochs, run)
            figures[case] = told(found, chosen.costs)
            print(case, figures[case]["accuracy"], figures[case]["rounds"], file=sys.stderr, flush=True)
    losses = {f"{cost:g}": _loss(figures, f"{cost:g}") for cost in chosen.costs}
    held = max(losses.values()) <= LOSS_AT_MOST
    result = {
        "splits": chosen.splits,
        "epochs": chosen.epochs,
        "figures": figures,
        "loss": losses,
        "worst_loss": max(losses.values()),
        "loss_at_most": LOSS_AT_MOST,
        "held": held,
    }
    record("periods", result)
    print(json.dumps({"loss": losses, "held": held}, indent=2))
    return 0 if held else 1


def _loss(figures: dict[str, dict[str, Any]], cost: str) -> float:
    """What auto loses against the most accurate fixed period that takes no longer at this cost."""
    own = figures[f"auto {cost}"]
    rivals = [
        found["accuracy"]
        for case, found in figures.items()
        if case.startswith("fixed") and found["time"][cost] <= own["time"][cost]
    ]
    return float(round(max(rivals, default=own["accuracy"]) - own["accuracy"], 5))


if __name__ == "__main__":
    sys.exit(main())
