"""Ten splits as trials of one run on Hadoop against one split alone: what more trials add to a round besides training.

    python tests/benchmarks/hadoop_splits.py [--splits N] [--rounds N] [--repeats N]

The digits, 4 workers, one epoch a round. The seconds of all rounds count, as the runs' events tell them. From those of
the ten splits goes what training took more than with one: the tasks' own seconds of training, divided by the tasks that
run at once (one in the master's container, else as many as there are cores). Uses the cluster that HADOOP_HOME and
HADOOP_CONF_DIR name; without them it starts one of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # read when the libraries load, so before their imports

from on_hadoop import hadoop  # noqa: E402
from record import record  # noqa: E402

from jobs.__main__ import main as nnjobs  # noqa: E402
from nnlib.storage import storage  # noqa: E402

AT_MOST, WORKERS = 1.1, 4


@dataclass(frozen=True)
class Taken:
    """Seconds of a run's rounds; of them, the tasks' own seconds of training and of all work, by tasks at once."""

    rounds: float
    training: float
    work: float
    slots: int
    uploaded_bytes: int


def trained(base: str, folder: Path, name: str, splits: int, rounds: int) -> Taken:
    """One run of so many splits."""
    config = folder / "digits.yaml"
    text = (
        f"name: bench\nworkers: {WORKERS}\ndata: {{path: '{base}/digits'}}\nsplit: {{seeds: {list(range(splits))}}}\n"
    )
    config.write_text(text + f"train: {{epochs: {rounds}, epochs_per_round: 1}}\n", encoding="utf-8")
    run = f"{base}/{name}"
    if code := nnjobs(["train", str(config), "-r", "hadoop", "--run-dir", run, "--quiet"]):
        raise SystemExit(code)
    events = [json.loads(line) for line in storage(run).read("events.jsonl").splitlines()]
    done = [event for event in events if event["event"] == "round"]
    alone = any(event["uber"] for event in events if event["event"] == "job")
    slots = 1 if alone else min(WORKERS, os.cpu_count() or 1)
    work = [event["worker_seconds"] for event in done]
    return Taken(
        sum(event["seconds"] for event in done),
        sum(seconds["train"] for seconds in work) / slots,
        sum(sum(seconds.values()) for seconds in work) / slots,
        slots,
        max(event["uploaded_bytes"] for event in done[1:]) if len(done) > 1 else 0,
    )


def ratio(many: Taken, one: Taken) -> float:
    """Seconds of the many splits without their extra training, times those of the one."""
    return (many.rounds - (many.training - one.training)) / one.rounds


def measure(splits: int, rounds: int, repeats: int) -> dict[str, Any]:
    """Both runs, in turns."""
    taken: dict[str, list[Taken]] = {"one": [], "many": []}
    with hadoop() as (base, folder):
        trained(base, folder, "first", 1, 1)  # sends the environment, which stays
        for repeat in range(repeats):
            taken["one"].append(trained(base, folder, f"one-{repeat}", 1, rounds))
            taken["many"].append(trained(base, folder, f"many-{repeat}", splits, rounds))
    ratios = [ratio(many, one) for many, one in zip(taken["many"], taken["one"], strict=True)]
    median = statistics.median(ratios)
    return {
        "splits": splits,
        "rounds": rounds,
        "workers": WORKERS,
        "taken": {name: [asdict(each) for each in runs] for name, runs in taken.items()},
        "ratios": [round(each, 3) for each in ratios],
        "ratio": round(median, 3),
        "load": round(os.getloadavg()[0], 2),
        "at_most": AT_MOST,
        "held": median <= AT_MOST,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=1)
    chosen = parser.parse_args(arguments)
    result = measure(chosen.splits, chosen.rounds, chosen.repeats)
    record("hadoop_splits", result)
    print(json.dumps(result))
    return 0 if result["held"] else 1


if __name__ == "__main__":
    sys.exit(main())
