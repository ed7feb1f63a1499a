"""Addresses as the tasks of a job know them."""

from __future__ import annotations

from nnlib.config.runners import runner_named
from nnlib.core.errors import UsageError
from nnlib.storage import has_scheme, storage


def reachable(address: str, runner: str, what: str) -> str:
    """Return the address as all tasks of a runner know it.

    ``what`` names the thing in an error. Raises `UsageError` for a path of this machine where other machines must read
    it.
    """
    if runner_named(runner).is_remote and not has_scheme(address):
        raise UsageError(
            f"the nodes of a cluster do not see {what} on this machine",
            hint="use an address in HDFS (hdfs:///...), or, where all nodes share the file system, say file:///...",
            address=address,
        )
    root = storage(address).root  # a node has none of this machine's configuration, which may say what hdfs:/// means
    return f"file://{root}" if address.startswith("file://") else root
