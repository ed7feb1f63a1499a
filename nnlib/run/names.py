"""Names of runs, the same in the terminal and in reports."""

from __future__ import annotations

from collections.abc import Sequence

from nnlib.core.errors import UsageError


def run_names(addresses: Sequence[str]) -> list[str]:
    """Return a name for each of the runs that are shown together.

    A run's name is the last part of its address (``digits-3`` of ``runs/digits-3``), or as many of the last parts as
    make the names differ.

    Args:
        addresses: the addresses of run directories, as `nnlib.run.directory.RunDirectory.address` has them.

    Raises:
        UsageError: an address stands twice.
    """
    parts = [address.rstrip("/").split("/") for address in addresses]
    if len({tuple(part) for part in parts}) < len(parts):
        raise UsageError("a run is given twice", hint="name each run once")
    length = 1
    while len({tuple(part[-length:]) for part in parts}) < len(parts):
        length += 1
    return ["/".join(part[-length:]) for part in parts]
