"""Test accuracy on the 5000 digits by the number of workers, over ten splits: what averaging costs, and what mends it.

    python tests/benchmarks/accuracy.py [--splits N] [--epochs N]

One run of ten trials (split seeds 0-9) for each case: 400-100-10, 100 epochs, averaged every 5, independent streams on
disjoint shards. "plain" has the settings of ``digits.yaml`` (local batches of 32) whatever the number of workers;
"tuned" is ``digits-8-workers.yaml``. Differences are paired over the splits: the same rows are held out.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from children import ROOT, nnjobs
from record import record

PLAIN, TUNED = ROOT / "configs" / "digits.yaml", ROOT / "configs" / "digits-8-workers.yaml"
CASES = (("plain", PLAIN, (1, 2, 4, 8)), ("tuned", TUNED, (1, 8)))
AT_LEAST = {"plain_1": 0.935}
LOSS_AT_MOST = {"plain_8": 0.010, "tuned_8": 0.003}
"""Mean accuracy that 8 workers may lose against one."""


def accuracies(config: Path, workers: int, data: Path, splits: int, epochs: int, folder: Path) -> list[float]:
    """Test accuracy of each split."""
    settings = [f"data.path={data}", f"workers={workers}", f"split.seeds={list(range(splits))}"]
    settings += [f"train.epochs={epochs}"]
    options = [part for setting in settings for part in ("--set", setting)]
    run_dir = folder / f"{config.stem}-{workers}"
    done = nnjobs("train", config, *options, "--run-dir", run_dir, "--json", folder=folder)
    return [trial["test_accuracy"] for trial in done.result["trials"]]


def compared(values: list[float], base: list[float]) -> dict[str, float]:
    """Mean, standard deviation over the splits, and the paired loss against ``base`` with its standard error."""
    losses = [one - other for one, other in zip(base, values, strict=True)]
    spread = statistics.stdev(losses) / math.sqrt(len(losses)) if len(losses) > 1 else math.nan
    return {
        "mean": round(statistics.mean(values), 5),
        "sd": round(statistics.stdev(values), 5) if len(values) > 1 else 0.0,
        "loss": round(statistics.mean(losses), 5),
        "loss_standard_error": round(spread, 5) if len(losses) > 1 else 0.0,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=100)
    chosen = parser.parse_args(arguments)
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "digits"
        nnjobs("data", "import", "digits", "-o", data, "--shards", "8", folder=folder)
        for case, config, numbers in CASES:
            for workers in numbers:
                key = f"{case}_{workers}"
                found[key] = accuracies(config, workers, data, chosen.splits, chosen.epochs, folder)
                print(f"{key:10} {statistics.mean(found[key]):.4f}", file=sys.stderr, flush=True)
    figures = {key: compared(values, found["plain_1"]) for key, values in found.items()}
    held = all(figures[key]["mean"] >= least for key, least in AT_LEAST.items())
    held = held and all(figures[key]["loss"] <= most for key, most in LOSS_AT_MOST.items())
    result: dict[str, Any] = {
        "splits": chosen.splits,
        "epochs": chosen.epochs,
        "figures": figures,
        "test_accuracy": {key: [round(value, 5) for value in values] for key, values in found.items()},
        "at_least": AT_LEAST,
        "loss_at_most": LOSS_AT_MOST,
        "held": held,
    }
    record("accuracy", result)
    print(json.dumps({"figures": figures, "held": held}, indent=2))
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
