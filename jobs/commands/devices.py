"""``nnjobs devices``: what can compute torch modules on this machine, by the names that `runtime.device` takes."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sys
from typing import Any

import click

from jobs.commands.options import json_option
from jobs.console.output import print_json, printable
from nnlib.config.devices import CPU, DEVICES
from nnlib.core.machine import memory_bytes, processor_features
from nnlib.core.progress import progressing

MB = 1 << 20


@click.command()
@json_option
def devices(as_json: bool) -> None:
    """Show the devices of this machine that compute torch modules.

    The processor is always one. Without torch there is no other, which is no error: models of numpy need none.
    """
    found = describe_devices()
    if as_json:
        print_json(found)
    else:
        for line in device_lines(found):
            click.echo(printable(line))


def describe_devices() -> dict[str, Any]:
    """Return what there is, as JSON-able data: the processor, torch's version (None: not installed), every device, and
    which kind `runtime.device: auto` takes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cpu = {
        "name": platform.processor() or platform.machine(),
        "cores": cores,
        "memory_bytes": memory_bytes(),
        "features": processor_features(),
    }
    if importlib.util.find_spec("torch") is None:
        return {"cpu": cpu, "torch": None, "devices": [], "auto": CPU}
    with progressing("asking torch about devices", unit="devices"):
        found = _devices()
        kinds = [each["device"].partition(":")[0] for each in found]
        return {
            "cpu": cpu | {"threads": _threads()},
            "torch": importlib.metadata.version("torch"),
            "devices": found,
            "auto": kinds[0] if kinds else CPU,
        }


def device_lines(found: dict[str, Any]) -> list[str]:
    """Return what `describe_devices` found as lines for people."""
    cpu = found["cpu"]
    memory = "" if cpu["memory_bytes"] is None else f", {cpu['memory_bytes'] // MB:,} MB"
    features = f", {' '.join(cpu['features'])}" if cpu["features"] else ""
    lines = [f"cpu: {cpu['name']}, {cpu['cores']} cores{memory}{features}"]
    if found["torch"] is None:
        command = f'{sys.executable} -m pip install "nnjobs[torch]"'
        return [*lines, f"torch is not installed: models of kind torch need it ({command})"]
    for each in found["devices"]:
        free = "" if each["free_bytes"] is None else f" ({each['free_bytes'] // MB:,} free)"
        size = "" if each["memory_bytes"] is None else f", {each['memory_bytes'] // MB:,} MB{free}"
        lines.append(f"{each['device']}: {each['name']}{size}, {each['versions']}")
    lines.append(f"torch {found['torch']}; runtime.device: auto is {found['auto']}")
    return lines


def _devices() -> list[dict[str, Any]]:
    from nnlib.torch.devices import table_of  # late: it imports torch

    found = []
    for kind in DEVICES:
        table = table_of(kind)
        for index in range(table.count()):
            facts = table.facts(index)
            found.append(
                {
                    "device": f"{kind}:{index}",
                    "name": facts.name,
                    "memory_bytes": facts.memory,
                    "free_bytes": facts.free,
                    "versions": facts.versions,
                }
            )
    return found


def _threads() -> int:
    import torch

    return torch.get_num_threads()
