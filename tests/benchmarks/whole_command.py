"""The whole of ``nnjobs train`` against the same training in a bare numpy script, start-up of both included.

    python tests/benchmarks/whole_command.py [--repeats N] [--epochs N]

Both train 400-100-10 on the same rows (split 0 of the digits, one worker, inline) in batches of 32 with momentum that
is reset every 5 epochs; `bare_numpy` is written as one would by hand. They run in turns, after a turn of burn-in.
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

import numpy as np
from bare_numpy import BATCH, EPOCHS, HIDDEN, L2, LR, MOMENTUM, RESET_EVERY
from children import ROOT, Run, nnjobs, run
from record import record

from nnlib.config.load import load_config
from nnlib.config.options import MLPOptions, MomentumOptions
from nnlib.config.schema import Config
from nnlib.config.section import options_of
from nnlib.data.decoded_rows import ShardRows
from nnlib.data.split.rule import TRAIN
from nnlib.run.directory import RunDirectory

CONFIG = ROOT / "configs" / "digits.yaml"
SCRIPT = Path(__file__).with_name("bare_numpy.py")
AT_MOST = 1.5
ACCURACY_WITHIN = 0.01
"""Two trainings with other random numbers; one split's accuracy varies by some tenths of a point."""


def check_same(config: Config) -> None:
    """The script's numbers are written into it; they must be the configuration's."""
    train, momentum = config.train, options_of(config.train, MomentumOptions)
    hidden = options_of(config.model, MLPOptions).hidden
    ours = (hidden, train.epochs, train.epochs_per_round, train.batch_size, momentum.lr, momentum.momentum)
    if (*ours, train.l2) != ([HIDDEN], EPOCHS, RESET_EVERY, BATCH, LR, MOMENTUM, L2):
        raise SystemExit(f"{SCRIPT.name} does not train what {CONFIG.name} says")


def export_rows(run_dir: Path, target: Path) -> None:
    """A run's rows as one .npz file: x as stored (uint8), y, and which rows train."""
    spec = RunDirectory.open(str(run_dir)).spec()
    shards = range(len(spec.dataset.shards))
    with_labels = ShardRows(spec.dataset, shards, memory_bytes=1 << 30)
    block = with_labels.block
    assert block is not None
    rule = spec.trials[0].rule
    parts = [rule.parts(labels.row, labels.y, labels.extra) for labels in with_labels.labels(shards)]
    np.savez(target, x=block.x, y=block.y, train=np.concatenate(parts) == TRAIN)


def summary(runs: list[Run]) -> dict[str, Any]:
    return {
        "seconds": [round(one.seconds, 3) for one in runs],
        "processor_seconds": [round(one.processor_seconds, 3) for one in runs],
        "test_accuracy": runs[0].result["test_accuracy"],
    }


def measure(folder: Path, repeats: int, epochs: int) -> dict[str, Any]:
    data = folder / "digits"
    nnjobs("data", "import", "digits", "-o", data, "--shards", "8", folder=folder)

    def ours(name: str) -> Run:
        settings = [f"data.path={data}", "workers=1", f"train.epochs={epochs}"]
        options = [part for setting in settings for part in ("--set", setting)]
        return nnjobs("train", CONFIG, *options, "--run-dir", folder / name, "--json", folder=folder)

    first = ours("burn-in")
    rows = folder / "rows.npz"
    export_rows(folder / "burn-in", rows)
    bare = [sys.executable, str(SCRIPT), str(rows), str(epochs)]
    run(bare, folder)
    pairs = [(run(bare, folder), ours(f"run-{turn}")) for turn in range(repeats)]
    if any(mine.result["model_sha256"] != first.result["model_sha256"] for _, mine in pairs):
        raise RuntimeError("two runs of one configuration gave different models")
    return {"numpy": summary([theirs for theirs, _ in pairs]), "nnjobs": summary([mine for _, mine in pairs])}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    chosen = parser.parse_args(arguments)
    check_same(load_config(CONFIG))
    with tempfile.TemporaryDirectory() as folder:
        both = measure(Path(folder), chosen.repeats, chosen.epochs)
    medians = {
        what: {side: round(statistics.median(both[side][what]), 3) for side in both}
        for what in ("seconds", "processor_seconds")
    }
    ratio = medians["seconds"]["nnjobs"] / medians["seconds"]["numpy"]
    apart = abs(both["nnjobs"]["test_accuracy"] - both["numpy"]["test_accuracy"])
    result: dict[str, Any] = {
        "net": "400-100-10",
        "epochs": chosen.epochs,
        "load_average": os.getloadavg()[0],
        **both,
        "medians": medians,
        "ratio": round(ratio, 3),
        "at_most": {"ratio": AT_MOST, "accuracy_apart": ACCURACY_WITHIN},
        "held": ratio <= AT_MOST and apart <= ACCURACY_WITHIN,
    }
    record("whole_command", result)
    print(json.dumps(result, indent=2))
    return 0 if result["held"] else 1


if __name__ == "__main__":
    sys.exit(main())
