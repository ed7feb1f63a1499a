"""Run the benchmarks, or those named, each in a process of its own; then a table of figures, targets and results.

python tests/benchmarks [NAME...]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
NAMES = (
    "local_training",
    "conjugate_gradient",
    "empty_round",
    "whole_command",
    "accuracy",
    "memory",
    "csv_import",
    "simulator",
    "multiplexing",
    "periods",
    "hadoop_round",
    "hadoop_splits",
    "hadoop_collective",
    "hadoop_recovery",
    "several_hosts",
    "allreduce",
    "averaging",
    "weak_scaling",
    "decoded_rows",
    "splitting",
    "splitting_ways",
)


@dataclass(frozen=True)
class Figure:
    """One line of the table: ``path`` leads to the value in the recorded result."""

    benchmark: str
    what: str
    path: tuple[str, ...]
    target: str
    least: float | None = None
    most: float | None = None

    def value(self, result: dict[str, Any]) -> float:
        found: Any = result
        for key in self.path:
            found = found[key]
        return float(found)

    def holds(self, value: float) -> bool:
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


FIGURES = (
    Figure("local_training", "400-100-10, batch 64: examples a second, times torch eager",
           ("medians", "small_vs_torch"), ">= 2", least=2.0),
    Figure("local_training", "784-1024-1024-10, batch 256: share of sgemm's speed",
           ("medians", "large_vs_sgemm"), ">= 0.85", least=0.85),
    Figure("conjugate_gradient", "a step of conjugate gradients, times scipy over a plain loss",
           ("ratio",), "<= 0.7", most=0.7),
    Figure("empty_round", "an inline round of 4 workers without training, ms",
           ("medians", "round"), "<= 30", most=30.0),
    Figure("whole_command", "nnjobs train, times a bare numpy script", ("ratio",), "<= 1.5", most=1.5),
    Figure("accuracy", "1 worker, mean over the splits", ("figures", "plain_1", "mean"), ">= 0.935", least=0.935),
    Figure("accuracy", "8 workers, same settings: accuracy lost",
           ("figures", "plain_8", "loss"), "<= 0.010", most=0.010),
    Figure("accuracy", "8 workers, digits-8-workers.yaml: accuracy lost",
           ("figures", "tuned_8", "loss"), "<= 0.003", most=0.003),
    Figure("memory", "1,000,000 x 784: largest process, MB", ("largest_mb",), "< 600", most=599.9),
    Figure("csv_import", "import of 1,000,000 x 28 numbers, times pyarrow reading and writing them, CPU",
           ("ratios", "cpu"), "<= 1.5", most=1.5),
    Figure("multiplexing", "rounds of ten splits in one run, times those of ten runs",
           ("medians", "rounds"), "<= 1.1", most=1.1),
    Figure("periods", "epochs_per_round auto: accuracy lost to fixed ones as quick",
           ("worst_loss",), "<= 0.005", most=0.005),
    Figure("hadoop_round", "a round on Hadoop, times a bare streaming job", ("ratio",), "<= 0.8", most=0.8),
    Figure("hadoop_splits", "rounds of ten splits on Hadoop less training, times one split's",
           ("ratio",), "<= 1.1", most=1.1),
    Figure("hadoop_collective", "500 epochs by a group on Hadoop, times an empty job and its training",
           ("ratio",), "<= 1.25", most=1.25),
    Figure("several_hosts", "three hosts: a round in containers, times a bare job of its shape",
           ("round", "ratio"), "<= 0.8", most=0.8),
    Figure("several_hosts", "three hosts: the collective job, times an empty job and its training",
           ("collective", "ratio"), "<= 1.25", most=1.25),
    Figure("several_hosts", "42,000 floats between four hosts, links of 1 ms, times gloo",
           ("allreduce", "ratio"), "<= 1.5", most=1.5),
    Figure("several_hosts", "longest gap after a lost node, times 60 s and YARN's expiry",
           ("lost", "ratio"), "<= 1", most=1.0),
    Figure("hadoop_recovery", "a group on Hadoop that lost a worker trains again, YARN's start aside, s",
           ("slowest",), "<= 15", most=15.0),
    Figure("simulator", "predicted run times: largest error, %", ("worst_percent",), "<= 15", most=15.0),
    Figure("allreduce", "42,000 floats, 4 workers, encrypted: time, times gloo",
           ("medians", "small_encrypted"), "<= 0.5", most=0.5),
    Figure("allreduce", "10 million floats, in the clear: time, times gloo",
           ("medians", "large_clear"), "<= 1.7", most=1.7),
    Figure("allreduce", "10 million floats, encrypted: time, times gloo",
           ("medians", "large_encrypted"), "<= 3.5", most=3.5),
    Figure("allreduce", "up to 32 ranks: bytes that one sends, by twice the vector's",
           ("most_sent",), "<= 1.01", most=1.01),
    Figure("averaging", "derivatives of a joint batch: accuracy apart from one worker's",
           ("worst_apart",), "<= 0.005", most=0.005),
    Figure("weak_scaling", "784-1024-1024-10, 1 to 2 workers on 2 cores: efficiency",
           ("efficiency",), ">= 0.9", least=0.9),
    Figure("splitting_ways", "a wide net in two sub-nets without exchange: accuracy lost to the whole", ("loss",),
           "<= 0", most=0.0),
    Figure("splitting_ways", "a wide net in two sub-nets without exchange: times the whole net's seconds", ("ratio",),
           "< 1", most=1.0),
    Figure("splitting", "200 partitions x 4 sub-nets of 400-6-6-10 in one job, two cores: seconds",
           ("seconds",), "<= 20", most=20.0),
    Figure("decoded_rows", "1,000,000 x 28, local rounds: reading's share of a worker's time",
           ("medians", "reading", "mapped"), "<= 0.05", most=0.05),
    Figure("decoded_rows", "1,000,000 x 28: a local round, times one of a collective job",
           ("medians", "ratio", "mapped"), "<= 1.1", most=1.1),
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} [default: all]")
    names = parser.parse_args(arguments).names or NAMES
    if unknown := sorted(set(names) - set(NAMES)):
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(NAMES)}")
    for name in names:
        print(f"running {name}", file=sys.stderr, flush=True)
        done = subprocess.run([sys.executable, HERE / f"{name}.py"], stdout=subprocess.DEVNULL, check=False)
        if done.returncode not in (0, 1):  # 1: a figure does not hold
            return done.returncode
    held = True
    for figure in FIGURES:
        if figure.benchmark in names:
            recorded = json.loads((HERE / "results" / f"{figure.benchmark}.json").read_text("utf-8"))
            value = figure.value(recorded["result"])
            held = held and figure.holds(value)
            verdict = "held" if figure.holds(value) else "MISSED"
            print(f"{figure.what:62} {figure.target:>9} {value:9.3f}  {verdict}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
