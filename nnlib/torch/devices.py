"""Devices other than the CPU, behind one small interface, and how they are dealt to workers.

Everything that knows which kind of device there is lies in the table of that kind (`nnlib.torch.cuda`,
`nnlib.torch.mps`); tests play another. The rest of the product asks a `Device`.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch

from nnlib.config.devices import AUTO, CPU, DEVICES, parse_device
from nnlib.core.arrays import Array
from nnlib.core.errors import JobError
from nnlib.core.named_object import load_named


class DeviceFacts(NamedTuple):
    """What a device is. ``memory`` and ``free`` are in bytes, None where the system does not say. ``versions`` names
    all that decides its bits besides itself: driver, libraries."""

    name: str
    memory: int | None
    free: int | None
    versions: str


class DeviceTable(Protocol):
    """The devices of one kind on this machine, numbered from 0."""

    def count(self) -> int:
        """Count the devices, without initialising any: a process may still fork afterwards."""
        ...

    def is_initialised(self) -> bool:
        """Return whether this process has used a device: then it must not fork any more."""
        ...

    def torch_device(self, index: int) -> torch.device:
        """Return how torch calls a device."""
        ...

    def facts(self, index: int) -> DeviceFacts:
        """Return what a device is; initialises it."""
        ...

    def repeatable(self) -> AbstractContextManager[object]:
        """Compute in the block so that the same operations give the same bits; one that cannot raises `RuntimeError`
        and names itself. The settings are the user's program's again when the block ends."""
        ...

    def exact(self) -> AbstractContextManager[object]:
        """Compute in the block with the precision of the numbers, not a shorter one for speed."""
        ...

    def seed(self, index: int, seed: int) -> None:
        """Seed the generator of a device."""
        ...

    def random_state(self, index: int) -> torch.Tensor:
        """Return the state of a device's generator."""
        ...

    def set_random_state(self, index: int, state: torch.Tensor) -> None:
        """Set the state of a device's generator."""
        ...

    def send(self, index: int, array: Array) -> torch.Tensor:
        """Begin to copy a host's array to a device; what is computed afterwards waits for it. The array may be changed
        as soon as this returns."""
        ...

    def peak_memory(self, index: int) -> int | None:
        """Return the most bytes that tensors have held since `forget_peak`; None where the system does not say."""
        ...

    def forget_peak(self, index: int) -> None:
        """Begin to measure `peak_memory` anew, and give back memory that no tensor holds."""
        ...


@dataclass(frozen=True)
class Device:
    """One device of this machine. ``name``: kind:number."""

    kind: str
    index: int
    table: DeviceTable

    @property
    def name(self) -> str:
        """The kind and the number: ``cuda:0``."""
        return f"{self.kind}:{self.index}"

    @property
    def handle(self) -> torch.device:
        """How torch calls the device."""
        return self.table.torch_device(self.index)

    def send(self, array: Array) -> torch.Tensor:
        """See `DeviceTable.send`."""
        return self.table.send(self.index, array)

    def seed(self, seed: int) -> None:
        """Seed what a module draws, on the device and on the CPU."""
        torch.default_generator.manual_seed(seed)
        self.table.seed(self.index, seed)

    @contextmanager
    def computing(self, *, strict: bool) -> Iterator[None]:
        """Compute in the block as this product promises: exactly, and where ``strict`` repeatably. Generators and
        settings are the user's program's again when the block ends."""
        state, host_state = self.table.random_state(self.index), torch.default_generator.get_state()
        try:
            with self.table.exact(), self.table.repeatable() if strict else self.table.exact():
                yield
        finally:
            torch.default_generator.set_state(host_state)
            self.table.set_random_state(self.index, state)


def table_of(kind: str) -> DeviceTable:
    """Return the table of a kind of device."""
    table: DeviceTable = load_named(DEVICES[kind].table)
    return table


def used_kinds() -> list[str]:
    """List the kinds of devices that this process has used, in words for a message."""
    return [f"{kind} device" for kind in DEVICES if table_of(kind).is_initialised()]


def deal_device(name: str, worker: int, *, one_for_all: bool) -> Device | None:
    """Return the device that computes for a worker; None: the CPU.

    ``name`` is a resolved `runtime.device`. Without a number the devices of this machine (in a container: those that
    it may use) are dealt to the workers in turn; ``one_for_all``: all workers run in one process, and share the first.
    Raises `JobError`, which names this machine, where there is no such device.
    """
    kind, index = parse_device(name)
    if kind in (AUTO, CPU):
        return None
    table = table_of(kind)
    count = table.count()
    if index is None and count:
        index = 0 if one_for_all else worker % count
    if index is None or index >= count:
        raise JobError(
            f"there is no {name} on {platform.node()}" + (f": it has {count} of that kind" if count else ""),
            hint="nnjobs devices shows what there is on a machine",
        )
    return Device(kind, index, table)
