"""Ten splits as trials of one run against ten runs of one split: what sharing jobs costs, and what it saves.

    python tests/benchmarks/multiplexing.py [--splits N] [--epochs N] [--repeats N]

`configs/digits.yaml` with 4 workers, inline. The seconds of all rounds count, as the runs' events tell them: finding
the splits, start-up and the last scores are left out on both sides. Whole commands are recorded beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from children import ROOT, nnjobs
from record import record

CONFIG, WORKERS, TARGET = ROOT / "configs" / "digits.yaml", 4, 1.1


@dataclass(frozen=True)
class Taken:
    """Seconds of some runs: their rounds, the training within them (summed over workers), their whole commands."""

    rounds: float
    training: float
    commands: float

    def __add__(self, other: Taken) -> Taken:
        return Taken(self.rounds + other.rounds, self.training + other.training, self.commands + other.commands)


def trained(data: Path, seeds: list[int], epochs: int, run: Path) -> Taken:
    """One run of the given splits."""
    settings = [f"data.path={data}", f"workers={WORKERS}", f"split.seeds={seeds}", f"train.epochs={epochs}"]
    options = [part for setting in settings for part in ("--set", setting)]
    done = nnjobs("train", CONFIG, *options, "--run-dir", run, "--quiet", folder=run.parent)
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text("utf-8").splitlines()]
    rounds = [line for line in lines if line["event"] == "round"]
    return Taken(
        sum(line["seconds"] for line in rounds), sum(line["worker_seconds"]["train"] for line in rounds), done.seconds
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args(arguments)
    seeds = list(range(chosen.splits))
    together, alone, loads = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "digits"
        nnjobs("data", "import", "digits", "-o", data, "--shards", "8", folder=folder)
        for repeat in range(chosen.repeats + 1):  # the first burns in
            one = trained(data, seeds, chosen.epochs, folder / f"together-{repeat}")
            singles = Taken(0.0, 0.0, 0.0)
            for seed in seeds:
                singles += trained(data, [seed], chosen.epochs, folder / f"alone-{repeat}-{seed}")
            if repeat:
                together.append(one)
                alone.append(singles)
                loads.append(round(os.getloadavg()[0], 2))
    ratios = {
        part: [round(getattr(a, part) / getattr(b, part), 3) for a, b in zip(together, alone, strict=True)]
        for part in ("rounds", "training", "commands")
    }
    ratio = statistics.median(ratios["rounds"])
    result = {
        "splits": chosen.splits,
        "epochs": chosen.epochs,
        "workers": WORKERS,
        "together_seconds": [round(each.rounds, 3) for each in together],
        "alone_seconds": [round(each.rounds, 3) for each in alone],
        "ratios": ratios,
        "medians": {part: round(statistics.median(values), 3) for part, values in ratios.items()},
        "load": loads,
        "target": TARGET,
        "held": ratio <= TARGET,
    }
    record("multiplexing", result)
    print(json.dumps({"medians": result["medians"], "held": result["held"]}, indent=2))
    return 0 if result["held"] else 1


if __name__ == "__main__":
    sys.exit(main())
