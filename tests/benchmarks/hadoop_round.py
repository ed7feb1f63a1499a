"""A training round on Hadoop against a bare streaming job of the same shape, in turns on one cluster.

    python tests/benchmarks/hadoop_round.py [--rounds N]

The bare job is ``hadoop jar`` with Hadoop's own settings: 4 maps that start a Python and import numpy and pyarrow, 2
reduces, no data. The round is one of `nnjobs train -r hadoop`: 4 workers, the digits, 1 epoch, all of the driver's work
included. Uses the cluster that HADOOP_HOME and HADOOP_CONF_DIR name; without them it starts one of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # read when the libraries load, so before their imports

from on_hadoop import hadoop  # noqa: E402
from record import record  # noqa: E402

from jobs.__main__ import main as nnjobs  # noqa: E402
from nnlib.storage import storage  # noqa: E402

AT_MOST = 0.8
TASK = "import sys, numpy, pyarrow\nfor line in sys.stdin:\n    sys.stdout.write(line)\n"
WORKERS = 4


def bare_job(base: str, folder: Path, number: int) -> float:
    """Seconds of one bare job."""
    home = Path(os.environ["HADOOP_HOME"])
    jar = next(home.rglob("hadoop-streaming-[0-9]*.jar"))
    task = folder / "task.py"
    task.write_text(TASK, encoding="utf-8")
    command = [str(home / "bin" / "hadoop"), "jar", str(jar), "-D", "mapreduce.job.reduces=2", "-files", str(task)]
    command += ["-mapper", f"{sys.executable} task.py", "-reducer", f"{sys.executable} task.py"]
    command += ["-input", f"{base}/input", "-output", f"{base}/output-{number}"]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def round_seconds(base: str, folder: Path, number: int, *keys: str) -> float:
    """Seconds of the round of a run of one round, by the run's own events."""
    config = folder / "digits.yaml"
    text = f"name: bench\nworkers: {WORKERS}\ndata: {{path: '{base}/digits'}}\n"
    config.write_text(text + "train: {epochs: 1, epochs_per_round: 1}\n", encoding="utf-8")
    run = f"{base}/run-{number}"
    options = [option for key in keys for option in ("--set", key)]
    if code := nnjobs(["train", str(config), "-r", "hadoop", "--run-dir", run, "--quiet", *options]):
        raise SystemExit(code)
    events = [json.loads(line) for line in storage(run).read("events.jsonl").splitlines()]
    return float(next(event["seconds"] for event in events if event["event"] == "round"))


def measure(rounds: int) -> dict[str, Any]:
    """Bare job, round in the master's container and round in containers of its own, in turns."""
    times: dict[str, list[float]] = {"bare": [], "round": [], "containers": []}
    with hadoop() as (base, folder):
        storage(f"{base}/input").write_all({f"{k}.txt": f"{k}\tline\n".encode() for k in range(WORKERS)})
        round_seconds(base, folder, 0)  # sends the environment, which stays
        for number in range(1, rounds + 1):
            times["bare"].append(bare_job(base, folder, number))
            times["round"].append(round_seconds(base, folder, 10 * number))
            times["containers"].append(round_seconds(base, folder, 10 * number + 1, "runtime.hadoop.uber=off"))
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratio = medians["round"] / medians["bare"]
    return {
        "seconds": times,
        "medians": medians,
        "ratio": ratio,
        "ratio_containers": medians["containers"] / medians["bare"],
        "at_most": AT_MOST,
        "held": ratio <= AT_MOST,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    result = measure(parser.parse_args(arguments).rounds)
    record("hadoop_round", result)
    print(json.dumps(result))
    return 0 if result["held"] else 1


if __name__ == "__main__":
    sys.exit(main())
