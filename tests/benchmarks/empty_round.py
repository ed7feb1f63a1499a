"""What a round costs besides its training: everything from one committed round to the next, with four rows a worker.

    python tests/benchmarks/empty_round.py [--rounds N]

Between any two rounds the same map and reduce tasks run once more as mrjob comes: its own inline runner, and a job
class that builds all of mrjob's options. That is the job alone, without the outer step, the checkpoint and the
journals, which our rounds include; both carry the partials of a 400-100-10 net from 4 workers.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # read when the libraries load, so before their imports

from jobs.driver import driver  # noqa: E402  (first of all: it prepares the import of mrjob)

from mrjob.job import MRJob  # noqa: E402  # isort: skip
from record import record  # noqa: E402

from jobs.mapreduce.round_job import RoundJob  # noqa: E402
from nnlib.config.schema import Config  # noqa: E402
from nnlib.core.events import Event, RoundDone  # noqa: E402
from nnlib.data.synthetic import SynthOptions, synthesize  # noqa: E402

WORKERS, ROWS, FEATURES, HIDDEN = 4, 32, 400, 100
BURN_IN = 5
AT_MOST_MS = 30.0


class StockJob(RoundJob):
    """The round's job with everything that mrjob builds for a task."""

    def configure_args(self) -> None:
        MRJob.configure_args(self)
        self.add_task_args()


def stock_job(run: Path, plans: list[str], round_: int) -> int:
    """Run the job of a committed round by mrjob's own means; the number of its output lines."""
    model = run / "rounds" / f"{round_:06d}" / "model.safetensors"
    arguments = ["-r", "inline", "--no-conf", "--spec", str(run / "spec.json"), "--model", str(model)]
    arguments += ["--round", str(round_ - 1), "--epochs", f"{round_ - 1}:{round_}", "--active", "0"]
    job = StockJob([*arguments, *plans])
    with job.make_runner() as runner:
        runner.run()
        return len(list(job.parse_output(runner.cat_output())))


def measure(folder: Path, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each of our rounds, and of each stock job between them."""
    data, run = folder / "data", folder / "run"
    synthesize(str(data), SynthOptions(kind="digits", rows=ROWS, features=FEATURES, shards=WORKERS))
    config = Config.model_validate(
        {
            "workers": WORKERS,
            "run_dir": str(run),
            "data": {"path": str(data)},
            "model": {"hidden": [HIDDEN]},
            "train": {"epochs": rounds + 1, "epochs_per_round": 1},
        }
    )
    plans = []
    for worker in range(WORKERS):
        plan = folder / f"{worker}.plan"
        plan.write_text(json.dumps({"format_version": 1, "worker": worker, "shards": [worker]}) + "\n")
        plans.append(str(plan))
    ours: list[float] = []
    stock: list[float] = []
    began = 0.0

    def listen(event: Event) -> None:
        nonlocal began
        if not isinstance(event, RoundDone):
            return
        ended = time.perf_counter()
        if event.round > 1:
            ours.append(ended - began)
        if stock_job(run, plans, event.round) < WORKERS + 2:
            raise RuntimeError("the stock job did not do a round's work")
        began = time.perf_counter()
        stock.append(began - ended)

    driver.train(config, listen=listen)
    return ours[BURN_IN:], stock[BURN_IN:]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args(arguments).rounds
    with tempfile.TemporaryDirectory() as folder:
        ours, stock = measure(Path(folder), BURN_IN + rounds)
    milliseconds = {
        name: [round(1e3 * value, 2) for value in values] for name, values in (("round", ours), ("mrjob", stock))
    }
    medians = {name: round(statistics.median(values), 2) for name, values in milliseconds.items()}
    result: dict[str, Any] = {
        "workers": WORKERS,
        "net": [FEATURES, HIDDEN, 10],
        "rows_a_worker": ROWS // WORKERS,
        "load_average": os.getloadavg()[0],
        "milliseconds": milliseconds,
        "medians": medians,
        "ratio": round(medians["mrjob"] / medians["round"], 2),
        "at_most": {"round": AT_MOST_MS},
        "held": medians["round"] <= AT_MOST_MS,
    }
    record("empty_round", result)
    print(json.dumps({key: value for key, value in result.items() if key != "milliseconds"}, indent=2))
    return 0 if result["held"] else 1


if __name__ == "__main__":
    sys.exit(main())
