"""What reading costs a local round, and how such a round compares with one of a long-lived job that holds its rows.

    python tests/benchmarks/decoded_rows.py [--rows N] [--rounds N] [--repeats N]

1,000,000 rows of 28 features, a 28-64-64-2 net, batches of 256, two workers, one epoch a round. Three runs in turns:
local rounds that map the node's decoded rows; local rounds that decode the shards anew (`runtime.decoded_mb: 0`); a
collective job. All must make the same model. The rounds from the second on count: what the first decodes stays. A
round's seconds, and the workers' seconds of reading, scoring and training, are those that the run's journal has.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from children import nnjobs
from record import record

WORKERS, SHARDS, FEATURES = 2, 8, 28
READING, RATIO = 0.05, 1.1
VARIANTS = {
    "mapped": ("sync.mode=rounds",),
    "decoded": ("sync.mode=rounds", "runtime.decoded_mb=0"),
    "collective": ("sync.mode=collective",),
}
CONFIG = """
workers: 2
model: {hidden: [64, 64]}
train: {batch_size: 256, epochs_per_round: 1}
runtime: {runner: local}
"""


@dataclass(frozen=True)
class Rounds:
    """The rounds of a run from the second on: their seconds, the share of reading in their workers' time, the model."""

    seconds: list[float]
    reading: float
    model: str

    @classmethod
    def of(cls, run: Path) -> Rounds:
        lines = [json.loads(line) for line in (run / "events.jsonl").read_text("utf-8").splitlines()]
        rounds = [line for line in lines if line["event"] == "round" and line["round"] > 1]
        read = sum(line["worker_seconds"].get("read", 0.0) for line in rounds)
        whole = read + sum(line["worker_seconds"][part] for line in rounds for part in ("score", "train"))
        model = hashlib.sha256((run / "final" / "model.safetensors").read_bytes()).hexdigest()
        return cls([line["seconds"] for line in rounds], read / whole, model)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args(arguments)
    measured: dict[str, list[Rounds]] = {name: [] for name in VARIANTS}
    loads = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = ["--rows", str(chosen.rows), "--features", str(FEATURES), "--classes", "2", "--shards", str(SHARDS)]
        nnjobs("data", "synth", "-o", "rows", "--kind", "blobs", *sizes, folder=folder)
        (folder / "config.yaml").write_text(f"data: {{path: rows}}\n{CONFIG}")
        common = [f"train.epochs={chosen.rounds}", f"runtime.cache_dir={folder / 'cache'}"]
        for repeat in range(chosen.repeats + 1):  # the first burns in
            for variant, settings in VARIANTS.items():
                run = folder / f"{variant}-{repeat}"
                options = [part for setting in (*common, *settings) for part in ("--set", setting)]
                nnjobs("train", "config.yaml", *options, "--run-dir", run, "--quiet", folder=folder)
                if repeat:
                    measured[variant].append(Rounds.of(run))
            loads.append(round(os.getloadavg()[0], 2))
    if len({one.model for each in measured.values() for one in each}) != 1:
        raise RuntimeError("the variants made different models")
    seconds = {name: [round(statistics.median(one.seconds), 3) for one in each] for name, each in measured.items()}
    reading = {name: [round(one.reading, 4) for one in measured[name]] for name in ("mapped", "decoded")}
    ratios = {
        name: [round(a / b, 3) for a, b in zip(seconds[name], seconds["collective"], strict=True)]
        for name in ("mapped", "decoded")
    }
    medians = {
        "reading": {name: round(statistics.median(values), 4) for name, values in reading.items()},
        "ratio": {name: round(statistics.median(values), 3) for name, values in ratios.items()},
    }
    held = medians["reading"]["mapped"] <= READING and medians["ratio"]["mapped"] <= RATIO
    result = {
        "rows": chosen.rows,
        "net": [FEATURES, 64, 64, 2],
        "workers": WORKERS,
        "round_seconds": seconds,
        "reading": reading,
        "ratios": ratios,
        "medians": medians,
        "load": loads,
        "target": {"reading": READING, "ratio": RATIO},
        "held": held,
    }
    record("decoded_rows", result)
    print(json.dumps({"medians": medians, "held": held}, indent=2))
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
