"""Import of a numeric CSV file, against pyarrow alone reading it and writing it as Parquet.

    python tests/benchmarks/csv_import.py

1,000,000 rows of 28 features, as HIGGS has them, and a label. Both sides run in turns, each in a process of its own and
on one thread; the CPU seconds of each side's best run count, so other work of the machine does not.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

THREADS = "1"
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_variable] = THREADS

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))
from record import record  # noqa: E402

ROWS, FEATURES = 1_000_000, 28
REPEATS = 3
AT_MOST = 1.5

ALONE = """
import sys
import pyarrow as pa, pyarrow.csv, pyarrow.parquet
pa.set_cpu_count(1)
options = pyarrow.csv.ReadOptions(use_threads=False)
pyarrow.parquet.write_table(pyarrow.csv.read_csv(sys.argv[1], options), sys.argv[2])
"""


def write_rows(path: Path) -> None:
    """Write the rows: standard normal features with 17 digits and labels 0 and 1."""
    rng = np.random.default_rng(0)
    names = [f"f{number}" for number in range(FEATURES)]
    for start in range(0, ROWS, 100_000):
        frame = pd.DataFrame(rng.standard_normal((100_000, FEATURES)), columns=names)
        frame["label"] = rng.integers(0, 2, len(frame))
        frame.to_csv(path, index=False, mode="a", header=start == 0)


def seconds(command: list[str]) -> tuple[float, float]:
    """Return the CPU seconds and the wall seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def main() -> int:
    """Measure, record, and return 1 if the ratio misses its target."""
    with tempfile.TemporaryDirectory() as folder:
        csv = Path(folder, "rows.csv")
        write_rows(csv)
        alone = [sys.executable, "-c", ALONE, str(csv), str(Path(folder, "alone.parquet"))]
        ours = [sys.executable, "-m", "jobs", "data", "import", str(csv), "-o", str(Path(folder, "out")),
                "--label", "label", "--overwrite"]  # fmt: skip
        runs = [{"pyarrow": seconds(alone), "import": seconds(ours)} for _ in range(REPEATS)]
        size = csv.stat().st_size
    best = {side: [min(run[side][clock] for run in runs) for clock in (0, 1)] for side in ("pyarrow", "import")}
    ratios = {
        "cpu": best["import"][0] / best["pyarrow"][0],
        "wall": best["import"][1] / best["pyarrow"][1],
    }
    result = {"rows": ROWS, "features": FEATURES, "bytes": size, "seconds_cpu_and_wall": runs, "ratios": ratios}
    print(record("csv_import", result))
    print(f"import / pyarrow: {ratios['cpu']:.2f} CPU, {ratios['wall']:.2f} wall (target: CPU <= {AT_MOST})")
    return int(ratios["cpu"] > AT_MOST)


if __name__ == "__main__":
    sys.exit(main())
