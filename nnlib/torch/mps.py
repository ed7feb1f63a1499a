"""The GPU of an Apple computer: the table of the kind ``mps``. Apple promises no equal bits, so none are promised."""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager, nullcontext

import torch

from nnlib.core.arrays import Array
from nnlib.torch.devices import DeviceFacts


class MpsTable:
    """See `nnlib.torch.devices.DeviceTable`."""

    def __init__(self) -> None:
        self._is_used = False

    def count(self) -> int:
        """See `nnlib.torch.devices.DeviceTable.count`."""
        return int(torch.backends.mps.is_available())

    def is_initialised(self) -> bool:
        """See `nnlib.torch.devices.DeviceTable.is_initialised`."""
        return self._is_used

    def torch_device(self, index: int) -> torch.device:
        """See `nnlib.torch.devices.DeviceTable.torch_device`."""
        self._is_used = True
        return torch.device("mps", index)

    def facts(self, index: int) -> DeviceFacts:
        """See `nnlib.torch.devices.DeviceTable.facts`."""
        memory = torch.mps.recommended_max_memory()
        versions = f"macOS {platform.mac_ver()[0]}"
        return DeviceFacts(platform.processor(), memory, memory - torch.mps.driver_allocated_memory(), versions)

    def repeatable(self) -> AbstractContextManager[object]:
        """See `nnlib.torch.devices.DeviceTable.repeatable`: nothing can be set."""
        return nullcontext()

    def exact(self) -> AbstractContextManager[object]:
        """See `nnlib.torch.devices.DeviceTable.exact`: nothing can be set."""
        return nullcontext()

    def seed(self, index: int, seed: int) -> None:
        """See `nnlib.torch.devices.DeviceTable.seed`."""
        torch.mps.manual_seed(seed)

    def random_state(self, index: int) -> torch.Tensor:
        """See `nnlib.torch.devices.DeviceTable.random_state`."""
        return torch.mps.get_rng_state()

    def set_random_state(self, index: int, state: torch.Tensor) -> None:
        """See `nnlib.torch.devices.DeviceTable.set_random_state`."""
        torch.mps.set_rng_state(state)

    def send(self, index: int, array: Array) -> torch.Tensor:
        """See `nnlib.torch.devices.DeviceTable.send`. Memory is shared, so there is nothing to pin."""
        return torch.from_numpy(array.copy()).to(self.torch_device(index))

    def peak_memory(self, index: int) -> int | None:
        """See `nnlib.torch.devices.DeviceTable.peak_memory`."""
        return None

    def forget_peak(self, index: int) -> None:
        """See `nnlib.torch.devices.DeviceTable.forget_peak`."""
        torch.mps.empty_cache()


TABLE = MpsTable()
