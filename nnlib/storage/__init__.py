"""Files at any address, through one small interface: a local path, ``hdfs://...``, ``s3://...``.

A new storage is one file or folder with a `Storage` and one line in `STORAGES`. What it is (on other machines or not,
what a task needs to reach it, what was sent to it) is asked of it: no other code looks at schemes or classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from operator import or_
from typing import Protocol

from nnlib.core.errors import UsageError
from nnlib.storage.addresses import has_scheme, is_empty_address, is_remote_address, is_there, path_in
from nnlib.storage.base import TEMPORARY, Access, Storage
from nnlib.storage.credentials import refuse_credentials
from nnlib.storage.local import LocalStorage
from nnlib.storage.traffic import Price

__all__ = [
    "STORAGES",
    "TEMPORARY",
    "Access",
    "LocalStorage",
    "Storage",
    "access_to",
    "describe_requests",
    "file_at",
    "has_scheme",
    "is_empty_address",
    "is_remote_address",
    "is_stream",
    "refuse_empty",
    "storage",
]


class Opener(Protocol):
    """What a line of `STORAGES` names."""

    def __call__(self, address: str, *, private: bool) -> Storage:
        """Return the storage at an address of the scheme."""
        ...


def _local(address: str, *, private: bool) -> Storage:
    return LocalStorage(path_in(address), private=private)


def _hdfs(address: str, *, private: bool) -> Storage:
    from nnlib.storage.hdfs.storage import HdfsStorage  # late: runs on local files need no HTTP client

    return HdfsStorage(address, private=private)


def _s3(address: str, *, private: bool) -> Storage:
    try:
        from nnlib.storage.s3.storage import S3Storage  # late: the AWS SDK takes half a second
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("boto3", "botocore", "urllib3"):
            raise
        raise UsageError(
            "addresses in S3 need the AWS SDK, which is not installed",
            hint="pip install 'nnjobs[aws]'",
            address=address,
        ) from error
    return S3Storage(address)


STORAGES: dict[str, Opener] = {
    **dict.fromkeys(("", "file"), _local),
    **dict.fromkeys(("hdfs", "webhdfs", "swebhdfs"), _hdfs),
    **dict.fromkeys(("s3", "s3a"), _s3),
}
"""Scheme of an address -> what opens it."""


def storage(address: str, *, private: bool = False) -> Storage:
    """Return the storage at an address: a path, ``file://...`` or another scheme of `STORAGES`.

    ``private``: new files are for their owner alone (where the storage knows owners). Raises `UsageError` for an
    address that cannot be used; an empty one is no name of the current directory.
    """
    refuse_empty(address)
    refuse_credentials(address)
    if "\0" in address or not _is_text(address):
        raise UsageError("a name must be UTF-8 text without NUL, for it is kept in files", address=ascii(address))
    scheme, separator, _ = address.partition("://")
    opener = STORAGES.get(scheme if separator else "")
    if opener is None:
        raise UsageError(
            f"cannot use {scheme}:// addresses; known: {', '.join(name for name in STORAGES if name)} and plain paths",
            address=address.partition("?")[0],  # behind it a signed address has its signature
        )
    return opener(address, private=private)


def access_to(addresses: Iterable[str]) -> Access:
    """Return what a process needs to reach several addresses."""
    return reduce(or_, (storage(address).access() for address in addresses), Access())


def describe_requests(requests: Mapping[Price, int]) -> str | None:
    """Return a line for people about requests to storages that charge for them, by `nnlib.storage.traffic.Price`; None
    where there were none."""
    if not any(requests.values()):
        return None
    from nnlib.storage.s3.prices import describe  # late: few runs have any; S3 is the only one that charges

    return describe(requests)


def file_at(address: str) -> tuple[Storage, str]:
    """Return the storage of the directory that a file lies in, and the file's name there.

    Raises `UsageError` where the address names no file (it ends in ``/``, or has a host only).
    """
    refuse_empty(address)
    scheme, separator, rest = address.rpartition("://")
    folder, slash, name = rest.rpartition("/")
    if name in ("", ".", "..") or (separator and not slash):
        raise UsageError("this is a directory: name a file in it", address=address)
    if separator:
        return storage(f"{scheme}://{folder or '/'}"), name
    return storage(folder or slash or "."), name


def is_stream(address: str) -> bool:
    """Return whether an address is that of something that is written into, not replaced: a FIFO, ``/dev/stdout``."""
    path = storage(address).local_path()
    return path is not None and is_there(path) and LocalStorage(path.parent).is_stream(path.name)


def refuse_empty(address: str, what: str | None = None) -> None:
    """Raise `UsageError` for an address that names nothing. ``what`` is the option or key that it was given to."""
    if is_empty_address(address):
        raise UsageError(
            f"{what or 'an address'} is empty: it names no file and no folder",
            hint="is a variable of the shell not set? For the current folder write .",
        )


def _is_text(name: str) -> bool:
    """Whether a name is text: Python makes lone surrogates of a command line's other bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
