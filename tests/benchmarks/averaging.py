"""Averaging derivatives against averaging weights, and weights against rounded differences, over ten splits.

    python tests/benchmarks/averaging.py [--splits N] [--epochs N] [--workers N ...] [--untimed]
    python tests/benchmarks/averaging.py --table

`configs/digits.yaml` in collective mode. Derivatives are averaged at every step (``sync.every: batch``), in batches of
the configured size at every worker or of that size among all; weights every 1, 5 and 20 epochs. Then ``sync.precision``
with the last number of workers. Accuracies and bytes come from inline runs over all splits, seconds from a run
of the first split in local processes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from children import ROOT, nnjobs
from record import RESULTS, record

from nnlib.run.directory import RunDirectory
from nnlib.training.synchronous_sgd import steps_of_epoch

CONFIG = ROOT / "configs" / "digits.yaml"
BATCH = 32
PERIODS = (1, 5, 20)
PRECISIONS = ("exact", "float32", "float16", "bfloat16", "int8", "int8 with error feedback")
ONE_WORKER = 0.005
"""Mean accuracy that averaged derivatives of a joint batch may differ by from one worker's: they are its steps, in
another order of the rows."""


def methods(workers: int, periods: Sequence[int]) -> dict[str, list[str]]:
    """Settings by name; of one worker those alone that differ."""
    every = {f"weights every {period}": [f"train.epochs_per_round={period}"] for period in periods}
    derivatives = ["sync.every=batch", "train.epochs_per_round=5"]
    if workers > 1:
        every["derivatives"] = [*derivatives, f"train.batch_size={BATCH}"]
    return every | {"derivatives, joint batch": [*derivatives, f"train.batch_size={BATCH // workers}"]}


def trained(settings: Sequence[str], folder: Path, runner: str) -> dict[str, Any]:
    """One run: test accuracies, exchanges among the workers, bytes that all of them sent, seconds."""
    run = folder / f"run-{len(list(folder.iterdir()))}"
    options = [part for setting in ["sync.mode=collective", *settings] for part in ("--set", setting)]
    done = nnjobs("train", CONFIG, "-r", runner, "--run-dir", run, "--json", *options, folder=folder)
    directory = RunDirectory.open(str(run))
    spec = directory.spec()
    events = [json.loads(line) for line in (run / "events.jsonl").read_text("utf-8").splitlines()]
    rounds = {event["round"]: event for event in events if event["event"] == "round"}.values()
    steps = steps_of_epoch(spec, spec.trials[0]) * spec.config.train.epochs
    return {
        "accuracy": [trial["test_accuracy"] for trial in done.result["trials"]],
        "exchanges": steps if spec.config.sync.every == "batch" else len(rounds),
        "bytes": sum(event["shuffled_bytes"] for event in rounds),
        "seconds": sum(event["seconds"] for event in rounds),
        "exchange_seconds": sum(event["exchange_seconds"] for event in rounds),
        "processor_seconds": done.processor_seconds,
    }


def measured(settings: Sequence[str], folder: Path, splits: int, timed: bool) -> dict[str, Any]:
    """Bytes are those of one model, as are the seconds of local processes."""
    found = trained([*settings, f"split.seeds={list(range(splits))}"], folder, "inline")
    values = found["accuracy"]
    told = {
        "accuracy": round(statistics.mean(values), 5),
        "standard_error": round(statistics.stdev(values) / math.sqrt(splits), 5) if splits > 1 else 0.0,
        "accuracies": values,
        "exchanges": found["exchanges"],
        "bytes": round(found["bytes"] / splits),
        "inline_processor_seconds": round(found["processor_seconds"] / splits, 3),
    }
    if timed:
        local = trained(settings, folder, "local")
        told |= {"local_seconds": round(local["seconds"], 3), "local_exchange": round(local["exchange_seconds"], 3)}
    return told


def paired(figures: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """By how much one is more accurate than another, over the splits, and the standard error of that."""
    apart = [one - two for one, two in zip(figures["accuracies"], other["accuracies"], strict=True)]
    error = statistics.stdev(apart) / math.sqrt(len(apart)) if len(apart) > 1 else 0.0
    return {"mean": round(statistics.mean(apart), 5), "standard_error": round(error, 5)}


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    workers, splits, epochs = chosen.workers, chosen.splits, chosen.epochs
    averaging: dict[str, dict[str, Any]] = {}
    precision: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "digits"
        nnjobs("data", "import", "digits", "-o", data, "--shards", "8", folder=folder)
        common = [f"data.path={data}", f"train.epochs={epochs}"]
        for number in workers:
            averaging[str(number)] = {}
            for method, settings in methods(number, chosen.periods).items():
                found = measured([*common, f"workers={number}", *settings], folder, splits, not chosen.untimed)
                averaging[str(number)][method] = found
                print(number, method, found["accuracy"], found["bytes"], file=sys.stderr, flush=True)
        for each in chosen.precisions:
            rounding, _, feedback = each.partition(" with ")
            settings = [f"workers={workers[-1]}", "train.epochs_per_round=5", f"sync.precision={rounding}"]
            settings += ["sync.error_feedback=true"] if feedback else []
            precision[each] = measured([*common, *settings], folder, splits, timed=False)
            precision[each]["against_exact"] = paired(precision[each], precision[chosen.precisions[0]])
            print(each, precision[each]["accuracy"], precision[each]["bytes"], file=sys.stderr, flush=True)
    one = averaging[str(workers[0])]["derivatives, joint batch"]
    apart = {
        number: paired(found["derivatives, joint batch"], one)["mean"] for number, found in list(averaging.items())[1:]
    }
    worst = max(map(abs, apart.values()), default=0.0)
    return {
        "splits": splits,
        "epochs": epochs,
        "workers": list(workers),
        "averaging": averaging,
        "precision": precision,
        "joint_batch_apart": apart,
        "worst_apart": worst,
        "apart_at_most": ONE_WORKER,
        "load": round(os.getloadavg()[0], 1),
        "held": worst <= ONE_WORKER,
    }


def table(result: dict[str, Any]) -> str:
    """The tables of docs/averaging.md."""
    lines = [
        "| workers | averaged | test accuracy | exchanges | sent | processor time | local: time | of it exchanges |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for number, found in result["averaging"].items():
        for method, figures in found.items():
            times = [figures.get(key) for key in ("inline_processor_seconds", "local_seconds", "local_exchange")]
            cells = [
                number,
                method,
                f"{100 * figures['accuracy']:.2f} %",
                f"{figures['exchanges']:,}",
                f"{figures['bytes'] / 1e6:,.1f} MB",
                *("" if seconds is None else f"{seconds:.1f} s" for seconds in times),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| `sync.precision` | test accuracy | against exact | sent |", "| --- | ---: | ---: | ---: |"]
    for each, figures in result["precision"].items():
        apart = figures["against_exact"]
        error = f"{100 * apart['mean']:+.2f} ± {100 * apart['standard_error']:.2f}" if any(apart.values()) else "0"
        lines.append(f"| {each} | {100 * figures['accuracy']:.2f} % | {error} | {figures['bytes'] / 1e6:.2f} MB |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--periods", type=int, nargs="+", default=PERIODS)
    parser.add_argument(
        "--precisions", nargs="+", default=PRECISIONS, help="the first is what others are compared with"
    )
    parser.add_argument("--untimed", action="store_true", help="leave out the runs in local processes")
    parser.add_argument("--table", action="store_true", help="print the recorded result as tables, measure nothing")
    chosen = parser.parse_args(arguments)
    if chosen.table:
        print(table(json.loads((RESULTS / "averaging.json").read_text("utf-8"))["result"]))
        return 0
    result = measure(chosen)
    record("averaging", result)
    print(json.dumps({"joint_batch_apart": result["joint_batch_apart"], "held": result["held"]}, indent=2))
    return 0 if result["held"] else 1


if __name__ == "__main__":
    sys.exit(main())
