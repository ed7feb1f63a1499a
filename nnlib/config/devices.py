"""The devices that compute torch modules, by the kind that `runtime.device` names.

A new kind is one file with its table (`nnlib.torch.devices.DeviceTable`) and one line of `DEVICES`. Its code is
imported where a device of it is wanted, never to read a configuration.
"""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

from nnlib.core.named_object import load_named


class DeviceKind(NamedTuple):
    """One kind of device. ``table`` is ``module:name`` of its `nnlib.torch.devices.DeviceTable`."""

    table: str
    about: str


DEVICES: dict[str, DeviceKind] = {
    "cuda": DeviceKind("nnlib.torch.cuda:TABLE", "an NVIDIA GPU"),
    "mps": DeviceKind("nnlib.torch.mps:TABLE", "the GPU of an Apple computer"),
}
"""In the order in which ``auto`` looks for them; the CPU, which is always there, comes last."""

CPU, AUTO = "cpu", "auto"


class DeviceName(NamedTuple):
    """What a value of `runtime.device` means: the kind, and the number of the one device that is wanted, if any."""

    kind: str
    number: int | None = None


def parse_device(text: str) -> DeviceName:
    """Read ``auto``, ``cpu``, or a kind of `DEVICES` with or without ``:N``. Raises `ValueError`."""
    kind, colon, number = text.partition(":")
    if text in (AUTO, CPU):
        return DeviceName(text)
    if kind not in DEVICES:
        known = ", ".join((AUTO, CPU, *DEVICES))
        raise ValueError(f"there is no device {text!r}; there are {known}, and {next(iter(DEVICES))}:N")
    if not colon:
        return DeviceName(kind)
    if not (number.isascii() and number.isdecimal() and len(number) <= 4):
        raise ValueError(f"{text!r} has no number behind the colon: {kind}:0, say")
    return DeviceName(kind, int(number))


def count_devices(kind: str) -> int:
    """Count the devices of a kind on this machine; 0 where torch is not installed. Imports torch, and leaves it as it
    is: no device is initialised."""
    if importlib.util.find_spec("torch") is None:
        return 0
    return int(load_named(DEVICES[kind].table).count())


def count_used_devices(name: str) -> int:
    """Count the devices of this machine that tasks share where `runtime.device` is ``name``; 0: the CPU computes."""
    kind, number = parse_device(name)
    if kind in (AUTO, CPU):
        return 0
    return count_devices(kind) if number is None else 1


def devices_here(name: str) -> list[str]:
    """List what the devices of this machine are that `runtime.device` names; [] for the CPU. Initialises them."""
    kind, _ = parse_device(name)
    if kind in (AUTO, CPU):
        return []
    table = load_named(DEVICES[kind].table)
    return [str(table.facts(number).name) for number in range(table.count())]


def device_modules(name: str) -> list[str]:
    """List the modules that computing on the device `runtime.device` names imports; [] for the CPU."""
    kind, _ = parse_device(name)
    return [] if kind in (AUTO, CPU) else [DEVICES[kind].table.partition(":")[0]]
