"""How far the cost model's predictions are from measured runs of 2, 4 and 8 local workers, which its fit has not seen.

    python tests/benchmarks/simulator.py [--rows N] [--epochs N] [--seconds S] [--repeat N]

Calibrates on 1 and 6 workers, then trains whole runs: configs/scale-mlp1.yaml on as many digits as ``--rows``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # read when the libraries load, so before their imports

from record import record  # noqa: E402

from jobs.experiments.calibration import calibrate, machine_slots, second_point  # noqa: E402
from jobs.experiments.scaling import measure  # noqa: E402
from nnlib.config.load import load_config  # noqa: E402
from nnlib.data.synthetic import SynthOptions, synthesize  # noqa: E402
from nnlib.simulate.costs import SimulatedCluster  # noqa: E402
from nnlib.simulate.model import predict  # noqa: E402

CONFIG = Path(__file__).parents[2] / "configs" / "scale-mlp1.yaml"
WORKERS = (2, 4, 8)
AT_MOST_PERCENT = 15.0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=94_000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        data = f"{folder}/data"
        synthesize(data, SynthOptions(kind="digits", rows=options.rows, features=400, shards=8))
        config = load_config(CONFIG, [f"data.path={data}", f"train.epochs={options.epochs}"])
        load_before = os.getloadavg()[0]
        other = second_point(config, set(WORKERS))
        work, costs, _ = calibrate(config, other, seconds=options.seconds, notify=print)
        predicted = predict(work, costs, SimulatedCluster(machine_slots(config)), WORKERS)
        measured = measure(config, WORKERS, f"{folder}/runs", repeat=options.repeat, notify=print)
    points: list[dict[str, Any]] = []
    for point, runs in zip(predicted, measured, strict=True):
        seconds = statistics.median(run.seconds for run in runs)
        points.append(
            {
                "workers": point.workers,
                "predicted": round(point.seconds, 3),
                "measured": [run.seconds for run in runs],
                "error_percent": round(100 * (point.seconds - seconds) / seconds, 1),
            }
        )
    worst = max(abs(point["error_percent"]) for point in points)
    result = {
        "config": CONFIG.name,
        "rows": options.rows,
        "epochs": options.epochs,
        "calibrated_on": [1, other],
        "costs": dataclasses.asdict(costs),
        "load_average_before": load_before,
        "points": points,
        "worst_percent": worst,
        "at_most_percent": AT_MOST_PERCENT,
        "held": worst <= AT_MOST_PERCENT,
    }
    record("simulator", result)
    print(json.dumps(result, indent=2))
    return 0 if result["held"] else 1


if __name__ == "__main__":
    sys.exit(main())
