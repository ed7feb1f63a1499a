"""What do 200 partitions of a 400-6-6-10 net cost, four sub-nets each, trained as trials of one job on two cores?

    python tests/benchmarks/splitting.py [--partitions N] [--epochs N] [--repeats N]

A whole net trains on half of the digits' training rows. Then one `nnjobs train`, start-up included, trains the four
sub-nets of every partition on the other half, five epochs in batches of 64, averages them and scores the recombined
nets; local processes, one BLAS thread each. Beside it, the same number of whole nets trained as long.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # of the commands that are timed

from record import record  # noqa: E402

from jobs.__main__ import main as nnjobs  # noqa: E402
from nnlib.splitting.balanced import all_partitions  # noqa: E402

MOST_SECONDS = 20.0


def configuration(folder: Path, name: str, **changes: object) -> str:
    """Write an experiment on the digits; ``changes`` are dotted keys with ``__`` for the dot."""
    keys = {
        "name": name,
        "data.path": str(folder / "digits"),
        "sampling.streams": "shared",
        "model.hidden": [6, 6],
        "train.lr": 0.02,
        "train.batch_size": 64,
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    values: dict[str, Any] = {}
    for key, value in keys.items():
        section, *path = values, *key.split(".")
        for part in path[:-1]:
            section = section.setdefault(part, {})
        section[path[-1]] = value
    path_of = folder / f"{name}.yaml"
    path_of.write_text(json.dumps(values), encoding="utf-8")  # JSON is YAML
    return str(path_of)


def timed(folder: Path, config: str, run: str) -> tuple[float, float]:
    """Wall-clock and processor seconds of a command that trains from the whole net."""
    command = [sys.executable, "-m", "jobs", "train", config, "-r", "local", "--quiet"]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([*command, "--from", str(folder / "whole"), "--run-dir", str(folder / run)], check=True)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(partitions: int, epochs: int, repeats: int) -> dict[str, Any]:
    """Time the job; medians count."""
    codes = [str(each) for each in itertools.islice(all_partitions((6, 6), 2), partitions)]
    taken: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(prefix="nnjobs-bench-") as name:
        folder = Path(name)
        whole = configuration(folder, "whole", split__train_range=[0.0, 0.5], train__epochs=20)
        for arguments in (
            ["data", "import", "digits", "-o", str(folder / "digits"), "--shards", "8"],
            ["train", whole, "--run-dir", str(folder / "whole"), "--quiet"],
        ):
            if code := nnjobs(arguments):
                raise SystemExit(code)
        cut = configuration(
            folder,
            "cut",
            workers=4,
            split__train_range=[0.5, 1.0],
            train__epochs=epochs,
            train__epochs_per_round=epochs,
            sweep={"train.subnets.partition": codes},
        )
        for repeat in range(repeats):
            taken.append(timed(folder, cut, f"cut-{repeat}"))
    seconds = statistics.median(each[0] for each in taken)
    return {
        "partitions": len(codes),
        "sub_nets": 4 * len(codes),
        "epochs": epochs,
        "seconds": round(seconds, 2),
        "processor_seconds": round(statistics.median(each[1] for each in taken), 2),
        "repetitions": [[round(number, 2) for number in each] for each in taken],
        "load": round(os.getloadavg()[0], 2),
        "at_most": MOST_SECONDS,
        "held": seconds <= MOST_SECONDS,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--partitions", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args(arguments)
    result = measure(chosen.partitions, chosen.epochs, chosen.repeats)
    record("splitting", result)
    print(json.dumps(result))
    return 0 if result["held"] else 1


if __name__ == "__main__":
    sys.exit(main())
