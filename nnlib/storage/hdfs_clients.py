"""Which way into an HDFS to take."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from nnlib.storage.hadoop_config import HdfsPlace
from nnlib.storage.hdfs_client import HdfsClient


def _webhdfs(place: HdfsPlace) -> HdfsClient:
    from nnlib.storage.webhdfs import WebHdfs

    return WebHdfs(place)


CLIENTS: dict[str, Callable[[HdfsPlace], HdfsClient]] = {"webhdfs": _webhdfs}
"""Name in ``NNJOBS_HDFS_CLIENT`` -> the way in, imported when it is taken."""


@lru_cache(maxsize=32)
def client_of(place: HdfsPlace) -> HdfsClient:
    """The client of a file system, one for all storages there: they share its connections."""
    return CLIENTS[place.client if place.client != "auto" else choose(place)](place)


def choose(place: HdfsPlace) -> str:
    """By what is installed and configured, never by trying: a NameNode that restarts must not change the way in."""
    return "webhdfs"
