"""Whether a commit is slower than another: ``python tests/benchmarks/two_commits.py COMMIT [COMMIT]`` (default: HEAD).

Both are checked out side by side; each command runs alternately from one and the other, and medians are compared. A
round's seconds are those that the run's own journal has, the median over its rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from product import ROOT
from record import record
from same_bits import checkout, nnjobs

CONFIG = str(ROOT / "configs/digits.yaml")
AT_MOST = 1.05


def seconds_of(tree: Path, *arguments: str) -> float:
    """Wall time of a command of the code in ``tree``."""
    began = time.perf_counter()
    nnjobs(tree, *arguments)
    return time.perf_counter() - began


def seconds_of_a_round(tree: Path, run: Path, runner: str, data: str) -> float:
    """The median of a run's rounds of one epoch each, training included."""
    settings = ("--set", f"data.path={data}", "--set", "train.epochs=30", "--set", "train.epochs_per_round=1")
    nnjobs(tree, "train", CONFIG, "-r", runner, "--run-dir", str(run), "--quiet", *settings)
    events = [json.loads(line) for line in (run / "events.jsonl").read_text("utf-8").splitlines()]
    return float(statistics.median(event["seconds"] for event in events if event["event"] == "round"))


def cases(data: str, folder: Path) -> dict[str, Callable[[Path, int], float]]:
    """Name -> seconds of one measurement of a tree; the number makes folders' names differ."""
    whole = ("train", CONFIG, "--set", f"data.path={data}", "--quiet")
    return {
        "nnjobs --version": lambda tree, _: seconds_of(tree, "--version"),
        "train --dry-run": lambda tree, _: seconds_of(tree, "train", CONFIG, "--dry-run"),
        "an inline round": lambda tree, n: seconds_of_a_round(tree, folder / f"inline-{n}", "inline", data),
        "a local round": lambda tree, n: seconds_of_a_round(tree, folder / f"local-{n}", "local", data),
        "the whole digits run": lambda tree, n: seconds_of(tree, *whole, "--run-dir", str(folder / f"whole-{n}")),
    }


def main() -> None:
    """Measure and record; exit status 1 where a median is more than 5 % above the other's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commits", nargs="+", metavar="COMMIT", help="a commit, or the path of a checkout")
    parser.add_argument("--repeat", type=int, default=11)
    parser.add_argument("-k", default="", help="only cases whose name holds this")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="two-commits-") as name:
        folder = Path(name)
        trees = [checkout(one, folder / f"tree-{i}") for i, one in enumerate([*options.commits, "HEAD"][:2])]
        try:
            data = str(folder / "digits")
            nnjobs(trees[0], "data", "import", "digits", "-o", data, "--shards", "8")
            result = {
                case: compare(case, measure, trees, options.repeat)
                for case, measure in cases(data, folder).items()
                if options.k in case
            }
        finally:
            for tree in trees:
                if tree.parent == folder:
                    subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=False)
    record("two_commits", result)
    raise SystemExit(any(each["ratio"] > AT_MOST for each in result.values()))


def compare(case: str, measure: Callable[[Path, int], float], trees: list[Path], repeat: int) -> dict[str, float]:
    """Medians of ``repeat`` measurements of each tree, in turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(repeat):
        for index in (0, 1) if number % 2 else (1, 0):
            times[index].append(measure(trees[index], 2 * number + index))
    first, second = map(statistics.median, times)
    print(f"{case:22} {first:8.4f} s {second:8.4f} s  {second / first:.3f}", flush=True)
    return {"first": round(first, 4), "second": round(second, 4), "ratio": round(second / first, 3)}


if __name__ == "__main__":
    main()
