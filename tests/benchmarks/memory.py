"""Peak memory of every process that makes, imports or trains on data much larger than its memory.

    python tests/benchmarks/memory.py [--rows N] [--folder DIR]

1,000,000 rows of 784 bytes by default: `data synth`; `data import` of the same size from an .npy file and an IDX pair
(784 MB each); one epoch of 784-100-10 with 8 workers and with one inline, and with 8 workers as local processes.
Takes 2.5 GB of disk below DIR, which it gives back, and some minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from children import peak_memory
from record import record

FEATURES, SIDE, CLASSES, SHARDS = 784, 28, 10, 8
AT_MOST_MB = 600.0
CHUNK = 10_000

CONFIG = """\
name: memory
data:
  path: {data}
model:
  hidden: [100]
train:
  epochs: 1
  epochs_per_round: 1
  batch_size: 64
  lr: 0.05
split:
  train: 0.7
  seeds: [0]
"""


def labels(rows: int) -> np.ndarray:
    return (np.arange(rows) % CLASSES).astype(np.uint8)


def fill(write: Callable[[bytes], Any], rows: int) -> None:
    """Seeded images, one chunk in memory at a time: rows that share their noise but not their label's stripe."""
    rng = np.random.default_rng(0)
    for start in range(0, rows, CHUNK):
        count = min(CHUNK, rows - start)
        images = rng.integers(0, 64, (count, FEATURES), dtype=np.uint8)
        y = labels(rows)[start : start + count]
        images[np.arange(count), y.astype(np.int64) * 78] = 255
        write(images.tobytes())


def write_npy(folder: Path, rows: int) -> list[str]:
    """x.npy and y.npy; gives the arguments to import them."""
    x, y = folder / "x.npy", folder / "y.npy"
    with x.open("wb") as stream:
        header = {"descr": "|u1", "fortran_order": False, "shape": (rows, FEATURES)}
        np.lib.format.write_array_header_1_0(stream, header)
        fill(stream.write, rows)
    np.save(y, labels(rows))
    return [str(x), "--label", str(y)]


def write_idx(folder: Path, rows: int) -> list[str]:
    """Images and labels as MNIST has them; gives the arguments to import them."""
    x, y = folder / "train-images-idx3-ubyte", folder / "train-labels-idx1-ubyte"
    with x.open("wb") as stream:
        stream.write(struct.pack(">IIII", 0x803, rows, SIDE, SIDE))
        fill(stream.write, rows)
    y.write_bytes(struct.pack(">II", 0x801, rows) + labels(rows).tobytes())
    return [str(x)]


def measure(folder: Path, rows: int) -> dict[str, Any]:
    results: dict[str, Any] = {}

    def step(name: str, *arguments: str | Path) -> None:
        peaks, seconds = peak_memory(*arguments, folder=folder)
        results[name] = {"peak_mb": peaks, "seconds": round(seconds, 1)}
        print(f"{name:16} {peaks[0]:7.1f} MB  {seconds:6.1f} s", file=sys.stderr, flush=True)

    for name, write in (("import_npy", write_npy), ("import_idx", write_idx)):
        raw = folder / f"{name}-raw"
        raw.mkdir()
        step(name, "data", "import", *write(raw, rows), "-o", folder / name, "--shards", str(SHARDS))
        shutil.rmtree(raw)
        shutil.rmtree(folder / name)
    data = folder / "data"
    step("synth", "data", "synth", "-o", data, "--kind", "digits", "--rows", str(rows), "--shards", str(SHARDS))
    config = folder / "memory.yaml"
    config.write_text(CONFIG.format(data=json.dumps(str(data))))
    for name, runner, workers in (
        ("inline_8", "inline", 8),
        ("inline_1", "inline", 1),
        ("local_8", "local", 8),
    ):
        cores = ["--set", "runtime.cores=2"] if runner == "local" else []
        step(
            name, "train", config, "-r", runner, *cores, "--set", f"workers={workers}", "--run-dir", folder / name, "-q"
        )
    return results


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", default=None, help="where the data goes [default: the system's temporary folder]")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=chosen.folder, prefix="nnjobs-memory-") as folder:
        steps = measure(Path(folder), chosen.rows)
    largest = max(step["peak_mb"][0] for step in steps.values())
    result: dict[str, Any] = {
        "rows": chosen.rows,
        "features": FEATURES,
        "load_average": os.getloadavg()[0],
        "steps": steps,
        "largest_mb": largest,
        "at_most": {"largest_mb": AT_MOST_MB},
        "held": largest < AT_MOST_MB,
    }
    record("memory", result)
    print(json.dumps(result, indent=2))
    return 0 if result["held"] else 1


if __name__ == "__main__":
    sys.exit(main())
