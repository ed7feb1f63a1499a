"""The deterministic all-reduce against a plain `all_reduce` of torch.distributed (gloo), on loopback.

    python tests/benchmarks/allreduce.py [--workers 4] [--repeats 9] [--ranks 2 4 8 16 32]

The same worker processes hold a gloo group and two of ours, in the clear and with CURVE, and use them in turns on the
same float32 vectors. Beside it: groups of more and more ranks on the same cores, with the bytes that a rank sends.
"""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # read when numpy loads

import argparse  # noqa: E402
import json  # noqa: E402
import multiprocessing  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))
from record import record  # noqa: E402

from nnlib.aggregation.average import Partial  # noqa: E402
from nnlib.collective.allreduce import Operand, all_reduce  # noqa: E402
from nnlib.collective.communicator import Communicator  # noqa: E402
from nnlib.collective.curve_keys import make_keys, read_keys  # noqa: E402
from nnlib.collective.join import join  # noqa: E402
from nnlib.collective.network import LOOPBACK  # noqa: E402
from nnlib.collective.rendezvous import Rendezvous  # noqa: E402
from nnlib.storage import LocalStorage  # noqa: E402

SMALL, LARGE = 42_000, 10_000_000
TARGETS = {"small_encrypted": 0.5, "large_clear": 1.7, "large_encrypted": 3.5}
RANKS_SIZE = 1_000_000
SENT_AT_MOST = 1.01
"""Bytes that a rank sends, by twice those of the vector: (workers - 1) / workers of that, and a little JSON."""


def communicator(
    folder: str, worker: int, workers: int, *, encrypted: bool, addresses: Sequence[str] = (LOOPBACK,)
) -> Communicator:
    storage = LocalStorage(folder, private=True)
    keys = read_keys(storage) if encrypted else None
    meeting = Rendezvous(LocalStorage(f"{folder}/{encrypted}"), job="benchmark", worker=worker, workers=workers)
    return join(meeting, keys, addresses=addresses, timeout_seconds=60.0)


def ours(group: Communicator, size: int) -> Callable[[], None]:
    partial = Partial(group.worker, group.worker + 1, np.full(size, group.worker, np.float32), "benchmark")

    def run() -> None:
        all_reduce(group, [Operand(partial)])

    return run


def gloo(size: int) -> Callable[[], None]:
    import torch
    import torch.distributed

    vector = torch.ones(size)

    def run() -> None:
        torch.distributed.all_reduce(vector)
        vector.fill_(1.0)

    return run


def timed(step: Callable[[], None], times: int) -> tuple[float, float]:
    """Wall and processor seconds of one call, over so many."""
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(times):
        step()
    return (time.perf_counter() - wall) / times, (time.process_time() - processor) / times


def compare(folder: str, worker: int, workers: int, repeats: int, large: int, queue: Any) -> None:
    """One rank: gloo, in the clear, encrypted, in turns."""
    import torch
    import torch.distributed

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/gloo", rank=worker, world_size=workers)
    found: dict[str, list[tuple[float, float]]] = {}
    with (
        communicator(folder, worker, workers, encrypted=False) as clear,
        communicator(folder, worker, workers, encrypted=True) as encrypted,
    ):
        for name, size, times in (("small", SMALL, 40), ("large", large, 3)):
            steps = {"gloo": gloo(size), "clear": ours(clear, size), "encrypted": ours(encrypted, size)}
            for turn in range(repeats + 1):  # the first is burn-in
                for kind, step in steps.items():
                    torch.distributed.barrier()
                    took = timed(step, times)
                    if turn:
                        found.setdefault(f"{name}_{kind}", []).append(took)
    torch.distributed.destroy_process_group()
    queue.put((worker, found))


def scale(folder: str, worker: int, workers: int, repeats: int, large: int, queue: Any) -> None:
    """One rank of many: bytes sent and seconds of an all-reduce."""
    with communicator(folder, worker, workers, encrypted=True) as group:
        step = ours(group, min(large, RANKS_SIZE))
        step()
        before = group.sent_bytes
        seconds, processor = timed(step, repeats)
        queue.put((worker, (seconds, processor, (group.sent_bytes - before) / repeats)))


def ranks(work: Callable[..., None], workers: int, repeats: int, large: int) -> list[Any]:
    """What each rank of a group of processes finds, in worker order."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        make_keys(LocalStorage(folder, private=True))
        processes = [
            context.Process(target=work, args=(folder, worker, workers, repeats, large, queue))
            for worker in range(workers)
        ]
        for process in processes:
            process.start()
        found = dict(queue.get(timeout=600) for _ in processes)
        for process in processes:
            process.join()
    return [found[worker] for worker in range(workers)]


def measure(workers: int, repeats: int, large: int, many: list[int]) -> dict[str, Any]:
    compared = ranks(compare, workers, repeats, large)
    wall = {name: [max(each[name][turn][0] for each in compared) for turn in range(repeats)] for name in compared[0]}
    processor = {
        name: [sum(each[name][turn][1] for each in compared) for turn in range(repeats)] for name in compared[0]
    }

    def ratios(name: str, seconds: dict[str, list[float]]) -> list[float]:
        reference = seconds[f"{name.partition('_')[0]}_gloo"]
        return [one / other for one, other in zip(seconds[name], reference, strict=True)]

    names = [name for name in wall if not name.endswith("gloo")]
    medians = {name: round(statistics.median(ratios(name, wall)), 3) for name in names}
    scaled = {}
    for number in many:
        found = ranks(scale, number, 5, large)
        scaled[str(number)] = {
            "ms": round(1e3 * statistics.median(each[0] for each in found), 2),
            "bytes_sent_by_a_rank": round(max(each[2] for each in found)),
        }
    bytes_sent = max((found["bytes_sent_by_a_rank"] for found in scaled.values()), default=0)
    most_sent = round(bytes_sent / (2 * 4 * min(large, RANKS_SIZE)), 4)
    return {
        "workers": workers,
        "elements": {"small": SMALL, "large": large, "ranks": min(large, RANKS_SIZE)},
        "ms": {name: [round(1e3 * each, 3) for each in seconds] for name, seconds in wall.items()},
        "median_ms": {name: round(1e3 * statistics.median(seconds), 3) for name, seconds in wall.items()},
        "ratios": {name: [round(each, 3) for each in ratios(name, wall)] for name in names},
        "medians": medians,
        "processor_medians": {name: round(statistics.median(ratios(name, processor)), 3) for name in names},
        "ranks": scaled,
        "most_sent": most_sent,
        "load": os.getloadavg()[0],
        "targets": TARGETS,
        "held": all(medians[name] <= target for name, target in TARGETS.items()) and most_sent <= SENT_AT_MOST,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--elements", type=int, default=LARGE, help="of the large vector")
    parser.add_argument("--ranks", type=int, nargs="*", default=[2, 4, 8, 16, 32])
    chosen = parser.parse_args(arguments)
    result = measure(chosen.workers, chosen.repeats, chosen.elements, chosen.ranks)
    record("allreduce", result)
    print(json.dumps(result, indent=2))
    return 0 if result["held"] else 1


if __name__ == "__main__":
    sys.exit(main())
