"""NVIDIA GPUs: the table of the kind ``cuda``, and every call of ``torch.cuda`` that there is.

What NVIDIA and PyTorch promise: equal bits on the same GPU model, driver, CUDA, cuDNN and torch, with deterministic
algorithms and a fixed workspace of cuBLAS (https://docs.pytorch.org/docs/stable/notes/randomness.html,
https://docs.nvidia.com/cuda/cublas/#results-reproducibility).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from nnlib.core.arrays import Array
from nnlib.torch.devices import DeviceFacts

WORKSPACE, FIXED_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
"""cuBLAS reads it with its first product; torch refuses deterministic algorithms without it."""


class CudaTable:
    """See `nnlib.torch.devices.DeviceTable`."""

    def count(self) -> int:
        """See `nnlib.torch.devices.DeviceTable.count`: asked of the driver's management library where that is there."""
        return torch.cuda.device_count()

    def is_initialised(self) -> bool:
        """See `nnlib.torch.devices.DeviceTable.is_initialised`."""
        return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]

    def torch_device(self, index: int) -> torch.device:
        """See `nnlib.torch.devices.DeviceTable.torch_device`."""
        return torch.device("cuda", index)

    def facts(self, index: int) -> DeviceFacts:
        """See `nnlib.torch.devices.DeviceTable.facts`."""
        self._initialise()
        free, total = torch.cuda.mem_get_info(index)
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        libraries = f"driver {_driver()}, CUDA {torch.version.cuda}, cuDNN {cudnn}"
        return DeviceFacts(torch.cuda.get_device_name(index), total, free, libraries)

    @contextmanager
    def repeatable(self) -> Iterator[None]:
        """See `nnlib.torch.devices.DeviceTable.repeatable`."""
        cudnn, algorithms = torch.backends.cudnn, torch.get_deterministic_debug_mode()
        before = cudnn.deterministic, cudnn.benchmark
        torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms would import torch's compiler: 10 s
        cudnn.deterministic, cudnn.benchmark = True, False
        try:
            yield
        finally:
            cudnn.deterministic, cudnn.benchmark = before
            torch.set_deterministic_debug_mode(algorithms)

    @contextmanager
    def exact(self) -> Iterator[None]:
        """See `nnlib.torch.devices.DeviceTable.exact`: no TF32."""
        matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        before = matmul.allow_tf32, cudnn.allow_tf32
        matmul.allow_tf32 = cudnn.allow_tf32 = False
        try:
            yield
        finally:
            matmul.allow_tf32, cudnn.allow_tf32 = before

    def seed(self, index: int, seed: int) -> None:
        """See `nnlib.torch.devices.DeviceTable.seed`."""
        self._initialise()
        torch.cuda.default_generators[index].manual_seed(seed)

    def random_state(self, index: int) -> torch.Tensor:
        """See `nnlib.torch.devices.DeviceTable.random_state`."""
        self._initialise()
        return torch.cuda.get_rng_state(index)

    def set_random_state(self, index: int, state: torch.Tensor) -> None:
        """See `nnlib.torch.devices.DeviceTable.set_random_state`."""
        torch.cuda.set_rng_state(state, index)

    def send(self, index: int, array: Array) -> torch.Tensor:
        """See `nnlib.torch.devices.DeviceTable.send`: by pinned memory, which torch keeps until the copy is made."""
        self._initialise()
        pinned = torch.empty(array.shape, dtype=torch.from_numpy(array[:0]).dtype, pin_memory=True)
        pinned.numpy()[...] = array
        return pinned.to(self.torch_device(index), non_blocking=True)

    def peak_memory(self, index: int) -> int | None:
        """See `nnlib.torch.devices.DeviceTable.peak_memory`."""
        return torch.cuda.max_memory_allocated(index)

    def forget_peak(self, index: int) -> None:
        """See `nnlib.torch.devices.DeviceTable.forget_peak`."""
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(index)

    def _initialise(self) -> None:
        """Set what must be set before the first use."""
        os.environ.setdefault(WORKSPACE, FIXED_WORKSPACE)
        torch.cuda.init()  # type: ignore[no-untyped-call]


def _driver() -> str:
    """The version of the driver, as the kernel's module says it; "unknown" elsewhere."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "unknown"
    found = re.search(r"\b\d+\.\d+(?:\.\d+)?\b", text.splitlines()[0] if text else "")
    return found.group() if found else "unknown"


TABLE = CudaTable()
