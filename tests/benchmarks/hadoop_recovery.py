"""How long a collective run on Hadoop stands still when one of its mappers is killed.

    python tests/benchmarks/hadoop_recovery.py [--repeats N] [--workers N]

A worker's Python is killed (SIGKILL) while the group trains 400-25-10 by conjugate gradients on the digits. Two times
count from there: until YARN has started the Python that replaces it, which is the cluster's, and from that until the
whole group has trained a round again, which is ours: its start, the meeting, the newest commit. A status that is
written once a second tells of that round, so up to a second of the second time is looking. The run goes on to its end,
and the model must be that of inline rounds. All that is done twice: with a container for every worker, where the others
keep their processes, and with one that all share, where all begin anew.

Uses the cluster that HADOOP_HOME and HADOOP_CONF_DIR name, if it has one node, this machine; without them it starts one
of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # read when the libraries load, so before their imports

import psutil  # noqa: E402
from children import NNJOBS, environment, nnjobs  # noqa: E402
from hadoop_collective import CONFIG  # noqa: E402
from on_hadoop import hadoop  # noqa: E402
from record import record  # noqa: E402

from jobs.collective.status_file import CollectiveStatus, read_status  # noqa: E402
from nnlib.core.errors import StorageError  # noqa: E402
from nnlib.run.directory import GROUP  # noqa: E402
from nnlib.storage import storage  # noqa: E402

AT_MOST = 15.0
EPOCHS, KILLED_AFTER = 5000, 20
"""Enough rounds of 5 for the group to train when the worker is killed, and when it is replaced."""
TIMEOUT_SECONDS = 180.0
T = TypeVar("T")


def status(run: str) -> CollectiveStatus | None:
    """The group's status; None before it has written one."""
    try:
        return read_status(storage(run))
    except StorageError:
        return None


def members(run: str, generation: int) -> dict[int, int]:
    """Worker -> process of those who have come to a generation."""
    found = {}
    for folder in storage(f"{run}/{GROUP}").names():
        if "." in folder:
            continue
        place = storage(f"{run}/{GROUP}/{folder}")
        for name in place.names():
            if name.startswith(f"generation-{generation:06d}-worker-"):
                member = json.loads(place.read(name))
                task = json.loads(place.read(f"task-{member['incarnation']}.json"))
                found[int(member["worker"])] = int(task["process"])
    return found


def awaited(look: Callable[[], T], what: str) -> T:
    """The first true answer."""
    end = time.monotonic() + TIMEOUT_SECONDS
    while not (found := look()):
        if time.monotonic() > end:
            raise RuntimeError(f"waited {TIMEOUT_SECONDS:.0f} s in vain: {what}")
        time.sleep(0.05)
    return found


def recovery(config: Path, run: str, workers: int, shared: int, model: str) -> dict[str, float]:
    """Kill the last worker of a run; seconds until YARN has replaced it, and until all train again."""
    options = [*NNJOBS, "train", str(config), "-r", "hadoop", "--run-dir", run, "--json"]
    options += ["--set", f"workers={workers}", "--set", f"train.epochs={EPOCHS}"]
    options += ["--set", f"runtime.hadoop.workers_per_task={shared}"]
    with subprocess.Popen(
        options, cwd=config.parent, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as driver:
        try:
            awaited(lambda: (seen := status(run)) and seen.round >= KILLED_AFTER, "the group trains")
            lost = workers - 1
            process = members(run, 1)[lost]
            os.kill(process, signal.SIGKILL)
            killed = time.time()
            replaced = psutil.Process(awaited(lambda: members(run, 2).get(lost), "the worker is replaced"))
            # A worker of a shared container is forked from the Python that YARN started.
            started = (replaced if shared == 1 else replaced.parents()[0]).create_time()
            awaited(lambda: (seen := status(run)) and seen.generation == 2, "the group trains again")
            trained = time.time()
            output, _ = driver.communicate()
        finally:
            driver.terminate()  # asks YARN to end the application, too
    if driver.returncode or json.loads(output.splitlines()[-1])["model_sha256"] != model:
        raise RuntimeError(f"the run ended with code {driver.returncode}, or with another model than inline rounds")
    return {"yarn": started - killed, "own": trained - started}


def measure(workers: int, repeats: int) -> dict[str, Any]:
    with hadoop() as (base, folder):
        config = folder / "bench.yaml"
        config.write_text(CONFIG.format(data=f"{base}/digits"), encoding="utf-8")
        settings = ["--set", f"workers={workers}", "--set", f"train.epochs={EPOCHS}", "--set", "sync.mode=rounds"]
        inline = nnjobs("train", config, "--run-dir", folder / "inline", "--json", *settings, folder=folder)
        model = inline.result["model_sha256"]
        cases = [
            {"workers_per_task": shared}
            | summed([recovery(config, f"{base}/run-{shared}-{n}", workers, shared, model) for n in range(repeats)])
            for shared in (1, workers)
        ]
    slowest = max(case["medians"]["own"] for case in cases)
    return {
        "workers": workers,
        "cases": cases,
        "slowest": slowest,
        "at_most": AT_MOST,
        "held": slowest <= AT_MOST,
        "load_average": os.getloadavg()[0],
    }


def summed(times: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    medians = {name: statistics.median(one[name] for one in times) for name in times[0]}
    return {
        "seconds": [{name: round(value, 2) for name, value in one.items()} for one in times],
        "medians": {name: round(value, 2) for name, value in medians.items()},
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=4)
    chosen = parser.parse_args(arguments)
    result = measure(chosen.workers, chosen.repeats)
    record("hadoop_recovery", result)
    print(json.dumps(result))
    return 0 if result["held"] else 1


if __name__ == "__main__":
    sys.exit(main())
