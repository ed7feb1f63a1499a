"""Two devices that are played on the CPU: what a table of real ones is asked is answered and remembered."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from nnlib.config.devices import DEVICES, DeviceKind
from nnlib.torch.devices import DeviceFacts

LINE = DeviceKind("played_devices:TABLE", "a device that is played on the CPU")
"""What registers the kind: the line that a new kind adds to `nnlib.config.devices.DEVICES`."""
REGISTERS = "NNJOBS_TESTS_PLAYED_DEVICES"
"""Environment variable of processes that register the kind when they import this module: the server of local tasks."""


class PlayedTable:
    """See `nnlib.torch.devices.DeviceTable`. ``sent`` has (device, shape) of every array that was sent; more than
    ``largest`` bytes at once do not fit."""

    def __init__(self, devices: int = 2) -> None:
        self.devices, self.largest = devices, 1 << 40
        self.sent: list[tuple[int, tuple[int, ...]]] = []
        self.seeds: list[tuple[int, int]] = []
        self.is_in_use = False

    def count(self) -> int:
        return self.devices

    def is_initialised(self) -> bool:
        return self.is_in_use

    def torch_device(self, index: int) -> torch.device:
        assert 0 <= index < self.devices
        return torch.device("cpu")

    def facts(self, index: int) -> DeviceFacts:
        self.is_in_use = True
        return DeviceFacts("played device", 8 << 20, 4 << 20, "driver 1, library 2")

    @contextmanager
    def repeatable(self) -> Iterator[None]:
        before = torch.get_deterministic_debug_mode()
        torch.set_deterministic_debug_mode("error")
        try:
            yield
        finally:
            torch.set_deterministic_debug_mode(before)

    @contextmanager
    def exact(self) -> Iterator[None]:
        yield

    def seed(self, index: int, seed: int) -> None:
        self.is_in_use = True
        self.seeds.append((index, seed))
        torch.default_generator.manual_seed(seed)

    def random_state(self, index: int) -> torch.Tensor:
        return torch.default_generator.get_state()

    def set_random_state(self, index: int, state: torch.Tensor) -> None:
        torch.default_generator.set_state(state)

    def send(self, index: int, array: Any) -> torch.Tensor:
        self.is_in_use = True
        if array.nbytes > self.largest:
            raise torch.OutOfMemoryError(f"played out of memory: {array.nbytes} bytes")
        self.sent.append((index, array.shape))
        return torch.from_numpy(np.array(array))

    def peak_memory(self, index: int) -> int | None:
        return 3 << 20

    def forget_peak(self, index: int) -> None:
        """There is nothing to forget."""


TABLE = PlayedTable()


if REGISTERS in os.environ:
    DEVICES["played"] = LINE
