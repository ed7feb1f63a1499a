"""Files on this machine."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from nnlib.core.errors import StorageError
from nnlib.storage import fault_hook
from nnlib.storage.addresses import absolute_path
from nnlib.storage.base import TEMPORARY, Storage, is_temporary, temporary_name
from nnlib.storage.local_target import WriteTarget, open_stream, write_target
from nnlib.storage.traffic import PROCESS, Traffic


class LocalStorage(Storage):
    """A directory on this machine. ``private``: what it makes is for its owner alone, whatever the umask."""

    def __init__(self, root: str | os.PathLike[str], *, private: bool = False) -> None:
        self.path = absolute_path(root)
        self.root = str(self.path)
        self._private = private
        self.traffic = Traffic(PROCESS)

    @property
    def uri(self) -> str:
        return f"file://{self.root}"

    def local_path(self, name: str = "") -> Path:
        return self._at(name)

    def is_stream(self, name: str) -> bool:
        with _explained("write", self._at(name)):
            return not self._at(name).is_dir() and write_target(self._at(name)).is_stream

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
        """A link is written through, and an existing file keeps its mode (`nnlib.storage.local_target`). What is no
        regular file is written into: what a failure leaves there, nobody can take back."""
        path = self._at(name)
        with _explained("write", path):
            target = write_target(path)
            if target.is_stream:
                with open_stream(target) as stream:
                    yield stream
                return
            with self._temporary(target.path, target) as (temporary, stream):
                yield stream
                _replace(target.path, temporary, stream)
                _sync_directory(target.path.parent)

    def write(self, name: str, data: bytes) -> None:
        with self.writing(name) as stream:
            stream.write(data)

    def write_all(self, files: Mapping[str, bytes]) -> None:
        """Each directory is made durable once, not for each of its files: waiting for the disk is a round's largest
        cost besides its training."""
        folders: dict[Path, None] = {}
        for name, data in files.items():
            path = self._at(name)
            with _explained("write", path):
                target = write_target(path)
                if target.is_stream:
                    with open_stream(target) as stream:
                        stream.write(data)
                    continue
                with self._temporary(target.path, target) as (temporary, stream):
                    stream.write(data)
                    _replace(target.path, temporary, stream)
                folders[target.path.parent] = None
        for folder in folders:
            with _explained("write", folder):
                _sync_directory(folder)

    def create(self, name: str, data: bytes) -> bool:
        target = self._at(name)
        with _explained("write", target), self._temporary(target) as (temporary, stream):
            stream.write(data)
            _durable(stream)
            fault_hook.step("link", target)
            try:
                os.link(temporary, target)  # atomic, and fails if the target exists: rename would overwrite
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                return _create_without_link(target, data)
            _sync_directory(target.parent)
            return True

    @contextlib.contextmanager
    def _temporary(self, path: Path, target: WriteTarget | None = None) -> Iterator[tuple[Path, BinaryIO]]:
        """A new file beside ``path``, gone when the block ends (unless it became that file). It has the mode of the
        ``target`` that it is to replace."""
        if not path.parent.is_dir():
            self._make_directory(path.parent)
        temporary = path.with_name(temporary_name(path.name))
        is_private = self._private or (target is not None and target.found is not None)
        try:
            fault_hook.step("create", temporary)
            temporary.touch(0o600 if is_private else 0o666, exist_ok=False)
            with temporary.open("wb") as stream:
                if target is not None:
                    target.take_over_mode(stream.fileno())
                yield temporary, stream
        finally:
            fault_hook.step("clean", temporary)
            temporary.unlink(missing_ok=True)

    def _make_directory(self, path: Path) -> None:
        path = Path(os.path.realpath(path))  # a link to a directory that is still to be made
        missing = [each for each in (path, *path.parents) if not each.is_dir()]
        for each in reversed(missing):
            fault_hook.step("mkdir", each)
            own = self._private and each.is_relative_to(self.path)
            if each.exists() and not each.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, f"{each} is a file, not a folder")
            each.mkdir(0o700 if own else 0o777, exist_ok=True)
            _sync_directory(each.parent)

    def sweep(self, under: str = "", *, of: Callable[[str], bool] | None = None) -> None:
        folder = self._at(under)
        for path in sorted((folder.rglob if of is None else folder.glob)(f".*{TEMPORARY}")):
            if not is_temporary(path.name, of):
                continue
            fault_hook.step("sweep", path)
            with _explained("delete", path):
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
        fault_hook.step("delete", path)
        with _explained("delete", path):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
"""What file systems without hard links (FAT, some network disks) answer."""


def _create_without_link(target: Path, data: bytes) -> bool:
    """Write a file unless it is there, on a file system without hard links: for a moment it is seen half written."""
    try:
        with target.open("xb") as stream:
            stream.write(data)
            _durable(stream)
    except FileExistsError:
        return False
    _sync_directory(target.parent)
    return True


@contextlib.contextmanager
def _explained(action: str, path: Path) -> Iterator[None]:
    """Turn the operating system's errors into ours."""
    try:
        yield
    except FileNotFoundError as error:
        raise StorageError("no such file or directory", file=str(path)) from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "free some space, then run the same command again (train: with --resume)" if full else None
        raise StorageError(f"cannot {action}: {error.strerror or error}", hint=hint, file=str(path)) from error


def _durable(stream: BinaryIO) -> None:
    stream.flush()
    fault_hook.step("sync", Path(stream.name))
    os.fsync(stream.fileno())


def _replace(target: Path, temporary: Path, stream: BinaryIO) -> None:
    _durable(stream)
    fault_hook.step("rename", target)
    temporary.replace(target)


def _sync_directory(path: Path) -> None:
    """Make a rename or link in this directory survive a power cut."""
    fault_hook.step("sync", path)
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
