"""Files at any address, through one small interface: local paths now, ``hdfs://`` and ``s3://`` by the same calls.

Two kinds of write exist, and no other: `Storage.write` (readers see the whole new file or the old one) and
`Storage.create` (exactly one of several writers wins). Nothing appends and nothing renames a directory, so every
promise made here also holds on HDFS and S3.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from nnlib.addresses import refuse_credentials
from nnlib.errors import StorageError, UsageError

TEMPORARY = ".tmp"
"""Ends the names of files that are being written; they are hidden from `Storage.names`."""


class Storage(ABC):
    """A directory tree at one root address; names are relative, with ``/`` between the parts."""

    root: str

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The whole file. Raises `StorageError` if it is not there."""

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """The file, open for random reads (for Parquet)."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Replace the file as a whole: durable when this returns, never half visible."""

    def write_all(self, files: Mapping[str, bytes]) -> None:
        """Write several files in the order given; all are durable when this returns."""
        for name, data in files.items():
            self.write(name, data)

    @abstractmethod
    def create(self, name: str, data: bytes) -> bool:
        """Write the file only if nobody did before: False (and no change) if it exists already."""

    @abstractmethod
    def names(self, under: str = "") -> list[str]:
        """Sorted names of files and directories directly under a directory ([] if it is not there)."""

    @abstractmethod
    def exists(self, name: str) -> bool: ...

    @abstractmethod
    def size(self, name: str) -> int: ...

    @abstractmethod
    def sweep(self, under: str = "") -> None:
        """Delete what killed writers have left under a directory; call only while no other writes there."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Delete a file or a directory tree; not being there is fine."""

    @abstractmethod
    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """A stream that becomes the file, durably, when the block ends without an error; else nothing is left."""


class LocalStorage(Storage):
    """A directory on this machine. ``private``: what it makes is for its owner alone, whatever the umask."""

    def __init__(self, root: str | os.PathLike[str], *, private: bool = False) -> None:
        self.path = Path(os.path.expanduser(root)).absolute()  # noqa: PTH111  (pathlib's fails for an unknown ~user)
        self.root = str(self.path)
        self._private = private

    def _at(self, name: str) -> Path:
        return self.path / name if name else self.path

    def read(self, name: str) -> bytes:
        with _explained("read", self._at(name)):
            return self._at(name).read_bytes()

    def open(self, name: str) -> BinaryIO:
        with _explained("read", self._at(name)):
            return self._at(name).open("rb")

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        target = self._at(name)
        with _explained("write", target), self._temporary(target) as (temporary, stream):
            yield stream
            _replace(target, temporary, stream)
            _sync_directory(target.parent)

    def write(self, name: str, data: bytes) -> None:
        with self.writing(name) as stream:
            stream.write(data)

    def write_all(self, files: Mapping[str, bytes]) -> None:
        """Each directory is made durable once, not for each of its files: waiting for the disk is a round's largest
        cost besides its training."""
        for name, data in files.items():
            target = self._at(name)
            with _explained("write", target), self._temporary(target) as (temporary, stream):
                stream.write(data)
                _replace(target, temporary, stream)
        for folder in dict.fromkeys(self._at(name).parent for name in files):
            with _explained("write", folder):
                _sync_directory(folder)

    def create(self, name: str, data: bytes) -> bool:
        target = self._at(name)
        with _explained("write", target), self._temporary(target) as (temporary, stream):
            stream.write(data)
            _durable(stream)
            step("link", target)
            try:
                os.link(temporary, target)  # atomic, and fails if the target exists: rename would overwrite
            except FileExistsError:
                return False
            _sync_directory(target.parent)
            return True

    @contextlib.contextmanager
    def _temporary(self, target: Path) -> Iterator[tuple[Path, BinaryIO]]:
        """A new file beside the target, gone when the block ends (unless it became the target)."""
        if not target.parent.is_dir():
            self._make_directory(target.parent)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}{TEMPORARY}")
        try:
            step("create", temporary)
            temporary.touch(0o600 if self._private else 0o666, exist_ok=False)
            with temporary.open("wb") as stream:
                yield temporary, stream
        finally:
            step("clean", temporary)
            temporary.unlink(missing_ok=True)

    def _make_directory(self, path: Path) -> None:
        missing = [each for each in (path, *path.parents) if not each.is_dir()]
        for each in reversed(missing):
            step("mkdir", each)
            own = self._private and each.is_relative_to(self.path)
            each.mkdir(0o700 if own else 0o777, exist_ok=True)
            _sync_directory(each.parent)

    def sweep(self, under: str = "") -> None:
        """Delete what writers that were killed have left; call only while no other writes here."""
        for path in sorted(self._at(under).rglob(f".*{TEMPORARY}")):
            step("sweep", path)
            path.unlink(missing_ok=True)

    def names(self, under: str = "") -> list[str]:
        with _explained("list", self._at(under)):
            try:
                return sorted(entry for entry in os.listdir(self._at(under)) if not entry.endswith(TEMPORARY))
            except (FileNotFoundError, NotADirectoryError):
                return []

    def exists(self, name: str) -> bool:
        with _explained("read", self._at(name)):
            return self._at(name).exists()

    def size(self, name: str) -> int:
        with _explained("read", self._at(name)):
            return self._at(name).stat().st_size

    def delete(self, name: str) -> None:
        path = self._at(name)
        step("delete", path)
        with _explained("delete", path):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def _explained(action: str, path: Path) -> Iterator[None]:
    """Turn the operating system's errors into ours."""
    try:
        yield
    except FileNotFoundError as error:
        raise StorageError("no such file or directory", file=str(path)) from error
    except OSError as error:
        hint = "free some space, then run the same command with --resume" if error.errno == 28 else None
        raise StorageError(f"cannot {action}: {error.strerror or error}", hint=hint, file=str(path)) from error


def step(action: str, path: Path) -> None:
    """Called before every single change to the disk: a test counts them here, and kills the process at any one."""


def _durable(stream: BinaryIO) -> None:
    stream.flush()
    step("sync", Path(stream.name))
    os.fsync(stream.fileno())


def _replace(target: Path, temporary: Path, stream: BinaryIO) -> None:
    _durable(stream)
    step("rename", target)
    temporary.replace(target)


def _sync_directory(path: Path) -> None:
    """Make a rename or link in this directory survive a power cut."""
    step("sync", path)
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


STORAGES: dict[str, type[LocalStorage]] = {"": LocalStorage, "file": LocalStorage}
"""Scheme of an address -> its storage."""


def _is_text(name: str) -> bool:
    """Whether a name is text: Python makes lone surrogates of a command line's other bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def storage(address: str, *, private: bool = False) -> Storage:
    """The storage at an address: a path, ``file://...`` or another scheme of `STORAGES`.

    ``private``: new files are for their owner alone (on this machine; elsewhere the service's own rules hold).
    """
    refuse_credentials(address)
    if "\0" in address or not _is_text(address):
        raise UsageError("a name must be UTF-8 text without NUL, for it is kept in files", address=ascii(address))
    scheme, separator, rest = address.partition("://")
    if not separator:
        scheme, rest = "", address
    kind = STORAGES.get(scheme)
    if kind is None:
        raise UsageError(
            f"cannot use {scheme}:// addresses; known: {', '.join(name for name in STORAGES if name)} and plain paths",
            address=address.partition("?")[0],  # behind it a signed address has its signature
        )
    return kind(rest, private=private)
