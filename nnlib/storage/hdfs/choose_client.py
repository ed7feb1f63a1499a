"""Chooses the client of an HDFS: WebHDFS, libhdfs or ``hadoop fs``."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache

from nnlib.core.errors import UsageError
from nnlib.storage.hdfs.client import HdfsClient
from nnlib.storage.hdfs.hadoop_config import HdfsAddress, properties
from nnlib.storage.hdfs.ticket import has_package
from nnlib.storage.hdfs.tokens import VARIABLE


# Each is imported when it is chosen: a run needs one of them, with its HTTP client or Arrow's file systems.
def _webhdfs(hdfs: HdfsAddress) -> HdfsClient:
    from nnlib.storage.hdfs.webhdfs import WebHdfs

    return WebHdfs(hdfs)


def _native(hdfs: HdfsAddress) -> HdfsClient:
    from nnlib.storage.hdfs.libhdfs import LibHdfs

    return LibHdfs(hdfs)


def _command(hdfs: HdfsAddress) -> HdfsClient:
    from nnlib.storage.hdfs.hadoop_cli import HadoopCommand

    return HadoopCommand(hdfs)


HDFS_CLIENTS: dict[str, Callable[[HdfsAddress], HdfsClient]] = {"webhdfs": _webhdfs, "native": _native, "cli": _command}
"""Name in ``NNJOBS_HDFS_CLIENT`` -> the client."""


@lru_cache(maxsize=32)
def client_of(hdfs: HdfsAddress) -> HdfsClient:
    """Return the client of a file system, one for all storages there: they share its connections."""
    return HDFS_CLIENTS[choose(hdfs) if hdfs.client == "auto" else hdfs.client](hdfs)


def choose(hdfs: HdfsAddress) -> str:
    """Return the name of the client: WebHDFS, unless Hadoop's configuration turns it off, or it needs a Kerberos ticket
    and the package for that is not installed. A job's task needs none: it has a token.

    By what is configured and installed, never by trying: a NameNode that restarts must not change the client.
    """
    from nnlib.storage.hdfs.hadoop_cli import find_hadoop
    from nnlib.storage.hdfs.libhdfs import find_libhdfs

    enabled = hdfs.scheme != "hdfs" or properties().get("dfs.webhdfs.enabled", "true") != "false"
    if enabled and (not hdfs.kerberos or VARIABLE in os.environ or has_package()):
        return "webhdfs"
    if find_libhdfs() is not None:
        return "native"
    if find_hadoop() is not None:
        return "cli"
    if enabled:
        return "webhdfs"  # which says what to install
    raise UsageError(
        "WebHDFS is turned off (dfs.webhdfs.enabled), and there is neither libhdfs nor a hadoop command",
        hint="set HADOOP_HOME",
        address=f"{hdfs.scheme}://{hdfs.authority}",
    )
