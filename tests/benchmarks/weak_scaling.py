"""Weak scaling: one worker, then two with as many rows each, on two cores; a large net, in collective mode.

    python tests/benchmarks/weak_scaling.py [--rows N] [--epochs N] [--repeats N] [--workers N]

784-1024-1024-10 in local processes with one BLAS thread each, averaged after every epoch, encrypted. The efficiency is
the time of one worker's rounds divided by that of several; both run in turns, and the first round of each, in which
rows are read, is left out. On a busy machine, where workers wait for cores, the same ratio of the whole commands'
processor time by worker says what exchanging costs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from children import nnjobs
from record import record

AT_LEAST = 0.9
CONFIG = """\
name: weak-scaling
data: {{path: {data}}}
split: {{train: 0.9, seeds: [0]}}
model: {{hidden: [1024, 1024]}}
train: {{optimizer: momentum, lr: 0.01, batch_size: 256, epochs: {epochs}, epochs_per_round: 1}}
sync: {{mode: collective}}
"""


def rounds(run: Path) -> list[dict[str, Any]]:
    """A run's own account of its rounds, without the first."""
    events = (json.loads(line) for line in (run / "events.jsonl").read_text("utf-8").splitlines())
    return [event for event in events if event["event"] == "round"][1:]


class Bench:
    """A dataset for each number of workers, and the runs over them."""

    def __init__(self, folder: Path, rows: int, epochs: int) -> None:
        self._folder, self._rows, self._epochs, self._runs = folder, rows, epochs, 0

    def prepare(self, workers: int) -> None:
        data = self._folder / f"data-{workers}"
        rows = ["--rows", str(self._rows * workers), "--shards", str(workers)]
        nnjobs("data", "synth", "-o", data, "--kind", "digits", *rows, folder=self._folder)
        config = CONFIG.format(data=json.dumps(str(data)), epochs=self._epochs)
        (self._folder / f"{workers}.yaml").write_text(config, encoding="utf-8")

    def train(self, workers: int) -> dict[str, float]:
        """Seconds of the rounds; of them those in exchanges, and those of training as the mean worker had them; the
        command's processor seconds by worker."""
        self._runs += 1
        run = self._folder / f"run-{self._runs}"
        options: list[str | Path] = ["-r", "local", "--set", f"workers={workers}", "--run-dir", run, "--quiet"]
        done = nnjobs("train", self._folder / f"{workers}.yaml", *options, folder=self._folder)
        found = rounds(run)
        return {
            "rounds": round(sum(event["seconds"] for event in found), 3),
            "exchange": round(sum(event["exchange_seconds"] for event in found), 3),
            "train": round(sum(event["worker_seconds"]["train"] for event in found) / workers, 3),
            "processor": round(done.processor_seconds / workers, 3),
        }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000, help="of a worker, test rows among them")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args(arguments)
    alone: list[dict[str, float]] = []
    together: list[dict[str, float]] = []
    loads = []
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), chosen.rows, chosen.epochs)
        for workers in (1, chosen.workers):
            bench.prepare(workers)
        for _ in range(chosen.repeats):
            alone.append(bench.train(1))
            together.append(bench.train(chosen.workers))
            loads.append(round(os.getloadavg()[0], 2))
            print(alone[-1], together[-1], file=sys.stderr, flush=True)
    ratios = {
        kind: [round(one[kind] / other[kind], 3) for one, other in zip(alone, together, strict=True)]
        for kind in ("rounds", "processor")
    }
    efficiency = statistics.median(ratios["rounds"])
    result = {
        "rows": chosen.rows,
        "epochs": chosen.epochs,
        "workers": chosen.workers,
        "alone": alone,
        "together": together,
        "ratios": ratios,
        "efficiency": efficiency,
        "processor_efficiency": statistics.median(ratios["processor"]),
        "load": loads,
        "target": AT_LEAST,
        "held": efficiency >= AT_LEAST,
    }
    record("weak_scaling", result)
    print(json.dumps({key: result[key] for key in ("ratios", "efficiency", "processor_efficiency", "held")}, indent=2))
    return 0 if result["held"] else 1


if __name__ == "__main__":
    sys.exit(main())
